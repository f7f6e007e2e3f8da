"""The rate limit: before each call a place is taken in the budget that all processes share."""

from __future__ import annotations

import os
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_forge.exceptions import ConfigurationError, RateLimited, RateLimitUnavailable
from airflow_provider_forge.files import is_lasting, missing_for, open_locked, read_at_most, write_all
from airflow_provider_forge.gateway.budget import Budget, Decision, margin_of, max_size_of, period_of
from airflow_provider_forge.gateway.memories import FileMemory
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_forge.gateway.memories import RedisMemory

__all__ = ["FileStore", "LimitStore", "RateLimiter", "Reservation", "Usage"]

log = get_logger(__name__)

WORTH_A_WORD = 5.0
"""Seconds of waiting from which on a log says so beforehand."""

LOCK_PATIENCE = 30.0
"""Seconds after which the holder of the file's lock has stopped or died: it is held for a millisecond."""

LEAST_PATIENCE = 1.0
"""The same for callers that wait for no place."""

Result = TypeVar("Result")


class LimitStore(ABC):
    """Keeps the `Budget` of one account for all who share it, with one clock for them all.

    A store has one way to use it, a transaction; what is done in it is written once, here.

    Attributes:
        margin: Seconds that a request may take to arrive at the gateway, at no cost.
    """

    margin: float

    @abstractmethod
    def change(self, action: Callable[[Budget, float], Result], *, patience: float | None = None) -> Result:
        """Run an action on the budget and the present, in a transaction, and return its result.

        Args:
            action: Takes the budget, which it may change, and the present. It may be run several times.
            patience: Seconds to wait for others who use the store; None for the store's own.

        Raises:
            ConfigurationError: The store cannot be used.
            RateLimitUnavailable: It does not answer, or others do not let go of it.
        """

    @abstractmethod
    def memory(self, name: str) -> FileMemory | RedisMemory:
        """Return a place for something else beside the budget; raises as `change`."""

    def ask(self, holder: str, *, live: bool, patience: float | None = None) -> Decision:
        """Tell the holder how long to wait for its place, or that it is used now; raises as `change`."""
        return self.change(lambda budget, now: budget.ask(holder, now, live=live), patience=patience)

    def settle(self, holder: str) -> None:
        """Count the holder's use from now, less the margin: its answer has begun; raises as `change`."""
        self.change(lambda budget, now: budget.settle(holder, now - self.margin, now))

    def pause(self, seconds: float | None) -> None:
        """Let nobody call for so long; None is one period; raises as `change`."""
        self.change(lambda budget, now: budget.pause(seconds, now))

    def refuse(self, credentials: str) -> None:
        """Let nobody try these credentials again for a quarter of an hour; raises as `change`."""
        self.change(lambda budget, now: budget.refuse(credentials, now))

    def refused(self, credentials: str) -> float:
        """Return for how many seconds nobody may try these credentials; 0 if anybody may; as `change`."""
        return self.change(lambda budget, now: budget.refused(credentials, now))


@dataclass
class Usage:
    """What one process has taken of the budget.

    Attributes:
        calls: Calls that left for the gateway.
        throttles: Calls that the gateway counted as one too many.
        waited: Seconds spent waiting for a place.
    """

    calls: int = 0
    throttles: int = 0
    waited: float = 0.0


