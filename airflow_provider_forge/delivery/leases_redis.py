"""Leases of several machines: keys in a Redis, which forgets them when their holder dies."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.leases import PATIENCE, busy
from airflow_provider_forge.exceptions import LedgerUnavailable
from airflow_provider_forge.redis_client import RedisServer
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["RedisLeases"]

log = get_logger(__name__)

LASTS = 45.0
"""Seconds for which a lease lasts unless it is renewed: so long is a task waited for that was killed."""

RENEWALS = 4
"""How often a lease is renewed in that time, because it may fail, too."""

_POLL = 0.2

# All keys or none, so that nobody waits with something in hand.
_TAKE = """
for _, key in ipairs(KEYS) do
    local holder = redis.call('GET', key)
    if holder and holder ~= ARGV[1] then
        return 0
    end
end
for _, key in ipairs(KEYS) do
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return 1
"""

_LET_GO = """
for _, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[1] then
        redis.call('DEL', key)
    end
end
"""


class RedisLeases:
    """Leases among all processes that reach one Redis.

    A holder renews its lease from a thread of its own. One that stands still for longer than a lease lasts
    can lose it; the record then shows what was delivered twice.

    Args:
        url: `redis://` or `rediss://`; where it has a password, it appears in no error.
        name: Of the ledger.
        patience: Seconds to wait at most.
        lasts: Seconds after which a lease ends that nobody renews.
        clock: Returns the present in seconds.
        sleep: Waits that many seconds.

    Raises:
        ConfigurationError: The URL is malformed, or the package redis is missing.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        patience: float = PATIENCE,
        lasts: float = LASTS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name = name
        self._patience = patience
        self._lasts = lasts
        self._clock = clock
        self._sleep = sleep
        self._server = RedisServer(url, "the leases of deliveries", LedgerUnavailable)
        self._take, self._let_go = self._server.script(_TAKE), self._server.script(_LET_GO)

    @contextlib.contextmanager
    def hold(self, cells: Iterable[int]) -> Iterator[None]:
        """Wait for the lease of all these cells, and hold it inside the `with` block.

        Raises:
            DeliveryBusy: Another task holds one of them for longer than a minute.
            LedgerUnavailable: The Redis does not answer.
        """
        # Braces keep the keys of a ledger on one node of a cluster.
        keys = [f"airflow-provider-forge:lease:{{{self._name}}}:{cell}" for cell in sorted(set(cells))]
        token = uuid.uuid4().hex
        self._wait(keys, token)
        done = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(keys, token, done), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()
            try:
                self._server.run(self._let_go, keys, [token])
            except LedgerUnavailable as error:  # what was delivered under it is delivered all the same
                log.warning("%s. The lease ends by itself in %g s", error, self._lasts)

    def _wait(self, keys: Sequence[str], token: str) -> None:
        deadline = self._clock() + self._patience
        while not self._taken(keys, token):
            if self._clock() >= deadline:
                raise busy(self._patience)
            self._sleep(_POLL)

    def _taken(self, keys: Sequence[str], token: str) -> bool:
        return bool(self._server.run(self._take, keys, [token, int(self._lasts * 1000)]))

    def _renew(self, keys: Sequence[str], token: str, done: threading.Event) -> None:
        while not done.wait(self._lasts / RENEWALS):
            try:
                if not self._taken(keys, token):
                    log.warning("Another task has taken the lease, because it could not be renewed in time")
                    return
            except LedgerUnavailable as error:
                log.warning("The lease is not renewed: %s", error)
