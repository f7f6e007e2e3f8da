"""Watching over deliveries: from the record to what is healed and to what an alert tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.coverage.alerts import AlertState, due_threshold, gaps_to_report, unattended_gaps
from airflow_provider_forge.coverage.coverage import EXPECTED_AFTER, find_coverage
from airflow_provider_forge.coverage.healing import heal, plan
from airflow_provider_forge.coverage.report import (
    backfill_command,
    before_backfill,
    describe_gap,
    format_time,
)
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.utils.variables import VariableStateStore

if TYPE_CHECKING:
    import datetime as dt

    from airflow_provider_forge.coverage.coverage import Coverage, Gap
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.utils.dag_runs import DagRuns

__all__ = ["CoverageMonitor", "Findings", "PendingState", "report_token_expiry"]

log = get_logger(__name__)

MAX_REPORTED_GAPS = 10
"""Gaps in an alert, which may end up in a chat; the log has all."""

_REMEMBERS = "Remembers of what forge_metrics_coverage has told: delete it to be told again"


@dataclass(frozen=True)
class PendingState:
    """What is to be remembered once nothing more can keep an alert from being raised.

    Attributes:
        memory: Where.
        content: What.
    """

    memory: VariableStateStore
    content: dict[str, Any]

    def save(self) -> None:
        """Remember it."""
        self.memory.save(self.content)


@dataclass
class Findings:
    """What a look has found.

    Attributes:
        coverage: What has become of each quarter hour; None where nothing is on record.
        healing: The intervals that runs were started for.
        alerts: Messages about what no look has told of before.
        memos: To save just before the alerts are raised, or when there are none.
        first_expiry: When the first gap begins to expire that nobody is about to fill; None for none.
    """

    coverage: Coverage | None
    healing: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    memos: list[PendingState] = field(default_factory=list)
    first_expiry: dt.datetime | None = None


@dataclass
class CoverageMonitor:
    """Watches over what one DAG delivers.

    Attributes:
        ledger: The record of it.
        runs: The runs of that DAG.
        keep: How long a quarter hour can be had after its start.
        alert_before: How long before a gap begins to expire there is an alert.
        heal: Whether to start runs for what is missing.
    """

    ledger: Ledger
    runs: DagRuns
    keep: dt.timedelta
    alert_before: dt.timedelta
    heal: bool

    def look(self, now: dt.datetime) -> Findings:
        """Read the record, heal, and find out what there is to tell.

        Raises:
            ConfigurationError: Airflow starts no runs of the DAG.
            LedgerUnavailable: The store does not answer.
        """
        memory = VariableStateStore(
            f"forge_coverage_{self.runs.dag_id}_{self.ledger.name.replace('/', '_')}", _REMEMBERS
        )
        notes, before = _read(memory), _read(memory)
        coverage = find_coverage(self.ledger, now, keep=self.keep, expected_after=EXPECTED_AFTER)
        if coverage is None:
            sight = Findings(None, alerts=self._tell_loss(notes))
        else:
            busy = self.runs.under_way(now)
            healing = self._heal(coverage, notes, now, busy)
            if healing:
                # At once: what is started must not be started again, whatever becomes of this task.
                memory.save(notes.to_json())
            sight = self._judge(coverage, notes, now, under_way=bool(busy))
            sight.healing = healing
        if notes != before:
            sight.memos.append(PendingState(memory, notes.to_json()))
        return sight

    def _tell_loss(self, notes: AlertState) -> list[str]:
        before, notes.record = notes.record, None
        if before is None:
            log.info("%s has no record: nothing was delivered yet", self.ledger.store.name)
            return []
        message = (
            f"The record of deliveries that was in {before} is not in {self.ledger.store.name} now: it was"
            " erased, or is kept elsewhere. Nobody knows what is missing until something is delivered"
        )
        return [message]

    def _heal(self, coverage: Coverage, notes: AlertState, now: dt.datetime, busy: int) -> list[str]:
        """Start runs unless others are under way; return their intervals."""
        pieces = plan(coverage, notes.tried, now) if self.heal else []
        if pieces and busy:
            log.info("%s of %s under way: nothing is healed now", _count(busy, "run"), self.runs.dag_id)
            pieces = []
        heal(pieces, self.runs)
        notes.tried += pieces
        return [f"{format_time(piece.start)}/{format_time(piece.end)}" for piece in pieces]

    def _judge(self, coverage: Coverage, notes: AlertState, now: dt.datetime, *, under_way: bool) -> Findings:
        left_alone = unattended_gaps(coverage, now, notes, under_way=under_way)
        telling = gaps_to_report(coverage, now, self.alert_before, notes, under_way=under_way)
        for gap in coverage.expiring(now, self.alert_before):
            if gap not in telling:
                log.warning("No alert, but missing: %s", describe_gap(gap, now, soon=True))
        notes.record = self.ledger.store.name
        notes.look(coverage, now)
        return Findings(
            coverage,
            alerts=[self._tell_gaps(telling, notes, now)] if telling else [],
            first_expiry=min((gap.expires for gap in left_alone), default=None),
        )

    def _tell_gaps(self, gaps: list[Gap], notes: AlertState, now: dt.datetime) -> str:
        windows = _count(sum(len(gap.quarters) for gap in gaps), "window")
        first = format_time(min(gap.expires for gap in gaps))
        message = (
            f"{windows} of 15 minutes not delivered, in {_count(len(gaps), 'gap')}; the first"
            f" is lost after {first}. Find out why in the logs of {self.runs.dag_id}, and then backfill"
        )
        lines = [message, before_backfill(self.runs.dag_id)]
        for gap in gaps[:MAX_REPORTED_GAPS]:
            tried = any(piece.has(quarter) for piece in notes.tried for quarter in gap.quarters)
            lines.append(
                describe_gap(gap, now, soon=False) + (", not healed by a run for it" if tried else "")
            )
            lines.append(f"  {backfill_command(gap, self.runs.dag_id)}")
        if len(gaps) > MAX_REPORTED_GAPS:
            lines.append(f"and {_count(len(gaps) - MAX_REPORTED_GAPS, 'more gap')}: see the log")
        return "\n".join(lines)


def report_token_expiry(last: dt.date, today: dt.date, conn_id: str) -> tuple[str, PendingState] | None:
    """Return the alert to raise as an API token's last day comes near, each threshold once; None for none.

    Args:
        last: The token's last day.
        today: The present one, in UTC.
        conn_id: Id of the Connection that has the token.
    """
    days = (last - today).days
    memory = VariableStateStore(f"forge_expiry_{conn_id}", _REMEMBERS)
    before = memory.load()
    told = before.get("told") if before.get("expires_on") == last.isoformat() else None
    threshold = due_threshold(days, told if isinstance(told, int) else None)
    when = "has expired" if days < 0 else f"expires in {_count(days, 'day')}" if days else "expires today"
    # Not as it is in the Connection, which Airflow takes for a secret.
    message = (
        f"The API token of {conn_id} {when} ({last.day} {last:%B %Y}): make a new one at"
        " https://id.atlassian.com/manage/api-tokens, and put it into the Connection, its last day in"
        " token_expires_on"
    )
    if threshold is not None:
        return message, PendingState(memory, {"expires_on": last.isoformat(), "told": threshold})
    if told is not None:
        log.warning("No alert again: %s", message)
    return None


def _count(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number} {what}{'s' * (number != 1)}"


def _read(memory: VariableStateStore) -> AlertState:
    try:
        return AlertState.from_json(memory.load())
    except ValueError as error:
        log.warning("The Variable %s is damaged (%s): taken for empty", memory.key, error)
        return AlertState()
