"""Coverages to judge, made without a ledger."""

from __future__ import annotations

import datetime as dt

from airflow_provider_forge.coverage.coverage import QUARTER, Coverage, Quarter, WindowStatus

NOW = dt.datetime(2026, 11, 23, 12, 12, tzinfo=dt.timezone.utc)
DAYS = dt.timedelta(days=1)
HOURS = dt.timedelta(hours=1)
KEEP = 14 * DAYS

Span = tuple[dt.datetime, dt.datetime]


def ago(hours: float, now: dt.datetime = NOW) -> dt.datetime:
    """Return the beginning of the quarter hour so long before."""
    moment = now - hours * HOURS
    return moment - (moment - dt.datetime.min.replace(tzinfo=dt.timezone.utc)) % QUARTER


def coverage(*gaps: Span, now: dt.datetime = NOW, keep: dt.timedelta = KEEP) -> Coverage:
    """Return one with these gaps; the last half hour is pending, all else delivered."""
    start = ago(keep / HOURS, now) + QUARTER
    quarters = []
    while start + QUARTER <= now:
        is_open = any(first <= start < end for first, end in gaps)
        pending = start + QUARTER > now - dt.timedelta(minutes=30)
        outcome = (
            WindowStatus.MISSING if is_open else WindowStatus.PENDING if pending else WindowStatus.DELIVERED
        )
        quarters.append(Quarter(start, outcome))
        start += QUARTER
    return Coverage(tuple(quarters), ("production",), ("COUNT",), keep)
