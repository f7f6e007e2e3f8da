"""Retries within a task while the receiver fails, before the rest is left to Airflow's retries."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_forge.exceptions import ReceiverUnavailable

__all__ = ["Attempts", "Retries"]

log = get_logger(__name__)

PATIENCE = 60.0
"""Seconds after a request's first failure during which it is retried. Each try of the task costs one of the
gateway's five calls a minute, so short outages are bridged here; longer ones are left to Airflow."""

FIRST_WAIT = 1.0
"""Seconds; each wait is twice the previous one, minus a random part of up to half, to spread out tasks."""

JITTER = 0.1
"""Fraction by which a wait may exceed the receiver's Retry-After, for the same reason."""

MAX_REFUSALS = 8
"""Consecutive refusals after which a receiver is assumed to refuse every request."""


@dataclass
class Attempts:
    """State shared by all requests to one destination.

    Attributes:
        patience: Seconds after a request's first failure during which it is retried.
        clock: Returns a monotonic time in seconds.
        sleep: Sleeps for a number of seconds.
        random: Returns a number from 0 up to 1.
        refusals: Consecutive requests that the receiver has refused.
    """

    patience: float = field(default_factory=lambda: PATIENCE)
    clock: Callable[[], float] = field(default_factory=lambda: time.monotonic)
    sleep: Callable[[float], None] = field(default_factory=lambda: time.sleep)
    random: Callable[[], float] = random.random
    refusals: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether the receiver seems to refuse everything."""
        return self.refusals >= MAX_REFUSALS

    def begin(self, export_timeout: float | None) -> Retries:
        """Return the retries of a new request.

        Args:
            export_timeout: Maximum time in seconds for the request and its retries; None for no limit.
        """
        return Retries(self, export_timeout)


class Retries:
    """The retries of one request."""

    def __init__(self, attempts: Attempts, export_timeout: float | None) -> None:
        self._attempts = attempts
        self._end = None if export_timeout is None else attempts.clock() + export_timeout
        self._until: float | None = None
        self._wait = FIRST_WAIT

    @property
    def seconds_left(self) -> float | None:
        """Maximum time in seconds for the next call; None for the endpoint's own limit."""
        return None if self._end is None else max(self._end - self._attempts.clock(), 0.0)

    def wait(self, error: ReceiverUnavailable, before: Callable[[], None] | None = None) -> None:
        """Wait until the request may be sent again.

        Args:
            error: The failure of the latest attempt.
            before: Called if there is a wait, before it begins.

        Raises:
            ReceiverUnavailable: The same error: the next attempt is left to Airflow.
        """
        seconds = self._seconds_after(error)
        if seconds is None:
            raise error
        if before:
            before()
        log.warning("%s. This task sends the request again in %.1f s", error.message, seconds)
        self._attempts.sleep(seconds)

    def _seconds_after(self, error: ReceiverUnavailable) -> float | None:
        """Return the seconds to wait after a failure; None to leave the next attempt to Airflow."""
        if not error.transient:
            return None
        now = self._attempts.clock()
        if self._until is None:
            self._until = now + self._attempts.patience
            if self._end is not None:
                self._until = min(self._until, self._end)
        if error.retry_after:
            wait = error.retry_after * (1 + JITTER * self._attempts.random())
        else:
            wait = self._wait * (1 - self._attempts.random() / 2)
            self._wait *= 2
        return wait if now + wait < self._until else None
