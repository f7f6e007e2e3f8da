from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.exceptions import ConfigurationError, WindowExpired
from airflow_provider_forge.windows import (
    CLOCK_TOLERANCE,
    MAX_INTERVAL,
    MAX_WINDOW,
    RETENTION,
    Window,
    ceil,
    expired_error,
    floor,
    format_time,
    humanize_duration,
    is_recent,
    parse_time,
)

UTC = timezone.utc
QUARTER = timedelta(minutes=15)


def at(hour: int, minute: int = 0, second: int = 0, microsecond: int = 0) -> datetime:
    return datetime(2026, 11, 23, hour, minute, second, microsecond, UTC)


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2026-11-23T05:15:00Z", at(5, 15)),
        ("2026-11-23T05:15Z", at(5, 15)),
        ("  2026-11-23T05:15:00Z\n", at(5, 15)),
        ("2026-11-23 05:15:00+00:00", at(5, 15)),
        ("2026-11-23T05:15:00.123456Z", at(5, 15, 0, 123000)),
        ("2026-11-23T05:15:00+05:45", datetime(2026, 11, 22, 23, 30, tzinfo=UTC)),
        ("2026-11-23T05:15:00-0030", at(5, 45)),
        ("20261123T051500Z", at(5, 15)),
        (at(5, 15, 0, 999), at(5, 15)),
        (datetime(2026, 11, 23, 5, 15, tzinfo=ZoneInfo("Asia/Kathmandu")), at(5, 15) - timedelta(hours=5.75)),
        # The hour that Berlin has twice: the fold tells which one is meant.
        (
            datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        ),
        (
            datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
            datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
        ),
    ],
)
def test_an_aware_time_is_read_into_utc_and_cut_to_the_millisecond(given, moment):
    parsed = parse_time("start", given)
    assert parsed == moment
    assert parsed.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "nonsense",
    [
        *("", "tomorrow", "now", "None", "{{ data_interval_start }}", "1763874900", "P1D"),
        *("2026-11-23", "12:00Z", "T05:15:00Z", "2026-11-23T05:15Z/2026-11-23T05:30Z"),
        *("2026-02-30T00:00:00Z", "2026-11-23T25:15:00Z", "99999-01-01T00:00:00Z"),
        *("2026-11-23T05:15:00+25:00", "2026-11-23T05:15:00+01:99"),
        *("2026-11-23T05:15:00+24:00", "2026-11-23/P1D", "1::0", "2026-11-23/12:00", "20:11-26/P1D"),
        # Before the first and after the last moment that a datetime can hold in UTC.
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:00-14:00"),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        *(None, 5, 1763874900.0, True, date(2026, 11, 23)),
    ],
    ids=str,
)
def test_malformed_times(nonsense):
    with pytest.raises(ConfigurationError) as caught:
        parse_time("start", nonsense)
    assert caught.value.field == "start"
    assert "2026-11-23T05:15:00Z" in str(caught.value), "the message shows what to give instead"


@pytest.mark.parametrize("naive", ["2026-11-23T05:15:00", "2026-11-23 05:15", datetime(2026, 11, 23, 5, 15)])  # noqa: DTZ001
def test_a_naive_time_is_refused_by_field_name(naive):
    with pytest.raises(ConfigurationError, match="UTC offset") as caught:
        parse_time("end", naive)
    assert caught.value.field == "end"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (at(5), at(5)),
        (at(5), at(4)),
        # The same moment in two zones.
        ("2026-11-23T05:00:00Z", "2026-11-23T06:00:00+01:00"),
        # Empty at the gateway's precision.
        (at(5, 0, 0, 100), at(5, 0, 0, 900)),
    ],
)
def test_a_window_ends_after_it_starts(start, end):
    with pytest.raises(ConfigurationError, match="is not after the start") as caught:
        Window(start, end)
    assert caught.value.field == "end"


@pytest.mark.parametrize("field", ["start", "end"])
def test_a_window_has_no_naive_time(field):
    times = {"start": at(5), "end": at(6)}
    times[field] = times[field].replace(tzinfo=None)
    with pytest.raises(ConfigurationError, match="UTC offset") as caught:
        Window(**times)
    assert caught.value.field == field


def test_windows_are_equal_ordered_and_printed_by_their_utc_times():
    berlin = ZoneInfo("Europe/Berlin")
    one = Window(at(5), at(5, 15))
    assert one == Window(at(5).astimezone(berlin), at(5, 15).astimezone(berlin))
    assert hash(one) == hash(Window(at(5).astimezone(berlin), at(5, 15).astimezone(berlin)))
    assert one < Window(at(5, 15), at(5, 30))
    assert str(one) == "2026-11-23T05:00:00Z/2026-11-23T05:15:00Z"


