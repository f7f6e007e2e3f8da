"""A ledger session: the points of one window, compared with the ledger and recorded as they are delivered."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.deduplication import PointGroup, PointStatus
from airflow_provider_forge.delivery.records import RECORD_MINUTES, RECORD_SECONDS, CoveredSpan, SpanStatus
from airflow_provider_forge.delivery.stores import ValueReplaced
from airflow_provider_forge.delivery.summaries import RecordSummary
from airflow_provider_forge.exceptions import LedgerUnavailable
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_forge.delivery.record_store import RecordStore
    from airflow_provider_forge.delivery.records import Group, LedgerRecord, Span
    from airflow_provider_forge.delivery.summaries import Summaries
    from airflow_provider_forge.payload.fingerprints import Fingerprint

__all__ = ["LedgerSession"]

log = get_logger(__name__)

MAX_TRIES = 10
"""Maximum number of times a record is written again because another task has written it first."""

SLOW = 10.0
"""Seconds from reading a record to having written it that are reported: usually 25 ms, a few seconds on a
busy machine. A writer that took longer may have missed the writes of others, or the store was slow."""


class LedgerSession:
    """The points of one window, and the records that they belong to.

    Points are identified by their numbers in the payload. Nothing is written before `save`.

    Args:
        records: Records of the ledger.
        points: Fingerprints of the window's points.
        selection: Name of the selection that the window was fetched for.
        window: Spans that the window covers, by the indexes of their records.
        loaded: Records of the window and of its points, by their indexes.
        lost_before: Time in seconds since the epoch. Points from before it that no covered span contains may
            have been delivered according to a ledger that was lost.

    Attributes:
        contended: Whether another task was seen to have written the same records in the meantime.
    """

    def __init__(
        self,
        records: RecordStore,
        points: Sequence[Fingerprint],
        selection: str,
        window: Mapping[int, Span],
        loaded: Mapping[int, LedgerRecord],
        lost_before: float,
    ) -> None:
        self._store = records
        self._points = points
        self._selection = selection
        self._window = window
        self._records = dict(loaded)
        self._lost_before = lost_before
        self._point_hashes: defaultdict[Group, dict[int, bytes]] = defaultdict(dict)
        for number, point in enumerate(points):
            self._point_hashes[point.metric, point.minute][number] = point.point_hash
        # Hashes that points have on record if they were fetched with other environments.
        self._aliases: defaultdict[int, tuple[bytes, ...]] = defaultdict(tuple)
        # Identity of the run and the window, if all points are sent again.
        self._resent_by = ""
        self._groups = {group: self._open(group) for group in self._point_hashes}
        # Changes of this session, to be applied again to a record that another writer has replaced.
        self._acknowledged: set[int] = set()
        self._in_flight: set[int] = set()
        self._covered: dict[int, CoveredSpan] = {}
        self._acknowledged_at: dict[int, int] = {}
        self._attempted: set[int] = set()
        self._opened: set[int] = set()
        self._summaries: Summaries = {}
        self._is_recorded = False
        self._dirty: set[int] = set()
        self.contended = False

    def _open(self, group: Group) -> PointGroup:
        index = group[1] // RECORD_MINUTES
        record = self._records[index]
        second = group[1] * 60.0 - index * RECORD_SECONDS
        is_covered = record.covers(self._selection, (second, second + 60))
        is_lost = not is_covered and (record.lost or (group[1] + 1) * 60 <= self._lost_before)
        opened = PointGroup(
            self._point_hashes[group],
            record.acknowledged.get(group, Counter()),
            record.in_flight.get(group, Counter()),
            lost=record.damaged or is_lost,
            aliases=self._aliases,
        )
        if self._resent_by and record.resent_by != self._resent_by:
            opened.forget()
        return opened

    def recognize(self, points: Sequence[Fingerprint]) -> None:
        """Look the points up by other fingerprints as well; to be called before anything is sent.

        Args:
            points: The same points in the same order, with the fingerprints that they would have if other
                environments had been selected.
        """
        groups = set()
        for number, (point, other) in enumerate(zip(self._points, points, strict=True)):
            if other.point_hash != point.point_hash:
                self._aliases[number] += (other.point_hash,)
                groups.add((point.metric, point.minute))
        for group in groups:
            self._groups[group] = self._open(group)

    def resend(self, run: str) -> bool:
        """Forget what was acknowledged before a run: it sends all points again, and its retries do not.

        Args:
            run: Identity of the run.

        Returns:
            Whether this is the run's first try.
        """
        # Windows of one run share records: with points on their edges, or if they are short.
        delivery = f"{run}/{sorted(self._window.items())}"
        self._resent_by = hashlib.blake2b(delivery.encode(), digest_size=8).hexdigest()
        earlier = {index for index, record in self._records.items() if record.resent_by != self._resent_by}
        groups = [group for group in self._groups if group[1] // RECORD_MINUTES in earlier]
        for group in groups:
            self._groups[group] = self._open(group)
            self._dirty.add(group[1] // RECORD_MINUTES)
        return bool(groups) or not self._groups

    def points_with(self, *statuses: PointStatus) -> list[int]:
        """Return the points with one of these statuses in the order in which to send them: oldest first."""
        found = [number for number, _ in enumerate(self._points) if self.status(number) in statuses]
        return sorted(found, key=lambda number: (self._points[number].minute, *self._points[number]))

    def status(self, number: int) -> PointStatus:
        """Return the status that a point had before anything was sent."""
        point = self._points[number]
        return self._groups[point.metric, point.minute].statuses[number]

    @property
    def digested(self) -> bool:
        """Whether the records have only a digest of some points."""
        return any(record.digested for record in self._records.values())

    def mark_in_flight(self, numbers: Iterable[int]) -> None:
        """Mark points as in flight, before they are sent."""
        for group, members in self._grouped(numbers):
            group.mark_in_flight(members)
            self._in_flight.update(members)

    def mark_acknowledged(self, numbers: Iterable[int]) -> None:
        """Mark points as acknowledged by the destination."""
        for group, members in self._grouped(numbers):
            group.mark_acknowledged(members)
            self._in_flight.difference_update(members)
            self._acknowledged.update(members)
            index = self._points[members[0]].minute // RECORD_MINUTES
            # A point on a window's edge is in its neighbor's record, and does not make that one late.
            if index in self._window:
                self._acknowledged_at[index] = self._store.timestamp()

    def mark_pending(self, numbers: Iterable[int]) -> None:
        """Mark points as pending: the destination has certainly not stored them."""
        for group, members in self._grouped(numbers):
            group.mark_pending(members)
            self._in_flight.difference_update(members)

    def has_rejections_since(self, since: float) -> bool:
        """Return whether points of the window were rejected since a time, in seconds since the epoch."""
        times = [
            self._records[index].rejected_at(self._selection, span) for index, span in self._window.items()
        ]
        return any(time is not None and time >= int(since) for time in times)

    def record_window(
        self,
        *,
        pending: Iterable[int] = (),
        rejected: Iterable[int] = (),
        resent: bool = False,
        complete: bool = True,
    ) -> None:
        """Record the status of the window's spans; `save` writes it.

        Args:
            pending: Points that are still to be delivered. Their spans are not recorded as covered.
            rejected: Points of requests from which the receiver rejected some points.
            resent: Whether all points were sent again, which clears earlier rejections.
            complete: Whether all points of the response could be read. If not, the window stays open, because
                a later response may contain the others.
        """
        pending_in, rejected_in = self._indexes_of(pending), self._indexes_of(rejected)
        points_in = self._indexes_of(range(len(self._points)))
        now = self._store.timestamp()
        self._is_recorded = True
        for index, span in self._window.items():
            record = self._records[index]
            earlier = None if resent else record.rejected_at(self._selection, span)
            if index in rejected_in:
                covered = CoveredSpan(*span, SpanStatus.REJECTED, now)
            elif index in pending_in or not complete:
                continue
            elif earlier is not None:
                covered = CoveredSpan(*span, SpanStatus.REJECTED, earlier)
            else:
                covered = CoveredSpan(
                    *span, SpanStatus.DELIVERED if index in points_in else SpanStatus.EMPTY, now
                )
            if index in rejected_in or not record.covers(self._selection, span, covered.status):
                self._covered[index] = covered
                self._dirty.add(index)

    def save(self) -> None:
        """Write the records that have changed.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        self._store.index.open(self._dirty - self._opened)
        self._opened |= self._dirty
        for index in sorted(self._dirty):
            self._save_record(index)
        if self._is_recorded:
            self._store.index.add(self._summaries, self._window)
            self._opened.clear()
        self._dirty.clear()

    def _save_record(self, index: int) -> None:
        """Write a record that has changed."""
        for _ in range(MAX_TRIES):
            began = self._store.clock()
            self._catch_up(index)
            record = self._updated(index)
            try:
                self._store.save(index, record)
            except ValueReplaced:
                continue
            self._records[index] = record
            self._summaries[index] = RecordSummary.of(record)
            self._attempted.add(index)
            self._check_duration(index, self._store.clock() - began)
            return
        raise LedgerUnavailable(f"Other tasks have written the same record {MAX_TRIES} times in a row")

    def _catch_up(self, index: int) -> None:
        """Merge a record that another task has written since this session last did."""
        known, current = self._records[index], self._store.load(index)
        if current.version == known.version or current.version[1] == self._store.writer:
            return
        if not current.is_new:  # else it was deleted, and is written again
            self.contended = True
        self._records[index] = current.merged(known)
        for group in self._groups_in(index):
            self._reopen(group)

    def _updated(self, index: int) -> LedgerRecord:
        """Return a record with the changes of this session."""
        record = self._records[index].copy()
        for group in self._groups_in(index):
            self._groups[group].write(group, record.acknowledged, record.in_flight)
        if index in self._covered:
            record.cover(self._selection, self._covered[index])
            record.first = record.first or self._covered[index].at
        record.attempts += index in self._window and index not in self._attempted
        record.latest = max(record.latest, self._acknowledged_at.get(index, 0))
        record.resent_by = self._resent_by or record.resent_by
        return record

    def _groups_in(self, index: int) -> list[Group]:
        return [group for group in self._groups if group[1] // RECORD_MINUTES == index]

    def _check_duration(self, index: int, seconds: float) -> None:
        """Report a slow write: the store cannot detect whether it has replaced another task's write."""
        if seconds > SLOW and self._store.store.lasting:
            log.warning(
                "Writing the ledger's record %d took %.1f s. If a task on a machine without a shared lease"
                " wrote it meanwhile, its points may be sent again",
                index,
                seconds,
            )

    def _reopen(self, group: Group) -> None:
        """Apply the changes of this session to a record that another writer has replaced."""
        reopened = self._groups[group] = self._open(group)
        reopened.mark_acknowledged(self._acknowledged & self._point_hashes[group].keys())
        reopened.mark_in_flight(self._in_flight & self._point_hashes[group].keys())

    def prune(self) -> None:
        """Delete records that have outlived the gateway's metrics."""
        self._store.prune(self._records)

    def _grouped(self, numbers: Iterable[int]) -> Iterator[tuple[PointGroup, list[int]]]:
        """Yield the groups of some points, whose records change, with their points."""
        groups: defaultdict[Group, list[int]] = defaultdict(list)
        for number in numbers:
            groups[self._points[number].metric, self._points[number].minute].append(number)
        for group, members in groups.items():
            self._dirty.add(group[1] // RECORD_MINUTES)
            yield self._groups[group], members

    def _indexes_of(self, numbers: Iterable[int]) -> set[int]:
        """Return the indexes of the records of some points."""
        return {self._points[number].minute // RECORD_MINUTES for number in numbers}
