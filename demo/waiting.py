"""Wait for a condition instead of a fixed time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def wait_for(condition: Callable[[], T], *, timeout: float, what: str, every: float = 0.2) -> T:
    """Call `condition` every `every` seconds until its result is true, and return that result.

    Raises:
        TimeoutError: After `timeout` seconds; the message contains `what` and the last result.
    """
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}; last result: {result!r}")
        time.sleep(every)
    return result
