"""Coverage: what has become of each quarter hour, as far as the ledger knows."""

from __future__ import annotations

import datetime as dt
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.records import SpanStatus, record_index, spans_between

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.records import LedgerRecord, Span

__all__ = ["EXPECTED_AFTER", "Coverage", "Gap", "Quarter", "WindowStatus", "find_coverage"]

QUARTER = dt.timedelta(minutes=15)
DAY = dt.timedelta(days=1)

EXPECTED_AFTER = dt.timedelta(minutes=30)
"""How long after its end a quarter hour may still be on its way: its settling, its turn, a retry or two."""

_READERS = 16
"""Entries read at a time: there are 4,032, and a bucket takes some 20 ms for each."""


class WindowStatus(str, Enum):
    """What has become of a quarter hour; the worse, the later."""

    PENDING = "pending"
    """Too young to be expected."""
    EMPTY = "empty"
    """The gateway had nothing."""
    DELIVERED = "delivered"
    REJECTED = "rejected"
    """The receiver has rejected points, which must not be sent again."""
    FAILED = "failed"
    """Its delivery was begun and is not done."""
    MISSING = "missing"
    """Nobody has asked for it, or nobody has got an answer."""


@dataclass(frozen=True)
class Quarter:
    """A quarter hour.

    Attributes:
        start: Its first moment; aware, in UTC.
        outcome: What has become of it.
    """

    start: dt.datetime
    outcome: WindowStatus

    @property
    def end(self) -> dt.datetime:
        """The first moment after it."""
        return self.start + QUARTER

    @property
    def is_open(self) -> bool:
        """Whether it is still to be delivered."""
        return self.outcome in (WindowStatus.MISSING, WindowStatus.FAILED)


@dataclass(frozen=True)
class Gap:
    """Quarter hours in a row that are still to be delivered.

    Attributes:
        quarters: At least one.
        expires: When the first of them can no longer be had.
    """

    quarters: tuple[Quarter, ...]
    expires: dt.datetime

    @property
    def start(self) -> dt.datetime:
        """Its first moment."""
        return self.quarters[0].start

    @property
    def end(self) -> dt.datetime:
        """The first moment after it."""
        return self.quarters[-1].end


@dataclass(frozen=True)
class Coverage:
    """What has become of the quarter hours that can still be had, of one selection.

    Attributes:
        quarters: All of them, oldest first.
        environments: Names of the environments that were asked for; the UUID where no name is on record.
        metrics: Labels that were asked for.
        keep: How long a quarter hour can be had after its start.
    """

    quarters: tuple[Quarter, ...]
    environments: tuple[str, ...]
    metrics: tuple[str, ...]
    keep: dt.timedelta

    def count(self, outcome: WindowStatus) -> int:
        """Return the number of quarter hours with that outcome."""
        return sum(quarter.outcome is outcome for quarter in self.quarters)

    def gaps(self) -> list[Gap]:
        """Return what is still to be delivered, oldest first."""
        rows = itertools.groupby(self.quarters, key=lambda quarter: quarter.is_open)
        found = [tuple(quarters) for is_open, quarters in rows if is_open]
        return [Gap(quarters, quarters[0].start + self.keep) for quarters in found]

    def expiring(self, now: dt.datetime, alert_before: dt.timedelta) -> list[Gap]:
        """Return the gaps that begin to expire within so long."""
        return [gap for gap in self.gaps() if gap.expires - now <= alert_before]

    def expiring_hours(self, now: dt.datetime, alert_before: dt.timedelta) -> set[dt.datetime]:
        """Return the hours of which something is still to be delivered and expires within so long."""
        return {
            _hour(quarter)
            for quarter in self.quarters
            if quarter.is_open and quarter.start + self.keep - now <= alert_before
        }

    def hours(self) -> dict[dt.datetime, WindowStatus]:
        """Return the worst outcome of each hour."""
        order = list(WindowStatus)
        hours: dict[dt.datetime, WindowStatus] = {}
        for quarter in self.quarters:
            hour = _hour(quarter)
            hours[hour] = max(hours.get(hour, WindowStatus.PENDING), quarter.outcome, key=order.index)
        return hours


