"""The budget of an account: when its calls were made, and when the next ones may be.

The gateway counts calls per account, so a limiter in one process limits nothing. All calls of the account
share one list of slots, in the order of their times, future ones included. If `calls` are allowed per
`period`, a slot comes no sooner than one `period` after the slot `calls` positions before it. Every slot
keeps that distance, so no span of that length holds more than `calls`.

A new caller is appended and sleeps until its slot. A caller that would have to sleep for more than a minute
is not appended. A process that dies wastes one slot and nothing else.

A live window is inserted before the backfills that are still sleeping, so that a backfill of days does not
delay it. For the same reason, a backfill keeps a distance from the slot before it. Without that distance,
backfills would use all slots at once, again one period later, and leave none free in between.

A request may be slow to arrive, and the gateway counts it when it does. When its response begins, its slot is
therefore moved to the latest time at which the gateway may have counted it.

This module holds the algorithm only: no store, and no clock.
"""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.gateway.clocks import ClockOffsets, parse_seconds

if TYPE_CHECKING:
    from airflow_provider_forge.gateway.clocks import Reading

__all__ = [
    "BLOCKED_FOR",
    "MAX_WAIT",
    "Budget",
    "Decision",
    "Priority",
    "Slot",
    "Standing",
    "distance_of",
    "margin_of",
    "max_size_of",
    "period_of",
]

MAX_WAIT = 60.0
"""Seconds. A slot further in the future is not reserved."""

MARGIN = 1 / 60
"""Fraction of `seconds` that is added to it, because a request takes time to arrive, and that time varies."""

MIN_MARGIN = 0.1
"""Minimum of the same in seconds: a busy machine may need that long between two lines of code."""

SPREAD = 0.75
"""How evenly backfills use the slots: 1 is one every `period / calls`, 0 is all at once. A little less than 1
lets them catch up after an unused slot."""

MAX_PAUSE = 60 * 60.0
"""Maximum pause in seconds, even if the gateway asks for a longer one."""

TOLERANCE = 1e-3
"""Seconds of rounding error in times that were serialized."""

MAX_SIZE = 1 << 20
"""Bytes of a record: enough for the slots of thousands of waiting tasks. A larger record is not read."""

MAX_SLOT_SIZE = 128
"""Maximum bytes of a slot in a record."""

BLOCKED_FOR = 15 * 60.0
"""Seconds for which credentials are blocked after the gateway refused them."""


def period_of(seconds: float) -> float:
    """Return the period to keep, in seconds, for a limit that counts the calls in `seconds`."""
    return seconds + margin_of(seconds)


def margin_of(seconds: float) -> float:
    """Return the delay in seconds with which a request may arrive at no cost."""
    return max(seconds * MARGIN, MIN_MARGIN)


def max_size_of(calls: int) -> int:
    """Return the maximum size in bytes of a record for a limit of `calls`."""
    return MAX_SIZE + MAX_SLOT_SIZE * calls


def distance_of(calls: int, period: float) -> float:
    """Return the seconds between the slot of a backfill and the slot before it."""
    return SPREAD * period / calls


class Priority(enum.Enum):
    """The order in which calls are made that wait for the rate limit."""

    LIVE = "live"
    BACKFILL = "backfill"


@dataclass
class Slot:
    """One call in the budget.

    Attributes:
        at: Time in seconds at which the call was or will be made.
        owner: Id of the caller; empty if unknown.
        priority: Priority of the call.
    """

    at: float
    owner: str
    priority: Priority = Priority.BACKFILL


@dataclass(frozen=True)
class Decision:
    """The budget's answer to a caller.

    Attributes:
        seconds: Seconds to wait before asking again. At 0, the slot counts as used now.
        placed: Whether the caller has a slot; otherwise nothing is reserved.
    """

    seconds: float
    placed: bool = True

    @property
    def granted(self) -> bool:
        """Whether the slot counts as used now."""
        return self.placed and self.seconds <= 0


@dataclass(frozen=True)
class Standing:
    """How much of the budget is used at one time, and who waits for it.

    Attributes:
        used: Number of calls in the period before it.
        live: Number of reserved calls for live windows that are yet to be made.
        backfill: Number of all others.
        paused: Seconds for which the gateway has asked to make no call; 0 for no pause.
    """

    used: int
    live: int
    backfill: int
    paused: int


