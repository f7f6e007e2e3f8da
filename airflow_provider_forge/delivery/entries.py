"""Entries: the points of one metric and minute, held against what a cell says of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.cells import Digest
from airflow_provider_forge.delivery.fingerprints import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_forge.delivery.cells import Group, Marks

__all__ = ["Entry", "Standing"]


class Standing(Enum):
    """What the ledger says of a point."""

    NEW = "not acknowledged yet"
    UNCHANGED = "acknowledged"
    CHANGED = "acknowledged with another value"
    AMBIGUOUS = "sent before, with no answer known"


class Entry:
    """What becomes of the points of one metric and minute, beginning with where they stand.

    Args:
        marks: The points' marks, by their numbers.
        acknowledged: What the cell says the destination has.
        in_flight: What it says was on its way.
        lost: Whether there may have been another record, now lost, that said more.
        aliases: Other marks under which points may be on record, by their numbers.

    Attributes:
        standings: Where each point stood before anything was sent.
    """

    def __init__(
        self,
        marks: Mapping[int, bytes],
        acknowledged: Counter[bytes] | Digest,
        in_flight: Counter[bytes] | Digest,
        *,
        lost: bool = False,
        aliases: Mapping[int, Sequence[bytes]] | None = None,
    ) -> None:
        self._marks = marks
        self._aliases = {number: tuple((aliases or {}).get(number, ())) for number in marks}
        self._order = sorted(marks, key=lambda number: (marks[number], number))
        self.standings: dict[int, Standing] = {}
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
            self.standings.setdefault(number, Standing.AMBIGUOUS if lost else Standing.NEW)

    def intend(self, numbers: Iterable[int]) -> None:
        """Say that these are about to be sent."""
        for number in numbers:
            self._flying[number] = self._marks[number]

    def withdraw(self, numbers: Iterable[int]) -> None:
        """Say that these were not taken; what was ambiguous before stays so."""
        for number in numbers:
            if self.standings[number] is not Standing.AMBIGUOUS:
                self._flying.pop(number, None)

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Say that the destination has these."""
        self._unmatched = None
        for number in numbers:
            self._held[number] = self._marks[number]
            self._flying.pop(number, None)

    def write(self, group: Group, acknowledged: Marks, in_flight: Marks) -> None:
        """Put what is known now into a cell."""
        flying = self._other_flying + Counter(self._flying.values())
        acknowledged[group] = self._unmatched or self._other + Counter(self._held.values())
        in_flight[group] = flying

    def _compare_marks(self, recorded: Counter[bytes]) -> None:
        left = Counter(recorded)
        for names in self._ways():
            for number in self._order:
                mark = next((name for name in names[number] if left[name]), None)
                if mark is not None and number not in self.standings:
                    left[mark] -= 1
                    self._held[number] = mark
                    self.standings[number] = Standing.UNCHANGED
        stale = _by_key(left)
        for names in self._ways():
            for number in self._order:
                same = next((stale[_key(name)] for name in names[number] if stale[_key(name)]), None)
                if same and number not in self.standings:
                    self._held[number] = same.pop()
                    self.standings[number] = Standing.CHANGED
        self._other = Counter(mark for marks in stale.values() for mark in marks)

    def _ways(self) -> list[dict[int, tuple[bytes, ...]]]:
        """Return the marks by which points are looked for: each point's own goes before all aliases."""
        own: dict[int, tuple[bytes, ...]] = {number: (mark,) for number, mark in self._marks.items()}
        return [own, self._aliases] if any(self._aliases.values()) else [own]

    def _compare_digest(self, recorded: Digest) -> None:
        # Points are sent in the order of their marks: what was acknowledged is the beginning of it, unless
        # something has come in between.
        first = self._order[: recorded.count]
        if Digest.of(self._marks[number] for number in first) == recorded:
            for number in first:
                self._held[number] = self._marks[number]
                self.standings[number] = Standing.UNCHANGED
        else:
            self._unmatched = recorded
            # With more points than there were, some have never been sent.
            grown = len(self._order) > recorded.count
            standing = Standing.AMBIGUOUS if grown else Standing.CHANGED
            self.standings.update(dict.fromkeys(self._order, standing))

    def _compare_flying(self, in_flight: Counter[bytes] | Digest) -> None:
        # Also one whose changed value was on its way; the others first.
        unknown = [number for number in self._order if number not in self.standings]
        unknown += [number for number, standing in self.standings.items() if standing is Standing.CHANGED]
        if isinstance(in_flight, Digest):
            self._flying = {number: self._marks[number] for number in unknown}
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
                {mark: count for mark, count in in_flight.items() if _key(mark) not in here}
            )
        self.standings.update(dict.fromkeys(self._flying, Standing.AMBIGUOUS))


def _key(mark: bytes) -> bytes:
    return mark[:KEY_BYTES]


def _by_key(marks: Counter[bytes]) -> defaultdict[bytes, list[bytes]]:
    found: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for mark in sorted(marks.elements(), reverse=True):
        found[_key(mark)].append(mark)
    return found
