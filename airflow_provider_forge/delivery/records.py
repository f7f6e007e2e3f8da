"""Cells: the ledger's entries, one for each aligned five minutes, whatever windows are asked for.

A cell as JSON, with minutes counted from the cell's start and seconds likewise::

    {"version": 1, "revision": 3, "writer": "9f1c…",
     "acknowledged": {"forge_api_request_count": {"0": "<marks in base64>", "1": [5211, "<digest>"]}},
     "in_flight": {…},
     "asked": {"<selection>": [[0, 300, "delivered", 1795410000]]}}

The marks of one metric and minute are sorted, which makes equal cells equal texts. `"lost": true` says that
an earlier record of the cell was damaged. A store with small values has the marks of a large cell in values
of their own (see `spread`); above 100,000 marks a number and a digest stand for those of a metric and minute.
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
    from collections.abc import Iterable

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
    "record_index",
    "spans_between",
]

RECORD_MINUTES = 5
RECORD_SECONDS = 60 * RECORD_MINUTES
VERSION = 1

_DIGEST_SIZE = 2 ** (8 * HASH_BYTES)

Group = tuple[str, int]
"""A metric's name and a minute, counted from the epoch."""


Span = tuple[float, float]
"""A part of a cell: its beginning and its end, in seconds from the cell's start."""


