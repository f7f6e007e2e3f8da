"""The ledger: what each destination has acknowledged of an app's points, and what was on its way to it.

Its store only puts and gets. So there is one entry for each aligned five minutes (see `cells`), whatever
windows are asked for; who writes an entry holds its lease; and where a lease reaches only one machine, a
writer sees by the version that another one was there, and goes on from what that one wrote.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
import uuid
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.accounts import note_account
from airflow_provider_forge.delivery.head import Head
from airflow_provider_forge.delivery.matching import PointStatus
from airflow_provider_forge.delivery.records import (
    RECORD_MINUTES,
    RECORD_SECONDS,
    LedgerRecord,
    record_index,
    spans_between,
)
from airflow_provider_forge.delivery.selections import Selection, Selections, Sentinel
from airflow_provider_forge.delivery.session import LedgerSession
from airflow_provider_forge.delivery.spread import MOST_PARTS, Spread
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow_provider_forge.delivery.accounts import Account
    from airflow_provider_forge.delivery.leases import Leases
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json
    from airflow_provider_forge.payload.fingerprints import Fingerprint

__all__ = ["Ledger", "Selection", "Sentinel"]

log = get_logger(__name__)

KEEP = dt.timedelta(days=15)
"""How long entries are kept: for a day longer than the gateway has points."""

ALMOST = 0.8
"""Part of what an entry can hold from which a task says so."""

PRUNE_AT_ONCE = 24
"""Old entries removed with each page that is written: more than a page adds, so that a backlog goes away."""


class Ledger:
    """The ledger of one app and one destination.

    Args:
        store: Where it is kept.
        name: The first part of its keys; tells app and destination.
        leases: Who writes an entry holds its lease.
        sentinel: Returns, for the name of a selection, what tells a record that was lost from a new one; None
            where nothing is kept.
        account: The credentials that deliver; None where the destination alone tells accounts apart.
        now: Returns the present, aware.
        clock: Returns a time in seconds, to measure with.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        leases: Leases,
        sentinel: Callable[[str], Sentinel] | None = None,
        account: Account | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.name = name
        self._leases = leases
        self._now = now
        self.clock = clock
        self._account = account
        self._spread = Spread(store)
        self._head = Head(
            store, name, oldest=lambda: record_index(now() - KEEP), present=lambda: record_index(now())
        )
        self._selections = Selections(store, self._head, sentinel=sentinel, now=now)
        self.writer = uuid.uuid4().hex[:12]

    @contextlib.contextmanager
    def page(
        self,
        points: Sequence[Fingerprint],
        selection: Selection,
        start: dt.datetime,
        end: dt.datetime,
        *,
        reread: Callable[[Collection[str]], Sequence[Fingerprint]] | None = None,
    ) -> Iterator[LedgerSession]:
        """Open the entries of an answer's points and of the window it was asked for, for this task alone.

        Args:
            points: The answer's.
            selection: What was asked for.
            start: The window's first moment.
            end: The first moment after it.
            reread: Returns the answer's points as if these environments had been asked for.

        Raises:
            DeliveryBusy: Another task holds one of them.
            LedgerUnavailable: The store does not answer.
        """
        window = spans_between(start, end)
        numbers = sorted({*window, *(point.minute // RECORD_MINUTES for point in points)})
        with self._leases.hold(numbers):
            lost_before = self._selections.lost_before(selection)
            self._tell_account()
            cells = {number: self.load(number) for number in numbers}
            page = LedgerSession(self, points, selection.name, window, cells, lost_before)
            if reread and page.numbers(PointStatus.NEW, PointStatus.AMBIGUOUS):
                for environments in self._overlapping(selection, cells.values()):
                    page.recognize(reread(environments))
            yield page

    def knows(self, start: dt.datetime, end: dt.datetime) -> bool:
        """Tell whether all of a window has been delivered before, or at least asked for.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        return not any(self.load(cell).is_new for cell in spans_between(start, end))

    def selections(self) -> dict[str, Json]:
        """Return what was ever asked for, by its name, the one begun last at the end.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        return dict(
            sorted(self._head.read()["selections"].items(), key=lambda entry: str(entry[1].get("begun")))
        )

    def timestamp(self) -> int:
        """Return the present, in seconds of the epoch."""
        return int(self._now().timestamp())

    def load(self, cell: int) -> LedgerRecord:
        """Read an entry; an empty one where there is none.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        content = self._spread.get(self._key(cell))
        if content is None:
            return LedgerRecord()
        try:
            found, problem = LedgerRecord.from_json(content, cell * RECORD_MINUTES), "a part of it is missing"
        except ValueError as error:
            found, problem = LedgerRecord(damaged=True, lost=True), str(error)
        if found.damaged:
            log.warning("The ledger's entry %s is damaged (%.200s): taken for lost", self._key(cell), problem)
        return found

    def save(self, cell: int, content: LedgerRecord) -> None:
        """Write an entry.

        Raises:
            LedgerUnavailable: The store does not take it.
            ValueReplaced: Another task has written it since it was loaded.
        """
        content.version = (content.version[0] + 1, self.writer)
        start, largest = cell * RECORD_MINUTES, self.store.largest
        entry = content.to_json(start)
        if self._spread.is_too_large(entry):
            if len(json.dumps(entry)) > ALMOST * MOST_PARTS * (largest or 0):
                self._tell_size(cell)
                content.compress(MOST_PARTS * (largest or 0), start)
                entry = content.to_json(start)
            self._remember_spread(cell)
        self._spread.set(self._key(cell), entry)

    def tidy(self, cells: Collection[int]) -> None:
        """Remove entries that are older than the gateway's points; `cells` are those just written.

        Raises:
            LedgerUnavailable: The store does not take it.
        """
        head = self._head.read()
        horizon = record_index(self._now() - KEEP)
        oldest = min([head["oldest"], *(cell for cell in cells if cell >= horizon)])
        removed = range(oldest, min(horizon, oldest + PRUNE_AT_ONCE))
        for cell in removed:
            # To look for parts costs a round trip.
            remove = self._spread.delete if cell <= head.get("spread", -1) else self.store.delete
            remove(self._key(cell))
        if removed or oldest < head["oldest"]:
            self._head.change(lambda head: {**head, "oldest": oldest + len(removed)})

    def _tell_size(self, cell: int) -> None:
        log.warning(
            "The entry %s holds almost as many points as %s takes, some 100,000 in five minutes. Above that,"
            " points are known by a digest only, and a late one makes its whole minute ambiguous: set the"
            " OTLP Connection's extra ledger_url",
            self._key(cell),
            self.store.name,
        )

    def _remember_spread(self, cell: int) -> None:
        """Let the head know of an entry with parts before there is one, so that none is left over."""
        if cell > self._head.read().get("spread", -1):
            self._head.change(lambda head: {**head, "spread": max(cell, head.get("spread", -1))})

    def _overlapping(self, selection: Selection, cells: Collection[LedgerRecord]) -> list[list[str]]:
        """Return the environments of other selections that have some in common with this one.

        Args:
            selection: What was asked for.
            cells: Their points may be on record under another selection.
        """
        if all(cell.is_new for cell in cells):
            return []
        # A delivery that failed half-way has noted no selection in the cells, and its points are there.
        names = {*self.selections(), *(name for cell in cells for name in cell.asked)} - {selection.name}
        others = {tuple(self._selections.environments(name)) for name in names}
        mine = set(selection.environments)
        return [list(other) for other in sorted(others) if mine != set(other) and mine & set(other)]

    def _tell_account(self) -> None:
        """Say, once, that a Connection with other credentials delivers to the same record."""
        account, self._account = self._account, None
        if account is not None:
            note_account(self._head, account, salt=self.name, now=self.timestamp())

    def _key(self, cell: int) -> str:
        start = dt.datetime.fromtimestamp(cell * RECORD_SECONDS, dt.timezone.utc)
        return f"{self.name}/{start:%Y%m%dT%H%MZ}"