@pytest.mark.parametrize(
    ("start", "end", "cuts"),
    [
        (at(5), at(5, 15), []),
        (at(5, 3), at(5, 7), []),
        (at(5), at(5, 30), [at(5, 15)]),
        # Cut at the quarter hours, not every 15 minutes from the start.
        (at(5, 10), at(5, 40), [at(5, 15), at(5, 30)]),
        (at(5, 14, 59, 999000), at(5, 15, 0, 1000), [at(5, 15)]),
    ],
)
def test_a_long_window_is_split_at_the_utc_quarter_hours(start, end, cuts):
    edges = [start, *cuts, end]
    assert list(Window(start, end).split()) == [Window(*pair) for pair in pairwise(edges)]


def test_an_interval_of_more_than_ten_years_is_not_split():
    for start in (datetime.min.replace(tzinfo=timezone.utc), at(5) - MAX_INTERVAL - timedelta(minutes=1)):
        with pytest.raises(ConfigurationError, match="longer than 10 years"):
            Window(start, at(5)).split()
    first = next(Window(at(5) - MAX_INTERVAL, at(5)).split())
    assert first.start == at(5) - MAX_INTERVAL


@pytest.mark.parametrize(
    ("night", "hours"),
    [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)],
    ids=["clocks go forward", "clocks go back"],
)
def test_a_berlin_day_with_a_clock_change_is_every_utc_quarter_hour_once(night, hours):
    midnight = datetime(night.year, night.month, night.day, tzinfo=ZoneInfo("Europe/Berlin"))
    windows = list(Window(midnight, midnight + timedelta(days=1)).split())
    assert len(windows) == hours * 4
    assert all(window.end - window.start == QUARTER for window in windows)
    assert all(one.end == other.start for one, other in pairwise(windows))


MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(deadline=None, database=None)
@given(start=MOMENTS, length=st.timedeltas(timedelta(milliseconds=2), timedelta(hours=3)))
def test_the_parts_of_a_window_add_up_to_it(start, length):
    window = Window(start, start + length)
    parts = list(window.split())
    assert (parts[0].start, parts[-1].end) == (window.start, window.end)
    assert all(one.end == other.start for one, other in pairwise(parts))
    assert all(part.end - part.start <= MAX_WINDOW for part in parts)
    assert all(part.end == floor(part.end, QUARTER) for part in parts[:-1])


@settings(deadline=None, database=None)
@given(
    moment=MOMENTS, step=st.sampled_from([1, 5, 15, 20, 60]).map(lambda minutes: timedelta(minutes=minutes))
)
def test_floor_and_ceil_are_the_multiples_around_a_moment(moment, step):
    low, high = floor(moment, step), ceil(moment, step)
    assert low <= moment <= high
    assert high - low in (timedelta(0), step)
    assert low.timestamp() % step.total_seconds() == high.timestamp() % step.total_seconds() == 0


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("start", "end", "middle"),
    [
        (at(5), at(5, 15), at(5, 7)),
        (at(5), at(5, 2), at(5, 1)),
        (at(5), at(5, 3), at(5, 1)),
        (at(5, 14), at(5, 16), at(5, 15)),
        # Unaligned: no more than a minute on one side of the only minute there is.
        (at(5, 0, 30), at(5, 1, 40), at(5, 1)),
        (at(5, 0, 59, 999000), at(5, 2), at(5, 1)),
        (at(5), at(5, 1, 0, 1000), at(5, 1)),
        (at(5, 0, 0, 1000), at(5, 1, 0, 2000), at(5, 1)),
        (at(5, 0, 1), at(5, 1, 2), at(5, 1)),
        (at(5, 3, 30), at(5, 7, 30), at(5, 5)),
    ],
)
def test_halves_are_cut_at_a_whole_minute(start, end, middle):
    assert Window(start, end).halves() == (Window(start, middle), Window(middle, end))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (at(5), at(5, 1)),
        (at(5, 0, 30), at(5, 1, 30)),
        (at(5), at(5, 0, 0, 1000)),
        (at(5, 0, 59, 500000), at(5, 1, 0, 500000)),
    ],
)
def test_a_minute_has_no_halves(start, end):
    assert Window(start, end).halves() == ()


@settings(deadline=None, database=None)
@given(start=MOMENTS, length=st.timedeltas(timedelta(milliseconds=2), timedelta(minutes=40)))
def test_halves_of_halves_are_the_window_in_minutes(start, length):
    """Down to where there are none: each cut is at another minute, so it comes to an end."""
    window = Window(start, start + length)
    parts = [window]
    while any(part.halves() for part in parts):
        halved = [half for part in parts for half in part.halves() or (part,)]
        assert all(half.start < half.end for half in halved)
        parts = halved
    assert (parts[0].start, parts[-1].end) == (window.start, window.end)
    assert all(one.end == other.start for one, other in pairwise(parts))
    assert all(part.end - part.start <= MINUTE for part in parts)
    assert all(part.end == floor(part.end, MINUTE) for part in parts[:-1])