def record_index(moment: dt.datetime) -> int:
    """Return the number of the cell that a moment lies in."""
    return int(moment.timestamp() // RECORD_SECONDS)


def spans_between(start: dt.datetime, end: dt.datetime) -> dict[int, Span]:
    """Return which part of which cells a window `[start, end)` covers, by the cells' numbers."""
    cells = range(record_index(start), -int(-end.timestamp() // RECORD_SECONDS))
    return {
        cell: (
            max(start.timestamp() - cell * RECORD_SECONDS, 0.0),
            min(end.timestamp() - cell * RECORD_SECONDS, float(RECORD_SECONDS)),
        )
        for cell in cells
    }


class SpanStatus(str, Enum):
    """What became of a part of a cell that was asked for."""

    DELIVERED = "delivered"
    EMPTY = "empty"
    """The gateway had nothing: no traffic, or not yet."""
    REJECTED = "rejected"
    """The receiver took the request and rejected points of it."""


class CoveredSpan(NamedTuple):
    """A part of a cell that was asked for, in seconds from its start, and when, in seconds of the epoch."""

    start: float
    end: float
    state: SpanStatus
    at: int


@dataclass(frozen=True)
class Digest:
    """A number of marks and their sum: equal sets of marks have equal ones, in whatever order."""

    count: int = 0
    total: int = 0

    @classmethod
    def of(cls, point_hashes: Iterable[bytes]) -> Digest:
        """Return the digest of a multiset of marks."""
        digest = cls()
        for point_hash in point_hashes:
            digest = digest.plus(point_hash)
        return digest

    def plus(self, point_hash: bytes) -> Digest:
        """Return the digest with one mark more."""
        return Digest(self.count + 1, (self.total + int.from_bytes(point_hash, "big")) % _DIGEST_SIZE)


PointHashes = dict[Group, "Counter[bytes] | Digest"]
"""What is remembered of the points of each metric and minute: a multiset of marks, or its digest."""


@dataclass
class LedgerRecord:
    """One entry.

    Attributes:
        acknowledged: What the destination has.
        in_flight: What was on its way when this was written: no answer is known.
        asked: What was asked for, by the selection of environments and metrics.
        version: How often it was written, and by whom last.
        lost: Whether an earlier record of it was damaged: what nobody has asked for since may be delivered.
        damaged: Whether there was an entry that could not be read, or not all of it.
    """

    acknowledged: PointHashes = field(default_factory=dict)
    in_flight: PointHashes = field(default_factory=dict)
    asked: dict[str, list[CoveredSpan]] = field(default_factory=dict)
    version: tuple[int, str] = (0, "")
    lost: bool = False
    damaged: bool = False

    @property
    def digested(self) -> bool:
        """Whether points are known by a digest only."""
        return any(isinstance(point_hashes, Digest) for point_hashes in self.acknowledged.values())

    @property
    def is_new(self) -> bool:
        """Whether nobody has ever written it."""
        return not self.version[0] and not self.damaged

    def covers(self, selection: str, part: Span, state: SpanStatus | None = None) -> bool:
        """Tell whether it is known that this part was asked for, with this outcome or with any."""
        start, end = part
        return any(
            known.start <= start and end <= known.end and state in (None, known.state)
            for known in self.asked.get(selection, ())
        )

    def rejected_at(self, selection: str, part: Span) -> int | None:
        """Return when points of this part were last rejected; None for never."""
        start, end = part
        times = [
            known.at
            for known in self.asked.get(selection, ())
            if known.state is SpanStatus.REJECTED and known.start < end and start < known.end
        ]
        return max(times, default=None)

    def note(self, selection: str, asked: CoveredSpan) -> None:
        """Remember that a part was asked for; it takes the place of what it covers."""
        kept = []
        for earlier in self.asked.get(selection, ()):
            if earlier.start < asked.start:
                kept.append(earlier._replace(end=min(earlier.end, asked.start)))
            if earlier.end > asked.end:
                kept.append(earlier._replace(start=max(earlier.start, asked.end)))
        self.asked[selection] = sorted([*kept, asked])

    def copy(self) -> LedgerRecord:
        """Return a cell that can be changed without changing this one."""
        return replace(
            self,
            acknowledged=dict(self.acknowledged),
            in_flight=dict(self.in_flight),
            asked={selection: list(parts) for selection, parts in self.asked.items()},
        )

    def merged(self, earlier: LedgerRecord) -> LedgerRecord:
        """Return this cell with all that another one knows besides.

        Args:
            earlier: What was read before another writer wrote this one, which may not have seen all of it.
        """
        both = self.copy()
        _add_marks(both.acknowledged, earlier.acknowledged)
        _add_marks(both.in_flight, earlier.in_flight)
        for selection, parts in earlier.asked.items():
            for part in parts:
                if not self.covers(selection, part[:2]):
                    both.note(selection, part)
        both.version = max(self.version, (earlier.version[0], ""))
        both.lost = self.lost or self.damaged or earlier.lost
        return both

    def compress(self, largest: int, start: int) -> None:
        """Put digests in the place of marks, those of the largest groups first, until it fits.

        Args:
            largest: Size of the JSON text as Python's own encoder writes it, in letters.
            start: The cell's start, in minutes of the epoch.
        """
        excess = len(json.dumps(self.to_json(start))) - largest
        groups = [
            (point_hashes.total(), group, which)
            for which in (self.acknowledged, self.in_flight)
            for group, point_hashes in which.items()
            if isinstance(point_hashes, Counter)
        ]
        for count, group, which in sorted(groups, key=lambda entry: entry[:2], reverse=True):
            saved = count * _LETTERS_PER_MARK - _LETTERS_PER_DIGEST
            if excess <= 0 or saved <= 0:
                return
            point_hashes = which[group]
            which[group] = Digest.of(point_hashes.elements() if isinstance(point_hashes, Counter) else ())
            excess -= saved

    def to_json(self, start: int) -> dict[str, Any]:
        """Return it as JSON; `start` is the cell's start, in minutes of the epoch."""
        return {
            "version": VERSION,
            "revision": self.version[0],
            "writer": self.version[1],
            "acknowledged": _marks_to_json(self.acknowledged, start),
            "in_flight": _marks_to_json(self.in_flight, start),
            "asked": {key: [[*part] for part in parts] for key, parts in sorted(self.asked.items())},
            **({"lost": True} if self.lost else {}),
        }

    @classmethod
    def from_json(cls, content: Any, start: int) -> LedgerRecord:
        """Read it back.

        Raises:
            ValueError: It is not what `to_json` writes.
        """
        try:
            if content["version"] != VERSION or isinstance(content["version"], bool):
                raise ValueError(f"it is of version {content['version']}")
            return cls(
                acknowledged=_marks_from_json(content["acknowledged"], start),
                in_flight=_marks_from_json(content["in_flight"], start),
                asked={
                    key: [_asked_from_json(part) for part in parts] for key, parts in content["asked"].items()
                },
                version=(_number(content["revision"]), str(content["writer"])),
                lost=bool(content.get("lost")),
                damaged=bool(content.get("torn")),
            )
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


_LETTERS_PER_MARK = HASH_BYTES * 4 // 3
_LETTERS_PER_DIGEST = 2 * HASH_BYTES + 16

_MOST = 2**53
"""Above this, JSON's numbers are whole by chance only: no count or time is as large."""


_OFFSETS = frozenset(map(str, range(RECORD_MINUTES)))


def _number(value: Any) -> int:
    """Return a count or a time.

    Raises:
        ValueError: It is none.
    """
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _asked_from_json(part: Any) -> CoveredSpan:
    first, last, state, at = part
    if bool in (type(first), type(last)) or not 0 <= first < last <= RECORD_SECONDS:  # nor NaN
        raise ValueError(f"{first!r:.40} to {last!r:.40} is no part of a cell")
    return CoveredSpan(float(first), float(last), SpanStatus(state), _number(at))


def _add_marks(point_hashes: PointHashes, others: PointHashes) -> None:
    """Add what others have more of; a digest that is there already cannot be added to."""
    for group, other in others.items():
        mine = point_hashes.get(group)
        if not mine:
            point_hashes[group] = other
        elif isinstance(mine, Counter) and isinstance(other, Counter):
            point_hashes[group] = mine | other


def _marks_to_json(point_hashes: PointHashes, start: int) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = {}
    for (metric, minute), group in sorted(point_hashes.items()):
        if isinstance(group, Digest):
            content.setdefault(metric, {})[str(minute - start)] = [group.count, f"{group.total:x}"]
        elif group:
            packed = base64.b64encode(b"".join(sorted(group.elements()))).decode()
            content.setdefault(metric, {})[str(minute - start)] = packed
    return content


def _marks_from_json(content: dict[str, dict[str, Any]], start: int) -> PointHashes:
    point_hashes: PointHashes = {}
    for metric, minutes in content.items():
        for offset, group in minutes.items():
            if offset not in _OFFSETS:
                raise ValueError(f"{offset!r:.40} is no minute of a cell")
            minute = start + int(offset)
            if isinstance(group, str):
                packed = base64.b64decode(group, validate=True)
                if len(packed) % HASH_BYTES:
                    raise ValueError(f"{len(packed)} bytes are no marks")
                size = range(0, len(packed), HASH_BYTES)
                point_hashes[metric, minute] = Counter(packed[at : at + HASH_BYTES] for at in size)
            else:
                count, total = group
                point_hashes[metric, minute] = Digest(_number(count), int(total, 16) % _DIGEST_SIZE)
    return point_hashes
