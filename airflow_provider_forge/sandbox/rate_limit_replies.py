"""The headers by which the gateway rejects a call over the limit."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_forge.sandbox.scenario import RateLimitChannel

__all__ = ["rate_limit_headers"]


def rate_limit_headers(channel: RateLimitChannel, now: float, wait: float) -> tuple[tuple[str, str], ...]:
    """Return the headers of a rejection with HTTP 429; none for the channels that use HTTP 200.

    Args:
        channel: The form in which the wait is communicated.
        now: Seconds since the epoch.
        wait: Seconds until a call is possible again. Times are rounded up to the precision of their format.
    """
    free_at = datetime.fromtimestamp(math.ceil(now + wait), timezone.utc)
    headers = {
        "seconds": ("Retry-After", str(math.ceil(wait))),
        "http_date": ("Retry-After", format_datetime(free_at, usegmt=True)),
        "iso": ("Retry-After", _iso_minute(free_at)),
        "reset": ("X-RateLimit-Reset", _iso_minute(free_at)),
    }
    return (headers[channel],) if channel in headers else ()


def _iso_minute(time: datetime) -> str:
    if time.second:
        time += timedelta(seconds=60 - time.second)
    return time.strftime("%Y-%m-%dT%H:%MZ")
