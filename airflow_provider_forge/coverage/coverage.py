"""The status of each quarter hour of the retention period, read from the ledger."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.records import SpanStatus, record_index, rejected_at, spans_between
from airflow_provider_forge.windows import MIN_TIME_LEFT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.records import Span
    from airflow_provider_forge.delivery.summaries import RecordSummary

__all__ = ["EXPECTED_AFTER", "Coverage", "Gap", "Quarter", "WindowStatus", "find_coverage"]

QUARTER = dt.timedelta(minutes=15)
DAY = dt.timedelta(days=1)

EXPECTED_AFTER = dt.timedelta(minutes=30)
"""Time after its end for which a quarter hour counts as pending: settle delay, rate limit, one retry."""


class WindowStatus(str, Enum):
    """The status of a quarter hour, from best to worst."""

    PENDING = "pending"
    """Not expected yet: it is recent, or a catchup has yet to come to it."""
    EMPTY = "empty"
    """The gateway had no points."""
    DELIVERED = "delivered"
    REJECTED = "rejected"
    """The receiver rejected points; OTLP forbids sending them again."""
    FAILED = "failed"
    """Its delivery began but did not finish."""
    MISSING = "missing"
    """No task has fetched it."""


@dataclass(frozen=True)
class Quarter:
    """A quarter hour.

    Attributes:
        start: Start, inclusive; aware, in UTC.
        status: Its status.
        points: Number of points with a time in it that the receiver has acknowledged; 0 if it is empty,
            missing or pending.
        attempts: Number of deliveries that have recorded something of it; 0 if unknown.
        first: Time at which it was first fetched, aware; None if it was not, or if that is unknown.
        latest: Time at which the receiver acknowledged its latest new points, aware; None likewise.
    """

    start: dt.datetime
    status: WindowStatus
    points: int = 0
    attempts: int = 0
    first: dt.datetime | None = None
    latest: dt.datetime | None = None

    @property
    def is_late(self) -> bool:
        """Whether points came after it had been delivered: a later delivery found them."""
        return (
            self.status is WindowStatus.DELIVERED
            and self.first is not None
            and self.latest is not None
            and self.latest > self.first
        )

    @property
    def delivered_at(self) -> dt.datetime | None:
        """Time since which the receiver has had all points; None if it has not, or if that is unknown."""
        known = [moment for moment in (self.first, self.latest) if moment]
        return None if self.is_open else max(known, default=None)

    @property
    def end(self) -> dt.datetime:
        """End, exclusive."""
        return self.start + QUARTER

    @property
    def is_open(self) -> bool:
        """Whether it has yet to be delivered."""
        return self.status in (WindowStatus.MISSING, WindowStatus.FAILED)


@dataclass(frozen=True)
class Gap:
    """Consecutive quarter hours that have yet to be delivered.

    Attributes:
        quarters: At least one.
        expires: Time at which the first of them expires.
    """

    quarters: tuple[Quarter, ...]
    expires: dt.datetime

    @property
    def start(self) -> dt.datetime:
        """Start of the first quarter hour."""
        return self.quarters[0].start

    @property
    def end(self) -> dt.datetime:
        """End, exclusive."""
        return self.quarters[-1].end

    @property
    def last_expires(self) -> dt.datetime:
        """Time at which the last of them expires."""
        return self.expires + (self.quarters[-1].start - self.start)


@dataclass(frozen=True)
class Coverage:
    """The status of all quarter hours of one selection that have not expired.

    Attributes:
        quarters: All of them, oldest first.
        environments: Names of the selected environments; a UUID if the ledger has no name for it.
        metrics: Selected metric labels.
        keep: Time after its start at which a quarter hour expires.
        catchup: Start of the first quarter hour to which a catchup has yet to come; None without a catchup.
    """

    quarters: tuple[Quarter, ...]
    environments: tuple[str, ...]
    metrics: tuple[str, ...]
    keep: dt.timedelta
    catchup: dt.datetime | None = None

    def with_catchup(self, start: dt.datetime) -> Coverage:
        """Return it with missing quarter hours from `start` on as pending: a catchup will deliver them."""
        quarters = (
            replace(quarter, status=WindowStatus.PENDING)
            if quarter.status is WindowStatus.MISSING and quarter.start >= start
            else quarter
            for quarter in self.quarters
        )
        return replace(self, quarters=tuple(quarters), catchup=start)

    def count(self, status: WindowStatus) -> int:
        """Return the number of quarter hours with this status."""
        return sum(quarter.status is status for quarter in self.quarters)

    def gaps(self) -> list[Gap]:
        """Return the gaps, oldest first."""
        rows = itertools.groupby(self.quarters, key=lambda quarter: quarter.is_open)
        found = [tuple(quarters) for is_open, quarters in rows if is_open]
        return [Gap(quarters, quarters[0].start + self.keep) for quarters in found]

    def expiring(self, now: dt.datetime, alert_before: dt.timedelta) -> list[Gap]:
        """Return the gaps that begin to expire within `alert_before`."""
        return [gap for gap in self.gaps() if gap.expires - now <= alert_before]

    def expiring_hours(self, now: dt.datetime, alert_before: dt.timedelta) -> set[dt.datetime]:
        """Return the hours with an undelivered quarter hour that expires within `alert_before`."""
        return {
            _hour(quarter)
            for quarter in self.quarters
            if quarter.is_open and quarter.start + self.keep - now <= alert_before
        }

    def hours(self) -> dict[dt.datetime, WindowStatus]:
        """Return the worst status of each hour."""
        order = list(WindowStatus)
        hours: dict[dt.datetime, WindowStatus] = {}
        for quarter in self.quarters:
            hour = _hour(quarter)
            hours[hour] = max(hours.get(hour, WindowStatus.PENDING), quarter.status, key=order.index)
        return hours


def find_coverage(
    ledger: Ledger, now: dt.datetime, *, keep: dt.timedelta, expected_after: dt.timedelta
) -> Coverage | None:
    """Return the coverage of the schedule's selection; None if the ledger is empty.

    Args:
        ledger: Ledger of one app and one destination.
        now: Current time, aware.
        keep: Time after its start at which a quarter hour expires.
        expected_after: Time after its end during which a missing quarter hour counts as pending.

    Raises:
        LedgerUnavailable: The store cannot be read.
    """
    selections = ledger.selections()
    if not selections:
        return None
    starts = _quarters(now - keep, now)
    indexes = sorted({index for start in starts for index in spans_between(start, start + QUARTER)})
    records = ledger.records.index.read(indexes)
    selection = _main_selection(records, selections, now)
    quarters = _since_installation([_quarter(start, records, selection) for start in starts], keep)
    about = selections[selection]
    # Ledgers of earlier versions have no names.
    names = about.get("names", {})
    return Coverage(
        quarters=tuple(
            replace(quarter, status=WindowStatus.PENDING)
            if quarter.status is WindowStatus.MISSING and quarter.end > now - expected_after
            else quarter
            for quarter in quarters
        ),
        environments=tuple(names.get(uuid, uuid) for uuid in about["environments"]),
        metrics=tuple(about["metrics"]),
        keep=keep,
    )


def _since_installation(quarters: list[Quarter], keep: dt.timedelta) -> list[Quarter]:
    """Return the quarter hours without those that expired before anything was fetched, or soon after."""
    begun = min((quarter.first for quarter in quarters if quarter.first), default=None)
    if begun is None:
        return quarters
    return [
        quarter
        for quarter in quarters
        if quarter.status is not WindowStatus.MISSING or quarter.start + keep > begun + MIN_TIME_LEFT
    ]


def _hour(quarter: Quarter) -> dt.datetime:
    return quarter.start.replace(minute=0)


def _quarters(first: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """Return the starts of the aligned quarter hours between two times."""
    seconds = QUARTER.total_seconds()
    numbers = range(int(-(-first.timestamp() // seconds)), int(end.timestamp() // seconds))
    return [dt.datetime.fromtimestamp(number * seconds, dt.timezone.utc) for number in numbers]


def _main_selection(
    records: Mapping[int, RecordSummary], selections: Mapping[str, object], now: dt.datetime
) -> str:
    """Return the name of the schedule's selection, even if others were fetched by hand.

    It is the selection with the most records of the last day, then the one with the most records of all, then
    the latest.
    """
    yesterday = record_index(now - DAY)
    rank = {name: (0, 0, order) for order, name in enumerate(selections)}
    for index, record in records.items():
        for name in record.covered.keys() & rank.keys():
            of_last_day, overall, order = rank[name]
            rank[name] = (of_last_day + (index >= yesterday), overall + 1, order)
    return max(rank, key=rank.__getitem__)


def _quarter(start: dt.datetime, records: Mapping[int, RecordSummary], selection: str) -> Quarter:
    spans = spans_between(start, start + QUARTER)
    its_records = [records[index] for index in spans]
    status = _status([(records[index], span) for index, span in spans.items()], selection)
    # A point on a window's edge is in its neighbor's record, even if that window has no points of its own.
    has_points = status not in (WindowStatus.EMPTY, WindowStatus.MISSING)
    return Quarter(
        start,
        status,
        points=sum(record.points for record in its_records) if has_points else 0,
        attempts=max(record.attempts for record in its_records),
        first=_time(max(record.first for record in its_records)),
        latest=_time(max(record.latest for record in its_records)),
    )


def _time(seconds: int) -> dt.datetime | None:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc) if seconds else None


def _status(spans: list[tuple[RecordSummary, Span]], selection: str) -> WindowStatus:
    if any(rejected_at(record.covered.get(selection, ()), span) is not None for record, span in spans):
        return WindowStatus.REJECTED
    statuses = [_span_statuses(record, selection, span) for record, span in spans]
    if all(statuses):
        is_empty = all(found == {SpanStatus.EMPTY} for found in statuses)
        return WindowStatus.EMPTY if is_empty else WindowStatus.DELIVERED
    # Point hashes alone prove nothing: points can lie outside the window that they were fetched in.
    begun = any(record.begun or record.covered.get(selection) for record, _ in spans)
    return WindowStatus.FAILED if begun else WindowStatus.MISSING


def _span_statuses(record: RecordSummary, selection: str, span: Span) -> set[SpanStatus]:
    """Return the statuses within a span of a record; none if part of the span was not fetched."""
    reached, end = span
    statuses = set()
    for covered in record.covered.get(selection, ()):  # sorted by their starts
        if covered.start <= reached < covered.end:
            statuses.add(covered.status)
            reached = covered.end
    return statuses if reached >= end else set()