@dataclass
class Budget:
    """The known calls of an account. All times are in seconds, by one clock.

    Attributes:
        calls: Number of calls allowed per `period`, 1 or more.
        period: Seconds, more than 0.
        as_of: Time of the latest change.
        slots: Past and future calls, in the order of their times.
        paused_until: No call before it: the gateway counted too many.
        blocked_until: Times until which refused credentials are not tried again, by a name for them.
        offsets: Differences between this clock and those of the machines that share the budget.
    """

    calls: int
    period: float
    as_of: float = 0.0
    slots: list[Slot] = field(default_factory=list)
    paused_until: float = 0.0
    blocked_until: dict[str, float] = field(default_factory=dict)
    offsets: ClockOffsets = field(default_factory=ClockOffsets)

    @classmethod
    def exhausted(cls, calls: int, period: float, now: float) -> Budget:
        """Return a budget that counts as wholly used now, because nothing is known of the account's calls."""
        budget = cls(calls, period, now)
        budget.exhaust(now)
        return budget

    def exhaust(self, now: float) -> None:
        """Count the whole budget as used now; nothing stays reserved."""
        self._advance(now)
        self.slots = [Slot(now, "") for _ in range(self.calls)]

    def check_clock(self, reading: Reading, tolerance: float) -> float:
        """Return the seconds by which the clock was set forward since the machine's last reading.

        If it was, calls look older than they are, and others were dropped before a period had passed. The
        whole budget then counts as used now, and a pause lasts as long as before.

        Args:
            reading: The current time, as this machine has read it.
            tolerance: Maximum seconds that count as none.
        """
        if reading.server < self.as_of:
            # All that is on record moves with the clock: the offsets of the other machines, too.
            self.offsets.set_back(self.as_of - reading.server)
            self._advance(reading.server)
        step = self.offsets.step(reading, tolerance)
        if step > 0:
            self._shift(min(step, reading.server - self.as_of), reading.server)
            self.as_of = reading.server
            self.exhaust(reading.server)
        return step

    def ask(self, owner: str, now: float, *, priority: Priority = Priority.BACKFILL) -> Decision:
        """Reserve a slot, or use the one that was reserved.

        A caller asks again after each sleep, because others may have used their slots late or been inserted
        before it. It asks once more when the request leaves, however much time has passed by then.

        Args:
            owner: Id of the caller.
            now: The current time.
            priority: Priority of the call.
        """
        self._advance(now)
        rank = self._remove(owner)
        index = self._insert_position(now, priority) if rank is None else max(rank, self._elapsed_count(now))
        at = self._earliest_time(index, now, priority)
        # A caller that a live window has overtaken keeps its slot. A long pause is not slept through.
        if at - now > MAX_WAIT and (rank is None or self.paused_until - now > MAX_WAIT):
            return Decision(at - now - MAX_WAIT, placed=False)
        self.slots.insert(index, Slot(at, owner, priority))
        self._postpone(index + 1, now)
        return Decision(at - now)

    def pause(self, seconds: float | None, now: float) -> None:
        """Block all calls for this many seconds, up to an hour; None is one period."""
        self._advance(now)
        length = self.period if seconds is None else min(seconds, MAX_PAUSE)
        self.paused_until = max(self.paused_until, now + length)
        self._postpone(self._elapsed_count(now), now)

    def settle(self, owner: str, at: float, now: float) -> None:
        """Move a slot that `ask` has granted to a later time.

        Args:
            owner: As in `ask`.
            at: The latest time at which the request may have arrived at the gateway, less the margin that
                each period includes. Not later than `now`.
            now: The current time.
        """
        self._advance(now)
        settled = Slot(at, owner)
        for slot in [slot for slot in self.slots if slot.owner == owner]:
            self.slots.remove(slot)
            settled = Slot(max(at, slot.at), owner, slot.priority)
        self.slots.insert(sum(slot.at <= settled.at for slot in self.slots), settled)
        self._postpone(self._elapsed_count(now), now)

    def block_credentials(self, credentials: str, now: float) -> None:
        """Block these credentials for a quarter of an hour."""
        self._advance(now)
        self.blocked_until[credentials] = now + BLOCKED_FOR

    def blocked_for(self, credentials: str, now: float) -> float:
        """Return the seconds for which these credentials stay blocked; 0 if they are not."""
        self._advance(now)
        return max(0.0, self.blocked_until.get(credentials, now) - now)

    def standing(self, now: float) -> Standing:
        """Return how much of the budget is used now, and who waits for it."""
        self._advance(now)
        used = self._elapsed_count(now)
        live = sum(slot.priority is Priority.LIVE for slot in self.slots[used:])
        return Standing(used, live, len(self.slots) - used - live, max(0, math.ceil(self.paused_until - now)))

    def _advance(self, now: float) -> None:
        """Drop everything that has expired."""
        if now < self.as_of:
            # The clock restarted or was set back: nothing is more recent than it was at that time.
            self._shift(now - self.as_of, now)
        self.as_of = now
        while self.slots and self.slots[0].at + self.period <= now:
            del self.slots[0]
        self.blocked_until = {name: until for name, until in self.blocked_until.items() if until > now}

    def _shift(self, seconds: float, now: float) -> None:
        for slot in self.slots:
            # A call that was made stays in the past, however the sum is rounded.
            latest = now if slot.at <= self.as_of else math.inf
            slot.at = min(slot.at + seconds, latest)
        self.paused_until += seconds
        self.blocked_until = {name: until + seconds for name, until in self.blocked_until.items()}

    def _elapsed_count(self, now: float) -> int:
        """Return how many slots are not in the future."""
        return sum(slot.at <= now for slot in self.slots)

    def _remove(self, owner: str) -> int | None:
        """Remove the caller's slot, which it has not used; return its index, or None if it has none."""
        for index, slot in enumerate(self.slots):
            if slot.owner == owner:
                del self.slots[index]
                return index
        return None

    def _insert_position(self, now: float, priority: Priority) -> int:
        """Return the index for a new slot: a live window goes before backfills that are still sleeping."""
        if priority is Priority.BACKFILL:
            return len(self.slots)
        behind_live = (index + 1 for index, slot in enumerate(self.slots) if slot.priority is Priority.LIVE)
        return max([self._elapsed_count(now), *behind_live])

    def _earliest_time(self, index: int, now: float, priority: Priority) -> float:
        """Return the earliest time for a slot at this index."""
        at = max(now, self.paused_until)
        if index > 0:
            distance = 0.0 if priority is Priority.LIVE else distance_of(self.calls, self.period)
            at = max(at, self.slots[index - 1].at + distance)
        if index >= self.calls:
            at = max(at, self.slots[index - self.calls].at + self.period)
        return at

    def _postpone(self, first: int, now: float) -> None:
        """Move the slots from this index on to times that keep their distances."""
        for index in range(first, len(self.slots)):
            slot = self.slots[index]
            slot.at = max(slot.at, self._earliest_time(index, now, slot.priority))

    def to_json(self, **more: str) -> str:
        """Serialize the budget as a JSON object, with additional members."""
        # The names in records that older versions have written.
        record = {
            **more,
            "as_of": self.as_of,
            "uses": [[slot.at, slot.owner, slot.priority is Priority.LIVE] for slot in self.slots],
            "paused_until": self.paused_until,
            "refusals": self.blocked_until,
            "clocks": self.offsets.known,
        }
        return json.dumps(record)

    @classmethod
    def from_json(cls, text: bytes | str, calls: int, period: float, **more: str) -> Budget:
        """Deserialize the output of `to_json` with the same additional members.

        The text is not trusted: times further in the future than this class sets them are an error.

        Raises:
            ValueError: The text is anything else.
        """
        try:
            record = json.loads(text)
            different = [name for name, value in more.items() if record.get(name) != value]
            budget = cls(
                calls,
                period,
                parse_seconds(record["as_of"]),
                [
                    Slot(parse_seconds(at), str(owner), Priority.LIVE if live else Priority.BACKFILL)
                    for at, owner, live in record["uses"]
                ],
                parse_seconds(record["paused_until"]),
                {str(name): parse_seconds(until) for name, until in record["refusals"].items()},
                # Earlier versions have written none.
                ClockOffsets.from_json(record.get("clocks", {})),
            )
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
            raise ValueError(f"is not a budget ({type(error).__name__})") from error
        if different or budget._is_too_far_ahead():
            raise ValueError(
                f"has another {different[0]}" if different else "has times too far in the future"
            )
        return budget

    def _is_too_far_ahead(self) -> bool:
        self.slots.sort(key=lambda slot: slot.at)
        # A slot is reserved at most a minute ahead. Slots before it, and a pause, postpone it from there.
        pause = max(MAX_PAUSE, self.period)
        limits = [
            (self.paused_until, pause),
            *(
                (slot.at, pause + MAX_WAIT + (index + 1) * self.period)
                for index, slot in enumerate(self.slots)
            ),
            *((until, BLOCKED_FOR) for until in self.blocked_until.values()),
        ]
        return any(moment - self.as_of > limit + TOLERANCE for moment, limit in limits)
