"""The rate limit: before each call a place is reserved, in a file that all processes of the machine share.

The gateway counts calls per account, so a limiter in one process is no limiter. All uses of the account's
budget stand in one list, oldest first, those yet to come included. With `calls` per `seconds` allowed, no use
may come sooner than `seconds` after the use `calls` places before it: as each place of the list keeps that
distance, no span of `seconds` can hold more than `calls` uses. Who comes is put at the end of the list and
sleeps until its moment: first come, first served, among those who need not wait longer than a minute. A
process that dies wastes one place and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.files import open_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["FileRateLimiter", "Place"]

log = logging.getLogger(__name__)

MAX_WAIT = 60.0
"""Nobody is put on the list for a moment further ahead than this, in seconds."""

MARGIN = 1 / 60
"""Part of `seconds` that is added to it, because a request takes time to arrive, and that time varies."""

LEAST_MARGIN = 0.1
"""The same in seconds, for short ones: a busy machine may need that long between two lines of code."""


@dataclass(frozen=True)
class Place:
    """A place that was waited for.

    Attributes:
        waited: Seconds that were spent waiting for it.
    """

    limiter: FileRateLimiter
    holder: str
    waited: float

    def use(self) -> None:
        """Say that the request leaves at this moment; to be called right before it does.

        The gateway counts a call when it arrives, and connecting can take seconds, so only now does the place
        count as used. If connecting took so long that others took it for used long ago, this waits again.
        """
        self.limiter.wait(self.holder)


@dataclass
class _Use:
    """A use of the budget: when it was, or is to be, and by whom."""

    at: float
    holder: str


class FileRateLimiter:
    """Shares an account's budget among all processes of one machine.

    Times are those of the machine's monotonic clock, which nobody sets: a wall clock that is put forward
    would release places early.

    Args:
        path: The file; made where missing, open to every user of the machine. It holds times and random ids.
        calls: How many calls fit into `seconds`; 1 or more.
        seconds: The length of the span; more than 0.
        clock: Returns the present in seconds; one clock for all processes.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        calls: int = 5,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self.calls = calls
        self.period = seconds + max(seconds * MARGIN, LEAST_MARGIN)
        self._clock = clock
        self._sleep = sleep

    def acquire(self) -> Place:
        """Wait for a place and return it.

        Raises:
            ConfigurationError: The file cannot be made, read or written.
        """
        came = self._clock()
        holder = uuid.uuid4().hex
        self.wait(holder)
        return Place(self, holder, waited=self._clock() - came)

    def wait(self, holder: str) -> None:
        """Sleep until the holder's place, which then counts as used."""
        while (seconds := self._ask(holder)) > 0:
            self._sleep(seconds)

    def _ask(self, holder: str) -> float:
        """Return how long the holder has still to wait; at 0 its place counts as used now.

        Asked again after each sleep: a use before it may have come later than it was put down for.
        """
        with self._uses() as uses:
            now = self._clock()
            index = next((i for i, use in enumerate(uses) if use.holder == holder), len(uses))
            following = index + self.calls
            if following < len(uses) and uses[following].at <= now:
                # It comes so late that the one behind it has gone ahead, who took the place for wasted.
                uses[index].holder = ""
                index = len(uses)
            if index == len(uses):
                ahead = self._free_at(uses, index) - now
                if ahead > MAX_WAIT:
                    return ahead - MAX_WAIT
                uses.append(_Use(now, holder))
            use = uses[index]
            use.at = max(use.at, self._free_at(uses, index))
            if use.at > now:
                return use.at - now
            use.at = now
            return 0.0

    def _free_at(self, uses: list[_Use], index: int) -> float:
        return uses[index - self.calls].at + self.period if index >= self.calls else 0.0

    @contextlib.contextmanager
    def _uses(self) -> Iterator[list[_Use]]:
        """Lock the file, yield the list, and write back what became of it."""
        try:
            with os.fdopen(open_shared(self.path), "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                uses = self._read(file.read())
                yield uses
                content = json.dumps([[use.at, use.holder] for use in uses]).encode()
                file.seek(0)
                file.write(content)
                file.truncate()
        except OSError as error:
            raise ConfigurationError(
                "rate limit", f"cannot use {self.path} ({error.strerror}): make it writable, or set TMPDIR"
            ) from error

    def _read(self, content: bytes) -> list[_Use]:
        now = self._clock()
        try:
            uses = [_Use(float(at), str(holder)) for at, holder in json.loads(content or b"[]")]
        except (ValueError, TypeError):
            log.warning("%s is damaged: the whole budget counts as used now", self.path)
            uses = [_Use(now, "") for _ in range(self.calls)]
        for use in uses:
            # Further ahead than anyone is put down for: written before the machine was last started.
            if use.at > now + MAX_WAIT + self.period:
                use.at = now
        while len(uses) > self.calls and uses[0].at + self.period <= now:
            del uses[0]
        return uses
