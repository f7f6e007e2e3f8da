"""How long a task goes on with a receiver that fails, before it leaves the rest to Airflow."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_forge.exceptions import ReceiverUnavailable

__all__ = ["Attempts", "Retries"]

PATIENCE = 60.0
"""Seconds from a request's first failure within which it is retried: a try of the task costs a call of the
gateway's five a minute, and an outage of an hour is Airflow's business."""

FIRST_WAIT = 1.0
"""Seconds; each wait is twice the one before, less up to a half, so that many tasks don't return at once."""

JITTER = 0.1
"""Part of a wait that the receiver asked for by which it may be exceeded, for the same reason."""

MAX_REFUSALS = 8
"""Refusals in a row after which a receiver is taken to refuse everything, whatever is in a request."""


@dataclass
class Attempts:
    """What the requests of one task share.

    Attributes:
        patience: Seconds from a request's first failure within which it is retried.
        clock: Returns the present in seconds.
        sleep: Waits that many seconds.
        random: Returns a number from 0 up to 1.
        refusals: Requests that the receiver has refused since it accepted one.
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
        """Begin with a request.

        Args:
            export_timeout: Seconds that it may take as a whole; None for no limit of its own.
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
        """Seconds that the next call may take; None for the endpoint's own limit."""
        return None if self._end is None else max(self._end - self._attempts.clock(), 0.0)

    def wait_after(self, error: ReceiverUnavailable) -> float | None:
        """Return the seconds to wait before the request is sent again; None if it is Airflow's turn."""
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
