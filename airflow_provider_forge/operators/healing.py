"""Healing: which gaps to deliver now, in pieces that leave most of the account's calls to others."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.coverage import QUARTER
from airflow_provider_forge.delivery.picture import time
from airflow_provider_forge.gateway.windows import LIVE_FOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.delivery.coverage import Coverage, Gap, Quarter
    from airflow_provider_forge.hooks.dag_runs import DagRuns

__all__ = ["LAST_CALL", "Piece", "heal", "in_hand", "plan"]

MOST_RUNS = 2
"""Runs started at a time: of three tasks that the shipped DAG has at once, one is left to live windows."""

MOST_WINDOWS = 48
"""Windows from the first to the last of one run, ten minutes at the gateway's limit. Together with
`MOST_RUNS`: a third of an hour's calls."""

LAST_CALL = dt.timedelta(minutes=30)
"""What expires sooner is not asked for: a run has to start, and to wait for its turn."""

TIME_TO_HEAL = dt.timedelta(hours=3)
"""After so long a run that was to heal a gap should have done so."""

HEAL_AGAIN_AFTER = dt.timedelta(hours=6)
"""How long what was tried is left alone."""


@dataclass(frozen=True)
class Piece:
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


def plan(coverage: Coverage, tried: Iterable[Piece], now: dt.datetime) -> list[Piece]:
    """Return what to heal now, what expires first at the beginning.

    Args:
        coverage: With the gaps.
        tried: What former runs were started for.
        now: The present, aware.
    """
    recent = [piece for piece in tried if now - piece.tried < HEAL_AGAIN_AFTER]
    pieces: list[Piece] = []
    for quarter in coverage.quarters:
        if not _can_be_healed(quarter, coverage, now) or any(piece.has(quarter) for piece in recent):
            continue
        # What was delivered between two gaps costs a call, and a run of its own a place among few.
        if pieces and quarter.end - pieces[-1].start <= MOST_WINDOWS * QUARTER:
            pieces[-1] = dataclasses.replace(pieces[-1], end=quarter.end)
        elif len(pieces) < MOST_RUNS:
            pieces.append(Piece(quarter.start, quarter.end, now))
    return pieces


def heal(pieces: Iterable[Piece], runs: DagRuns) -> None:
    """Start the runs, whose trigger form says what to deliver.

    Raises:
        ConfigurationError: Airflow starts none.
    """
    for piece in pieces:
        runs.start(piece.run_id, {"from": time(piece.start), "to": time(piece.end)})


def in_hand(gap: Gap, tried: Iterable[Piece], now: dt.datetime) -> bool:
    """Tell whether a gap is being healed, and no run that should have done so has failed to."""
    concerned = [piece for piece in tried if any(map(piece.has, gap.quarters))]
    return bool(concerned) and all(now - piece.tried < TIME_TO_HEAL for piece in concerned)


def _can_be_healed(quarter: Quarter, coverage: Coverage, now: dt.datetime) -> bool:
    # Live windows are left to their own runs and their retries.
    return (
        quarter.is_open and quarter.end <= now - LIVE_FOR and quarter.start + coverage.keep > now + LAST_CALL
    )
