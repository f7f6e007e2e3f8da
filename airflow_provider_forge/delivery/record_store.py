"""Loads and saves the ledger's records, in several values if a record is too large for one.

A record that exceeds the store's size limit is split into chunks. The record then lists its chunks by their
hashes, oldest minute first::

    {"version": 2, "revision": 3, "writer": "9f1c…", "asked": {…}, "parts": ["5e1f…", …]}

Each chunk is a value of its own, with the key `<key of the record>-<hash>`, and can be read by itself::

    {"acknowledged": {"forge_api_request_count": {"0": "<point hashes in base64>"}}, "in_flight": {}}

New chunks are written first, then the record; chunks that it no longer lists are deleted last. A task killed
in between therefore leaves the old record or the new one, and at worst some unused chunks. Chunks never
change, so a late point costs two writes: one chunk and the record.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeGuard

from airflow_provider_forge.delivery.record_retention import (
    due_records,
    is_kept,
    with_record,
    without_records,
)
from airflow_provider_forge.delivery.records import (
    RECORD_MINUTES,
    RECORD_SECONDS,
    LedgerRecord,
    record_index,
)
from airflow_provider_forge.delivery.summaries import RecordSummary, SummaryIndex
from airflow_provider_forge.exceptions import LedgerUnavailable
from airflow_provider_forge.otlp.messages import canonical
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from airflow_provider_forge.delivery.head import Head
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.delivery.summaries import Summaries
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["MAX_CHUNKS", "RECORD_RETENTION", "ChunkedStore", "RecordStore"]

log = get_logger(__name__)

RECORD_RETENTION = dt.timedelta(days=15)
"""Time after its window, and after a replay has written it, at which a record is deleted: one day more than
the gateway keeps metrics."""

ALMOST_FULL = 0.8
"""Share of a record's maximum size from which a warning is logged."""

PRUNE_LIMIT = 24
"""Maximum number of old records deleted after a window: more than a window adds, so a backlog shrinks."""

MAX_CHUNKS = 25
"""Maximum number of full chunks of a record, some 100,000 points. Reading or writing each is a round trip."""

VERSION = 2
KINDS = ("acknowledged", "in_flight")

_READERS = 16
"""Number of records read concurrently: a bucket takes about 20 ms for each."""

_LETTERS_PER_HASH = 16
_ENVELOPE = 64
"""Characters of a chunk besides its groups."""
_GROUP = 24
"""Characters of a group besides the metric's name and the point hashes."""
_TRIES = 3


