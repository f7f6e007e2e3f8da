"""Surveys the archive day by day, and verifies its objects."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.records import RECORD_MINUTES, Digest
from airflow_provider_forge.exceptions import ArchiveDamaged
from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import MalformedOtlp
from airflow_provider_forge.payload.payload import ReadOptions
from airflow_provider_forge.payload.reader import read
from airflow_provider_forge.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_forge.archive.archive import Archive, Archived
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.payload.fingerprints import Fingerprint

__all__ = ["Check", "Day", "check", "survey"]

DAY = dt.timedelta(days=1)


@dataclass
class Day:
    """The archived part of one day.

    Attributes:
        day: The day, in UTC.
        quarters: Number of quarter hours that are archived completely.
        objects: Number of archived responses.
        size: Size of their metrics in bytes, compressed.
        gaps: The parts of the day that are not archived, oldest first.
    """

    day: dt.date
    quarters: int
    objects: int
    size: int
    gaps: list[Window] = field(default_factory=list)


@dataclass
class Check:
    """The result of verifying one archived response.

    Attributes:
        window: Its window.
        points: Number of its points.
        undelivered: Number of its points that a destination has not acknowledged; None if that is not known.
        problem: Why it cannot be used; None if it can.
    """

    window: Window
    points: int = 0
    undelivered: int | None = None
    problem: str | None = None


def survey(archive: Archive, app_id: str, interval: Window) -> Iterator[Day]:
    """Yield the days of an interval, oldest first.

    Raises:
        ArchiveUnavailable: The archive cannot be read.
    """
    day = interval.start.start_of("day")
    while day < interval.end:
        whole = Window(max(day, interval.start), min(day + DAY, interval.end))
        found = [each for each in archive.list_between(app_id, whole.start, whole.end) if each.is_described]
        covered = [each.entry.window for each in found if each.data_size is not None]
        gaps = [quarter for quarter in whole.split() if not _is_covered(quarter, covered)]
        yield Day(
            day.date(),
            len(list(whole.split())) - len(gaps),
            len(found),
            sum(each.data_size or 0 for each in found),
            list(_joined(gaps)),
        )
        day += DAY


def check(archive: Archive, archived: Archived, ledger: Ledger | None) -> Check:
    """Verify one archived response: read it, and count its points against a ledger.

    Args:
        archive: The archive.
        archived: The response.
        ledger: Ledger of a destination; None to leave that out.

    Raises:
        ArchiveUnavailable: The archive cannot be read.
        LedgerUnavailable: The ledger cannot be read.
    """
    result = Check(archived.entry.window)
    try:
        metrics = archive.read(archived).metrics
        points = Counter((point.metric, point.minute) for point in _fingerprints(metrics))
    except (ArchiveDamaged, MalformedOtlp) as error:
        result.problem = str(error)
        return result
    result.points = points.total()
    if ledger is not None:
        result.undelivered = _undelivered(points, ledger)
    return result


def _fingerprints(metrics: AppMetrics) -> Sequence[Fingerprint]:
    ids = [environment.id for environment in metrics.environments]
    minute = int(metrics.window.start.timestamp() // 60)
    return read(metrics.text, ReadOptions(ids, minute, None, HTTP_JSON)).fingerprints


def _undelivered(points: Counter[tuple[str, int]], ledger: Ledger) -> int | None:
    """Return the number of points beyond those on record; None if a record is missing, as after 15 days."""
    missing = 0
    records = {index: ledger.records.load(index) for index in {key[1] // RECORD_MINUTES for key in points}}
    if any(record.is_new for record in records.values()):
        return None
    for key, count in points.items():
        known = records[key[1] // RECORD_MINUTES].acknowledged.get(key, Counter())
        number = known.count if isinstance(known, Digest) else sum(known.values())
        missing += max(count - number, 0)
    return missing


def _is_covered(quarter: Window, windows: Iterable[Window]) -> bool:
    reached = quarter.start
    for window in sorted(windows):
        if window.start <= reached < window.end:
            reached = window.end
    return reached >= quarter.end


def _joined(windows: Iterable[Window]) -> Iterator[Window]:
    """Yield adjacent windows as one."""
    last: Window | None = None
    for window in windows:
        if last is not None and last.end == window.start:
            last = Window(last.start, window.end)
        else:
            if last is not None:
                yield last
            last = window
    if last is not None:
        yield last
