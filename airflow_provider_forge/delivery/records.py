"""Ledger records: one for each aligned five minutes, independent of the windows.

A record in JSON, with minutes and seconds counted from its start::

    {"version": 1, "revision": 3, "writer": "9f1c…",
     "acknowledged": {"forge_api_request_count": {"0": "<point hashes in base64>", "1": [5211, "<digest>"]}},
     "in_flight": {…},
     "asked": {"<selection>": [[0, 300, "delivered", 1795410000]]},
     "attempts": 1, "first": 1795410000, "latest": 1795409999}

`attempts`, `first` and `latest` are for reports, and missing in records of earlier versions. The point hashes
of one metric and minute are sorted, so equal records are equal texts. `"lost": true` means that an earlier
version of the record was damaged. If a store limits the size of a value, the point hashes of a large record
are in values of their own (see `record_store`). Above 100,000 points, those of a metric and minute may be
replaced by their number and a digest.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_forge.payload.fingerprints import HASH_BYTES

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

__all__ = [
    "RECORD_MINUTES",
    "RECORD_SECONDS",
    "CoveredSpan",
    "Digest",
    "Group",
    "LedgerRecord",
    "PointHashes",
    "Span",
    "SpanStatus",
    "covered_from_json",
    "covered_to_json",
    "number",
    "record_index",
    "rejected_at",
    "spans_between",
]

RECORD_MINUTES = 5
RECORD_SECONDS = 60 * RECORD_MINUTES
VERSION = 1

_DIGEST_SIZE = 2 ** (8 * HASH_BYTES)

Group = tuple[str, int]
"""A metric's name and a minute, counted from the epoch."""


Span = tuple[float, float]
"""A part of a record's five minutes: its start and its end, in seconds from the record's start."""


