"""Numbers as Grafana displays them, by the id of their unit."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["UNITS", "duration", "seconds_of", "stat_text"]

HOUR = 3600


def number(value: float) -> str:
    return f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.3g}"


def duration(value: float) -> str:
    day = 24 * HOUR
    for unit, seconds in (("weeks", 7 * day), ("days", day), ("hours", HOUR), ("mins", 60)):
        if abs(value) >= seconds:
            return f"{value / seconds:.3g} {unit}"
    return f"{value:.3g} s"


UNITS: dict[str, Callable[[float], str]] = {
    "short": number,
    "percentunit": lambda value: f"{100 * value:.3g}%",
    "percent": lambda value: f"{value:.3g}%",
    "ms": lambda value: f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms",
    "s": duration,
    "currencyUSD": lambda value: f"${value:,.2f}",
    "dateTimeAsIso": lambda value: f"{datetime.fromtimestamp(value / 1000, timezone.utc):%Y-%m-%d}",
}


def stat_text(value: float | None, defaults: dict[str, Any]) -> str:
    """Return the text of a stat panel."""
    if value is None:
        return defaults["noValue"]
    [words] = [each["options"] for each in defaults.get("mappings", ())] or [{}]
    word = words.get(f"{value:g}")
    return word["text"] if word else UNITS[defaults["unit"]](value)


def seconds_of(interval: str) -> int:
    """Return the length of an interval such as "15m"."""
    return int(interval[:-1]) * {"m": 60, "h": HOUR}[interval[-1]]
