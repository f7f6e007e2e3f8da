"""The coverage report: one line per day, one symbol per hour, a command to heal each gap.

The coverage task logs it, and the command `coverage` prints it.
"""

from __future__ import annotations

import datetime as dt
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import pendulum

from airflow_provider_forge.coverage.coverage import QUARTER, WindowStatus
from airflow_provider_forge.coverage.healing import can_be_filled
from airflow_provider_forge.coverage.lateness import measure_lateness
from airflow_provider_forge.windows import LIVE_FOR, Window, format_time, is_recent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.coverage.coverage import Coverage, Gap

__all__ = [
    "Segment",
    "backfill_command",
    "backfill_dialog",
    "backfill_note",
    "describe_gap",
    "render",
    "render_text",
]

MINUTE = dt.timedelta(minutes=1)

RECENTLY = 10 * MINUTE
"""Time after the fetch of an older window for which its catchup or backfill may still be under way."""

MAX_LINE = 78
"""Characters of a line that names the selection."""

SYMBOLS = {
    WindowStatus.PENDING: "-",
    WindowStatus.EMPTY: "·",
    WindowStatus.DELIVERED: "■",
    WindowStatus.REJECTED: "R",
    WindowStatus.FAILED: "!",
    WindowStatus.MISSING: "x",
}

STYLES = {
    WindowStatus.PENDING: "dim",
    WindowStatus.EMPTY: "green",
    WindowStatus.DELIVERED: "green",
    WindowStatus.REJECTED: "yellow",
    WindowStatus.FAILED: "red",
    WindowStatus.MISSING: "red",
}

EXPIRING = "X"
"""Symbol of an hour with an undelivered quarter hour that expires soon."""

EXPIRING_STYLE = "bold red"

WIDTH = 2
"""Columns of an hour: with two, a day fits into a terminal of 80 columns."""

HEADING = f"{'UTC':<11}" + "".join(f"{hour:<{2 * WIDTH}}" for hour in range(0, 24, 2)).rstrip()

MINUTES_BELOW = dt.timedelta(hours=2)
"""Time left below which it is reported in minutes."""


class Segment(NamedTuple):
    """A part of a line.

    Attributes:
        text: The text.
        style: A style of rich's; empty for none.
    """

    text: str
    style: str = ""


Line = list[Segment]


def render(
    coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, dag_id: str
) -> Iterator[list[Line]]:
    """Yield the sections of the report: the days, the totals, then each gap.

    Args:
        coverage: The coverage to report.
        now: Current time, aware.
        alert_before: Gaps that begin to expire within this time are marked as expiring soon.
        dag_id: The DAG that exports, and whose backfill heals a gap.
    """
    yield [[Segment(HEADING)], *_days(coverage, now, alert_before), _legend()]
    facts = (_counts(coverage), *_catchup(coverage, now), *_lateness(coverage), *_selection(coverage))
    yield [[Segment(fact)] for fact in facts]
    gaps, expiring = coverage.gaps(), coverage.expiring(now, alert_before)
    in_time = [gap for gap in gaps if can_be_filled(gap, now)]
    for gap in gaps:
        if gap not in in_time:
            yield [[Segment(f"{describe_gap(gap, now, soon=False)}, too late to deliver")]]
    if in_time:
        yield [[Segment(backfill_note(dag_id))]]
    for gap in in_time:
        soon = gap in expiring
        yield [
            [Segment(describe_gap(gap, now, soon=soon), "red" if soon else "")],
            [Segment(f"  {backfill_dialog(gap)}")],
            [Segment(f"  {backfill_command(gap, dag_id)}")],
        ]


def render_text(coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, dag_id: str) -> list[str]:
    """Return the lines of the report as plain text; arguments as for `render`."""
    sections = render(coverage, now, alert_before, dag_id)
    lines = (line for section in sections for line in section)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def describe_gap(gap: Gap, now: dt.datetime, *, soon: bool) -> str:
    """Return the time range of a gap, its windows by status, and the time left to heal it."""
    window = Window(pendulum.instance(gap.start), pendulum.instance(gap.end))
    statuses = " and ".join(sorted({quarter.status.value for quarter in gap.quarters}))
    return (
        f"{window.humanize()}: {len(gap.quarters):,} {statuses}, {'expiring soon, ' if soon else ''}"
        f"{_describe_left(gap.expires - now)}"
    )


