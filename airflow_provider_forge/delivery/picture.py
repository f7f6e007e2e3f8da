"""Coverage as people read it: a line for each day, a sign for each hour, and how to heal each gap."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.coverage import QUARTER, Outcome

if TYPE_CHECKING:
    from airflow_provider_forge.delivery.coverage import Coverage, Gap

__all__ = [
    "HEADING",
    "LEGEND",
    "SIGNS",
    "WIDTH",
    "backfill",
    "day_rows",
    "describe",
    "lines",
    "tell_counts",
    "time",
]

SIGNS = {
    Outcome.PENDING: " ",
    Outcome.EMPTY: "·",
    Outcome.DELIVERED: "■",
    Outcome.REJECTED: "R",
    Outcome.FAILED: "!",
    Outcome.MISSING: "x",
}

WIDTH = 2
"""Columns that an hour takes: with two, a day fits into a terminal of 80."""

HEADING = f"{'UTC':<11}" + "".join(f"{hour:<{2 * WIDTH}}" for hour in range(0, 24, 2)).rstrip()

LEGEND = "  ".join(f"{sign} {outcome.value}" for outcome, sign in SIGNS.items() if sign.strip())


def lines(coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, dag_id: str) -> list[str]:
    """Return the whole picture as plain text.

    Args:
        coverage: What to show.
        now: The present, aware.
        alert_before: Gaps that begin to expire within so long are called expiring soon.
        dag_id: The DAG that heals them.
    """
    days = [
        f"{day} " + "".join(f"{SIGNS[hour] if hour else ' ':<{WIDTH}}" for hour in hours).rstrip()
        for day, hours in day_rows(coverage)
    ]
    expiring = coverage.expiring(now, alert_before)
    gaps = [
        line
        for gap in coverage.gaps()
        for line in (describe(gap, now, soon=gap in expiring), f"  {backfill(gap, dag_id)}")
    ]
    return [HEADING, *days, LEGEND, tell_counts(coverage), *gaps]


def day_rows(coverage: Coverage) -> list[tuple[dt.date, list[Outcome | None]]]:
    """Return for each day the worst outcome of each of its 24 hours, None where an hour is not part of it."""
    hours = coverage.hours()
    return [
        (
            day,
            [hours.get(dt.datetime.combine(day, dt.time(hour), dt.timezone.utc)) for hour in range(24)],
        )
        for day in sorted({hour.date() for hour in hours})
    ]


def tell_counts(coverage: Coverage) -> str:
    """Return how many quarter hours have which outcome."""
    counts = ", ".join(f"{coverage.count(outcome)} {outcome.value}" for outcome in Outcome)
    return f"{len(coverage.quarters)} windows of 15 minutes: {counts}"


def describe(gap: Gap, now: dt.datetime, *, soon: bool) -> str:
    """Return where a gap is, what it is made of, and how long it can still be healed."""
    hours = (gap.expires - now).total_seconds() / 3600
    outcomes = " and ".join(sorted({quarter.outcome.value for quarter in gap.quarters}))
    return (
        f"{time(gap.start)} to {time(gap.end)}: {len(gap.quarters)} {outcomes},"
        f" {'expiring soon, ' if soon else ''}{max(hours, 0):.0f} h left"
    )


def backfill(gap: Gap, dag_id: str) -> str:
    """Return the command that heals a gap; its last date is that of the last window's start."""
    return (
        f"airflow backfill create --dag-id {dag_id} --from-date {time(gap.start)}"
        f" --to-date {time(gap.end - QUARTER)} --reprocess-behavior failed --max-active-runs 8"
    )


def time(moment: dt.datetime) -> str:
    """Return an aware time in UTC, to the second."""
    return f"{moment.astimezone(dt.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
