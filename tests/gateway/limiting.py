"""Limiters over both stores, with a clock that moves only when somebody sleeps."""

from __future__ import annotations

import json
import os
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.files import open_shared
from airflow_provider_forge.gateway.budget import Budget, Decision, Priority
from airflow_provider_forge.gateway.clocks import MachineClock
from airflow_provider_forge.gateway.ratelimit import LimitStore, RateLimiter
from airflow_provider_forge.gateway.ratelimit_stores import FileStore, RedisStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.redis_program import Redis

LIVE = Priority.LIVE
SECONDS = 60.0
PERIOD = 61.0
"""What a limiter keeps as a distance where 60 s are allowed: a margin is added for the way to the gateway."""


class Machine:
    """One machine's clock; what is due in the meantime happens while somebody sleeps."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self.due: dict[float, Callable[[], Any]] = {}

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        end = self.now + seconds
        for moment in sorted(moment for moment in self.due if moment <= end):
            self.now = moment
            self.due.pop(moment)()
        self.now = end


class ClockedRedisStore(RedisStore):
    """A Redis whose clock is a machine's: only what the script says first is another.

    Attributes:
        ahead: How far its clock is ahead of the machine's.
    """

    PRESENT = "local now, run = redis.call('GET', 'clock'), 'this'\n"

    def __init__(self, server: Redis, machine: Machine, **limits: Any) -> None:
        super().__init__(server.url, "account", clock=MachineClock("machine", machine.clock), **limits)
        self.client = server.client
        self.machine = machine
        self.ahead = 0.0

    def _run(self, *arguments: Any) -> Any:
        self.client.set("clock", repr(self.machine.now + self.ahead))
        return super()._run(*arguments)


class Process:
    """A process at the limiter, one step at a time, as `RateLimiter.wait` takes them.

    `wait` asks, sleeps, and asks again; here a test decides when the sleeper wakes, if at all.
    """

    _numbers = count()

    def __init__(
        self, limiter: RateLimiter, machine: Machine, *, priority: Priority = Priority.BACKFILL
    ) -> None:
        self.store: LimitStore = limiter.store
        self.machine = machine
        self.priority = priority
        self.owner = f"owner-{next(self._numbers)}"
        self.wakes_at: float | None = None
        self.granted_at: float | None = None
        self.placed = False

    def step(self) -> bool:
        """Ask for the place; tell whether it is granted."""
        decision = ask(self.store, self.owner, self.priority)
        self.placed = decision.placed
        self.wakes_at = self.machine.now + decision.seconds
        self.granted_at = self.machine.now if decision.granted else None
        return decision.granted


def ask(store: LimitStore, owner: str, priority: Priority = Priority.BACKFILL) -> Decision:
    """Ask a store for a slot, once."""
    return store.transact(lambda budget, now: budget.ask(owner, now, priority=priority))


def make_unused(store: LimitStore) -> None:
    """Put the record of an account that has not called into a store that has none."""
    record = Budget(store.calls, store.period)
    if isinstance(store, FileStore):
        os.close(open_shared(store.path, lambda: record.to_json().encode()))
    else:
        store.client.set(store.key, record.to_json(run="this"), nx=True)


def new_file_limiter(path: Any, machine: Machine, **limits: Any) -> RateLimiter:
    store = FileStore(path, clock=machine.clock, **limits)
    return RateLimiter(store, sleep=machine.sleep, clock=machine.clock)


def new_redis_limiter(server: Redis, machine: Machine, **limits: Any) -> RateLimiter:
    store = ClockedRedisStore(server, machine, **limits)
    return RateLimiter(store, sleep=machine.sleep, clock=machine.clock)


def kept(limiter: RateLimiter) -> dict[str, Any]:
    """Return what the store has on record."""
    store = limiter.store
    text = store.path.read_bytes() if isinstance(store, FileStore) else store.client.get(store.key)
    return json.loads(text)


def spoil(limiter: RateLimiter, content: bytes) -> None:
    """Put something else in the place of the record."""
    store = limiter.store
    if isinstance(store, FileStore):
        store.path.write_bytes(content)
    else:
        store.client.set(store.key, content)
