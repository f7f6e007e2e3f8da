"""Healing: which gaps to deliver now, in pieces that leave most of the account's calls to others."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.coverage.coverage import QUARTER
from airflow_provider_forge.coverage.report import format_time
from airflow_provider_forge.windows import LIVE_FOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.coverage.coverage import Coverage, Gap, Quarter
    from airflow_provider_forge.utils.dag_runs import DagRuns

__all__ = ["MIN_TIME_LEFT", "HealRun", "heal", "is_being_healed", "plan"]

MAX_RUNS = 2
"""Runs started at a time: of three tasks that the shipped DAG has at once, one is left to live windows."""

MAX_WINDOWS = 48
"""Windows from the first to the last of one run, ten minutes at the gateway's limit. Together with
`MAX_RUNS`: a third of an hour's calls."""

MIN_TIME_LEFT = dt.timedelta(minutes=30)
"""What expires sooner is not asked for: a run has to start, and to wait for its turn."""

TIME_TO_HEAL = dt.timedelta(hours=3)
"""After so long a run that was to heal a gap should have done so."""

HEAL_AGAIN_AFTER = dt.timedelta(hours=6)
"""How long what was tried is left alone."""


@dataclass(frozen=True)
class HealRun:
    """What one run was started to heal.

    Attributes:
        start: First moment; aware.
        end: First moment after it.
        tried: When the run was started.
    """

    start: dt.datetime
    end: dt.datetime
    tried: dt.datetime

    @property
    def run_id(self) -> str:
        """The id of its run; by the first date in it, `LiveFirst` lets live windows go first."""
        return f"heal__{self.start.isoformat()}__{self.tried:%Y%m%dT%H%M%S}"

    def has(self, quarter: Quarter) -> bool:
        """Tell whether a quarter hour is part of it."""
        return self.start <= quarter.start < self.end


def plan(coverage: Coverage, tried: Iterable[HealRun], now: dt.datetime) -> list[HealRun]:
    """Return what to heal now, what expires first at the beginning.

    Args:
        coverage: With the gaps.
        tried: What former runs were started for.
        now: The present, aware.
    """
    recent = [piece for piece in tried if now - piece.tried < HEAL_AGAIN_AFTER]
    pieces: list[HealRun] = []
    for quarter in coverage.quarters:
        if not _can_be_healed(quarter, coverage, now) or any(piece.has(quarter) for piece in recent):
            continue
        # What was delivered between two gaps costs a call, and a run of its own a place among few.
        if pieces and quarter.end - pieces[-1].start <= MAX_WINDOWS * QUARTER:
            pieces[-1] = dataclasses.replace(pieces[-1], end=quarter.end)
        elif len(pieces) < MAX_RUNS:
            pieces.append(HealRun(quarter.start, quarter.end, now))
    return pieces


def heal(pieces: Iterable[HealRun], runs: DagRuns) -> None:
    """Start the runs, whose trigger form says what to deliver.

    Raises:
        ConfigurationError: Airflow starts none.
    """
    for piece in pieces:
        runs.start(piece.run_id, {"from": format_time(piece.start), "to": format_time(piece.end)})


def is_being_healed(gap: Gap, tried: Iterable[HealRun], now: dt.datetime) -> bool:
    """Tell whether a gap is being healed, and no run that should have done so has failed to."""
    concerned = [piece for piece in tried if any(map(piece.has, gap.quarters))]
    return bool(concerned) and all(now - piece.tried < TIME_TO_HEAL for piece in concerned)


def _can_be_healed(quarter: Quarter, coverage: Coverage, now: dt.datetime) -> bool:
    # Live windows are left to their own runs and their retries.
    return (
        quarter.is_open
        and quarter.end <= now - LIVE_FOR
        and quarter.start + coverage.keep > now + MIN_TIME_LEFT
    )
