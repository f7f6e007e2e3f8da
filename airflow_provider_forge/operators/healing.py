"""Healing: which gaps to deliver now, in pieces that leave most of the account's calls to others."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.coverage import join
from airflow_provider_forge.delivery.picture import time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.delivery.coverage import Coverage, Gap, Quarter
    from airflow_provider_forge.hooks.dag_runs import DagRuns

__all__ = ["LAST_CALL", "Piece", "heal", "in_hand", "plan"]

MOST_RUNS = 4
"""Runs started at a time."""

MOST_WINDOWS = 24
"""Windows of one run, five minutes at the gateway's limit. Together with `MOST_RUNS`: a third of an hour's
calls."""

LIVE_FOR = dt.timedelta(hours=2)
"""Windows that ended no longer ago are left to their own runs and their retries."""

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
    rows = join(
        quarter
        for quarter in coverage.quarters
        if quarter.is_open
        and quarter.end <= now - LIVE_FOR
        and quarter.start + coverage.keep > now + LAST_CALL
        and not any(piece.has(quarter) for piece in recent)
    )
    pieces = (
        Piece(row[first].start, row[min(first + MOST_WINDOWS, len(row)) - 1].end, now)
        for row in rows
        for first in range(0, len(row), MOST_WINDOWS)
    )
    return list(itertools.islice(pieces, MOST_RUNS))


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
