"""The ledger: which points of an app a destination has acknowledged, and which were in flight.

The ledger makes deliveries idempotent: it deduplicates points across retries, clears and backfills. It has
one record for each aligned five minutes (see `records`), independent of the windows in which the points were
fetched. A store only has to get, set and delete, so a task holds the lease of the records that it writes. If
a lease reaches only one machine, a task notices by a record's version that another one has written it, and
merges both.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.accounts import note_account
from airflow_provider_forge.delivery.deduplication import PointStatus
from airflow_provider_forge.delivery.head import Head, Selection, Selections
from airflow_provider_forge.delivery.record_store import RECORD_RETENTION, RecordStore
from airflow_provider_forge.delivery.records import (
    RECORD_MINUTES,
    LedgerRecord,
    record_index,
    spans_between,
)
from airflow_provider_forge.delivery.session import LedgerSession
from airflow_provider_forge.delivery.summaries import page_leases

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow_provider_forge.delivery.accounts import Account
    from airflow_provider_forge.delivery.leases import Leases
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json
    from airflow_provider_forge.payload.fingerprints import Fingerprint
    from airflow_provider_forge.state_store import StateStore

__all__ = ["Ledger", "Selection"]


class Ledger:
    """The ledger of one app and one destination.

    Args:
        store: Store of the ledger.
        name: Prefix of its keys; identifies app and destination.
        leases: Leases of its records.
        sentinel: Returns, for the name of a selection, the state store that distinguishes a lost ledger
            from a new one; None if the ledger does not outlive the task.
        account: Credentials of the delivering task; None if the destination alone identifies the account.
        now: Returns the current time, aware.
        clock: Returns a monotonic time in seconds.

    Attributes:
        records: Its records.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        leases: Leases,
        sentinel: Callable[[str], StateStore] | None = None,
        account: Account | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.name = name
        self._leases = leases
        self._account = account
        self._head = Head(
            store,
            name,
            oldest=lambda: record_index(now() - RECORD_RETENTION),
            latest=lambda: record_index(now()),
        )
        self._selections = Selections(store, self._head, sentinel=sentinel, now=now)
        self.records = RecordStore(store, self._head, now=now, clock=clock)

    @contextlib.contextmanager
    def open_session(
        self,
        points: Sequence[Fingerprint],
        selection: Selection,
        start: dt.datetime,
        end: dt.datetime,
        *,
        reread: Callable[[Collection[str]], Sequence[Fingerprint]] | None = None,
    ) -> Iterator[LedgerSession]:
        """Open the records of a window and of its points, for this task alone.

        Args:
            points: Fingerprints of the window's points.
            selection: Environments and metrics that the window was fetched for.
            start: Start of the window, inclusive.
            end: End of the window, exclusive.
            reread: Returns the fingerprints that the points would have if the given environments had been
                selected.

        Raises:
            DeliveryBusy: Another task holds a lease on one of the records.
            LedgerUnavailable: The store cannot be read.
        """
        window = spans_between(start, end)
        indexes = sorted({*window, *(point.minute // RECORD_MINUTES for point in points)})
        with self._leases.hold({*indexes, *page_leases(indexes)}):
            lost_before = self._selections.lost_before(selection)
            self._note_account()
            records = {index: self.records.load(index) for index in indexes}
            session = LedgerSession(self.records, points, selection.name, window, records, lost_before)
            if reread and session.points_with(PointStatus.NEW, PointStatus.AMBIGUOUS):
                for environments in self._overlapping(selection, records.values()):
                    session.recognize(reread(environments))
            yield session

    def has_records(self, start: dt.datetime, end: dt.datetime) -> bool:
        """Return whether every record of a window has been written before.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        return not any(self.records.load(index).is_new for index in spans_between(start, end))

    def selections(self) -> dict[str, Json]:
        """Return all selections on record, by their names, the latest last.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        return dict(
            sorted(self._head.read()["selections"].items(), key=lambda item: str(item[1].get("begun")))
        )

    def _overlapping(self, selection: Selection, records: Collection[LedgerRecord]) -> list[list[str]]:
        """Return the environments of the other selections that share some with this one.

        Args:
            selection: This one.
            records: Records in which its points may be under another selection.
        """
        if all(record.is_new for record in records):
            return []
        # A delivery that failed halfway has left points in the records, but no covered spans.
        names = {*self.selections(), *(name for record in records for name in record.covered)}
        others = {tuple(self._selections.environments(name)) for name in names - {selection.name}}
        mine = set(selection.environments)
        return [list(other) for other in sorted(others) if mine != set(other) and mine & set(other)]

    def _note_account(self) -> None:
        """Record the account, once; warn if a Connection with other credentials uses this ledger."""
        account, self._account = self._account, None
        if account is not None:
            note_account(self._head, account, salt=self.name, now=self.records.timestamp())