class RecordStore:
    """The records of one ledger.

    Args:
        store: Store of the ledger.
        head: Head of the ledger.
        now: Returns the current time, aware.
        clock: Returns a monotonic time in seconds.

    Attributes:
        writer: Id of this writer; each record names its last one.
        index: Summaries of its records.
    """

    def __init__(
        self,
        store: Store,
        head: Head,
        *,
        now: Callable[[], dt.datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.clock = clock
        self.writer = uuid.uuid4().hex[:12]
        self._head = head
        self._now = now
        self._chunked = ChunkedStore(store)
        self.index = SummaryIndex(
            store, head, oldest=self._horizon, latest=lambda: record_index(now()), load=self._summaries
        )

    def load(self, index: int) -> LedgerRecord:
        """Return a record; a new one if there is none.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        return self._read(index, self._chunked)

    def _read(self, index: int, chunked: ChunkedStore) -> LedgerRecord:
        content = chunked.get(self._key(index))
        if content is None:
            return LedgerRecord()
        try:
            record, problem = LedgerRecord.from_json(content, index * RECORD_MINUTES), "a chunk is missing"
        except ValueError as error:
            record, problem = LedgerRecord(damaged=True, lost=True), str(error)
        if record.damaged:
            log.warning(
                "The ledger's record %s is damaged (%.200s) and counts as lost", self._key(index), problem
            )
        return record

    def _summaries(self, indexes: Collection[int]) -> Summaries:
        """Return the summaries of records, by their indexes."""

        def summary(index: int) -> RecordSummary:
            # By a reader of its own, which does not keep its chunks: the record is not written.
            return RecordSummary.of(self._read(index, ChunkedStore(self.store)))

        if not indexes:
            return {}
        with ThreadPoolExecutor(_READERS) as readers:
            return dict(zip(indexes, readers.map(summary, indexes), strict=True))

    def save(self, index: int, record: LedgerRecord) -> None:
        """Write a record.

        Raises:
            LedgerUnavailable: The store cannot be written.
            ValueReplaced: Another task has written the record since it was loaded.
        """
        record.version = (record.version[0] + 1, self.writer)
        start, max_size = index * RECORD_MINUTES, MAX_CHUNKS * (self.store.largest or 0)
        content = record.to_json(start)
        if self._chunked.is_too_large(content):
            if len(json.dumps(content)) > ALMOST_FULL * max_size:
                self._warn_of_size(index)
                record.compress(max_size, start)
                content = record.to_json(start)
            self._note_chunks(index)
        if index < self._horizon():
            self._note_replay(index)
        self._chunked.set(self._key(index), content)

    def prune(self, written: Collection[int]) -> None:
        """Delete records that have outlived the gateway's metrics.

        Args:
            written: Indexes of the records just written.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        head = self._head.read()
        horizon = self._horizon()
        oldest = min([head["oldest"], *(index for index in written if index >= horizon)])
        expired = range(oldest, min(horizon, oldest + PRUNE_LIMIT))
        replayed = due_records(head.get("replayed", []), self._today(), RECORD_RETENTION.days, PRUNE_LIMIT)
        for index in [*expired, *replayed]:
            if not is_kept(head.get("replayed", []), index, self._today(), RECORD_RETENTION.days):
                # Looking for chunks costs a round trip.
                delete = self._chunked.delete if index <= head.get("spread", -1) else self.store.delete
                delete(self._key(index))
        if expired or oldest < head["oldest"]:
            self._head.change(lambda head: {**head, "oldest": oldest + len(expired)})
        if replayed:
            self._head.change(lambda head: self._without(head, replayed))

    def _without(self, head: Json, indexes: list[int]) -> Json:
        """Return the head without replayed records that have been deleted."""
        left = without_records(head.get("replayed", []), indexes, self._today(), RECORD_RETENTION.days)
        return {**head, "replayed": left}

    def _note_replay(self, index: int) -> None:
        """Note in the head that an old record is about to be written, so that it is kept, and pruned."""

        def change(head: Json) -> Json:
            return {**head, "replayed": with_record(head.get("replayed", []), index, self._today())}

        head = self._head.read()
        if _as_lists(change(head)["replayed"]) != _as_lists(head.get("replayed", [])):
            self._head.change(change)

    def _today(self) -> int:
        return int(self._now().timestamp() // 86400)

    def timestamp(self) -> int:
        """Return the current time, in seconds since the epoch."""
        return int(self._now().timestamp())

    def _horizon(self) -> int:
        """Return the index of the oldest record that is kept."""
        return record_index(self._now() - RECORD_RETENTION)

    def _warn_of_size(self, index: int) -> None:
        log.warning(
            "The record %s holds almost as many points as %s can take, some 100,000 in five minutes. Beyond"
            " that, points are recorded by a digest only, and a late point makes its whole minute ambiguous:"
            " set the OTLP Connection's extra ledger_url",
            self._key(index),
            self.store.name,
        )

    def _note_chunks(self, index: int) -> None:
        """Note in the head that a record has chunks, before they are written, so that all are pruned."""
        if index > self._head.read().get("spread", -1):
            self._head.change(lambda head: {**head, "spread": max(index, head.get("spread", -1))})

    def _key(self, index: int) -> str:
        start = dt.datetime.fromtimestamp(index * RECORD_SECONDS, dt.timezone.utc)
        return f"{self._head.name}/{start:%Y%m%dT%H%MZ}"


class ChunkedStore:
    """Stores records of any size in a store that limits the size of a value.

    Args:
        store: That store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # Chunks known to exist, by the key of their record. They never change.
        self._chunks: dict[str, dict[str, Json]] = {}

    def is_too_large(self, content: Json) -> bool:
        """Return whether a record does not fit into one value."""
        largest = self._store.largest
        return largest is not None and len(json.dumps(content)) > largest

    def get(self, key: str) -> Json | None:
        """Return a record as if it were in one value; None if there is none.

        If chunks are missing, the record has those that exist, the field `torn`, and no covered spans.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        content = self._store.get(key)
        for _ in range(_TRIES):
            if content is None or "parts" not in content:
                self._chunks.pop(key, None)
                return content
            chunks = self._read_chunks(key, content["parts"])
            if chunks is not None and None not in chunks:
                break
            # Another task may just have replaced them.
            again = self._store.get(key)
            if again == content:
                break
            content = again
        return _join(content, chunks) if content else content

    def set(self, key: str, content: Json) -> None:
        """Replace the record that was read last.

        Raises:
            LedgerUnavailable: The store cannot be written.
        """
        before = self._chunks.get(key, {})
        if not self.is_too_large(content):
            self._store.set(key, content)
            self._chunks.pop(key, None)
            self._delete_chunks(key, before)
            return
        chunks = {_hash(chunk): chunk for chunk in self._split(content)}
        for name, chunk in chunks.items():
            if name not in before:
                self._store.set(f"{key}-{name}", chunk)
        rest = {field: value for field, value in content.items() if field not in KINDS}
        self._store.set(key, {**rest, "version": VERSION, "parts": list(chunks)})
        self._chunks[key] = chunks
        self._delete_chunks(key, before.keys() - chunks.keys())

    def delete(self, key: str) -> None:
        """Delete a record with its chunks.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        content = self._store.get(key) or {}
        names = content.get("parts")
        for name in names if _are_names(names) else ():
            self._store.delete(f"{key}-{name}")
        self._store.delete(key)

    def _read_chunks(self, key: str, names: Any) -> list[Json | None] | None:
        """Return the chunks, with None for each that is missing or has another hash.

        None as a whole means that `names` is not a list of names.
        """
        if not _are_names(names):
            return None
        known = self._chunks.get(key, {})
        found = {}
        for name in names:
            chunk = known.get(name) or self._store.get(f"{key}-{name}")
            if chunk is not None and _hash(chunk) == name:
                found[name] = chunk
        self._chunks[key] = found
        return [found.get(name) for name in names]

    def _delete_chunks(self, key: str, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._store.delete(f"{key}-{name}")
            except LedgerUnavailable as error:  # no record lists it any more, so nothing depends on it
                log.info("An unused chunk of the ledger's record %s was not deleted: %s", key, error)

    def _split(self, content: Json) -> Iterator[Json]:
        """Split a record into chunks, each of one minute and within the store's limit."""
        room = (self._store.largest or 0) - _ENVELOPE
        chunk, minute, left = _empty(), "", room
        for offset, kind, metric, group in sorted(_groups(content), key=lambda each: each[:3]):
            overhead = len(json.dumps(metric)) + _GROUP
            for piece in _split_group(group, room - overhead):
                size = overhead + len(json.dumps(piece))
                if any(chunk.values()) and (offset != minute or size > left):
                    yield chunk
                    chunk, left = _empty(), room
                chunk[kind].setdefault(metric, {})[offset] = piece
                minute, left = offset, left - size
        yield chunk


def _as_lists(ranges: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return ranges as JSON has them."""
    return [list(each) for each in ranges]


def _groups(content: Json) -> Iterator[tuple[str, str, str, Any]]:
    for kind in KINDS:
        for metric, minutes in content[kind].items():
            for offset, group in minutes.items():
                yield offset, kind, metric, group


def _split_group(group: Any, room: int) -> Iterator[Any]:
    """Split the point hashes of a group into parts of whole hashes; a digest is small."""
    if not isinstance(group, str):
        yield group
        return
    size = max(room // _LETTERS_PER_HASH, 1) * _LETTERS_PER_HASH
    for at in range(0, len(group), size):
        yield group[at : at + size]


def _join(content: Json, chunks: list[Json | None] | None) -> Json:
    """Return a record with the point hashes of its chunks."""
    joined: Json = {field: value for field, value in content.items() if field != "parts"}
    if content.get("version") == VERSION:
        joined["version"] = VERSION - 1
    joined |= _empty()
    for chunk in chunks or ():
        for offset, kind, metric, group in _groups(chunk or _empty()):
            minutes = joined[kind].setdefault(metric, {})
            earlier = minutes.get(offset, "")
            minutes[offset] = earlier + group if isinstance(group, str) else group
    if chunks is None or None in chunks:
        joined |= {"torn": True, "lost": True, "asked": {}}
    return joined


def _empty() -> Json:
    return {kind: {} for kind in KINDS}


def _hash(chunk: Json) -> str:
    return hashlib.blake2b(canonical(chunk), digest_size=8).hexdigest()


def _are_names(names: Any) -> TypeGuard[list[str]]:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)
