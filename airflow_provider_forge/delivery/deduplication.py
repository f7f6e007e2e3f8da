"""Deduplication: recognizes points that a destination has already acknowledged."""

from __future__ import annotations

from collections import Counter, defaultdict
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.records import Digest
from airflow_provider_forge.payload.fingerprints import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_forge.delivery.records import Group, PointHashes

__all__ = ["PointGroup", "PointStatus"]


class PointStatus(Enum):
    """The status of a point in the ledger."""

    NEW = "not acknowledged"
    UNCHANGED = "acknowledged"
    CHANGED = "acknowledged with another value"
    AMBIGUOUS = "sent, with no response known"


class PointGroup:
    """The points of one metric and minute, and their statuses.

    Args:
        point_hashes: Hashes of the points, by their numbers in the payload.
        acknowledged: Hashes that the record lists as acknowledged.
        in_flight: Hashes that the record lists as in flight.
        lost: Whether an earlier record, now lost, may have had more hashes.
        aliases: Further hashes under which points may be on record, by their numbers.

    Attributes:
        statuses: Status of each point before anything was sent.
    """

    def __init__(
        self,
        point_hashes: Mapping[int, bytes],
        acknowledged: Counter[bytes] | Digest,
        in_flight: Counter[bytes] | Digest,
        *,
        lost: bool = False,
        aliases: Mapping[int, Sequence[bytes]] | None = None,
    ) -> None:
        self._point_hashes = point_hashes
        self._aliases = {number: tuple((aliases or {}).get(number, ())) for number in point_hashes}
        self._order = sorted(point_hashes, key=lambda number: (point_hashes[number], number))
        self.statuses: dict[int, PointStatus] = {}
        # Recorded hashes of this group's points, and those that match none of its points.
        self._acknowledged: dict[int, bytes] = {}
        self._in_flight: dict[int, bytes] = {}
        self._other_acknowledged: Counter[bytes] = Counter()
        self._other_in_flight: Counter[bytes] = Counter()
        # A recorded digest that does not match these points.
        self._unmatched: Digest | None = None
        if isinstance(acknowledged, Digest):
            self._match_digest(acknowledged)
        else:
            self._match_acknowledged(acknowledged)
        self._match_in_flight(in_flight)
        for number in self._order:
            self.statuses.setdefault(number, PointStatus.AMBIGUOUS if lost else PointStatus.NEW)

    def forget(self) -> None:
        """Forget that points were acknowledged: they are to be sent again."""
        self.statuses.update(dict.fromkeys(self._acknowledged, PointStatus.NEW))
        self._acknowledged.clear()

    def mark_in_flight(self, numbers: Iterable[int]) -> None:
        """Mark points as in flight, before they are sent."""
        for number in numbers:
            self._in_flight[number] = self._point_hashes[number]

    def mark_pending(self, numbers: Iterable[int]) -> None:
        """Mark points as pending; points that were ambiguous before stay in flight."""
        for number in numbers:
            if self.statuses[number] is not PointStatus.AMBIGUOUS:
                self._in_flight.pop(number, None)

    def mark_acknowledged(self, numbers: Iterable[int]) -> None:
        """Mark points as acknowledged."""
        self._unmatched = None
        for number in numbers:
            self._acknowledged[number] = self._point_hashes[number]
            self._in_flight.pop(number, None)

    def write(self, group: Group, acknowledged: PointHashes, in_flight: PointHashes) -> None:
        """Write the current hashes of the group into those of a record."""
        acknowledged[group] = self._unmatched or self._other_acknowledged + Counter(
            self._acknowledged.values()
        )
        in_flight[group] = self._other_in_flight + Counter(self._in_flight.values())

    def _match_acknowledged(self, recorded: Counter[bytes]) -> None:
        """Find the points that are on record with the same value, then those with another value."""
        left = Counter(recorded)
        for hashes in self._hashes_by_precedence():
            for number in self._order:
                point_hash = next((each for each in hashes[number] if left[each]), None)
                if point_hash is not None and number not in self.statuses:
                    left[point_hash] -= 1
                    self._acknowledged[number] = point_hash
                    self.statuses[number] = PointStatus.UNCHANGED
        stale = _by_key(left)
        for hashes in self._hashes_by_precedence():
            for number in self._order:
                same_key = next((stale[_key(each)] for each in hashes[number] if stale[_key(each)]), None)
                if same_key and number not in self.statuses:
                    self._acknowledged[number] = same_key.pop()
                    self.statuses[number] = PointStatus.CHANGED
        self._other_acknowledged = Counter(
            point_hash for point_hashes in stale.values() for point_hash in point_hashes
        )

    def _hashes_by_precedence(self) -> list[dict[int, tuple[bytes, ...]]]:
        """Return the hashes to look points up by: the hash of every point itself, then all aliases."""
        own: dict[int, tuple[bytes, ...]] = {
            number: (point_hash,) for number, point_hash in self._point_hashes.items()
        }
        return [own, self._aliases] if any(self._aliases.values()) else [own]

    def _match_digest(self, recorded: Digest) -> None:
        # Points are sent in the order of their hashes, so the acknowledged ones are the first, unless a new
        # point has come in between.
        first = self._order[: recorded.count]
        if Digest.of(self._point_hashes[number] for number in first) == recorded:
            for number in first:
                self._acknowledged[number] = self._point_hashes[number]
                self.statuses[number] = PointStatus.UNCHANGED
        else:
            self._unmatched = recorded
            # If there are more points than before, some have never been sent.
            has_grown = len(self._order) > recorded.count
            status = PointStatus.AMBIGUOUS if has_grown else PointStatus.CHANGED
            self.statuses.update(dict.fromkeys(self._order, status))

    def _match_in_flight(self, recorded: Counter[bytes] | Digest) -> None:
        # A changed point may have been in flight with its new value, too; the others take precedence.
        unknown = [number for number in self._order if number not in self.statuses]
        unknown += [number for number, status in self.statuses.items() if status is PointStatus.CHANGED]
        if isinstance(recorded, Digest):
            self._in_flight = {number: self._point_hashes[number] for number in unknown}
        else:
            left = _by_key(recorded)
            keys = set()
            for hashes in self._hashes_by_precedence():
                for number in unknown:
                    same_key = next((left[_key(each)] for each in hashes[number] if left[_key(each)]), None)
                    if same_key and number not in self._in_flight:
                        self._in_flight[number] = same_key.pop()
                keys |= {_key(each) for some in hashes.values() for each in some}
            self._other_in_flight = Counter(
                {point_hash: count for point_hash, count in recorded.items() if _key(point_hash) not in keys}
            )
        self.statuses.update(dict.fromkeys(self._in_flight, PointStatus.AMBIGUOUS))


def _key(point_hash: bytes) -> bytes:
    """Return the part of a point's hash that does not depend on its value."""
    return point_hash[:KEY_BYTES]


def _by_key(point_hashes: Counter[bytes]) -> defaultdict[bytes, list[bytes]]:
    found: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for point_hash in sorted(point_hashes.elements(), reverse=True):
        found[_key(point_hash)].append(point_hash)
    return found