def record_index(time: dt.datetime) -> int:
    """Return the index of the record that a time belongs to: five minutes, counted from the epoch."""
    return int(time.timestamp() // RECORD_SECONDS)


def spans_between(start: dt.datetime, end: dt.datetime) -> dict[int, Span]:
    """Return the spans that a window `[start, end)` covers, by the indexes of their records."""
    indexes = range(record_index(start), -int(-end.timestamp() // RECORD_SECONDS))
    return {
        index: (
            max(start.timestamp() - index * RECORD_SECONDS, 0.0),
            min(end.timestamp() - index * RECORD_SECONDS, float(RECORD_SECONDS)),
        )
        for index in indexes
    }


class SpanStatus(str, Enum):
    """The status of a span that was fetched."""

    DELIVERED = "delivered"
    EMPTY = "empty"
    """The gateway had no points: there was no traffic, or its data was late."""
    REJECTED = "rejected"
    """The receiver acknowledged the request and rejected some of its points."""


class CoveredSpan(NamedTuple):
    """A span that was fetched, with its status.

    Attributes:
        start: Start in seconds from the record's start.
        end: End in seconds from the record's start, exclusive.
        status: Its status.
        at: Time at which it got this status, in seconds since the epoch.
    """

    start: float
    end: float
    status: SpanStatus
    at: int


@dataclass(frozen=True)
class Digest:
    """The number of some point hashes and their sum, which do not depend on their order."""

    count: int = 0
    total: int = 0

    @classmethod
    def of(cls, point_hashes: Iterable[bytes]) -> Digest:
        """Return the digest of a multiset of point hashes."""
        digest = cls()
        for point_hash in point_hashes:
            digest = digest.plus(point_hash)
        return digest

    def plus(self, point_hash: bytes) -> Digest:
        """Return the digest with one more point hash."""
        return Digest(self.count + 1, (self.total + int.from_bytes(point_hash, "big")) % _DIGEST_SIZE)


PointHashes = dict[Group, "Counter[bytes] | Digest"]
"""The points of each metric and minute: a multiset of point hashes, or its digest."""


@dataclass
class LedgerRecord:
    """One record.

    Attributes:
        acknowledged: Points that the destination has acknowledged.
        in_flight: Points that were being sent when the record was written; no response is known.
        covered: Spans that were fetched, by the name of their selection of environments and metrics.
        version: Number of times that the record was written, and its last writer.
        lost: Whether an earlier version was damaged: points outside the covered spans may have been
            delivered.
        damaged: Whether the record could not be read, or not completely.
        attempts: Number of deliveries that have written it; 0 if unknown.
        first: Time at which a span of it was first covered, in seconds since the epoch; 0 if unknown.
        latest: Time at which the destination acknowledged its latest new points; 0 if unknown.
        resent_by: Identity of the last delivery that sent all points again; empty if there was none.
    """

    acknowledged: PointHashes = field(default_factory=dict)
    in_flight: PointHashes = field(default_factory=dict)
    covered: dict[str, list[CoveredSpan]] = field(default_factory=dict)
    version: tuple[int, str] = (0, "")
    lost: bool = False
    damaged: bool = False
    attempts: int = 0
    first: int = 0
    latest: int = 0
    resent_by: str = ""

    @property
    def points(self) -> int:
        """Number of acknowledged points."""
        return sum(
            each.count if isinstance(each, Digest) else each.total() for each in self.acknowledged.values()
        )

    @property
    def digested(self) -> bool:
        """Whether there is only a digest of some acknowledged points."""
        return any(isinstance(point_hashes, Digest) for point_hashes in self.acknowledged.values())

    @property
    def is_new(self) -> bool:
        """Whether it has never been written."""
        return not self.version[0] and not self.damaged

    def covers(self, selection: str, span: Span, status: SpanStatus | None = None) -> bool:
        """Return whether a span was fetched as a whole, with this status or, if None, with any."""
        start, end = span
        return any(
            known.start <= start and end <= known.end and status in (None, known.status)
            for known in self.covered.get(selection, ())
        )

    def rejected_at(self, selection: str, span: Span) -> int | None:
        """Return when points of a span were last rejected, in seconds since the epoch; None for never."""
        return rejected_at(self.covered.get(selection, ()), span)

    def cover(self, selection: str, span: CoveredSpan) -> None:
        """Add a covered span in place of those that it overlaps."""
        kept = []
        for earlier in self.covered.get(selection, ()):
            if earlier.start < span.start:
                kept.append(earlier._replace(end=min(earlier.end, span.start)))
            if earlier.end > span.end:
                kept.append(earlier._replace(start=max(earlier.start, span.end)))
        self.covered[selection] = sorted([*kept, span])

    def copy(self) -> LedgerRecord:
        """Return a copy that can be changed independently."""
        return replace(
            self,
            acknowledged=dict(self.acknowledged),
            in_flight=dict(self.in_flight),
            covered={selection: list(spans) for selection, spans in self.covered.items()},
        )

    def merged(self, earlier: LedgerRecord) -> LedgerRecord:
        """Return this record with everything that an earlier one has in addition.

        Args:
            earlier: Record read before another writer wrote this one, perhaps without having seen all of it.
        """
        both = self.copy()
        _add_point_hashes(both.acknowledged, earlier.acknowledged)
        _add_point_hashes(both.in_flight, earlier.in_flight)
        for selection, spans in earlier.covered.items():
            for span in spans:
                if not self.covers(selection, span[:2]):
                    both.cover(selection, span)
        both.version = max(self.version, (earlier.version[0], ""))
        both.lost = self.lost or self.damaged or earlier.lost
        both.attempts = max(self.attempts, earlier.attempts)
        both.first = min(filter(None, (self.first, earlier.first)), default=0)
        both.latest = max(self.latest, earlier.latest)
        both.resent_by = self.resent_by or earlier.resent_by
        return both

    def compress(self, max_size: int, start: int) -> None:
        """Replace point hashes by digests, largest groups first, until the record fits.

        Args:
            max_size: Maximum number of characters of the JSON text as Python's own encoder writes it.
            start: Start of the record, in minutes since the epoch.
        """
        excess = len(json.dumps(self.to_json(start))) - max_size
        hashed = [
            (point_hashes.total(), group, groups)
            for groups in (self.acknowledged, self.in_flight)
            for group, point_hashes in groups.items()
            if isinstance(point_hashes, Counter)
        ]
        for count, group, groups in sorted(hashed, key=lambda each: each[:2], reverse=True):
            saved = count * _LETTERS_PER_HASH - _LETTERS_PER_DIGEST
            if excess <= 0 or saved <= 0:
                return
            point_hashes = groups[group]
            groups[group] = Digest.of(point_hashes.elements() if isinstance(point_hashes, Counter) else ())
            excess -= saved

    def to_json(self, start: int) -> dict[str, Any]:
        """Return the record as JSON; `start` is its start, in minutes since the epoch."""
        return {
            "version": VERSION,
            "revision": self.version[0],
            "writer": self.version[1],
            "acknowledged": _point_hashes_to_json(self.acknowledged, start),
            "in_flight": _point_hashes_to_json(self.in_flight, start),
            "asked": covered_to_json(self.covered),
            **({"lost": True} if self.lost else {}),
            **({"resent_by": self.resent_by} if self.resent_by else {}),
            **{name: value for name in _REPORTED if (value := getattr(self, name))},
        }

    @classmethod
    def from_json(cls, content: Any, start: int) -> LedgerRecord:
        """Return the record of a JSON object.

        Raises:
            ValueError: `to_json` does not write such an object.
        """
        try:
            if content["version"] != VERSION or isinstance(content["version"], bool):
                raise ValueError(f"it has version {content['version']}")
            return cls(
                acknowledged=_point_hashes_from_json(content["acknowledged"], start),
                in_flight=_point_hashes_from_json(content["in_flight"], start),
                covered=covered_from_json(content["asked"]),
                version=(number(content["revision"]), str(content["writer"])),
                lost=bool(content.get("lost")),
                damaged=bool(content.get("torn")),
                resent_by=str(content.get("resent_by", "")),
                **{name: number(content.get(name, 0)) for name in _REPORTED},
            )
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


_REPORTED = ("attempts", "first", "latest")

_LETTERS_PER_HASH = HASH_BYTES * 4 // 3
_LETTERS_PER_DIGEST = 2 * HASH_BYTES + 16

_MAX_NUMBER = 2**53
"""JSON numbers above this are not exact; no count or time is as large."""

_OFFSETS = frozenset(map(str, range(RECORD_MINUTES)))


def number(value: Any) -> int:
    """Return a count or a time.

    Raises:
        ValueError: The value is neither.
    """
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"{value!r:.40} is not a count")
    return value


def rejected_at(covered: Iterable[CoveredSpan], span: Span) -> int | None:
    """Return when points of a span were last rejected, in seconds since the epoch; None for never."""
    start, end = span
    times = [
        known.at
        for known in covered
        if known.status is SpanStatus.REJECTED and known.start < end and start < known.end
    ]
    return max(times, default=None)


def covered_to_json(covered: Mapping[str, Iterable[CoveredSpan]]) -> dict[str, Any]:
    """Return covered spans as JSON."""
    return {name: [[*span] for span in spans] for name, spans in sorted(covered.items())}


def covered_from_json(content: Any) -> dict[str, list[CoveredSpan]]:
    """Return the covered spans of a JSON object.

    Raises:
        AttributeError, TypeError, ValueError: `covered_to_json` does not write such an object.
    """
    return {name: [_span_from_json(span) for span in spans] for name, spans in content.items()}


def _span_from_json(span: Any) -> CoveredSpan:
    start, end, status, at = span
    if bool in (type(start), type(end)) or not 0 <= start < end <= RECORD_SECONDS:  # nor NaN
        raise ValueError(f"{start!r:.40} to {end!r:.40} is not a span of a record")
    return CoveredSpan(float(start), float(end), SpanStatus(status), number(at))


def _add_point_hashes(point_hashes: PointHashes, others: PointHashes) -> None:
    """Add the point hashes that only `others` has. Nothing can be added to a digest."""
    for group, other in others.items():
        mine = point_hashes.get(group)
        if not mine:
            point_hashes[group] = other
        elif isinstance(mine, Counter) and isinstance(other, Counter):
            point_hashes[group] = mine | other


def _point_hashes_to_json(point_hashes: PointHashes, start: int) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = {}
    for (metric, minute), group in sorted(point_hashes.items()):
        if isinstance(group, Digest):
            content.setdefault(metric, {})[str(minute - start)] = [group.count, f"{group.total:x}"]
        elif group:
            packed = base64.b64encode(b"".join(sorted(group.elements()))).decode()
            content.setdefault(metric, {})[str(minute - start)] = packed
    return content


def _point_hashes_from_json(content: dict[str, dict[str, Any]], start: int) -> PointHashes:
    point_hashes: PointHashes = {}
    for metric, minutes in content.items():
        for offset, group in minutes.items():
            if offset not in _OFFSETS:
                raise ValueError(f"{offset!r:.40} is not a minute of a record")
            minute = start + int(offset)
            if isinstance(group, str):
                packed = base64.b64decode(group, validate=True)
                if len(packed) % HASH_BYTES:
                    raise ValueError(f"{len(packed)} bytes are not point hashes")
                size = range(0, len(packed), HASH_BYTES)
                point_hashes[metric, minute] = Counter(packed[at : at + HASH_BYTES] for at in size)
            else:
                count, total = group
                point_hashes[metric, minute] = Digest(number(count), int(total, 16) % _DIGEST_SIZE)
    return point_hashes
