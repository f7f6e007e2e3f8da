"""The budget of an account: when its calls were, and when the next ones may be.

The gateway counts calls per account, so a limiter in one process is no limiter. All uses of the budget stand
in one list in the order of their times, those yet to come included. With `calls` per `period` allowed, none
may come sooner than `period` after the one `calls` places before it: as each place of the list keeps that
distance, no span of that length can hold more than `calls` uses. Who comes is put at the end and sleeps until
its moment. Who would have to sleep for longer than a minute is not put on the list at all.
A process that dies wastes one place and nothing else.

A live window goes before the backfills that still sleep, so that it is not late while days are made up for.
For its sake backfills also keep a distance from the use before them: left to themselves they would use all
places at once, and again one period later, and in between none would come free.

A request may be slow on its way, and the gateway counts it when it arrives. A use is therefore moved to the
last moment at which the gateway may have counted it, once its answer has begun.

This is the algorithm, without a store and without a clock.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "MAX_WAIT",
    "REFUSED_FOR",
    "Budget",
    "Decision",
    "distance_of",
    "margin_of",
    "max_size_of",
    "period_of",
]

MAX_WAIT = 60.0
"""Nobody is put on the list for a moment further ahead than this, in seconds."""

MARGIN = 1 / 60
"""Part of `seconds` that is added to it, because a request takes time to arrive, and that time varies."""

LEAST_MARGIN = 0.1
"""The same in seconds, for short ones: a busy machine may need that long between two lines of code."""

SPREAD = 0.75
"""How evenly backfills use the places: 1 is one every `period / calls`, 0 is all at once. A little less than
1 lets them make up for a moment that nobody used."""

LONGEST_PAUSE = 60 * 60.0
"""Seconds: a gateway that names a later moment is asked again after an hour all the same."""

TOLERANCE = 1e-3
"""Seconds of error in times that were written and read again."""

MAX_SIZE = 1 << 20
"""Bytes of a record: room for the places of thousands of waiting tasks. More is not read."""

MAX_USE_SIZE = 128
"""Bytes of one use in a record, at most."""

REFUSED_FOR = 15 * 60.0
"""Seconds for which nobody tries credentials again that the gateway has refused."""


def period_of(seconds: float) -> float:
    """Return the distance to keep, in seconds, where so many calls are allowed in `seconds`."""
    return seconds + margin_of(seconds)


def margin_of(seconds: float) -> float:
    """Return the seconds by which a request may be slower on its way than a later one, at no cost."""
    return max(seconds * MARGIN, LEAST_MARGIN)


def max_size_of(calls: int) -> int:
    """Return the size in bytes that a record never exceeds where so many calls are allowed."""
    return MAX_SIZE + MAX_USE_SIZE * calls


def distance_of(calls: int, period: float) -> float:
    """Return the seconds that a backfill's use keeps from the one before it."""
    return SPREAD * period / calls


@dataclass
class Slot:
    """A use of the budget: when it was or is to be, by whom, and whether for a live window."""

    at: float
    holder: str
    live: bool = False


@dataclass(frozen=True)
class Decision:
    """What a holder is told.

    Attributes:
        seconds: How long to wait before it asks again; at 0 its place counts as used now.
        placed: Whether it is on the list; otherwise nothing is taken.
    """

    seconds: float
    placed: bool = True

    @property
    def granted(self) -> bool:
        """Whether the place counts as used now."""
        return self.placed and self.seconds <= 0


