"""The ledger: what each destination has acknowledged of an app's points, and what was on its way to it.

Its store only puts and gets. So there is one entry for each aligned five minutes (see `cells`), whatever
windows are asked for; who writes an entry holds its lease; and where a lease reaches only one machine, a
writer sees by the revision that another one was there, and adds up what both know.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import logging
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_forge.delivery.cells import CELL_MINUTES, CELL_SECONDS, Asked, Cell, State
from airflow_provider_forge.delivery.entries import Entry, Standing
from airflow_provider_forge.otlp.model import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_forge.delivery.cells import Group
    from airflow_provider_forge.delivery.fingerprints import Fingerprint
    from airflow_provider_forge.delivery.leases import Leases
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.model import Json

__all__ = ["Ledger", "Page", "Selection", "Sentinel"]

log = logging.getLogger(__name__)

KEEP = dt.timedelta(days=15)
"""How long entries are kept: for a day longer than the gateway has points."""

PRUNE_AT_ONCE = 24
"""Old entries removed with each page that is written: more than a page adds, so that a backlog goes away."""


class Sentinel(Protocol):
    """Remembers, in another place than the store, that there is a ledger."""

    def load(self) -> dict[str, Any]:
        """Return what was saved; nothing where nothing was."""

    def save(self, content: dict[str, Any]) -> None:
        """Remember it."""


@dataclass(frozen=True)
class Selection:
    """What an answer was asked for: environments by UUID, and metric labels."""

    environments: Collection[str]
    metrics: Collection[str]

    @property
    def name(self) -> str:
        """A short name, the same for equal selections in any order."""
        return hashlib.blake2b(canonical(self.to_json()), digest_size=4).hexdigest()

    def to_json(self) -> Json:
        """Return it for people who read the store."""
        return {"environments": sorted(self.environments), "metrics": sorted(self.metrics)}


class Ledger:
    """The ledger of one app and one destination.

    Args:
        store: Where it is kept.
        name: The first part of its keys; tells app and destination.
        leases: Who writes an entry holds its lease.
        sentinel: Tells a ledger that was lost from a new one; None where nothing is kept.
        now: Returns the present, aware.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        leases: Leases,
        sentinel: Sentinel | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
    ) -> None:
        self.store = store
        self.name = name
        self._leases = leases
        self._sentinel = sentinel
        self._now = now
        self._writer = uuid.uuid4().hex[:12]
        self._known_head: Json | None = None

    @contextlib.contextmanager
    def page(self, points: Sequence[Fingerprint], start: dt.datetime, end: dt.datetime) -> Iterator[Page]:
        """Open the entries of an answer's points and of the window it was asked for, for this task alone.

        Raises:
            DeliveryBusy: Another task holds one of them.
            LedgerUnavailable: The store does not answer.
        """
        span = range(_cell_of(start.timestamp()), _cell_of(end.timestamp() - 0.001) + 1)
        cells = sorted({*span, *(point.minute // CELL_MINUTES for point in points)})
        with self._leases.hold(cells):
            lost_before = self._head().get("lost_before") or 0
            yield Page(self, points, {cell: self.load(cell) for cell in cells}, lost_before)

    def timestamp(self) -> int:
        """Return the present, in seconds of the epoch."""
        return int(self._now().timestamp())

    def load(self, cell: int) -> Cell:
        """Read an entry; an empty one where there is none.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        content = self.store.get(self._key(cell))
        if content is None:
            return Cell()
        try:
            return Cell.from_json(content, cell * CELL_MINUTES)
        except ValueError as error:
            log.warning("The ledger's entry %s is damaged (%s): taken for empty", self._key(cell), error)
            return Cell()

    def save(self, cell: int, content: Cell) -> bool:
        """Write an entry; tell whether another task has written it since it was read.

        Raises:
            LedgerUnavailable: The store does not take it.
        """
        current = self.load(cell)
        contended = current.revision != content.revision
        if contended:
            content.merge(current)
        content.revision = max(content.revision, current.revision) + 1
        content.writer = self._writer
        if self.store.largest is not None:
            content.compress(self.store.largest, cell * CELL_MINUTES)
        self.store.set(self._key(cell), content.to_json(cell * CELL_MINUTES))
        return contended

    def tidy(self, selection: Selection, cells: Collection[int]) -> None:
        """Remember what there is, and remove what is older than the gateway's points.

        Raises:
            LedgerUnavailable: The store does not take it.
        """
        head = self._head()
        horizon = _cell_of((self._now() - KEEP).timestamp())
        oldest = min([head["oldest"], *(cell for cell in cells if cell >= horizon)])
        removed = range(oldest, min(horizon, oldest + PRUNE_AT_ONCE))
        for cell in removed:
            self.store.delete(self._key(cell))
        oldest += len(removed)
        if oldest != head["oldest"] or selection.name not in head["selections"]:
            # Another task may have added to it meanwhile.
            latest = self.store.get(self._head_key) or head
            selections = {**latest["selections"], selection.name: selection.to_json()}
            self._known_head = {**latest, "oldest": oldest, "selections": selections}
            self.store.set(self._head_key, self._known_head)

    def _head(self) -> Json:
        if self._known_head is None:
            self._known_head = self.store.get(self._head_key) or self._begin()
        return self._known_head

    def _begin(self) -> Json:
        """Begin a ledger, in the place of one that was lost if there is word of one."""
        now = self._now()
        before = self._sentinel.load() if self._sentinel else {}
        if before:
            # Another task may have begun it just now, which writes the head before the sentinel.
            if (begun := self.store.get(self._head_key)) is not None:
                return begun
            log.warning(
                "The record of what was delivered, begun %s in %s, is not in %s: it was lost, or is kept"
                " elsewhere. What ended before %s may have been delivered already",
                before.get("begun"),
                before.get("store"),
                self.store.name,
                f"{now:%Y-%m-%dT%H:%M:%SZ}",
            )
        head: Json = {
            "version": 1,
            "begun": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "lost_before": now.timestamp() if before else None,
            "oldest": _cell_of(now.timestamp()),
            "selections": {},
        }
        self.store.set(self._head_key, head)
        if self._sentinel:
            self._sentinel.save({"begun": head["begun"], "store": self.store.name})
        return head

    @property
    def _head_key(self) -> str:
        return f"{self.name}/head"

    def _key(self, cell: int) -> str:
        start = dt.datetime.fromtimestamp(cell * CELL_SECONDS, dt.timezone.utc)
        return f"{self.name}/{start:%Y%m%dT%H%MZ}"


def _cell_of(timestamp: float) -> int:
    return int(timestamp // CELL_SECONDS)


class Page:
    """What the ledger says of the points of one answer, and what becomes of them.

    Points go by their numbers in the answer. Nothing is written before `save`.

    Args:
        ledger: Whose page it is.
        points: The answer's points.
        cells: The entries they fall into, and those of the window.
        lost_before: An entry that ended before this time of the epoch, and is empty, may have been lost.

    Attributes:
        contended: Whether another task wrote the same entries meanwhile.
    """

    def __init__(
        self, ledger: Ledger, points: Sequence[Fingerprint], cells: Mapping[int, Cell], lost_before: float
    ) -> None:
        self._ledger = ledger
        self._points = points
        self._cells = cells
        self._dirty: set[int] = set()
        self.contended = False
        groups: defaultdict[Group, dict[int, bytes]] = defaultdict(dict)
        for number, point in enumerate(points):
            groups[point.metric, point.minute][number] = point.mark
        self._entries = {}
        for group, marks in groups.items():
            cell = cells[group[1] // CELL_MINUTES]
            acknowledged = cell.acknowledged.get(group, Counter())
            in_flight = cell.in_flight.get(group, Counter())
            lost = not cell.revision and (group[1] + 1) * 60 <= lost_before
            self._entries[group] = Entry(marks, acknowledged, in_flight, lost=lost)

    def numbers(self, *standings: Standing) -> list[int]:
        """Return the points that stand so, in the order in which they are to be sent: oldest first."""
        found = [number for number, _ in enumerate(self._points) if self.standing(number) in standings]
        return sorted(found, key=lambda number: (self._points[number].minute, *self._points[number]))

    def standing(self, number: int) -> Standing:
        """Return how a point stood before anything was sent."""
        return self._entry(number).standings[number]

    @property
    def digested(self) -> bool:
        """Whether some points on the page are known by a digest only."""
        return any(cell.digested for cell in self._cells.values())

    def intend(self, numbers: Iterable[int]) -> None:
        """Say that these points are about to be sent."""
        for entry, some in self._by_entry(numbers):
            entry.intend(some)

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Say that the destination has these points."""
        for entry, some in self._by_entry(numbers):
            entry.acknowledge(some)

    def withdraw(self, numbers: Iterable[int]) -> None:
        """Say that the destination has not taken these points."""
        for entry, some in self._by_entry(numbers):
            entry.withdraw(some)

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
        for cell in range(_cell_of(start.timestamp()), _cell_of(end.timestamp() - 0.001) + 1):
            if cell in left_open:
                continue
            state = State.REJECTED if cell in with_rejected else State.DELIVERED
            first, last = (
                min(max(moment.timestamp() - cell * CELL_SECONDS, 0.0), float(CELL_SECONDS))
                for moment in (start, end)
            )
            asked = Asked(first, last, state if cell in filled else State.EMPTY, self._ledger.timestamp())
            if self._cells[cell].note(selection.name, asked):
                self._dirty.add(cell)

    def save(self) -> None:
        """Write the entries that have changed.

        Raises:
            LedgerUnavailable: The store does not take them.
        """
        for group, entry in self._entries.items():
            cell = group[1] // CELL_MINUTES
            if cell in self._dirty:
                entry.write(group, self._cells[cell].acknowledged, self._cells[cell].in_flight)
        for cell in sorted(self._dirty):
            self.contended |= self._ledger.save(cell, self._cells[cell])
        self._dirty.clear()

    def tidy(self, selection: Selection) -> None:
        """Remove entries that are too old to matter, and remember the selection."""
        self._ledger.tidy(selection, self._cells)

    def _entry(self, number: int) -> Entry:
        point = self._points[number]
        return self._entries[point.metric, point.minute]

    def _by_entry(self, numbers: Iterable[int]) -> Iterator[tuple[Entry, list[int]]]:
        groups: defaultdict[Group, list[int]] = defaultdict(list)
        for number in numbers:
            groups[self._points[number].metric, self._points[number].minute].append(number)
        for group, some in groups.items():
            self._dirty.add(group[1] // CELL_MINUTES)
            yield self._entries[group], some

    def _cells_of(self, numbers: Iterable[int]) -> set[int]:
        return {self._points[number].minute // CELL_MINUTES for number in numbers}
