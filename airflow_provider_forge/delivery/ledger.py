"""The ledger: what each destination has acknowledged of an app's points, and what was on its way to it.

Its store only puts and gets. So there is one entry for each aligned five minutes (see `cells`), whatever
windows are asked for; who writes an entry holds its lease; and where a lease reaches only one machine, a
writer sees by the version that another one was there, and goes on from what that one wrote.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_forge.delivery.cells import (
    CELL_MINUTES,
    CELL_SECONDS,
    Cell,
    cell_of,
    parts_between,
)
from airflow_provider_forge.delivery.page import Page
from airflow_provider_forge.otlp.model import canonical
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from airflow_provider_forge.delivery.fingerprints import Fingerprint
    from airflow_provider_forge.delivery.leases import Leases
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.model import Json

__all__ = ["Ledger", "Selection", "Sentinel"]

log = get_logger(__name__)

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
    """What an answer was asked for.

    Attributes:
        environments: By UUID.
        metrics: Labels.
        names: What environments are called, by UUID, as far as that is known; for people only.
    """

    environments: Collection[str]
    metrics: Collection[str]
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """A short name, the same for equal selections in any order."""
        return hashlib.blake2b(canonical(self.to_json()), digest_size=4).hexdigest()

    def to_json(self) -> Json:
        """Return what makes it this selection and no other."""
        return {"environments": sorted(self.environments), "metrics": sorted(self.metrics)}


class Ledger:
    """The ledger of one app and one destination.

    Args:
        store: Where it is kept.
        name: The first part of its keys; tells app and destination.
        leases: Who writes an entry holds its lease.
        sentinel: Returns, for the name of a selection, what tells a record that was lost from a new one; None
            where nothing is kept.
        now: Returns the present, aware.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        leases: Leases,
        sentinel: Callable[[str], Sentinel] | None = None,
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
    def page(
        self, points: Sequence[Fingerprint], selection: Selection, start: dt.datetime, end: dt.datetime
    ) -> Iterator[Page]:
        """Open the entries of an answer's points and of the window it was asked for, for this task alone.

        Args:
            points: The answer's.
            selection: What was asked for.
            start: The window's first moment.
            end: The first moment after it.

        Raises:
            DeliveryBusy: Another task holds one of them.
            LedgerUnavailable: The store does not answer.
        """
        window = parts_between(start, end)
        numbers = sorted({*window, *(point.minute // CELL_MINUTES for point in points)})
        with self._leases.hold(numbers):
            lost_before = self._lost_before(selection)
            cells = {number: self.load(number) for number in numbers}
            yield Page(self, points, selection.name, window, cells, lost_before)

    def knows(self, start: dt.datetime, end: dt.datetime) -> bool:
        """Tell whether all of a window has been delivered before, or at least asked for.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        return not any(self.load(cell).is_new for cell in parts_between(start, end))

    def selections(self) -> dict[str, Json]:
        """Return what was ever asked for, by its name, the one begun last at the end.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        return dict(sorted(self._head()["selections"].items(), key=lambda entry: str(entry[1].get("begun"))))

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
            log.warning("The ledger's entry %s is damaged (%s): taken for lost", self._key(cell), error)
            return Cell(damaged=True)

    def save(self, cell: int, content: Cell) -> None:
        """Write an entry.

        Raises:
            LedgerUnavailable: The store does not take it.
        """
        content.version = (content.version[0] + 1, self._writer)
        if self.store.largest is not None:
            content.compress(self.store.largest, cell * CELL_MINUTES)
        self.store.set(self._key(cell), content.to_json(cell * CELL_MINUTES))

    def tidy(self, cells: Collection[int]) -> None:
        """Remove entries that are older than the gateway's points; `cells` are those just written.

        Raises:
            LedgerUnavailable: The store does not take it.
        """
        head = self._head()
        horizon = cell_of(self._now() - KEEP)
        oldest = min([head["oldest"], *(cell for cell in cells if cell >= horizon)])
        removed = range(oldest, min(horizon, oldest + PRUNE_AT_ONCE))
        for cell in removed:
            self.store.delete(self._key(cell))
        if removed or oldest < head["oldest"]:
            # Another task may have added to it meanwhile.
            self._known_head = self.store.get(self._head_key) or head
            self._known_head["oldest"] = oldest + len(removed)
            self.store.set(self._head_key, self._known_head)

    def _head(self) -> Json:
        if self._known_head is None:
            self._known_head = self.store.get(self._head_key) or {
                "version": 1,
                "oldest": cell_of(self._now()),
                "selections": {},
            }
        return self._known_head

    def _lost_before(self, selection: Selection) -> float:
        """Return the time of the epoch before which there may have been another record; 0 for never."""
        if selection.name not in self._head()["selections"]:
            self._begin(selection)
        return float(self._head()["selections"][selection.name]["lost_before"] or 0)

    def _begin(self, selection: Selection) -> None:
        """Begin the record of a selection, in the place of one that was lost if there is word of one."""
        sentinel = self._sentinel(selection.name) if self._sentinel else None
        before = sentinel.load() if sentinel else {}
        # Another task may have begun it just now, which writes the head before the sentinel.
        self._known_head = None
        head, now = self._head(), self._now()
        if selection.name in head["selections"]:
            return
        if before:
            log.warning(
                "The record of what was delivered, begun %s in %s, is not in %s: it was lost, or is kept"
                " elsewhere. What ended before %s may have been delivered already",
                before.get("begun"),
                before.get("store"),
                self.store.name,
                f"{now:%Y-%m-%dT%H:%M:%SZ}",
            )
        begun = f"{now:%Y-%m-%dT%H:%M:%SZ}"
        lost_before = now.timestamp() if before else None
        head["selections"][selection.name] = {
            **selection.to_json(),
            "names": dict(selection.names),
            "begun": begun,
            "lost_before": lost_before,
        }
        self.store.set(self._head_key, head)
        if sentinel:
            sentinel.save({"begun": begun, "store": self.store.name})

    @property
    def _head_key(self) -> str:
        return f"{self.name}/head"

    def _key(self, cell: int) -> str:
        start = dt.datetime.fromtimestamp(cell * CELL_SECONDS, dt.timezone.utc)
        return f"{self.name}/{start:%Y%m%dT%H%MZ}"
