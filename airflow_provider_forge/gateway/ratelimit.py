"""The rate limit: each call reserves a slot in the budget that all processes share."""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_provider_forge.exceptions import ConfigurationError, RateLimited, RateLimitUnavailable
from airflow_provider_forge.gateway.budget import Priority
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_forge.gateway.budget import Budget, Decision, Standing
    from airflow_provider_forge.gateway.ratelimit_stores import FileStateStore, RedisStateStore

__all__ = ["LimitStore", "LimitUsage", "RateLimiter", "Reservation"]

log = get_logger(__name__)

LOGGED_WAIT = 5.0
"""Seconds. A longer wait is logged before it begins."""

Result = TypeVar("Result")


class LimitStore(Protocol):
    """Stores the `Budget` of an account for all processes that share it, with one clock for all of them.

    Attributes:
        margin: Seconds that a request may take to arrive at the gateway, at no cost.
    """

    margin: float

    def transact(self, action: Callable[[Budget, float], Result], *, patience: float | None = None) -> Result:
        """Run an action on the budget in a transaction and return its result.

        Args:
            action: Takes the budget, which it may change, and the current time. May run several times.
            patience: Seconds to wait for other transactions; None for the store's default.

        Raises:
            ConfigurationError: The store cannot be used.
            RateLimitUnavailable: The store does not answer, or other processes keep it locked.
        """

    def state_store(self, name: str) -> FileStateStore | RedisStateStore:
        """Return a store for other state, next to the budget; raises as `transact` does."""


@dataclass
class LimitUsage:
    """The part of the budget that one process has used.

    Attributes:
        calls: Number of requests sent to the gateway.
        throttles: Number of calls that exceeded the gateway's limit.
        waited: Seconds spent waiting for slots.
    """

    calls: int = 0
    throttles: int = 0
    waited: float = 0.0


class RateLimiter:
    """Makes a process wait for its slots.

    Args:
        store: Shares the account's budget.
        sleep: Sleeps for a number of seconds.
        clock: Returns the current time in seconds, to measure how long a call takes.

    Attributes:
        usage: Calls and waits of this limiter.
    """

    def __init__(
        self,
        store: LimitStore,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.usage = LimitUsage()
        self.clock = clock
        self._sleep = sleep

    def acquire(
        self, *, priority: Priority = Priority.BACKFILL, patience: float | None = None
    ) -> Reservation:
        """Wait for a slot and return its reservation.

        A slot up to a minute in the future is reserved and slept for in this process. If the next slot is
        further in the future, nothing is reserved until that minute has come.

        Args:
            priority: Live calls go before those of a backfill.
            patience: Seconds, 0 or more, to wait in total until a slot can be reserved; None for any time.

        Raises:
            RateLimited: The wait would be longer; nothing is reserved. `retry_after` is the seconds to wait.
            ConfigurationError: The store cannot be used.
            RateLimitUnavailable: The store does not answer, or others lock it for longer than `patience`.
        """
        reservation = Reservation(self, uuid.uuid4().hex, priority, patience)
        reservation.confirm()
        return reservation

    def wait(self, reservation: Reservation) -> float:
        """Sleep until the slot counts as used now; return the seconds slept."""
        patience = reservation.patience
        slept, unplaced, logged = 0.0, 0.0, False
        while not (decision := self._ask(reservation)).granted:
            unplaced += 0.0 if decision.placed else decision.seconds
            if not decision.placed and patience is not None and unplaced > patience:
                raise RateLimited(
                    "Rate limit: other tasks have reserved this account's calls, or the gateway asked for a"
                    f" pause. Next call possible in {decision.seconds:.0f} s",
                    retry_after=decision.seconds,
                )
            if not logged and decision.seconds >= LOGGED_WAIT:
                logged = True
                log.info("Waiting %.0f s or more for the rate limit", decision.seconds)
            self._sleep(decision.seconds)
            slept += decision.seconds
            self.usage.waited += decision.seconds
        return slept

    def _ask(self, reservation: Reservation) -> Decision:
        return self.store.transact(
            lambda budget, now: budget.ask(reservation.owner, now, priority=reservation.priority),
            patience=reservation.patience,
        )

    def settle(self, reservation: Reservation) -> None:
        """Count the call from now, less the margin, if its request may have arrived late. Never raises."""
        margin = self.store.margin
        if self.clock() - reservation.confirmed_at <= margin:
            return
        with _unshared("The time at which a call arrived"):
            self.store.transact(lambda budget, now: budget.settle(reservation.owner, now - margin, now))

    def pause(self, seconds: float | None) -> None:
        """Block all calls for these seconds, because the gateway counted too many; None is one period.

        Never raises.
        """
        self.usage.throttles += 1
        with _unshared("A pause that the gateway asked for"):
            self.store.transact(lambda budget, now: budget.pause(seconds, now))

    def standing(self) -> Standing:
        """Return how much of the account's budget is used now, and who waits for it; makes no call.

        Raises:
            ConfigurationError: The store cannot be used.
            RateLimitUnavailable: The store does not answer.
        """
        return self.store.transact(lambda budget, now: budget.standing(now))

    def block_credentials(self, credentials: str) -> None:
        """Block these credentials for a quarter of an hour. Never raises."""
        with _unshared("The refusal of the credentials"):
            self.store.transact(lambda budget, now: budget.block_credentials(credentials, now))

    def blocked_for(self, credentials: str) -> float:
        """Return the seconds for which these credentials stay blocked; 0 if they are not."""
        return self.store.transact(lambda budget, now: budget.blocked_for(credentials, now))


@contextlib.contextmanager
def _unshared(news: str) -> Iterator[None]:
    """Log an error of the store, which must not hide the gateway's answer."""
    try:
        yield
    except (ConfigurationError, RateLimitUnavailable) as error:
        log.warning("%s is not shared with other processes: %s", news, error)


@dataclass
class Reservation:
    """A slot in the budget.

    Attributes:
        owner: Random id.
        priority: Priority of the call.
        patience: As in `RateLimiter.acquire`.
        waited: Seconds spent waiting for the slot.
        confirmed_at: Time of the latest `confirm`, by the limiter's clock: the request left no earlier.
    """

    limiter: RateLimiter
    owner: str
    priority: Priority
    patience: float | None
    waited: float = 0.0
    confirmed_at: float = 0.0

    def confirm(self) -> float:
        """Use the slot now; call it right before the request leaves. Return the seconds waited for it.

        The gateway counts a call when it arrives, and connecting can take seconds, so the slot counts as used
        only from here. If connecting took so long that the slot has expired, this waits again.
        """
        self.confirmed_at = self.limiter.clock()
        waited = self.limiter.wait(self)
        self.waited += waited
        return waited

    def settle(self) -> None:
        """Record that the request has arrived; call it when the response begins, or when there will be none.

        If the request took longer than the margin, it counts from now less the margin, so that no later call
        arrives within the limit's period of it.
        """
        self.limiter.settle(self)
