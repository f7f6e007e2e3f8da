"""Stores of the budget: a file for the processes of one machine, a Redis for those of several.

Small JSON objects are stored next to the budget, where every process that makes calls can write.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import random
import time
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_provider_forge.exceptions import ConfigurationError, RateLimitUnavailable
from airflow_provider_forge.files import is_permanent, missing_for, open_locked, read_at_most, write_all
from airflow_provider_forge.gateway.budget import Budget, margin_of, max_size_of, period_of
from airflow_provider_forge.gateway.clocks import MachineClock, Reading, parse_seconds
from airflow_provider_forge.redis_client import RedisClient
from airflow_provider_forge.text import get_logger, is_storable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_forge.redis_client import Script

__all__ = ["FileStateStore", "FileStore", "RedisStateStore", "RedisStore"]

log = get_logger(__name__)

LOCK_TIMEOUT = 30.0
"""Seconds after which the process that holds the file's lock must have stopped: a transaction takes a
millisecond."""

CONFLICT_TIMEOUT = 10.0
"""Seconds after which a transaction on Redis fails if other processes' transactions keep preceding it."""

MIN_TIMEOUT = 1.0
"""Minimum of both for callers without patience."""

BACKOFF = (0.002, 0.1)
"""Mean seconds between attempts at a transaction on Redis: the first, and the maximum."""

MAX_STATE_SIZE = 1 << 20
"""Maximum size in bytes of a JSON object; an app with thousands of environments needs less."""

STATE_LOCK_TIMEOUT = 5.0
"""Seconds to wait for an object's file, which is locked for a millisecond at a time."""

LOOK_UP_TIMEOUT = 60.0
"""Seconds to wait for another process that looks up the same; after that, both do."""

Result = TypeVar("Result")


def _limit_timeout(patience: float | None, most: float) -> float:
    return most if patience is None else min(most, max(MIN_TIMEOUT, patience))


class FileStore:
    """Shares an account's budget among all processes of one machine.

    Times are those of the machine's monotonic clock, which nobody sets: if a wall clock were set forward,
    slots would become free too early.

    If there is no record, nothing is known of the account's calls, so its whole budget counts as used now.
    The one exception is a directory that has not changed for a whole period, in a container that has run for
    as long: then no record has been removed, and no calls were made.

    Args:
        path: The file. Created if missing, writable for every user of the machine. It holds times, random
            ids, and short hashes of refused credentials.
        calls: Number of calls allowed in `seconds`, 1 or more.
        seconds: Length of the limit's period in seconds, more than 0.
        clock: Returns the current time in seconds, the same for all processes.
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

    def transact(self, action: Callable[[Budget, float], Result], *, patience: float | None = None) -> Result:
        """Lock the file, run the action on its budget, and write the budget back."""
        timeout = _limit_timeout(patience, LOCK_TIMEOUT)
        try:
            descriptor = open_locked(self.path, patience=timeout, initial=self._first_record)
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

    def state_store(self, name: str) -> FileStateStore:
        """Return a store in a file next to this one; raises as `transact` does."""
        # The record comes first: another new file changes the directory, which then no longer shows for how
        # long there was no record.
        self.transact(lambda _budget, _now: None)
        return FileStateStore(self.path.with_name(f"{name}.json"))

    def _first_record(self) -> bytes:
        now = self._clock()
        if missing_for(self.path) > self.period:
            return Budget(self.calls, self.period, now).to_json().encode()
        log.info(
            "There is no record of the account's calls at %s, so its whole budget counts as used now: the"
            " next call is possible in %.0f s",
            self.path,
            self.period,
        )
        return Budget.exhausted(self.calls, self.period, now).to_json().encode()

    def _read(self, descriptor: int, now: float) -> Budget:
        content = read_at_most(descriptor, max_size_of(self.calls)) or b""
        try:
            return Budget.from_json(content, self.calls, self.period)
        except ValueError as error:
            log.warning("%s is damaged (%s): the whole budget counts as used now", self.path, error)
            return Budget.exhausted(self.calls, self.period, now)

    def _unusable(self, error: OSError) -> ConfigurationError | RateLimitUnavailable:
        if is_permanent(error):
            return ConfigurationError(
                "rate limit", f"cannot use {self.path} ({error.strerror}): make it writable, or set TMPDIR"
            )
        return RateLimitUnavailable(
            f"The file of the rate limit, {self.path}, cannot be used now ({error.strerror}). No call is made"
            " without it. If this persists, end the process that holds its lock, check the file system, or"
            " set TMPDIR to another directory"
        )


# A key of another type, or a text too long for a budget, counts as a missing one.
_READ = """
local text = redis.pcall('GET', KEYS[1])
if type(text) ~= 'string' or #text > tonumber(ARGV[1]) then
    text = ''
