"""A page of the ledger: what it knows of the points of one answer, and what becomes of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.cells import (
    CELL_MINUTES,
    CELL_SECONDS,
    Asked,
    State,
)
from airflow_provider_forge.delivery.entries import Entry, Standing
from airflow_provider_forge.delivery.stores import ValueReplaced
from airflow_provider_forge.exceptions import LedgerUnavailable
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_forge.delivery.cells import Cell, Group, Part
    from airflow_provider_forge.delivery.fingerprints import Fingerprint
    from airflow_provider_forge.delivery.ledger import Ledger

__all__ = ["Page"]

log = get_logger(__name__)

MOST_TRIES = 10
"""How often an entry is written anew because another task was faster each time."""

SLOW = 10.0
"""Seconds from reading an entry to having it written: usually some 25 ms, a few seconds on a busy machine. A
writer that took longer stood still, and cannot know what others did meanwhile."""


class Page:
    """What the ledger says of the points of one answer, and what becomes of them.

    Points go by their numbers in the answer. Nothing is written before `save`.

    Args:
        ledger: Whose page it is.
        points: The answer's points.
        selection: Name of what was asked for.
        window: The parts of cells that were asked for.
        cells: Their entries, and those that the points fall into.
        lost_before: What ended before this time of the epoch, and was not asked for since, may have been
            recorded elsewhere.

    Attributes:
        contended: Whether another task wrote the same entries meanwhile.
    """

    def __init__(
        self,
        ledger: Ledger,
        points: Sequence[Fingerprint],
        selection: str,
        window: Mapping[int, Part],
        cells: Mapping[int, Cell],
        lost_before: float,
    ) -> None:
        self._ledger = ledger
        self._points = points
        self._selection = selection
        self._window = window
        self._cells = dict(cells)
        self._lost_before = lost_before
        self._marks: defaultdict[Group, dict[int, bytes]] = defaultdict(dict)
        for number, point in enumerate(points):
            self._marks[point.metric, point.minute][number] = point.mark
        # The marks under which points are on record if other environments were asked for.
        self._aliases: defaultdict[int, tuple[bytes, ...]] = defaultdict(tuple)
        self._entries = {group: self._open(group) for group in self._marks}
        # What this page has done, to be done again on what another writer left.
        self._acknowledged: set[int] = set()
        self._sending: set[int] = set()
        self._notes: dict[int, Asked] = {}
        self._dirty: set[int] = set()
        self.contended = False

    def _open(self, group: Group) -> Entry:
        number = group[1] // CELL_MINUTES
        cell = self._cells[number]
        second = group[1] * 60.0 - number * CELL_SECONDS
        is_known = cell.covers(self._selection, (second, second + 60))
        return Entry(
            self._marks[group],
            cell.acknowledged.get(group, Counter()),
            cell.in_flight.get(group, Counter()),
            lost=cell.damaged or (not is_known and (cell.lost or (group[1] + 1) * 60 <= self._lost_before)),
            aliases=self._aliases,
        )

    def recognize(self, points: Sequence[Fingerprint]) -> None:
        """Find the points under other marks as well, before anything is sent.

        Args:
            points: The same points, in the same order, as if other environments had been asked for.
        """
        groups = set()
        for number, (point, other) in enumerate(zip(self._points, points, strict=True)):
            if other.mark != point.mark:
                self._aliases[number] += (other.mark,)
                groups.add((point.metric, point.minute))
        for group in groups:
            self._entries[group] = self._open(group)

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

    def rejected_since(self, since: float) -> bool:
        """Tell whether points of the window were rejected after this time of the epoch."""
        times = [self._cells[cell].rejected_at(self._selection, part) for cell, part in self._window.items()]
        return any(time is not None and time >= int(since) for time in times)

    def conclude(
        self,
        *,
        open_points: Iterable[int] = (),
        rejected: Iterable[int] = (),
        resent: bool = False,
        complete: bool = True,
    ) -> None:
        """Note what became of the window; to be saved thereafter.

        Args:
            open_points: Points that are still to be delivered; their cells count as not delivered.
            rejected: Points of requests of which the receiver has rejected some.
            resent: Whether all was sent again, which takes back earlier rejections.
            complete: Whether all points of the answer could be read; if not, the window stays open, because a
                later answer may have them.
        """
        left_open, with_rejected = self._cells_of(open_points), self._cells_of(rejected)
        filled = self._cells_of(range(len(self._points)))
        for cell, part in self._window.items():
            earlier = None if resent else self._cells[cell].rejected_at(self._selection, part)
            if cell in with_rejected:
                asked = Asked(*part, State.REJECTED, self._ledger.timestamp())
            elif cell in left_open or not complete:
                continue
            elif earlier is not None:
                asked = Asked(*part, State.REJECTED, earlier)
            else:
                state = State.DELIVERED if cell in filled else State.EMPTY
                asked = Asked(*part, state, self._ledger.timestamp())
            if cell in with_rejected or not self._cells[cell].covers(self._selection, part, asked.state):
                self._notes[cell] = asked
                self._dirty.add(cell)

    def save(self) -> None:
        """Write the entries that have changed.

        Raises:
            LedgerUnavailable: The store does not take them.
        """
        for cell in sorted(self._dirty):
            for _ in range(MOST_TRIES):
                self._catch_up(cell)
                content = self._filled(cell)
                began = self._ledger.clock()
                try:
                    self._ledger.save(cell, content)
                except ValueReplaced:
                    continue
                self._cells[cell] = content
                self._watch(cell, self._ledger.clock() - began)
                break
            else:
                raise LedgerUnavailable(
                    f"Other tasks have written the same entry {MOST_TRIES} times in a row. It is tried again"
                )
        self._dirty.clear()

    def _catch_up(self, cell: int) -> None:
        """Go on from what is there now, if another task has written it since this one last did."""
        known, current = self._cells[cell], self._ledger.load(cell)
        if current.version == known.version or current.version[1] == self._ledger.writer:
            return
        if not current.is_new:  # else it was removed, and is written again
            self.contended = True
        self._cells[cell] = current.merged(known)
        for group in self._groups_of(cell):
            self._reopen(group)

    def _filled(self, cell: int) -> Cell:
        """Return a cell as it is with what this page knows."""
        content = self._cells[cell].copy()
        for group in self._groups_of(cell):
            self._entries[group].write(group, content.acknowledged, content.in_flight)
        if cell in self._notes:
            content.note(self._selection, self._notes[cell])
        return content

    def _groups_of(self, cell: int) -> list[Group]:
        return [group for group in self._entries if group[1] // CELL_MINUTES == cell]

    def _watch(self, cell: int, seconds: float) -> None:
        """Say that a slow writer may have erased what another one wrote, where the store cannot tell."""
        if seconds > SLOW and self._ledger.store.lasting:
            self.contended = True
            log.warning(
                "It took %.1f s to write the record of cell %d: a task on a machine that shares no lease with"
                " this one may have written it meanwhile, and its points may be sent again",
                seconds,
                cell,
            )

    def _reopen(self, group: Group) -> None:
        """Go on from what another writer left."""
        entry = self._entries[group] = self._open(group)
        entry.acknowledge(self._acknowledged & self._marks[group].keys())
        entry.intend(self._sending & self._marks[group].keys())

    def tidy(self) -> None:
        """Remove entries that are too old to matter."""
        self._ledger.tidy(self._cells)

    def _by_entry(self, numbers: Iterable[int]) -> Iterator[tuple[Entry, list[int]]]:
        groups: defaultdict[Group, list[int]] = defaultdict(list)
        for number in numbers:
            groups[self._points[number].metric, self._points[number].minute].append(number)
        for group, some in groups.items():
            self._dirty.add(group[1] // CELL_MINUTES)
            yield self._entries[group], some

    def _cells_of(self, numbers: Iterable[int]) -> set[int]:
        return {self._points[number].minute // CELL_MINUTES for number in numbers}