def find_coverage(
    ledger: Ledger, now: dt.datetime, *, keep: dt.timedelta, expected_after: dt.timedelta
) -> Coverage | None:
    """Read the ledger; None where it has no record of anything.

    The selection of environments and metrics is the one that the schedule asks for.

    Args:
        ledger: Of an app and a destination.
        now: The present, aware.
        keep: How long a quarter hour can be had after its start.
        expected_after: How long after its end a quarter hour may still be on its way.

    Raises:
        LedgerUnavailable: The store does not answer.
    """
    selections = ledger.selections()
    if not selections:
        return None
    starts = _quarters(now - keep, now)
    numbers = sorted({cell for start in starts for cell in spans_between(start, start + QUARTER)})
    with ThreadPoolExecutor(_READERS) as readers:
        cells = dict(zip(numbers, readers.map(ledger.load, numbers), strict=True))
    selection = _main_selection(cells, selections, now)
    quarters = tuple(Quarter(start, _status(start, cells, selection)) for start in starts)
    about = selections[selection]
    # Not there in records that were begun before names were kept.
    names = about.get("names", {})
    return Coverage(
        quarters=tuple(
            Quarter(quarter.start, WindowStatus.PENDING)
            if quarter.outcome is WindowStatus.MISSING and quarter.end > now - expected_after
            else quarter
            for quarter in quarters
        ),
        environments=tuple(names.get(uuid, uuid) for uuid in about["environments"]),
        metrics=tuple(about["metrics"]),
        keep=keep,
    )


def _hour(quarter: Quarter) -> dt.datetime:
    return quarter.start.replace(minute=0)


def _quarters(first: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """Return the starts of the whole aligned quarter hours between."""
    seconds = QUARTER.total_seconds()
    numbers = range(int(-(-first.timestamp() // seconds)), int(end.timestamp() // seconds))
    return [dt.datetime.fromtimestamp(number * seconds, dt.timezone.utc) for number in numbers]


def _main_selection(
    cells: Mapping[int, LedgerRecord], selections: Mapping[str, object], now: dt.datetime
) -> str:
    """Return what the schedule asks for, whatever else was asked for by hand.

    That is what most of the last day was asked for; of equal ones what most of all was asked for, and of
    these the one begun last.
    """
    yesterday = record_index(now - DAY)
    rank = {name: (0, 0, index) for index, name in enumerate(selections)}
    for number, cell in cells.items():
        for name in cell.asked.keys() & rank.keys():
            of_last_day, overall, index = rank[name]
            rank[name] = (of_last_day + (number >= yesterday), overall + 1, index)
    return max(rank, key=rank.__getitem__)


def _status(start: dt.datetime, cells: Mapping[int, LedgerRecord], selection: str) -> WindowStatus:
    parts = [(cells[number], part) for number, part in spans_between(start, start + QUARTER).items()]
    if any(cell.rejected_at(selection, part) is not None for cell, part in parts):
        return WindowStatus.REJECTED
    states = [_states(cell, selection, part) for cell, part in parts]
    if all(states):
        return (
            WindowStatus.EMPTY
            if all(found == {SpanStatus.EMPTY} for found in states)
            else WindowStatus.DELIVERED
        )
    # Marks alone mean nothing: points can lie next to the window that they were asked for in.
    begun = any(cell.damaged or cell.in_flight or cell.asked.get(selection) for cell, _ in parts)
    return WindowStatus.FAILED if begun else WindowStatus.MISSING


def _states(cell: LedgerRecord, selection: str, part: Span) -> set[SpanStatus]:
    """Return what has become of a part of a cell; nothing where some of it was not asked for."""
    reached, end = part
    states = set()
    for asked in cell.asked.get(selection, ()):  # in the order of their starts
        if asked.start <= reached < asked.end:
            states.add(asked.state)
            reached = asked.end
    return states if reached >= end else set()
