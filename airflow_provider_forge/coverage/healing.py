"""Heals gaps with a few runs at a time, which leave most of the account's rate limit to others."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.coverage.coverage import QUARTER
from airflow_provider_forge.windows import LIVE_FOR, MIN_TIME_LEFT, format_time, is_recent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.coverage.coverage import Coverage, Gap, Quarter
    from airflow_provider_forge.utils.dag_runs import DagRuns

__all__ = ["HealRun", "can_be_filled", "heal", "is_being_healed", "plan"]

MAX_RUNS = 2
"""Runs started at a time. The shipped DAG runs three tasks at once, so one is left for live windows."""

MAX_WINDOWS = 48
"""Maximum length of a run's interval, in windows: ten minutes of calls at the gateway's limit."""

TIME_TO_HEAL = dt.timedelta(hours=3)
"""Time within which a run should heal its gap."""

HEAL_AGAIN_AFTER = dt.timedelta(hours=6)
"""Time after which a gap is tried again."""


@dataclass(frozen=True)
class HealRun:
    """A run that was started to heal a gap.

    Attributes:
        start: Start of its interval, inclusive; aware.
        end: End of its interval, exclusive.
        tried: Time at which the run was started.
    """

    start: dt.datetime
    end: dt.datetime
    tried: dt.datetime

    @property
    def run_id(self) -> str:
        """Id of the DAG run; `LiveFirst` reads its first date and lets live windows go first."""
        return f"heal__{self.start.isoformat()}__{self.tried:%Y%m%dT%H%M%S}"

    def has(self, quarter: Quarter) -> bool:
        """Return whether a quarter hour is part of its interval."""
        return self.start <= quarter.start < self.end


def plan(coverage: Coverage, tried: Iterable[HealRun], now: dt.datetime) -> list[HealRun]:
    """Return the runs to start now, those whose windows expire first at the front.

    Args:
        coverage: The coverage with the gaps.
        tried: Runs that were started before.
        now: Current time, aware.
    """
    recent = [run for run in tried if is_recent(now - run.tried, HEAL_AGAIN_AFTER)]
    runs: list[HealRun] = []
    for quarter in coverage.quarters:
        if not _can_be_healed(quarter, coverage, now) or any(run.has(quarter) for run in recent):
            continue
        # Delivered windows between two gaps cost a call each, but another run would be one of only two.
        if runs and quarter.end - runs[-1].start <= MAX_WINDOWS * QUARTER:
            runs[-1] = dataclasses.replace(runs[-1], end=quarter.end)
        elif len(runs) < MAX_RUNS:
            runs.append(HealRun(quarter.start, quarter.end, now))
    return runs


def heal(runs: Iterable[HealRun], dag_runs: DagRuns) -> None:
    """Start the runs; the fields of the trigger form hold the interval to deliver.

    Raises:
        ConfigurationError: Airflow cannot start them.
    """
    for run in runs:
        dag_runs.start(run.run_id, {"from": format_time(run.start), "to": format_time(run.end)})


def is_being_healed(gap: Gap, tried: Iterable[HealRun], now: dt.datetime) -> bool:
    """Return whether a gap is being healed, and no run has failed to heal it in time."""
    concerned = [run for run in tried if any(map(run.has, gap.quarters))]
    return bool(concerned) and all(is_recent(now - run.tried, TIME_TO_HEAL) for run in concerned)


def can_be_filled(gap: Gap, now: dt.datetime) -> bool:
    """Return whether there is time to deliver at least the last window of a gap."""
    return gap.last_expires > now + MIN_TIME_LEFT


def _can_be_healed(quarter: Quarter, coverage: Coverage, now: dt.datetime) -> bool:
    # Live windows are left to their own runs and their retries.
    return (
        quarter.is_open
        and quarter.end <= now - LIVE_FOR
        and quarter.start + coverage.keep > now + MIN_TIME_LEFT
    )
