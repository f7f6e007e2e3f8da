"""The gateway's rate limit, and a count of its violations."""

from __future__ import annotations

import bisect
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["RateLimiter", "over_limit"]


class RateLimiter:
    """Admits a number of calls per period. Rejected calls do not count against the limit.

    Args:
        calls: Calls admitted per period; 0 or None for no limit.
        seconds: Length of the period in seconds.
        fixed: Whether periods start at multiples of `seconds`; otherwise the window slides.
    """

    def __init__(self, calls: int | None, seconds: float, *, fixed: bool = False) -> None:
        self._calls = calls or 0
        self._seconds = seconds
        self._fixed = fixed
        self._lock = threading.Lock()
        self._admitted: deque[float] = deque()

    def admit(self, clock: Callable[[], float]) -> tuple[float, float]:
        """Admit or reject a call.

        Returns:
            The clock's time in seconds since the epoch, and the seconds until a call is possible again: 0.0
            if the call is admitted.
        """
        with self._lock:
            now = clock()
            if not self._calls:
                return now, 0.0
            period_start = now - now % self._seconds if self._fixed else now - self._seconds
            while self._admitted and self._is_over(self._admitted[0], period_start):
                self._admitted.popleft()
            if len(self._admitted) < self._calls:
                self._admitted.append(now)
                return now, 0.0
            free_again = (period_start if self._fixed else self._admitted[0]) + self._seconds
            return now, free_again - now

    def _is_over(self, admitted: float, period_start: float) -> bool:
        return admitted < period_start if self._fixed else admitted <= period_start


def over_limit(times: Iterable[float], calls: int, seconds: float) -> int:
    """Count the periods [t, t + seconds), one for each call's time t, with more than `calls` calls."""
    ordered = sorted(times)
    return sum(
        bisect.bisect_left(ordered, time + seconds) - index > calls for index, time in enumerate(ordered)
    )
