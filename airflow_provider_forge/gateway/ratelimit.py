"""The rate limit: before each call a place is taken in the budget that all processes share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_forge.exceptions import ConfigurationError, RateLimited
from airflow_provider_forge.files import open_shared
from airflow_provider_forge.gateway.budget import Budget, Verdict, period_of
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["FileStore", "LimitStore", "Place", "RateLimiter", "Usage"]

log = get_logger(__name__)

WORTH_A_WORD = 5.0
"""Seconds of waiting from which on a log says so beforehand."""


class LimitStore(Protocol):
    """Keeps the `Budget` of one account for all who share it, with one clock for them all.

    Each method raises `ConfigurationError` or `RateLimitUnavailable` where that cannot be done.
    """

    def ask(self, holder: str, *, live: bool) -> Verdict:
        """Tell the holder how long to wait for its place, or that it is used now."""

    def pause(self, seconds: float | None) -> None:
        """Let nobody call for so long; None is one period."""

    def refuse(self, credentials: str) -> None:
        """Let nobody try these credentials again for a quarter of an hour."""

    def refused(self, credentials: str) -> float:
        """Return for how many seconds nobody may try these credentials; 0 if anybody may."""


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

    Attributes:
        usage: What was taken through it.
    """

    def __init__(self, store: LimitStore, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.store = store
        self.usage = Usage()
        self._sleep = sleep

    def acquire(self, *, live: bool = False, patience: float | None = None) -> Place:
        """Wait for a place and return it.

        Up to a minute before its moment a place is taken and slept for, in this process. Where the moment is
        further ahead, nothing is taken before that minute has come.

        Args:
            live: Whether it goes before those that are not.
            patience: Seconds, 0 or more, that may pass before a place is taken; None for any time.

        Raises:
            RateLimited: More would pass; `retry_after` says how much, and nothing is taken.
            ConfigurationError: The store cannot be used.
            RateLimitUnavailable: The store does not answer.
        """
        place = Place(self, uuid.uuid4().hex, live, patience)
        place.use()
        return place

    def wait(self, place: Place) -> float:
        """Sleep until the place counts as used now; return the seconds slept."""
        slept = 0.0
        while not (verdict := self.store.ask(place.holder, live=place.live)).granted:
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
class Place:
    """A place in the budget.

    Attributes:
        holder: Who has it; random.
        live: Whether it goes before those that are not.
        patience: As in `RateLimiter.acquire`.
        waited: Seconds that were spent waiting for it.
    """

    limiter: RateLimiter
    holder: str
    live: bool
    patience: float | None
    waited: float = 0.0

    def use(self) -> None:
        """Say that the request leaves at this moment; to be called right before it does.

        The gateway counts a call when it arrives, and connecting can take seconds, so only now does the place
        count as used. If connecting took so long that others took it for used long ago, this waits again.
        """
        self.waited += self.limiter.wait(self)


class FileStore:
    """Shares an account's budget among all processes of one machine.

    Times are those of the machine's monotonic clock, which nobody sets: a wall clock that is put forward
    would release places early.

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
        self._clock = clock

    def ask(self, holder: str, *, live: bool) -> Verdict:
        """Tell the holder how long to wait for its place, or that it is used now."""
        with self._budget() as (budget, now):
            return budget.ask(holder, now, live=live)

    def pause(self, seconds: float | None) -> None:
        """Let nobody call for so long; None is one period."""
        with self._budget() as (budget, now):
            budget.pause(seconds, now)

    def refuse(self, credentials: str) -> None:
        """Let nobody try these credentials again for a quarter of an hour."""
        with self._budget() as (budget, now):
            budget.refuse(credentials, now)

    def refused(self, credentials: str) -> float:
        """Return for how many seconds nobody may try these credentials; 0 if anybody may."""
        with self._budget() as (budget, now):
            return budget.refused(credentials, now)

    @contextlib.contextmanager
    def _budget(self) -> Iterator[tuple[Budget, float]]:
        """Lock the file, yield what it holds and the present, and write back what became of it."""
        try:
            with os.fdopen(open_shared(self.path), "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                now = self._clock()
                budget = self._read(file.read(), now)
                yield budget, now
                content = json.dumps(budget.to_json()).encode()
                file.seek(0)
                file.write(content)
                file.truncate()
        except OSError as error:
            raise ConfigurationError(
                "rate limit", f"cannot use {self.path} ({error.strerror}): make it writable, or set TMPDIR"
            ) from error

    def _read(self, content: bytes, now: float) -> Budget:
        if not content:
            return Budget(self.calls, self.period)
        try:
            return Budget.from_json(json.loads(content), self.calls, self.period)
        except ValueError:
            log.warning("%s is damaged: the whole budget counts as used now", self.path)
            return Budget.used_up(self.calls, self.period, now)