class RateLimiter:
    """Makes a process wait for its place.

    Args:
        store: Shares the account's budget.
        sleep: Waits that many seconds.
        clock: Returns the present in seconds, to measure how long a call takes.

    Attributes:
        usage: What was taken through it.
    """

    def __init__(
        self,
        store: LimitStore,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.usage = Usage()
        self.clock = clock
        self._sleep = sleep

    def acquire(self, *, live: bool = False, patience: float | None = None) -> Reservation:
        """Wait for a place and return it.

        Up to a minute before its moment a place is taken and slept for, in this process. Where the moment is
        further ahead, nothing is taken before that minute has come.

        Args:
            live: Whether it goes before those that are not.
            patience: Seconds, 0 or more, that may pass before a place is taken; None for any time.

        Raises:
            RateLimited: More would pass; `retry_after` says how much, and nothing is taken.
            ConfigurationError: The store cannot be used.
            RateLimitUnavailable: The store does not answer, or others hold it for longer than `patience`.
        """
        place = Reservation(self, uuid.uuid4().hex, live, patience)
        place.use()
        return place

    def wait(self, place: Reservation) -> float:
        """Sleep until the place counts as used now; return the seconds slept."""
        slept = 0.0
        while not (verdict := self.store.ask(place.holder, live=place.live, patience=place.patience)).granted:
            if not verdict.placed and place.patience is not None and verdict.seconds > place.patience:
                raise RateLimited(
                    "The account's calls are taken, by other tasks or by a pause that the gateway asked for:"
                    f" again in {verdict.seconds:.0f} s",
                    retry_after=verdict.seconds,
                )
            if not slept and verdict.seconds >= WORTH_A_WORD:
                log.info("Waiting for the rate limit of the account: %.0f s or more", verdict.seconds)
            self._sleep(verdict.seconds)
            slept += verdict.seconds
            self.usage.waited += verdict.seconds
        return slept

    def settle(self, place: Reservation) -> None:
        """Count the place from now if its request may have been slow on its way. Never raises."""
        if self.clock() - place.used_at <= self.store.margin:
            return
        try:
            self.store.settle(place.holder)
        except (ConfigurationError, RateLimitUnavailable) as error:
            log.warning("The time at which a call arrived is not recorded for the others: %s", error)

    def pause(self, seconds: float | None) -> None:
        """Let nobody call for so long, because the gateway counted too many calls; None is one period."""
        self.usage.throttles += 1
        self.store.pause(seconds)

    def refuse(self, credentials: str) -> None:
        """Let nobody try these credentials again for a quarter of an hour."""
        self.store.refuse(credentials)

    def refused(self, credentials: str) -> float:
        """Return for how many seconds nobody may try these credentials; 0 if anybody may."""
        return self.store.refused(credentials)


@dataclass
class Reservation:
    """A place in the budget.

    Attributes:
        holder: Who has it; random.
        live: Whether it goes before those that are not.
        patience: As in `RateLimiter.acquire`.
        waited: Seconds that were spent waiting for it.
        used_at: By the limiter's clock, when it was last to be used; not later than that.
    """

    limiter: RateLimiter
    holder: str
    live: bool
    patience: float | None
    waited: float = 0.0
    used_at: float = 0.0

    def use(self) -> None:
        """Say that the request leaves at this moment; to be called right before it does.

        The gateway counts a call when it arrives, and connecting can take seconds, so only now does the place
        count as used. If connecting took so long that others took it for used long ago, this waits again.
        """
        self.used_at = self.limiter.clock()
        self.waited += self.limiter.wait(self)

    def settle(self) -> None:
        """Say that the answer begins, or that there will be none; to be called as soon as that is known.

        The request has arrived by now. If it took longer than the margin, it counts from now less the margin,
        so that no later call arrives within `seconds` of it.
        """
        self.limiter.settle(self)


class FileStore(LimitStore):
    """Shares an account's budget among all processes of one machine.

    Times are those of the machine's monotonic clock, which nobody sets: a wall clock that is put forward
    would release places early.

    Without a record nothing is known of the account's calls, so all of its budget counts as used now. Only if
    the directory shows that there was no record for a whole period, nobody can have called.

    Args:
        path: The file; made where missing, open to every user of the machine. It holds times, random ids, and
            short hashes of credentials that were refused.
        calls: How many calls fit into `seconds`; 1 or more.
        seconds: The length of the span; more than 0.
        clock: Returns the present in seconds; one clock for all processes.
    """

    def __init__(
        self,
        path: Path,
        *,
        calls: int = 5,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.calls = calls
        self.period = period_of(seconds)
        self.margin = margin_of(seconds)
        self._clock = clock

    def change(self, action: Callable[[Budget, float], Result], *, patience: float | None = None) -> Result:
        """Lock the file, run the action on what it holds, and write back what became of it."""
        patience = LOCK_PATIENCE if patience is None else min(LOCK_PATIENCE, max(LEAST_PATIENCE, patience))
        try:
            descriptor = open_locked(self.path, patience=patience, initial=self._first_record)
            try:
                now = self._clock()
                budget = self._read(descriptor, now)
                result = action(budget, now)
                write_all(descriptor, budget.to_json().encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unusable(error) from error
        return result

    def memory(self, name: str) -> FileMemory:
        """Return a file beside this one; raises as `change`."""
        # The record comes first: once another file is made, it is not known any more how long there was none.
        self.change(lambda _budget, _now: None)
        return FileMemory(self.path.with_name(f"{name}.json"))

    def _first_record(self) -> bytes:
        now = self._clock()
        if missing_for(self.path) > self.period:
            return Budget(self.calls, self.period, now).to_json().encode()
        log.info(
            "There is no record of the account's calls at %s: all of them count as made now, and the next"
            " is possible in %.0f s",
            self.path,
            self.period,
        )
        return Budget.used_up(self.calls, self.period, now).to_json().encode()

    def _read(self, descriptor: int, now: float) -> Budget:
        content = read_at_most(descriptor, max_size_of(self.calls)) or b""
        try:
            return Budget.from_json(content, self.calls, self.period)
        except ValueError as error:
            log.warning("%s is damaged (%s): the whole budget counts as used now", self.path, error)
            return Budget.used_up(self.calls, self.period, now)

    def _unusable(self, error: OSError) -> ConfigurationError | RateLimitUnavailable:
        if is_lasting(error):
            return ConfigurationError(
                "rate limit", f"cannot use {self.path} ({error.strerror}): make it writable, or set TMPDIR"
            )
        return RateLimitUnavailable(
            f"The file of the rate limit, {self.path}, cannot be used now ({error.strerror}). No call is made"
            " without it, and the call will be retried. If this persists, end that process, check the file"
            " system, or set TMPDIR to another directory"
        )
