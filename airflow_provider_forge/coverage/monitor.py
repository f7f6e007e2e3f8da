"""Monitors the coverage of one DAG: heals gaps and decides which alerts to raise."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.coverage.alerts import AlertState, due_threshold, gaps_to_report, unattended_gaps
from airflow_provider_forge.coverage.catchup import find_catchup
from airflow_provider_forge.coverage.coverage import EXPECTED_AFTER, QUARTER, find_coverage
from airflow_provider_forge.coverage.healing import can_be_filled, heal, plan
from airflow_provider_forge.coverage.report import (
    backfill_command,
    backfill_dialog,
    backfill_note,
    describe_gap,
)
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.utils.secrets import VariableStateStore
from airflow_provider_forge.windows import MIN_TIME_LEFT, format_time

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from airflow_provider_forge.coverage.coverage import Coverage, Gap
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.utils.dag_runs import DagRuns

__all__ = ["CoverageMonitor", "Findings", "PendingState", "report_token_expiry"]

log = get_logger(__name__)

MAX_REPORTED_GAPS = 10
"""Gaps listed in an alert, which may end up in a chat; the log lists all."""

_DESCRIPTION = "Alerts already raised by forge_metrics_coverage. Delete to be alerted again."


@dataclass(frozen=True)
class PendingState:
    """State to save just before the alerts are raised.

    Attributes:
        store: Where to save it.
        content: The state as JSON.
    """

    store: VariableStateStore
    content: dict[str, Any]

    def save(self) -> None:
        """Save it."""
        self.store.save(self.content)


@dataclass
class Findings:
    """The result of a check.

    Attributes:
        coverage: The coverage; None if the ledger is empty.
        healing: Intervals for which runs were started, as ISO 8601 text.
        alerts: Messages of alerts that were not raised before.
        pending: State to save just before the alerts are raised, or when there are none.
        first_expiry: Time at which the first unattended window expires that can still be delivered; None
            without one.
    """

    coverage: Coverage | None
    healing: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    pending: list[PendingState] = field(default_factory=list)
    first_expiry: dt.datetime | None = None


@dataclass
class CoverageMonitor:
    """Monitors the deliveries of one DAG.

    Attributes:
        ledger: The ledger of its deliveries.
        runs: The runs of the DAG.
        keep: Time after its start at which a quarter hour expires.
        alert_before: Time before a gap begins to expire at which an alert is raised.
        heal: Whether to start runs for missing windows.
    """

    ledger: Ledger
    runs: DagRuns
    keep: dt.timedelta
    alert_before: dt.timedelta
    heal: bool

    def check(self, now: dt.datetime) -> Findings:
        """Read the ledger, heal gaps and return the findings.

        Raises:
            ConfigurationError: Airflow cannot start runs of the DAG.
            LedgerUnavailable: The ledger's store cannot be read.
        """
        store = VariableStateStore(
            f"forge_coverage_{self.runs.dag_id}_{self.ledger.name.replace('/', '_')}", _DESCRIPTION
        )
        state = _load_state(store)
        before = copy.deepcopy(state)
        coverage = find_coverage(self.ledger, now, keep=self.keep, expected_after=EXPECTED_AFTER)
        if coverage is None:
            findings = Findings(None, alerts=self._report_lost_ledger(state))
        else:
            active = self.runs.count_active(now)
            reached = find_catchup(self.runs, now) if active else None
            if reached and state.trusts(reached, now):
                # Its active runs are about to deliver the windows before, each a quarter hour.
                coverage = coverage.with_catchup(reached - active * QUARTER)
            healing = self._heal(coverage, state, now, active)
            if healing:
                # At once: a started run must not be started again, even if this task fails.
                store.save(state.to_json())
            findings = self._evaluate(coverage, state, now, is_active=bool(active))
            findings.healing = healing
            state.update(coverage, now, reached)
        if state != before:
            findings.pending.append(PendingState(store, state.to_json()))
        return findings

    def _report_lost_ledger(self, state: AlertState) -> list[str]:
        before, state.ledger = state.ledger, None
        if before is None:
            log.info("%s has no ledger: nothing was delivered yet", self.ledger.store.name)
            return []
        message = (
            f"The ledger is gone: it was in {before}, and {self.ledger.store.name} has none."
            " It was erased or moved. Gaps are unknown until the next delivery"
        )
        return [message]

    def _heal(self, coverage: Coverage, state: AlertState, now: dt.datetime, active: int) -> list[str]:
        """Start runs unless others are active; return their intervals."""
        runs = plan(coverage, state.tried, now) if self.heal else []
        if runs and active:
            log.info("%s of %s active: no gap is healed now", _count(active, "run"), self.runs.dag_id)
            runs = []
        heal(runs, self.runs)
        state.tried += runs
        return [f"{format_time(run.start)}/{format_time(run.end)}" for run in runs]

    def _evaluate(
        self, coverage: Coverage, state: AlertState, now: dt.datetime, *, is_active: bool
    ) -> Findings:
        unattended = unattended_gaps(coverage, now, state, is_active=is_active)
        reported = gaps_to_report(coverage, now, self.alert_before, state, is_active=is_active)
        for gap in coverage.expiring(now, self.alert_before):
            if gap not in reported and can_be_filled(gap, now):
                unreported = "not reported, because an active run may deliver it"
                why = "already reported" if state.has_reported(gap) else unreported
                log.warning("Missing, and %s: %s", why, describe_gap(gap, now, soon=True))
        state.ledger = self.ledger.store.name
        return Findings(
            coverage,
            alerts=[self._describe_gaps(reported, state, now)] if reported else [],
            first_expiry=_first_expiry(unattended, coverage.keep, now),
        )

    def _describe_gaps(self, gaps: list[Gap], state: AlertState, now: dt.datetime) -> str:
        windows = _count(sum(len(gap.quarters) for gap in gaps), "window")
        first = format_time(min(gap.expires for gap in gaps))
        message = (
            f"{windows} of 15 minutes not delivered, in {_count(len(gaps), 'gap')}; the first"
            f" is lost after {first}. Find the cause in the logs of {self.runs.dag_id}, then backfill"
        )
        lines = [message, backfill_note(self.runs.dag_id)]
        for gap in gaps[:MAX_REPORTED_GAPS]:
            tried = any(run.has(quarter) for run in state.tried for quarter in gap.quarters)
            lines.append(
                describe_gap(gap, now, soon=False) + (", a healing run did not fill it" if tried else "")
            )
            lines += [f"  {backfill_dialog(gap)}", f"  {backfill_command(gap, self.runs.dag_id)}"]
        if len(gaps) > MAX_REPORTED_GAPS:
            lines.append(f"and {_count(len(gaps) - MAX_REPORTED_GAPS, 'more gap')}: see the log")
        return "\n".join(lines)


def report_token_expiry(last: dt.date, today: dt.date, conn_id: str) -> tuple[str, PendingState] | None:
    """Return the alert that an API token is about to expire, once for each threshold; None for no alert.

    Args:
        last: The token's last day.
        today: The current day, in UTC.
        conn_id: Id of the Connection with the token.
    """
    days = (last - today).days
    store = VariableStateStore(f"forge_expiry_{conn_id}", _DESCRIPTION)
    before = store.load()
    reported = before.get("told") if before.get("expires_on") == last.isoformat() else None
    threshold = due_threshold(days, reported if isinstance(reported, int) else None)
    when = "has expired" if days < 0 else f"expires in {_count(days, 'day')}" if days else "expires today"
    # Not spelled as in the Connection, because Airflow masks that value.
    message = (
        f"The API token of {conn_id} {when} ({last.day} {last:%B %Y}): create a new one at"
        " https://id.atlassian.com/manage/api-tokens, and put it into the Connection's password and its last"
        " day into token_expires_on"
    )
    if threshold is not None:
        return message, PendingState(store, {"expires_on": last.isoformat(), "told": threshold})
    if reported is not None:
        log.warning("Already reported: %s", message)
    return None


def _first_expiry(gaps: Iterable[Gap], keep: dt.timedelta, now: dt.datetime) -> dt.datetime | None:
    """Return the time at which the first window expires that can still be delivered; None without one.

    The windows before it are lost, and must not hide it.
    """
    expiries = (quarter.start + keep for gap in gaps for quarter in gap.quarters)
    return min((expires for expires in expiries if expires > now + MIN_TIME_LEFT), default=None)


def _count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if need be."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _load_state(store: VariableStateStore) -> AlertState:
    try:
        return AlertState.from_json(store.load())
    except ValueError as error:
        log.warning("The Variable %s is malformed (%s) and is ignored", store.key, error)
        return AlertState()
