"""A page of the ledger: what it knows of the points of one answer, and what becomes of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.cells import (
    CELL_MINUTES,
    CELL_SECONDS,
    Asked,
    State,
    cells_between,
)
from airflow_provider_forge.delivery.entries import Entry, Standing

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_forge.delivery.cells import Cell, Group
    from airflow_provider_forge.delivery.fingerprints import Fingerprint
    from airflow_provider_forge.delivery.ledger import Ledger, Selection

__all__ = ["Page"]


class Page:
    """What the ledger says of the points of one answer, and what becomes of them.

    Points go by their numbers in the answer. Nothing is written before `save`.

    Args:
        ledger: Whose page it is.
        points: The answer's points.
        cells: The entries they fall into, and those of the window.
        lost_before: What ended before this time of the epoch, and has no entry, may have had a lost one.

    Attributes:
        contended: Whether another task wrote the same entries meanwhile.
    """

    def __init__(
        self, ledger: Ledger, points: Sequence[Fingerprint], cells: Mapping[int, Cell], lost_before: float
    ) -> None:
        self._ledger = ledger
        self._points = points
        self._cells = dict(cells)
        self._lost_before = lost_before
        self._marks: defaultdict[Group, dict[int, bytes]] = defaultdict(dict)
        for number, point in enumerate(points):
            self._marks[point.metric, point.minute][number] = point.mark
        self._entries = {group: self._open(group) for group in self._marks}
        # What this page has done, to be done again on what another writer left.
        self._acknowledged: set[int] = set()
        self._sending: set[int] = set()
        self._notes: dict[int, tuple[str, Asked]] = {}
        self._dirty: set[int] = set()
        self.contended = False

    def _open(self, group: Group) -> Entry:
        cell = self._cells[group[1] // CELL_MINUTES]
        return Entry(
            self._marks[group],
            cell.acknowledged.get(group, Counter()),
            cell.in_flight.get(group, Counter()),
            lost=cell.is_new and (group[1] + 1) * 60 <= self._lost_before,
        )

    def numbers(self, *standings: Standing) -> list[int]:
        """Return the points that stand so, in the order in which they are to be sent: oldest first."""
        found = [number for number, _ in enumerate(self._points) if self.standing(number) in standings]
        return sorted(found, key=lambda number: (self._points[number].minute, *self._points[number]))

    def standing(self, number: int) -> Standing:
        """Return how a point stood before anything was sent."""
        point = self._points[number]
        return self._entries[point.metric, point.minute].standings[number]

    @property
    def digested(self) -> bool:
        """Whether some points on the page are known by a digest only."""
        return any(cell.digested for cell in self._cells.values())

    def intend(self, numbers: Iterable[int]) -> None:
        """Say that these points are about to be sent."""
        for entry, some in self._by_entry(numbers):
            entry.intend(some)
            self._sending.update(some)

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Say that the destination has these points."""
        for entry, some in self._by_entry(numbers):
            entry.acknowledge(some)
            self._sending.difference_update(some)
            self._acknowledged.update(some)

    def withdraw(self, numbers: Iterable[int]) -> None:
        """Say that the destination has not taken these points."""
        for entry, some in self._by_entry(numbers):
            entry.withdraw(some)
            self._sending.difference_update(some)

    def conclude(
        self,
        selection: Selection,
        start: dt.datetime,
        end: dt.datetime,
        *,
        open_points: Iterable[int] = (),
        rejected: Iterable[int] = (),
    ) -> None:
        """Note what became of the window; to be saved thereafter.

        Args:
            selection: What was asked for.
            start: The window's first moment.
            end: The first moment after it.
            open_points: Points that are still to be delivered; their cells count as not delivered.
            rejected: Points of requests of which the receiver has rejected some.
        """
        left_open, with_rejected = self._cells_of(open_points), self._cells_of(rejected)
        filled = self._cells_of(range(len(self._points)))
        for cell in cells_between(start, end):
            if cell in left_open:
                continue
            state = State.REJECTED if cell in with_rejected else State.DELIVERED
            first, last = (
                min(max(moment.timestamp() - cell * CELL_SECONDS, 0.0), float(CELL_SECONDS))
                for moment in (start, end)
            )
            asked = Asked(first, last, state if cell in filled else State.EMPTY, self._ledger.timestamp())
            if not self._cells[cell].covers(selection.name, asked):
                self._notes[cell] = (selection.name, asked)
                self._dirty.add(cell)

    def save(self) -> None:
        """Write the entries that have changed.

        Raises:
            LedgerUnavailable: The store does not take them.
        """
        for cell in sorted(self._dirty):
            current = self._ledger.load(cell)
            groups = [group for group in self._entries if group[1] // CELL_MINUTES == cell]
            if current.version != self._cells[cell].version:
                self.contended = True
                self._cells[cell] = current
                for group in groups:
                    self._reopen(group)
            content = self._cells[cell]
            for group in groups:
                self._entries[group].write(group, content.acknowledged, content.in_flight)
            if cell in self._notes:
                content.note(*self._notes[cell])
            self._ledger.save(cell, content)
        self._dirty.clear()

    def _reopen(self, group: Group) -> None:
        """Go on from what another writer left."""
        entry = self._entries[group] = self._open(group)
        entry.acknowledge(self._acknowledged & self._marks[group].keys())
        entry.intend(self._sending & self._marks[group].keys())

    def tidy(self, selection: Selection) -> None:
        """Remove entries that are too old to matter, and remember the selection."""
        self._ledger.tidy(selection, self._cells)

    def _by_entry(self, numbers: Iterable[int]) -> Iterator[tuple[Entry, list[int]]]:
        groups: defaultdict[Group, list[int]] = defaultdict(list)
        for number in numbers:
            groups[self._points[number].metric, self._points[number].minute].append(number)
        for group, some in groups.items():
            self._dirty.add(group[1] // CELL_MINUTES)
            yield self._entries[group], some

    def _cells_of(self, numbers: Iterable[int]) -> set[int]:
        return {self._points[number].minute // CELL_MINUTES for number in numbers}