end
"""

_COMPARE_AND_SET = """
if text ~= ARGV[2] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[3])
return 1
"""


class RedisStore:
    """Shares an account's budget among all processes that reach one Redis, by that server's clock.

    A transaction reads the budget, changes it in this process, and writes it back unless another process has
    changed it meanwhile; then it starts again.

    The key never expires. A missing key means that the server has lost it, so the whole budget counts as used
    now. The same holds after the server was restarted or replaced, because it may have lost the latest calls,
    and after its clock was set forward, as far as this machine can tell.

    Args:
        url: `redis://` or `rediss://`. A password in it appears in no error.
        account: Name of the account's key; must not identify the account.
        calls: Number of calls allowed in `seconds`, 1 or more.
        seconds: Length of the limit's period in seconds, more than 0.
        sleep: Sleeps for a number of seconds.
        clock: Clock of this machine; default is the system's.

    Raises:
        ConfigurationError: The URL is malformed, or the package redis is missing.
    """

    PRESENT: ClassVar[str] = """
local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])
local run = redis.call('INFO', 'server'):match('run_id:(%x+)')
"""
    """Sets the current time, as text, and the id of this run of the server."""

    def __init__(
        self,
        url: str,
        account: str,
        *,
        calls: int = 5,
        seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: MachineClock | None = None,
    ) -> None:
        self.key = f"airflow-provider-forge:{account}"
        self.calls = calls
        self.period = period_of(seconds)
        self.margin = margin_of(seconds)
        self._sleep = sleep
        self._clock = clock or MachineClock.find()
        self._server = RedisClient(url, "the rate limit", RateLimitUnavailable)
        self._get = self._server.script(f"{self.PRESENT}{_READ}return {{now, run, text}}")
        self._compare_and_set = self._server.script(_READ + _COMPARE_AND_SET)

    def transact(self, action: Callable[[Budget, float], Result], *, patience: float | None = None) -> Result:
        """Run the action on the budget, and write it back; repeat both if another process was faster."""
        deadline = time.monotonic() + _limit_timeout(patience, CONFLICT_TIMEOUT)
        pause, longest = BACKOFF
        while True:
            asked = self._clock.now()
            now, run, text = self._run(_read_record, self._get)
            budget = self._read(text, run, now)
            self._check_clock(budget, Reading(self._clock.machine, asked, self._clock.now(), now))
            result = action(budget, now)
            if self._run(int, self._compare_and_set, text, budget.to_json(run=run)):
                return result
            if time.monotonic() >= deadline:
                raise RateLimitUnavailable(
                    f"Too many tasks are changing the rate limit at {self._server.name} at the same time."
                    " If this persists, check that server"
                )
            # Jitter: callers that collided must not collide again.
            self._sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            pause = min(2 * pause, longest)

    def state_store(self, name: str) -> RedisStateStore:
        """Return a store in another key of the same server."""
        return RedisStateStore(self._server, name)

    def _read(self, text: bytes, run: str, now: float) -> Budget:
        if not text:
            log.info(
                "There is no record of the account's calls in the Redis at %s, so its whole budget counts as"
                " used now",
                self._server.name,
            )
            return Budget.exhausted(self.calls, self.period, now)
        try:
            # A record of another server, or from before a restart, may lack the latest calls.
            return Budget.from_json(text, self.calls, self.period, run=run)
        except ValueError as error:
            log.warning(
                "The record of the account's calls, %s in the Redis at %s, cannot be used (%s): the whole"
                " budget counts as used now",
                self.key,
                self._server.name,
                error,
            )
            return Budget.exhausted(self.calls, self.period, now)

    def _check_clock(self, budget: Budget, reading: Reading) -> None:
        # The other half of the margin is left for the way to the gateway.
        if (step := budget.check_clock(reading, self.margin / 2)) > 0:
            log.warning(
                "The clock of the Redis at %s was set forward by %.1f s: the account's whole budget counts as"
                " used now",
                self._server.name,
                step,
            )

    def _run(self, read: Callable[[Any], Result], script: Script, *arguments: str | bytes) -> Result:
        return self._server.run(script, [self.key], [max_size_of(self.calls), *arguments], read)


def _read_record(reply: list[bytes]) -> tuple[float, str, bytes]:
    """Return the current time, the id of the server's run, and the text of the record."""
    present, run, text = reply
    if not isinstance(text, bytes):
        raise TypeError("the record is not a text")
    return parse_seconds(present), str(run, "ascii"), text


