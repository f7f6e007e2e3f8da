"""Windows: the half-open UTC time ranges for which metrics are fetched."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pendulum

from airflow_provider_forge.exceptions import ConfigurationError, WindowExpired

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "LIVE_FOR",
    "MAX_INTERVAL",
    "MAX_WINDOW",
    "MIN_TIME_LEFT",
    "RETENTION",
    "SETTLE_DELAY",
    "Window",
    "ceil",
    "expired_error",
    "find_moment",
    "floor",
    "format_time",
    "has_offset",
    "humanize_duration",
    "is_recent",
    "joined",
    "parse_time",
]

MAX_WINDOW = dt.timedelta(minutes=15)
"""Maximum length of a window that the gateway accepts in one call (Atlassian: "Export app metrics")."""

RETENTION = dt.timedelta(days=14)
"""How long the gateway keeps metrics (same source)."""

MAX_INTERVAL = dt.timedelta(days=3660)
"""Maximum length of an interval that is cut into windows, some 350,000: a longer one is a mistake."""

SETTLE_DELAY = dt.timedelta(minutes=5)
"""Time after its end at which a window is fetched, because data arrives late: Atlassian does not publish by
how much."""

LIVE_FOR = dt.timedelta(hours=2)
"""Time after its end for which a window is live, and goes before older ones. Long enough for its settle
delay, a few retries and its revisit an hour later; too short for a backfill to count as live."""

MIN_TIME_LEFT = dt.timedelta(minutes=30)
"""Minimum time until a window expires for a run to be started for it: the run may wait for the rate limit."""

CLOCK_TOLERANCE = dt.timedelta(minutes=5)
"""Difference between the clocks of two machines, up to which a stored time may be in the future."""

MINUTE = dt.timedelta(minutes=1)
HALF_DAY = dt.timedelta(hours=12)
RESOLUTION = dt.timedelta(milliseconds=1)

_TIME_WITH_OFFSET = re.compile(
    r"[T ]\d{2}(:?\d{2}){0,2}([.,]\d+)?\s*(Z|[+-]\d{2}(:?[0-5]\d)?)$", re.IGNORECASE
)


@dataclass(frozen=True, order=True)
class Window:
    """A half-open time range `[start, end)` in UTC, with the gateway's precision of a millisecond.

    Args:
        start: First moment inside; aware.
        end: First moment after; aware, later than `start`.

    Raises:
        ConfigurationError: A time is naive, or the end is not after the start.
    """

    start: pendulum.DateTime
    end: pendulum.DateTime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", parse_time("start", self.start))
        object.__setattr__(self, "end", parse_time("end", self.end))
        if self.end <= self.start:
            start, end = (format_time(each, "milliseconds") for each in (self.start, self.end))
            raise ConfigurationError("end", f"{end} is not after the start, {start}")

    @classmethod
    def last_settled(
        cls, before: dt.datetime, *, length: dt.timedelta = MAX_WINDOW, settle: dt.timedelta = SETTLE_DELAY
    ) -> Window:
        """Return the latest aligned window of `length` that ended at least `settle` before `before`."""
        end = floor(pendulum.instance(before) - settle, length)
        return cls(end - length, end)

    def __str__(self) -> str:
        return f"{format_time(self.start)}/{format_time(self.end)}"

    def humanize(self, this_year: int | None = None) -> str:
        """Format it for people, in as few characters as are unambiguous: the day, and the times in UTC.

        Args:
            this_year: The year that need not be named; None if only an interval over several years needs it.
        """
        start, end = (each.time().isoformat(_precision(each)) for each in (self.start, self.end))
        first, last = (f"{each.day} {each:%b}" for each in (self.start, self.end))
        is_short = self.end - self.start <= HALF_DAY
        if this_year not in (None, self.start.year) or (not is_short and self.start.year != self.end.year):
            first, last = f"{first} {self.start.year}", f"{last} {self.end.year}"
        if is_short:
            return f"{first} {start}\u2013{end} UTC"
        return f"{first} {start} \u2013 {last} {end} UTC"

    def check_length(self) -> None:
        """Check that it is at most `MAX_INTERVAL` long.

        Raises:
            ConfigurationError: It is longer.
        """
        if self.end - self.start > MAX_INTERVAL:
            years = MAX_INTERVAL.days // 365
            raise ConfigurationError(
                "start", f"{self.humanize()} is longer than {years} years; give a later start"
            )

    def split(self) -> Iterator[Window]:
        """Return the windows of one call each, oldest first, cut at the UTC quarter hours.

        Raises:
            ConfigurationError: It is longer than `MAX_INTERVAL`.
        """
        self.check_length()
        return self._cut()

    def _cut(self) -> Iterator[Window]:
        start = self.start
        while start < self.end:
            end = min(floor(start, MAX_WINDOW) + MAX_WINDOW, self.end)
            yield Window(start, end)
            start = end

    def shifted(self, by: dt.timedelta) -> Window:
        """Return a window of the same length, later by `by`."""
        return Window(self.start + by, self.end + by)

    def halves(self) -> tuple[Window, ...]:
        """Return two halves, cut at a whole minute; nothing for a window of a minute or less."""
        length = self.end - self.start
        if length <= MINUTE:
            return ()
        middle = max(floor(self.start + length / 2, MINUTE), ceil(self.start + RESOLUTION, MINUTE))
        return Window(self.start, middle), Window(middle, self.end)

    def expired(self, now: dt.datetime) -> bool:
        """Return whether the window begins before the gateway's retention period."""
        return self.start < now - RETENTION

    def is_live(self, now: dt.datetime) -> bool:
        """Return whether the window ended less than two hours ago."""
        return now - self.end < LIVE_FOR


