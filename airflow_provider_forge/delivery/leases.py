"""Leases: only the holder of a record's lease delivers into it; a second task for the same minutes waits."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from typing import TYPE_CHECKING, Protocol

from airflow_provider_forge.exceptions import ConfigurationError, DeliveryBusy, LedgerUnavailable
from airflow_provider_forge.files import is_permanent, open_locked
from airflow_provider_forge.redis_client import RedisClient
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["FileLeases", "Leases", "RedisLeases"]

log = get_logger(__name__)

PATIENCE = 60.0
"""Seconds that a task waits for a lease before it is deferred."""

LOCK_FILES = 48
"""Number of lock files, shared by all records: those four hours apart share one, and no file is left over."""

LEASE_SECONDS = 45.0
"""Seconds after which a lease in Redis expires if it is not renewed, such as that of a killed task."""

RENEWALS = 4
"""Number of renewals within that time; some may fail."""

_POLL = 0.2

# All keys or none, so that no task waits while it holds some. A lease is a text that expires: a key of
# another type, or that never expires, is another program's, or was damaged, and is replaced.
_ACQUIRE = """
for _, key in ipairs(KEYS) do
    local holder = redis.pcall('GET', key)
    if type(holder) == 'string' and holder ~= ARGV[1] and redis.call('PTTL', key) ~= -1 then
        return 0
    end
end
for _, key in ipairs(KEYS) do
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return 1
"""

_RELEASE = """
for _, key in ipairs(KEYS) do
    if redis.pcall('GET', key) == ARGV[1] then
        redis.call('DEL', key)
    end
end
return 1
"""


class Leases(Protocol):
    """Leases of the records of one ledger."""

    def hold(self, indexes: Iterable[int]) -> AbstractContextManager[None]:
        """Wait for the leases of all these records, and hold them inside the `with` block.

        Raises:
            DeliveryBusy: Another task has held one of them for more than a minute.
            LedgerUnavailable: The leases cannot be acquired at the moment.
        """


class FileLeases:
    """Leases between the processes of one machine: lock files, which the system unlocks if a holder dies.

    Args:
        directory: Directory of the files; created if missing, accessible to every user of the machine.
        name: Name of the ledger, for the file names.
        patience: Maximum number of seconds to wait.
        clock: Returns a monotonic time in seconds.
        sleep: Sleeps for a number of seconds.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._directory = directory
        self._name = name
        self._patience = patience
        self._clock = clock
        self._sleep = sleep

    @contextlib.contextmanager
    def hold(self, indexes: Iterable[int]) -> Iterator[None]:
        """Wait for the leases of all these records, and hold them inside the `with` block.

        Raises:
            DeliveryBusy: Another task has held one of them for more than a minute.
            ConfigurationError: The files cannot be used.
            LedgerUnavailable: The file system fails at the moment.
        """
        deadline = self._clock() + self._patience
        with contextlib.ExitStack() as held:
            # In the same order in all processes, which prevents deadlocks.
            for number in sorted({index % LOCK_FILES for index in indexes}):
                path = self._directory / f"{self._name}-{number}.lease"
                held.callback(os.close, self._lock(path, deadline))
            yield

    def _lock(self, path: Path, deadline: float) -> int:
        left = max(0.0, deadline - self._clock())
        try:
            return open_locked(path, patience=left, every=_POLL, clock=self._clock, sleep=self._sleep)
        except TimeoutError as error:
            raise _busy(self._patience) from error
        except OSError as error:
            if is_permanent(error):
                raise ConfigurationError(
                    "lease", f"cannot use {path} ({error.strerror}): make it writable, or set TMPDIR"
                ) from error
            raise LedgerUnavailable(
                f"The lease {path} cannot be acquired ({error.strerror}). If this"
                " persists, check the file system, or set TMPDIR to another directory"
            ) from error


class RedisLeases:
    """Leases between all processes that use one Redis: keys that expire if their holder dies.

    A thread renews the lease. A holder that is suspended for longer than the lease lasts can lose it; the
    ledger then shows which points were delivered twice.

    Args:
        url: URL of the Redis; a password in it never appears in an error.
        name: Name of the ledger, for the keys.
        patience: Maximum number of seconds to wait.
        duration: Seconds after which a lease expires if it is not renewed.
        clock: Returns a monotonic time in seconds.
        sleep: Sleeps for a number of seconds.

    Raises:
        ConfigurationError: The URL is malformed, or the package redis is missing.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        patience: float = PATIENCE,
        duration: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name = name
        self._patience = patience
        self._duration = duration
        self._clock = clock
        self._sleep = sleep
        self._server = RedisClient(url, "the leases of deliveries", LedgerUnavailable)
        self._acquire, self._release = self._server.script(_ACQUIRE), self._server.script(_RELEASE)

    @contextlib.contextmanager
    def hold(self, indexes: Iterable[int]) -> Iterator[None]:
        """Wait for the leases of all these records, and hold them inside the `with` block.

        Raises:
            DeliveryBusy: Another task has held one of them for more than a minute.
            LedgerUnavailable: The Redis does not respond.
        """
        # Braces keep the keys of a ledger on one node of a cluster.
        keys = [f"airflow-provider-forge:lease:{{{self._name}}}:{index}" for index in sorted(set(indexes))]
        token = uuid.uuid4().hex
        self._wait(keys, token)
        done = threading.Event()
        renewer = threading.Thread(target=self._keep_renewed, args=(keys, token, done), daemon=True)
        renewer.start()
        try:
            yield
        finally:
            done.set()
            renewer.join()
            try:
                self._server.run(self._release, keys, [token], int)
            except LedgerUnavailable as error:  # the points are delivered all the same
                log.warning("%s. The lease expires by itself in %g s", error, self._duration)

    def _wait(self, keys: Sequence[str], token: str) -> None:
        deadline = self._clock() + self._patience
        while not self._is_acquired(keys, token):
            if self._clock() >= deadline:
                raise _busy(self._patience)
            self._sleep(_POLL)

    def _is_acquired(self, keys: Sequence[str], token: str) -> bool:
        """Acquire or renew the leases, if no other task holds one of them."""
        return bool(self._server.run(self._acquire, keys, [token, int(self._duration * 1000)], int))

    def _keep_renewed(self, keys: Sequence[str], token: str, done: threading.Event) -> None:
        while not done.wait(self._duration / RENEWALS):
            try:
                if not self._is_acquired(keys, token):
                    log.warning("Another task has taken the lease, because it was not renewed in time")
                    return
            except LedgerUnavailable as error:
                log.warning("The lease was not renewed: %s", error)


def _busy(patience: float) -> DeliveryBusy:
    """Return the error for a task that has waited for this number of seconds."""
    return DeliveryBusy(
        f"Another task has held the ledger for these minutes for more than {patience:g} s: it delivers them,"
        " or minutes beside them or a multiple of four hours away. Wait until it has ended",
        retry_after=patience,
    )