class FileStateStore:
    """One JSON object in a file that all processes of a machine share.

    The object is a cache: if the file cannot be used, nothing is stored, and a warning is logged.

    Args:
        path: The file. Created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if nothing is stored."""
        return _parse_object(self._use(functools.partial(read_at_most, size=MAX_STATE_SIZE)) or b"")

    def save(self, content: dict[str, Any]) -> None:
        """Store the object."""
        self._use(functools.partial(write_all, content=json.dumps(content).encode()))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other processes that look up the same, for a minute at most."""
        path = self._path.with_suffix(".lock")
        with contextlib.ExitStack() as held:
            try:
                held.callback(os.close, open_locked(path, patience=LOOK_UP_TIMEOUT))
            except OSError as error:
                # Another process may wait for the rate limit; then both look up.
                level = logging.WARNING if is_permanent(error) else logging.INFO
                log.log(level, "%s cannot be locked (%s)", path, error.strerror)
            yield

    def _use(self, action: Callable[[int], bytes | None]) -> bytes | None:
        """Return the result of an action on the locked file; None if the file cannot be used."""
        try:
            descriptor = open_locked(self._path, patience=STATE_LOCK_TIMEOUT)
            try:
                return action(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("%s cannot be used (%s); nothing is stored there", self._path, error.strerror)
            return None


class RedisStateStore:
    """One JSON object in the Redis of the budget.

    The object is a cache: if the Redis does not answer, nothing is stored, and a warning is logged.

    Args:
        server: The Redis.
        name: Last part of its key.
    """

    def __init__(self, server: RedisClient, name: str) -> None:
        self._server = server
        self._key = f"airflow-provider-forge:{name}"
        self._get = server.script("return redis.pcall('GET', KEYS[1])")
        self._set = server.script("redis.call('SET', KEYS[1], ARGV[1])")

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if nothing is stored."""
        try:
            return self._server.run(self._get, [self._key], [], lambda text: _parse_object(text or b""))
        except RateLimitUnavailable as error:
            log.warning("%s. Nothing is stored there", error)
            return {}

    def save(self, content: dict[str, Any]) -> None:
        """Store the object."""
        try:
            self._server.run(self._set, [self._key], [json.dumps(content)], lambda _reply: None)
        except RateLimitUnavailable as error:
            log.warning("%s. Nothing is stored there", error)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Take no lock: machines that start at the same moment make one lookup each."""
        return contextlib.nullcontext()


def _parse_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a text; an empty one if the text is anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(text)
        return content if isinstance(content, dict) and is_storable(content) else {}
    return {}
