"""The rate limit of several machines: the budget is in a Redis, which also has the clock."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_forge.exceptions import RateLimitUnavailable
from airflow_provider_forge.gateway.budget import Budget, margin_of, max_size_of, period_of
from airflow_provider_forge.gateway.memories import RedisMemory
from airflow_provider_forge.gateway.ratelimit import LimitStore, Result
from airflow_provider_forge.redis_client import RedisServer
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RedisStore"]

log = get_logger(__name__)

PATIENCE = 10.0
"""Seconds after which a caller gives up whose changes were always overtaken by others'."""

PAUSES = (0.002, 0.1)
"""Mean seconds before the second try to change the record, and at most before any other."""

# A key of another type, or a text that no budget can be, is as good as none.
_KNOWN = """
local text = redis.pcall('GET', KEYS[1])
if type(text) ~= 'string' or #text > tonumber(ARGV[1]) then
    text = ''
end
"""

_SWAP = """
if text ~= ARGV[2] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[3])
return 1
"""


class RedisStore(LimitStore):
    """Shares an account's budget among all processes that reach one Redis.

    The budget is read, changed here, and put back unless another process was faster; then it is read again.
    It is one key, which never expires: a missing one means that the server has lost it, so that all of the
    budget counts as used now. So it does after the server was started again or replaced, because it may have
    lost the last uses.

    Args:
        url: `redis://` or `rediss://`; where it has a password, it appears in no error.
        account: A name for the account that tells nobody who it is.
        calls: How many calls fit into `seconds`; 1 or more.
        seconds: The length of the span; more than 0.
        sleep: Waits that many seconds.

    Raises:
        ConfigurationError: The URL is malformed, or the package redis is missing.
    """

    PRESENT: ClassVar[str] = """
local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])
local run = redis.call('INFO', 'server'):match('run_id:(%x+)')
"""
    """Tells the present, as text, and which run of the server this is."""

    def __init__(
        self,
        url: str,
        account: str,
        *,
        calls: int = 5,
        seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.key = f"airflow-provider-forge:{account}"
        self.calls = calls
        self.period = period_of(seconds)
        self.margin = margin_of(seconds)
        self._sleep = sleep
        self._server = RedisServer(url, "the rate limit", RateLimitUnavailable)
        self._get = self._server.script(f"{self.PRESENT}{_KNOWN}return {{now, run, text}}")
        self._swap = self._server.script(_KNOWN + _SWAP)

    def change(self, action: Callable[[Budget, float], Result], *, patience: float | None = None) -> Result:
        """Run the action on the record, and put it back unless another process was faster."""
        deadline = time.monotonic() + (PATIENCE if patience is None else min(PATIENCE, max(1.0, patience)))
        pause, longest = PAUSES
        while True:
            present, run, text = self._run(self._get)
            now = float(present)
            budget = self._read(text, run, now)
            result = action(budget, now)
            if self._run(self._swap, text, budget.to_json(run=run)):
                return result
            if time.monotonic() >= deadline:
                raise RateLimitUnavailable(
                    f"Too many tasks change the rate limit at {self._server.name} at once. The call will be"
                    " retried. If this persists, check that server"
                )
            # Callers that came at the same moment must not try again at the same moment.
            self._sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            pause = min(2 * pause, longest)

    def memory(self, name: str) -> RedisMemory:
        """Return a key beside this one."""
        return RedisMemory(self._server, name)

    def _read(self, text: str, run: str, now: float) -> Budget:
        if not text:
            log.info(
                "There is no record of the account's calls in the Redis at %s: all of them count as made now",
                self._server.name,
            )
            return Budget.used_up(self.calls, self.period, now)
        try:
            # Another server, or another life of this one, may lack the last uses.
            return Budget.from_json(text, self.calls, self.period, run=run)
        except ValueError as error:
            log.warning(
                "%s in the Redis at %s %s: the whole budget counts as used now",
                self.key,
                self._server.name,
                error,
            )
            return Budget.used_up(self.calls, self.period, now)

    def _run(self, script: Any, *arguments: str) -> Any:
        return self._server.run(script, [self.key], [max_size_of(self.calls), *arguments])