def _describe_left(left: dt.timedelta) -> str:
    """Return the time left, rounded down: it is a deadline."""
    minutes = int(left.total_seconds() // 60)
    if minutes < 1:
        return "no time left"
    return f"{minutes} min left" if left < MINUTES_BELOW else f"{minutes // 60} h left"


def backfill_note(dag_id: str) -> str:
    """Return how to run the commands that heal gaps."""
    return f"Run one at a time, and pause {dag_id} while each is created:"


def backfill_dialog(gap: Gap) -> str:
    """Return what to enter into Airflow's dialog *Backfill* to heal a gap, if there is no shell."""
    start, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (gap.start, gap.end - QUARTER))
    return f"Backfill dialog: From {start}, To {last} (UTC), All Runs, Max Active Runs 8; or"


def backfill_command(gap: Gap, dag_id: str) -> str:
    """Return the command that heals a gap; its last date is the start of the last window."""
    # A run can succeed without its window being on record: the record was erased, an environment was added
    # later, or on_expired is skip. Every window of a gap is undelivered, so no call is wasted.
    return (
        f"airflow backfill create --dag-id {dag_id} --from-date {format_time(gap.start)}"
        f" --to-date {format_time(gap.end - QUARTER)} --reprocess-behavior completed --max-active-runs 8"
    )


def _legend() -> Line:
    """Return the symbols as they are in the days, with their meanings."""
    signs = [(symbol, STYLES[status], status.value) for status, symbol in SYMBOLS.items()]
    line: Line = []
    for symbol, style, meaning in [*signs, (EXPIRING, EXPIRING_STYLE, "expires soon")]:
        line += [Segment(symbol, style), Segment(f" {meaning}  ")]
    return line


def _days(coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta) -> Iterator[Line]:
    hours, expiring = coverage.hours(), coverage.expiring_hours(now, alert_before)
    for day in sorted({hour.date() for hour in hours}):
        line = [Segment(f"{day} ")]
        for number in range(24):
            hour = dt.datetime.combine(day, dt.time(number), dt.timezone.utc)
            line.append(_hour(hours.get(hour), expiring=hour in expiring))
        yield line


def _hour(status: WindowStatus | None, *, expiring: bool) -> Segment:
    """Return the symbol of an hour; a blank if the hour is not part of the coverage."""
    if status is None:
        return Segment(" " * WIDTH)
    symbol, style = (EXPIRING, EXPIRING_STYLE) if expiring else (SYMBOLS[status], STYLES[status])
    return Segment(f"{symbol:<{WIDTH}}", style)


def _counts(coverage: Coverage) -> str:
    counts = ", ".join(f"{coverage.count(status):,} {status.value}" for status in WindowStatus)
    return f"{len(coverage.quarters):,} windows of 15 minutes: {counts}"


def _catchup(coverage: Coverage, now: dt.datetime) -> list[str]:
    """Return where a catchup is as a line; none without one. Without Airflow, only deliveries are known."""
    if coverage.catchup is not None:
        return [f"Catchup has come to {format_time(coverage.catchup)}: the windows after it are pending"]
    older = [
        quarter
        for quarter in coverage.quarters
        if quarter.first
        and is_recent(now - quarter.first, RECENTLY)
        and quarter.first - quarter.end > LIVE_FOR
    ]
    if not older or not any(gap.start >= older[-1].end for gap in coverage.gaps()):
        return []
    return [
        f"{format_time(older[-1].start)} was fetched less than {RECENTLY // MINUTE} minutes ago:",
        "its catchup or backfill may still come to the gaps after it",
    ]


def _lateness(coverage: Coverage) -> list[str]:
    """Return the lateness as a line; none if no window was delivered live."""
    measured = measure_lateness(coverage)
    if not measured.windows:
        return []
    return [f"Time from a window's end to its last points: {measured}. {measured.advice}"]


def _selection(coverage: Coverage) -> list[str]:
    """Return the selection in lines that no terminal breaks within a name: all metrics make a long one."""
    text = f"Environments: {', '.join(coverage.environments)}. Metrics: {', '.join(coverage.metrics)}"
    return textwrap.wrap(text, MAX_LINE, break_long_words=False, break_on_hyphens=False)