def joined(windows: Iterable[Window]) -> list[Window]:
    """Return windows with those in a row as one; the halves of a quarter hour stay halves.

    Args:
        windows: The windows, oldest first.
    """
    found: list[Window] = []
    for window in windows:
        is_cut = window.start == floor(window.start, MAX_WINDOW)
        if found and found[-1].end == window.start and is_cut:
            found[-1] = Window(found[-1].start, window.end)
        else:
            found.append(window)
    return found


def expired_error(window: Window, now: dt.datetime) -> WindowExpired:
    """Return the error for a window or an interval that begins before the gateway's retention period."""
    kept = now - RETENTION
    return WindowExpired(
        f"{window.humanize(now.year)} begins before {kept.day} {kept:%b %H:%M} UTC: Atlassian keeps metrics"
        " for 14 days, so these are no longer available. Request later ones"
    )


def floor(moment: dt.datetime, step: dt.timedelta) -> pendulum.DateTime:
    """Return the last multiple of `step`, counted from the epoch in UTC, that is not after `moment`."""
    seconds = step.total_seconds()
    return pendulum.from_timestamp(moment.timestamp() // seconds * seconds)


def ceil(moment: dt.datetime, step: dt.timedelta) -> pendulum.DateTime:
    """Return the first multiple of `step`, counted from the epoch in UTC, that is not before `moment`."""
    seconds = step.total_seconds()
    return pendulum.from_timestamp(-(-moment.timestamp() // seconds) * seconds)


def parse_time(field: str, value: str | dt.datetime) -> pendulum.DateTime:
    """Convert an aware time to UTC, truncated to the millisecond.

    Args:
        field: Name of the argument, for the error.
        value: A datetime, or ISO 8601 text with an offset, such as `2026-11-23T05:15:00Z`.

    Raises:
        ConfigurationError: The value is not a time, or has no offset.
    """
    example = "give one such as 2026-11-23T05:15:00Z"
    moment: pendulum.DateTime | None = None
    offset = True
    if isinstance(value, str):
        moment, offset = find_moment(value), has_offset(value)
    elif isinstance(value, dt.datetime):
        moment, offset = _in_utc(value), value.utcoffset() is not None
    if moment is None:
        raise ConfigurationError(field, f"{value!r} is not a time; {example}")
    if not offset:
        raise ConfigurationError(field, f"{value!r} has no UTC offset; {example}")
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def find_moment(text: str, now: pendulum.DateTime | None = None) -> pendulum.DateTime | None:
    """Return the time in UTC that ISO 8601 text names; None if it names none, or a duration or an interval.

    Args:
        text: The text. A time without an offset is one in UTC.
        now: Present, for a time without a date.
    """
    try:
        parsed = pendulum.parse(text.strip(), now=now)
    except (ValueError, TypeError, OverflowError):  # a TypeError for a date with a duration
        return None
    return _in_utc(parsed) if isinstance(parsed, pendulum.DateTime) else None


def _in_utc(moment: dt.datetime) -> pendulum.DateTime | None:
    """Return a time in UTC, in which it is if it has no offset; None if it is out of UTC's range."""
    try:
        return pendulum.instance(moment).in_timezone("UTC")
    except (ValueError, OverflowError):  # a ValueError for an offset of 24 hours
        return None


def has_offset(text: str) -> bool:
    """Return whether ISO 8601 text ends in a UTC offset."""
    return bool(_TIME_WITH_OFFSET.search(text.strip()))


def format_time(moment: dt.datetime, precision: Literal["auto", "seconds", "milliseconds"] = "auto") -> str:
    """Format an aware time as ISO 8601 in UTC, truncated to the precision.

    Args:
        moment: The time.
        precision: `milliseconds` is the form of Atlassian's sample query, `2023-06-18T02:55:00.000Z`. `auto`
            is milliseconds if there are any, else seconds.
    """
    if precision == "auto":
        precision = "milliseconds" if moment.microsecond >= 1000 else "seconds"
    return f"{moment.astimezone(dt.timezone.utc).replace(tzinfo=None).isoformat(timespec=precision)}Z"


def humanize_duration(duration: dt.timedelta) -> str:
    """Format a duration in words, such as `1 day 12 hours`."""
    minutes, seconds = divmod(duration.seconds, 60)
    parts = {"day": duration.days, "hour": minutes // 60, "minute": minutes % 60, "second": seconds}
    words = [f"{number} {unit}{'s' * (number != 1)}" for unit, number in parts.items() if number]
    return " ".join(words) or "0 seconds"


def is_recent(age: dt.timedelta, limit: dt.timedelta) -> bool:
    """Return whether something stored is younger than a limit.

    If it is from the future, it is not: a clock was ahead when it was stored, and it would count as recent
    until that time has come.

    Args:
        age: The current time, less the stored time.
        limit: Age from which it is no longer recent.
    """
    return -CLOCK_TOLERANCE <= age < limit


def _precision(moment: dt.datetime) -> str:
    if moment.microsecond:
        return "milliseconds"
    return "seconds" if moment.second else "minutes"
