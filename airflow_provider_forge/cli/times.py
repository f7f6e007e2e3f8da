"""Times on a command line: `--start yesterday`, `--start -2h`, `--last 2h`, or ISO 8601."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import MAX_WINDOW, RETENTION, Window, floor, has_offset, parse_time

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output

__all__ = ["Times"]

MAX_DAYS = RETENTION.days

_EXAMPLES = "give one such as 2026-11-23T05:00:00Z, '2026-11-23 05:00', yesterday or -2h"
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([mhd])(?:in|ours?|ays?)?")
_DAYS = {"today": 0, "yesterday": 1}


class Times:
    """The interval that the options `--start`, `--end` and `--last` name.

    Args:
        options: Options of the command.
        now: Present, aware.
        output: Gets a note for each time that is taken as UTC.
    """

    def __init__(self, options: Namespace, now: dt.datetime, output: Output) -> None:
        self._options = options
        self._now = pendulum.instance(now)
        self._output = output

    def interval(self, *, length: dt.timedelta | None = None) -> Window:
        """Return the interval.

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
            return Window(settled.end - _parse_duration("--last", last), settled.end)
        if not start:
            if end or length is None:
                raise ConfigurationError("--start", "is missing; or give --last, such as --last 2h")
            return settled
        begin = self._moment("--start", start)
        if begin > self._now:
            raise ConfigurationError("--start", f"{begin:%Y-%m-%d %H:%M} UTC is in the future")
        if end:
            return Window(begin, self._moment("--end", end))
        return Window(begin, begin + length if length else settled.end)

    def _moment(self, option: str, text: str) -> pendulum.DateTime:
        """Return a time in UTC. A relative one is that of the quarter hour in which it lies."""
        word = text.strip().lower()
        if word in _DAYS:
            return self._now.start_of("day").subtract(days=_DAYS[word])
        if word == "now":
            return floor(self._now, MAX_WINDOW)
        if word.startswith("-"):
            return floor(self._now - _parse_duration(option, word[1:]), MAX_WINDOW)
        if has_offset(text):
            return parse_time(option, text)
        moment = _parse_naive(option, text.strip(), self._now)
        self._output.note(f"{option}: {text} has no UTC offset, and is taken as UTC")
        return moment


def _parse_duration(option: str, text: str) -> dt.timedelta:
    found = _DURATION.fullmatch(text.strip().lower())
    minutes = float(found[1]) * _MINUTES[found[2]] if found else 0
    if not 0 < minutes <= _MINUTES["d"] * MAX_DAYS:
        raise ConfigurationError(
            option,
            f"{text!r} is not a length of time up to {MAX_DAYS} days; give one such as 90m, 2h or 1d",
        )
    return dt.timedelta(minutes=minutes)


def _parse_naive(option: str, text: str, now: pendulum.DateTime) -> pendulum.DateTime:
    try:
        moment = pendulum.parse(text, now=now)
    except (ValueError, OverflowError):  # pendulum's ParserError is a ValueError
        moment = None
    if not isinstance(moment, pendulum.DateTime):
        raise ConfigurationError(option, f"{text!r} is not a time; {_EXAMPLES}")
    return moment
