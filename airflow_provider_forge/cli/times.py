"""Times and durations on a command line: `--start yesterday`, `--from -2h`, `--last 2h`, or ISO 8601."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import (
    MAX_WINDOW,
    RETENTION,
    Window,
    find_moment,
    floor,
    format_time,
    has_offset,
    parse_time,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output

__all__ = ["Times", "parse_duration"]

_EXAMPLES = "give one such as 2026-11-23T05:00:00Z, '2026-11-23 05:00', yesterday or -2h"
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([mhd])(?:in|ours?|ays?)?)?", re.ASCII)
_DAYS = {"today": 0, "yesterday": 1}


class Times:
    """The times that the options of a command name.

    Args:
        options: Options of the command.
        now: Present, aware.
        output: Gets a note for each time that is taken as UTC.
        longest: How long ago a relative time may be.
    """

    def __init__(
        self, options: Namespace, now: dt.datetime, output: Output, *, longest: dt.timedelta = RETENTION
    ) -> None:
        self._options = options
        self._now = pendulum.instance(now)
        self._output = output
        self._longest = longest

    def interval(self, *, length: dt.timedelta | None = None) -> Window:
        """Return the interval that `--start`, `--end` and `--last` name.

        Args:
            length: Length of the interval if only its start is given; None if it then ends with the last
                quarter hour that has settled.

        Raises:
            ConfigurationError: A time is malformed or in the future, or the options contradict each other.
        """
        start, end, last = self._options.start, self._options.end, self._options.last
        settled = Window.last_settled(self._now)
        if last:
            if start or end:
                raise ConfigurationError("--last", "cannot be combined with --start or --end")
            return Window(settled.end - parse_duration("--last", last, self._longest), settled.end)
        if not start:
            if end or length is None:
                raise ConfigurationError("--start", "is missing; or give --last, such as --last 2h")
            return settled
        begin = self.moment("--start", start)
        if end:
            return Window(begin, self.moment("--end", end))
        if length is None and begin >= settled.end:
            raise ConfigurationError(
                "--start",
                f"{begin:%Y-%m-%d %H:%M} UTC is not before the end of the last settled quarter hour,"
                f" {settled.end:%H:%M}; give an earlier time",
            )
        return Window(begin, begin + length if length else settled.end)

    def moment(self, option: str, text: str) -> pendulum.DateTime:
        """Return a time in UTC. A relative one is that of the quarter hour in which it lies.

        Args:
            option: Name of the option, for the error.
            text: Value of the option.

        Raises:
            ConfigurationError: The text is not a time, is in the future, or too long ago for a relative one.
        """
        moment = self._read(option, text)
        if moment > self._now:
            latest = format_time(Window.last_settled(self._now).end)
            raise ConfigurationError(
                option, f"{moment:%Y-%m-%d %H:%M} UTC is in the future; give {latest} or earlier"
            )
        return moment

    def _read(self, option: str, text: str) -> pendulum.DateTime:
        word = text.strip().lower()
        if word in _DAYS:
            return self._now.start_of("day").subtract(days=_DAYS[word])
        if word == "now":
            return floor(self._now, MAX_WINDOW)
        if word.startswith("-"):
            return floor(self._now - parse_duration(option, word[1:], self._longest), MAX_WINDOW)
        if has_offset(text):
            return parse_time(option, text)
        moment = find_moment(text, self._now)
        if moment is None:
            raise ConfigurationError(option, f"{text!r} is not a time; {_EXAMPLES}")
        self._output.note(f"{option}: {text} has no UTC offset, and is taken as UTC")
        return moment


def parse_duration(option: str, text: str, longest: dt.timedelta) -> dt.timedelta:
    """Return a duration such as `90m`, `2h` or `400d`. Its unit is required: no option has one of its own.

    Args:
        option: Name of the option, for the error.
        text: Value of the option.
        longest: Maximum, in whole days.

    Raises:
        ConfigurationError: The text is not a duration above 0 and up to the maximum.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found and not found[2]:
        raise ConfigurationError(
            option, f"{text!r} has no unit; give {found[1]}m, {found[1]}h or {found[1]}d"
        )
    minutes = float(found[1]) * _MINUTES[found[2]] if found else 0
    if not 0 < minutes <= _MINUTES["d"] * longest.days:
        raise ConfigurationError(
            option,
            f"{text!r} is not a length of time up to {longest.days} days; give one such as 90m, 2h or 1d",
        )
    return dt.timedelta(minutes=minutes)
