"""The times that people write, at a fixed present."""

from __future__ import annotations

from argparse import Namespace
from datetime import timedelta

import pendulum
import pytest

from airflow_provider_forge.cli.times import Times, parse_duration
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import MAX_INTERVAL

NOW = pendulum.datetime(2026, 11, 27, 14, 9, 30)


class Notes:
    """Collects notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def interval(length=None, notes=None, **options):
    options = {"start": None, "end": None, "last": None, **options}
    return str(Times(Namespace(**options), NOW, notes or Notes()).interval(length=length))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2026-11-27T05:07:00Z", "2026-11-27T05:07:00Z"),
        ("2026-11-27T05:07:00+02:00", "2026-11-27T03:07:00Z"),
        ("2026-11-27 05:07", "2026-11-27T05:07:00Z"),
        ("2026-11-27T05:07:00", "2026-11-27T05:07:00Z"),
        ("2026-11-27", "2026-11-27T00:00:00Z"),
        ("05:07", "2026-11-27T05:07:00Z"),
        ("today", "2026-11-27T00:00:00Z"),
        (" Yesterday", "2026-11-26T00:00:00Z"),
        ("-2h", "2026-11-27T12:00:00Z"),
        ("-90m", "2026-11-27T12:30:00Z"),
        ("-1.5h", "2026-11-27T12:30:00Z"),
        ("-2 hours", "2026-11-27T12:00:00Z"),
        ("-1day", "2026-11-26T14:00:00Z"),
    ],
)
def test_a_start(start, expected):
    assert interval(start=start).split("/") == [expected, "2026-11-27T14:00:00Z"]


def test_an_end():
    assert interval(start="yesterday", end="today") == "2026-11-26T00:00:00Z/2026-11-27T00:00:00Z"
    assert interval(start="-3h", end="-2h") == "2026-11-27T11:00:00Z/2026-11-27T12:00:00Z"
    assert interval(start="-3h", end="now") == "2026-11-27T11:00:00Z/2026-11-27T14:00:00Z"


def test_a_length_back_from_what_has_settled():
    assert interval(last="2h") == "2026-11-27T12:00:00Z/2026-11-27T14:00:00Z"
    assert interval(last="1d") == "2026-11-26T14:00:00Z/2026-11-27T14:00:00Z"


def test_an_archive_has_times_of_any_age():
    times = Times(Namespace(), NOW, Notes(), longest=MAX_INTERVAL)
    assert times.moment("--from", "-400d") == pendulum.datetime(2025, 10, 23, 14)
    assert parse_duration("--older-than", "400d", MAX_INTERVAL) == timedelta(days=400)
    with pytest.raises(ConfigurationError, match=r"^--older-than: .3661d. is not a length"):
        parse_duration("--older-than", "3661d", MAX_INTERVAL)


def test_a_default_length():
    quarter = timedelta(minutes=15)
    assert interval(quarter) == "2026-11-27T13:45:00Z/2026-11-27T14:00:00Z"
    assert interval(quarter, start="-2h") == "2026-11-27T12:00:00Z/2026-11-27T12:15:00Z"


def test_what_is_taken_as_utc_is_said_and_nothing_else():
    notes = Notes()
    interval(notes=notes, start="2026-11-27 05:00", end="2026-11-27T06:00:00Z")
    assert notes.notes == ["--start: 2026-11-27 05:00 has no UTC offset, and is taken as UTC"]
    interval(notes=notes, start="yesterday", end="-2h")
    assert len(notes.notes) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "soon"}, r"^--start: 'soon' is not a time; give one such as 2026-11-23T05:00:00Z"),
        ({"start": "P1D"}, "^--start: 'P1D' is not a time"),
        (
            {"start": "-2x"},
            "^--start: '2x' is not a length of time up to 14 days; give one such as 90m, 2h or 1d",
        ),
        ({"last": "2"}, "^--last: '2' has no unit; give 2m, 2h or 2d"),
        ({"start": "-1.5"}, "^--start: '1.5' has no unit; give 1.5m, 1.5h or 1.5d"),
        ({"last": "٢h"}, "^--last: '٢h' is not a length of time"),
        ({"last": "0h"}, "^--last: '0h' is not a length of time"),
        ({"last": "-2h"}, "^--last: '-2h' is not a length of time"),
        ({"last": "99999999999d"}, "^--last: '99999999999d' is not a length of time"),
        ({"start": "-15d"}, "^--start: '15d' is not a length of time up to 14 days"),
        ({"last": "2h", "end": "today"}, "^--last: cannot be combined"),
        ({"end": "today"}, "^--start: is missing"),
        ({}, "^--start: is missing"),
        ({"start": "2026-11-27T15:00:00Z"}, r"^--start: 2026-11-27 15:00 UTC is in the future"),
        (
            {"start": "now"},
            "^--start: 2026-11-27 14:00 UTC is not before the end of the last settled quarter hour",
        ),
        ({"start": "today", "end": "yesterday"}, "^end: .* is not after"),
        ({"start": "today", "end": "9999-12-31T23:59:59Z"}, "^--end: 9999-12-31 23:59 UTC is in the future"),
        ({"start": "2026-11-31"}, "is not a time"),
        ({"start": "2026-11-23/P1D"}, "^--start: '2026-11-23/P1D' is not a time"),
        ({"start": "1::0"}, "^--start: '1::0' is not a time"),
    ],
)
def test_what_is_wrong_names_the_option(options, message):
    with pytest.raises(ConfigurationError, match=message):
        interval(**options)
