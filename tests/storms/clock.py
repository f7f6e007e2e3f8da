"""Sleeping without waiting: a storm of minutes takes a second."""

from __future__ import annotations

import threading
import time

__all__ = ["LONGEST_NAP", "bend_time", "nap"]

LONGEST_NAP = 0.01
"""Seconds that a sleep takes at most; the process' monotonic clock makes up for the rest."""

nap = time.sleep
"""The real one."""

_monotonic = time.monotonic
_ahead = 0.0
_lock = threading.Lock()


def bend_time() -> None:
    """Have every module that is imported from now on sleep and measure by a clock that hurries."""
    time.sleep = _sleep
    time.monotonic = _bent


def _sleep(seconds: float) -> None:
    global _ahead
    real = min(seconds, LONGEST_NAP)
    nap(real)
    with _lock:
        _ahead += seconds - real


def _bent() -> float:
    return _monotonic() + _ahead
