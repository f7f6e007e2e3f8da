"""Lateness: the time from a window's end to its last points, measured from the ledger."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.windows import LIVE_FOR

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from airflow_provider_forge.coverage.coverage import Coverage, Quarter

__all__ = ["Lateness", "measure_lateness"]

ENOUGH = 20
"""Number of windows from which advice is given."""

MANY_LATE = 0.05
"""Share of late windows from which a longer settle delay is advised."""


class Lateness(NamedTuple):
    """The lateness of live windows; those of a catchup or backfill say nothing about when their data arrived.

    Attributes:
        windows: Number of live windows with points.
        late: Number of those that got points after they had been delivered.
        p50: Median of the time from a window's end to its latest points; None without windows.
        p95: 95th percentile of the same.
    """

    windows: int
    late: int
    p50: dt.timedelta | None
    p95: dt.timedelta | None

    @property
    def share(self) -> float | None:
        """Share of late windows, 0 to 1; None without enough windows."""
        return self.late / self.windows if self.windows >= ENOUGH else None

    @property
    def advice(self) -> str:
        """What to do about the settle delay."""
        if self.share is None:
            return f"Advice needs {ENOUGH} windows that were delivered live; there are {self.windows}"
        if not self.late:
            return (
                "No window got points after it had been delivered, so the settle delay is long enough (this"
                " is unknown without revisit_after)"
            )
        share = f"{self.late} of {self.windows} windows got points after they had been delivered"
        if self.share <= MANY_LATE:
            return f"{share}, and revisit_after found them: keep it, and the settle delay"
        return f"{share}: increase the timetable's settle, and keep revisit_after"

    def __str__(self) -> str:
        """Return the percentiles as text."""
        if self.p50 is None or self.p95 is None:
            return "no window was delivered live"
        return f"{_minutes(self.p50)} min for half of the windows, {_minutes(self.p95)} min for 95 %"


def measure_lateness(coverage: Coverage) -> Lateness:
    """Return the lateness of the live windows on record."""
    live = [quarter for quarter in coverage.quarters if _is_live(quarter)]
    delays = sorted(quarter.latest - quarter.end for quarter in live if quarter.latest)
    return Lateness(
        len(live),
        sum(quarter.is_late for quarter in live),
        _percentile(delays, 0.5),
        _percentile(delays, 0.95),
    )


def _is_live(quarter: Quarter) -> bool:
    return quarter.first is not None and quarter.latest is not None and quarter.first - quarter.end < LIVE_FOR


def _percentile(delays: Sequence[dt.timedelta], share: float) -> dt.timedelta | None:
    """Return the smallest delay that this share of the sorted delays does not exceed; None without delays."""
    return delays[math.ceil(share * len(delays)) - 1] if delays else None


def _minutes(delay: dt.timedelta) -> int:
    return round(delay.total_seconds() / 60)
