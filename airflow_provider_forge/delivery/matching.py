"""Entries: the points of one metric and minute, held against what a cell says of them."""

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
    """What the ledger says of a point."""

    NEW = "not acknowledged yet"
    UNCHANGED = "acknowledged"
    CHANGED = "acknowledged with another value"
    AMBIGUOUS = "sent before, with no answer known"


class PointGroup:
    """What becomes of the points of one metric and minute, beginning with where they stand.

    Args:
        point_hashes: The points' marks, by their numbers.
        acknowledged: What the cell says the destination has.
        in_flight: What it says was on its way.
        lost: Whether there may have been another record, now lost, that said more.
        aliases: Other marks under which points may be on record, by their numbers.

    Attributes:
        statuses: Where each point stood before anything was sent.
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
        # Marks under which the cell has points of this entry, and those of points that are not in it.
        self._held: dict[int, bytes] = {}
        self._flying: dict[int, bytes] = {}
        self._other: Counter[bytes] = Counter()
        self._other_flying: Counter[bytes] = Counter()
        # Of points that cannot be told from others.
        self._unmatched: Digest | None = None
        if isinstance(acknowledged, Digest):
            self._compare_digest(acknowledged)
        else:
            self._compare_marks(acknowledged)
        self._compare_flying(in_flight)
        for number in self._order:
            self.statuses.setdefault(number, PointStatus.AMBIGUOUS if lost else PointStatus.NEW)

    def intend(self, numbers: Iterable[int]) -> None:
        """Say that these are about to be sent."""
        for number in numbers:
            self._flying[number] = self._point_hashes[number]

    def withdraw(self, numbers: Iterable[int]) -> None:
        """Say that these were not taken; what was ambiguous before stays so."""
        for number in numbers:
            if self.statuses[number] is not PointStatus.AMBIGUOUS:
                self._flying.pop(number, None)

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Say that the destination has these."""
        self._unmatched = None
        for number in numbers:
            self._held[number] = self._point_hashes[number]
            self._flying.pop(number, None)

    def write(self, group: Group, acknowledged: PointHashes, in_flight: PointHashes) -> None:
        """Put what is known now into a cell."""
        flying = self._other_flying + Counter(self._flying.values())
        acknowledged[group] = self._unmatched or self._other + Counter(self._held.values())
        in_flight[group] = flying

    def _compare_marks(self, recorded: Counter[bytes]) -> None:
        left = Counter(recorded)
        for names in self._ways():
            for number in self._order:
                point_hash = next((name for name in names[number] if left[name]), None)
                if point_hash is not None and number not in self.statuses:
                    left[point_hash] -= 1
                    self._held[number] = point_hash
                    self.statuses[number] = PointStatus.UNCHANGED
        stale = _by_key(left)
        for names in self._ways():
            for number in self._order:
                same = next((stale[_key(name)] for name in names[number] if stale[_key(name)]), None)
                if same and number not in self.statuses:
                    self._held[number] = same.pop()
                    self.statuses[number] = PointStatus.CHANGED
        self._other = Counter(point_hash for point_hashes in stale.values() for point_hash in point_hashes)

    def _ways(self) -> list[dict[int, tuple[bytes, ...]]]:
        """Return the marks by which points are looked for: each point's own goes before all aliases."""
        own: dict[int, tuple[bytes, ...]] = {
            number: (point_hash,) for number, point_hash in self._point_hashes.items()
        }
        return [own, self._aliases] if any(self._aliases.values()) else [own]

    def _compare_digest(self, recorded: Digest) -> None:
        # Points are sent in the order of their marks: what was acknowledged is the beginning of it, unless
        # something has come in between.
        first = self._order[: recorded.count]
        if Digest.of(self._point_hashes[number] for number in first) == recorded:
            for number in first:
                self._held[number] = self._point_hashes[number]
                self.statuses[number] = PointStatus.UNCHANGED
        else:
            self._unmatched = recorded
            # With more points than there were, some have never been sent.
            grown = len(self._order) > recorded.count
            status = PointStatus.AMBIGUOUS if grown else PointStatus.CHANGED
            self.statuses.update(dict.fromkeys(self._order, status))

    def _compare_flying(self, in_flight: Counter[bytes] | Digest) -> None:
        # Also one whose changed value was on its way; the others first.
        unknown = [number for number in self._order if number not in self.statuses]
        unknown += [number for number, status in self.statuses.items() if status is PointStatus.CHANGED]
        if isinstance(in_flight, Digest):
            self._flying = {number: self._point_hashes[number] for number in unknown}
        else:
            flying = _by_key(in_flight)
            here = set()
            for names in self._ways():
                for number in unknown:
                    same = next((flying[_key(name)] for name in names[number] if flying[_key(name)]), None)
                    if same and number not in self._flying:
                        self._flying[number] = same.pop()
                here |= {_key(name) for some in names.values() for name in some}
            self._other_flying = Counter(
                {point_hash: count for point_hash, count in in_flight.items() if _key(point_hash) not in here}
            )
        self.statuses.update(dict.fromkeys(self._flying, PointStatus.AMBIGUOUS))


def _key(point_hash: bytes) -> bytes:
    return point_hash[:KEY_BYTES]


def _by_key(point_hashes: Counter[bytes]) -> defaultdict[bytes, list[bytes]]:
    found: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for point_hash in sorted(point_hashes.elements(), reverse=True):
        found[_key(point_hash)].append(point_hash)
    return found