@dataclass
class Budget:
    """What is known of an account. All times are in seconds, by one clock.

    Attributes:
        calls: How many calls fit into `period`; 1 or more.
        period: Seconds, above 0.
        as_of: When it was last asked.
        uses: In the order of their times.
        paused_until: No use before it: the gateway counted too many calls.
        refusals: Until when nobody tries credentials again that the gateway refused, by a name for them.
    """

    calls: int
    period: float
    as_of: float = 0.0
    uses: list[Slot] = field(default_factory=list)
    paused_until: float = 0.0
    refusals: dict[str, float] = field(default_factory=dict)

    @classmethod
    def used_up(cls, calls: int, period: float, now: float) -> Budget:
        """Return a budget of which nothing is known, so that all of it counts as used now."""
        return cls(calls, period, now, [Slot(now, "") for _ in range(calls)])

    def ask(self, holder: str, now: float, *, live: bool = False) -> Decision:
        """Tell the holder how long to wait, or that its place is used now.

        It asks again after each sleep, because others may have used their places later than they were put
        down for, or gone ahead; and once more when the request leaves, whatever has passed meanwhile.
        """
        self._advance(now)
        rank = self._withdraw(holder)
        index = self._end(now, live=live) if rank is None else max(rank, self._elapsed_count(now))
        at = self._free_at(index, now, live=live)
        # Whom a live window overtakes keeps its place; a long pause is not to be slept through.
        if at - now > MAX_WAIT and (rank is None or self.paused_until - now > MAX_WAIT):
            return Decision(at - now - MAX_WAIT, placed=False)
        self.uses.insert(index, Slot(at, holder, live))
        self._postpone(index + 1, now)
        return Decision(at - now)

    def pause(self, seconds: float | None, now: float) -> None:
        """Let nobody call for so long, but for an hour at most; None is one period."""
        self._advance(now)
        length = self.period if seconds is None else min(seconds, LONGEST_PAUSE)
        self.paused_until = max(self.paused_until, now + length)
        self._postpone(self._elapsed_count(now), now)

    def settle(self, holder: str, at: float, now: float) -> None:
        """Count the use of a holder, which `ask` has granted, from no earlier than `at`.

        Args:
            holder: As in `ask`.
            at: The last moment at which its request may have arrived at the gateway, less the margin for the
                way that each distance has; not after `now`.
            now: The present.
        """
        self._advance(now)
        settled = Slot(at, holder)
        for use in [use for use in self.uses if use.holder == holder]:
            self.uses.remove(use)
            settled = Slot(max(at, use.at), holder, use.live)
        self.uses.insert(sum(use.at <= settled.at for use in self.uses), settled)
        self._postpone(self._elapsed_count(now), now)

    def refuse(self, credentials: str, now: float) -> None:
        """Let nobody try these credentials again for a quarter of an hour."""
        self._advance(now)
        self.refusals[credentials] = now + REFUSED_FOR

    def refused(self, credentials: str, now: float) -> float:
        """Return for how many seconds nobody may try these credentials; 0 if anybody may."""
        self._advance(now)
        return max(0.0, self.refusals.get(credentials, now) - now)

    def _advance(self, now: float) -> None:
        """Forget what is over."""
        if now < self.as_of:
            # The clock began anew or was put back: at least nothing is longer ago than it was then.
            self._move(now - self.as_of)
        self.as_of = now
        while self.uses and self.uses[0].at + self.period <= now:
            del self.uses[0]
        self.refusals = {name: until for name, until in self.refusals.items() if until > now}

    def _move(self, seconds: float) -> None:
        for use in self.uses:
            use.at += seconds
        self.paused_until += seconds
        self.refusals = {name: until + seconds for name, until in self.refusals.items()}

    def _elapsed_count(self, now: float) -> int:
        """Return how many uses lie before the first that is yet to come."""
        return sum(use.at <= now for use in self.uses)

    def _withdraw(self, holder: str) -> int | None:
        """Take the holder off the list, which it has not used, and return where it was."""
        for index, use in enumerate(self.uses):
            if use.holder == holder:
                del self.uses[index]
                return index
        return None

    def _end(self, now: float, *, live: bool) -> int:
        """Return where who comes is put: a live window before the backfills that still sleep."""
        if not live:
            return len(self.uses)
        return max(
            [self._elapsed_count(now), *(index + 1 for index, use in enumerate(self.uses) if use.live)]
        )

    def _free_at(self, index: int, now: float, *, live: bool) -> float:
        """Return the first moment at which a use at this place of the list may be."""
        at = max(now, self.paused_until)
        if index > 0:
            distance = 0.0 if live else distance_of(self.calls, self.period)
            at = max(at, self.uses[index - 1].at + distance)
        if index >= self.calls:
            at = max(at, self.uses[index - self.calls].at + self.period)
        return at

    def _postpone(self, first: int, now: float) -> None:
        for index in range(first, len(self.uses)):
            use = self.uses[index]
            use.at = max(use.at, self._free_at(index, now, live=use.live))

    def to_json(self, **more: str) -> str:
        """Return what is known as the text of a JSON object, with more members."""
        record = {
            **more,
            "as_of": self.as_of,
            "uses": [[use.at, use.holder, use.live] for use in self.uses],
            "paused_until": self.paused_until,
            "refusals": self.refusals,
        }
        return json.dumps(record)

    @classmethod
    def from_json(cls, text: bytes | str, calls: int, period: float, **more: str) -> Budget:
        """Read what `to_json` wrote, with the same members.

        The text may be anybody's: nothing in it is further ahead than this class would have put it.

        Raises:
            ValueError: It is something else.
        """
        try:
            record = json.loads(text)
            different = [name for name, value in more.items() if record.get(name) != value]
            budget = cls(
                calls,
                period,
                _time(record["as_of"]),
                [Slot(_time(at), str(holder), bool(live)) for at, holder, live in record["uses"]],
                _time(record["paused_until"]),
                {str(name): _time(until) for name, until in record["refusals"].items()},
            )
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
            raise ValueError(f"is no budget ({type(error).__name__})") from error
        if different or budget._is_too_far_ahead():
            raise ValueError(f"has another {different[0]}" if different else "has times too far ahead")
        return budget

    def _is_too_far_ahead(self) -> bool:
        self.uses.sort(key=lambda use: use.at)
        # A place is given at most a minute ahead; what goes before it, and a pause, put it off from there.
        pause = max(LONGEST_PAUSE, self.period)
        limits = [
            (self.paused_until, pause),
            *((use.at, pause + MAX_WAIT + (index + 1) * self.period) for index, use in enumerate(self.uses)),
            *((until, REFUSED_FOR) for until in self.refusals.values()),
        ]
        return any(moment - self.as_of > limit + TOLERANCE for moment, limit in limits)


def _time(value: Any) -> float:
    if not math.isfinite(moment := float(value)):
        raise ValueError(f"{value} is no time")
    return moment
