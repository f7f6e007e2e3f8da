"""Coverage as people read it: a line for each day, a sign for each hour, and how to heal each gap."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.coverage.coverage import QUARTER, WindowStatus

if TYPE_CHECKING:
    from airflow_provider_forge.coverage.coverage import Coverage, Gap

__all__ = [
    "HEADING",
    "LEGEND",
    "SYMBOLS",
    "WIDTH",
    "Hour",
    "backfill_command",
    "before_backfill",
    "day_rows",
    "describe_counts",
    "describe_gap",
    "format_time",
    "render_text",
]

SYMBOLS = {
    WindowStatus.PENDING: " ",
    WindowStatus.EMPTY: "·",
    WindowStatus.DELIVERED: "■",
    WindowStatus.REJECTED: "R",
    WindowStatus.FAILED: "!",
    WindowStatus.MISSING: "x",
}

EXPIRING = "X"
"""In place of the sign of an hour that is missing or has failed, once that is about to be lost."""

WIDTH = 2
"""Columns that an hour takes: with two, a day fits into a terminal of 80."""

HEADING = f"{'UTC':<11}" + "".join(f"{hour:<{2 * WIDTH}}" for hour in range(0, 24, 2)).rstrip()

LEGEND = "  ".join(
    [
        *(f"{sign} {outcome.value}" for outcome, sign in SYMBOLS.items() if sign.strip()),
        f"{EXPIRING} expiring soon",
    ]
)


class Hour(NamedTuple):
    """An hour of the picture.

    Attributes:
        outcome: The worst of its quarter hours.
        expiring: Whether something of it is still to be delivered and expires soon.
    """

    outcome: WindowStatus
    expiring: bool

    @property
    def sign(self) -> str:
        """What stands for it."""
        return EXPIRING if self.expiring else SYMBOLS[self.outcome]


def render_text(coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, dag_id: str) -> list[str]:
    """Return the whole picture as plain text.

    Args:
        coverage: What to show.
        now: The present, aware.
        alert_before: Gaps that begin to expire within so long are called expiring soon.
        dag_id: The DAG that heals them.
    """
    days = [
        f"{day} " + "".join(f"{hour.sign if hour else ' ':<{WIDTH}}" for hour in hours).rstrip()
        for day, hours in day_rows(coverage, now, alert_before)
    ]
    expiring = coverage.expiring(now, alert_before)
    gaps = [
        line
        for gap in coverage.gaps()
        for line in (describe_gap(gap, now, soon=gap in expiring), f"  {backfill_command(gap, dag_id)}")
    ]
    how = [before_backfill(dag_id)] if gaps else []
    return [HEADING, *days, LEGEND, describe_counts(coverage), *how, *gaps]


def day_rows(
    coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta
) -> list[tuple[dt.date, list[Hour | None]]]:
    """Return for each day its 24 hours, None where an hour is not part of the coverage."""
    expiring = coverage.expiring_hours(now, alert_before)
    hours = {start: Hour(outcome, start in expiring) for start, outcome in coverage.hours().items()}
    return [
        (
            day,
            [hours.get(dt.datetime.combine(day, dt.time(hour), dt.timezone.utc)) for hour in range(24)],
        )
        for day in sorted({hour.date() for hour in hours})
    ]


def describe_counts(coverage: Coverage) -> str:
    """Return how many quarter hours have which outcome."""
    counts = ", ".join(f"{coverage.count(outcome)} {outcome.value}" for outcome in WindowStatus)
    return f"{len(coverage.quarters)} windows of 15 minutes: {counts}"


def describe_gap(gap: Gap, now: dt.datetime, *, soon: bool) -> str:
    """Return where a gap is, what it is made of, and how long it can still be healed."""
    hours = (gap.expires - now).total_seconds() / 3600
    outcomes = " and ".join(sorted({quarter.outcome.value for quarter in gap.quarters}))
    return (
        f"{format_time(gap.start)} to {format_time(gap.end)}: {len(gap.quarters)} {outcomes},"
        f" {'expiring soon, ' if soon else ''}{max(hours, 0):.0f} h left"
    )


def before_backfill(dag_id: str) -> str:
    """Return what is to be minded about the commands that heal gaps."""
    return f"Once catchup has finished, one after the other, each with {dag_id} paused while it is made:"


def backfill_command(gap: Gap, dag_id: str) -> str:
    """Return the command that heals a gap; its last date is that of the last window's start."""
    # A run can have succeeded without its window being on record: the record was erased, an environment came
    # later, on_expired is skip. All windows of a gap are undelivered, so that none is asked for in vain.
    return (
        f"airflow backfill create --dag-id {dag_id} --from-date {format_time(gap.start)}"
        f" --to-date {format_time(gap.end - QUARTER)} --reprocess-behavior completed --max-active-runs 8"
    )


def format_time(moment: dt.datetime) -> str:
    """Return an aware time in UTC, to the second."""
    return f"{moment.astimezone(dt.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