@settings(deadline=None, database=None)
@given(start=MOMENTS, minutes=st.integers(2, 60))
def test_halves_differ_by_at_most_a_minute(start, minutes):
    for begin, most in ((floor(start, MINUTE), MINUTE), (start, 2 * MINUTE)):
        one, other = Window(begin, begin + minutes * MINUTE).halves()
        assert abs((one.end - one.start) - (other.end - other.start)) <= most


@settings(deadline=None, database=None)
@given(
    start=MOMENTS,
    length=st.timedeltas(timedelta(milliseconds=2), timedelta(hours=3)),
    by=st.timedeltas(timedelta(days=-20), timedelta(days=20)),
)
def test_a_shifted_window_is_as_long_and_so_much_later(start, length, by):
    by -= timedelta(microseconds=by.microseconds % 1000)
    window = Window(start, start + length)
    shifted = window.shifted(by)
    assert (shifted.start, shifted.end) == (window.start + by, window.end + by)
    assert (shifted.end - shifted.start).as_timedelta() == (window.end - window.start).as_timedelta()
    assert shifted.shifted(-by) == window


@pytest.mark.parametrize(
    ("before", "end"),
    [
        (at(5, 20), at(5, 15)),
        (at(5, 19, 59, 999999), at(5)),
        (at(5, 34, 59), at(5, 15)),
        (at(0, 4, 59), datetime(2026, 11, 22, 23, 45, tzinfo=UTC)),
        (at(5, 20).astimezone(ZoneInfo("Asia/Kathmandu")), at(5, 15)),
    ],
)
def test_the_last_settled_window_ended_at_least_five_minutes_ago(before, end):
    assert Window.last_settled(before) == Window(end - QUARTER, end)


def test_the_last_settled_window_of_another_length_and_delay():
    one_minute = Window.last_settled(at(5, 20, 30), length=timedelta(minutes=1), settle=timedelta(0))
    assert one_minute == Window(at(5, 19), at(5, 20))


def test_a_window_expires_when_it_begins_more_than_14_days_ago():
    now = at(5)
    edge = now - RETENTION
    assert timedelta(days=14) == RETENTION
    assert not Window(edge, edge + QUARTER).expired(now)
    assert Window(edge - timedelta(milliseconds=1), edge + QUARTER).expired(now)


def test_the_error_for_an_expired_window_names_the_limit_and_the_remedy():
    now = at(5)
    for before, words in (
        (timedelta(days=15), "8 Nov 05:00\u201305:15 UTC begins before 9 Nov 05:00 UTC"),
        (timedelta(days=400), "19 Oct 2025 05:00\u201305:15 UTC begins before 9 Nov 05:00 UTC"),
    ):
        error = expired_error(Window(now - before, now - before + QUARTER), now)
        assert type(error) is WindowExpired
        assert str(error).startswith(f"{words}: Atlassian keeps metrics for 14 days")


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2023, 6, 18, 2, 55, tzinfo=UTC), "2023-06-18T02:55:00.000Z"),
        (datetime(2023, 6, 18, 2, 55, 7, 89999, tzinfo=UTC), "2023-06-18T02:55:07.089Z"),
    ],
)
def test_times_are_written_as_in_the_published_query(moment, text):
    assert format_time(moment, "milliseconds") == text


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (at(5), at(5, 15), "23 Nov 05:00\u201305:15 UTC"),
        (at(5, 0, 30), at(5, 1, 0, 500_000), "23 Nov 05:00:30\u201305:01:00.500 UTC"),
        (at(23, 45), at(23, 45) + QUARTER, "23 Nov 23:45\u201300:00 UTC"),
        (at(0), at(13), "23 Nov 00:00 \u2013 23 Nov 13:00 UTC"),
        (at(23), at(23) + timedelta(days=39), "23 Nov 2026 23:00 \u2013 1 Jan 2027 23:00 UTC"),
    ],
)
def test_a_humanized_time_is_only_as_precise_as_necessary(start, end, words):
    assert Window(start, end).humanize() == words


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(hours=1), "1 hour"),
        (timedelta(days=14), "14 days"),
        (timedelta(days=1, hours=12, minutes=1, seconds=2), "1 day 12 hours 1 minute 2 seconds"),
        (timedelta(0), "0 seconds"),
    ],
)
def test_durations_are_written_in_words(duration, words):
    assert humanize_duration(duration) == words


@pytest.mark.parametrize(
    ("age", "recent"),
    [
        (timedelta(0), True),
        (timedelta(hours=1) - timedelta.resolution, True),
        (timedelta(hours=1), False),
        (timedelta.max, False),
        # Another machine's clock may be a little ahead. What is from the future was never recent.
        (-CLOCK_TOLERANCE, True),
        (-CLOCK_TOLERANCE - timedelta.resolution, False),
        (timedelta.min, False),
    ],
)
def test_what_is_from_the_future_is_not_recent(age, recent):
    assert is_recent(age, timedelta(hours=1)) is recent
