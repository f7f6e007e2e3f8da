"""Windows that are young enough to be delivered."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.delivery.progress import available_windows, check_age
from airflow_provider_forge.exceptions import WindowExpired
from airflow_provider_forge.otlp.endpoint import Endpoint, Limits
from airflow_provider_forge.windows import MAX_WINDOW, RETENTION, Window

UTC = timezone.utc
NOW = datetime(2026, 11, 23, 5, 20, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)


def endpoint(max_age: timedelta | None = None, host: str = "otlp.example.com") -> Endpoint:
    return Endpoint(f"https://{host}/v1/metrics", limits=Limits(max_age=max_age))


def ago(**delta: float) -> datetime:
    return NOW - timedelta(**delta)


# check_age


@pytest.mark.parametrize("age", [timedelta(minutes=15), timedelta(days=13), timedelta(days=100)])
def test_a_destination_without_an_age_limit_accepts_any_window(age):
    check_age(Window(NOW - age, NOW), endpoint(None), NOW)


def test_a_window_is_too_old_from_the_first_moment_that_is_too_old():
    check_age(Window(NOW - HOUR, NOW), endpoint(HOUR), NOW)
    with pytest.raises(WindowExpired):
        check_age(Window(NOW - HOUR - MILLISECOND, NOW), endpoint(HOUR), NOW)


def test_the_error_names_the_limit_and_the_remedy():
    window = Window(ago(hours=3), ago(hours=2))
    with pytest.raises(WindowExpired) as caught:
        check_age(window, endpoint(HOUR), NOW)
    for words in (window.humanize(), "older than 1 hour", "max_age"):
        assert words in str(caught.value)


def test_the_error_has_the_remedy_of_the_destination():
    with pytest.raises(WindowExpired, match="Historical Metrics"):
        check_age(Window(ago(hours=3), ago(hours=2)), endpoint(HOUR, "otlp.datadoghq.com"), NOW)
    with pytest.raises(WindowExpired) as caught:
        check_age(Window(ago(hours=5), ago(hours=4)), endpoint(2 * HOUR, "otlp.datadoghq.com"), NOW)
    assert "Historical" not in str(caught.value), "whoever set another age knows better"


# available_windows


@pytest.mark.parametrize("on_expired", ["fail", "skip"])
@pytest.mark.parametrize("max_age", [None, HOUR, 100 * 24 * HOUR])
def test_windows_young_enough_are_fetched_completely(max_age, on_expired):
    interval = Window(ago(minutes=60), ago(minutes=10))
    assert available_windows(interval, NOW, on_expired, endpoint(max_age)) == (list(interval.split()), 0)


def test_atlassians_retention_is_the_limit_if_the_destination_has_none():
    oldest = Window(NOW - RETENTION, NOW - RETENTION + HOUR)
    for max_age in (None, RETENTION, RETENTION + HOUR):
        assert available_windows(oldest, NOW, "fail", endpoint(max_age))[1] == 0
        with pytest.raises(WindowExpired, match="14 days"):
            available_windows(oldest.shifted(-MILLISECOND), NOW, "fail", endpoint(max_age))


def test_the_destinations_age_limit_applies_if_it_is_shorter():
    oldest = Window(NOW - HOUR, NOW)
    assert available_windows(oldest, NOW, "fail", endpoint(HOUR))[1] == 0
    with pytest.raises(WindowExpired, match="The destination discards points older"):
        available_windows(oldest.shifted(-MILLISECOND), NOW, "fail", endpoint(HOUR))


def test_one_that_is_too_old_for_both_names_the_destination():
    """Which is what decides how far back one can go."""
    with pytest.raises(WindowExpired, match="The destination discards points older"):
        available_windows(Window(ago(days=20), NOW), NOW, "fail", endpoint(HOUR))


@pytest.mark.parametrize(
    ("start", "end", "first", "expired"),
    [
        # NOW is 05:20:30, so what is kept begins at 04:20:30, and the first whole window at 04:30.
        (ago(hours=2, seconds=30, minutes=5), ago(minutes=5, seconds=30), "04:30", 5),
        # The part of a quarter hour that is young enough goes with the rest of it.
        (ago(minutes=61), ago(minutes=20, seconds=30), "04:30", 1),
        # Up to where the last one begins.
        (ago(hours=2), ago(minutes=50, seconds=30), None, 5),
        (ago(hours=2), ago(minutes=50, seconds=29), "04:30", 5),
        # Nothing is left, with an end between the quarter hours.
        (ago(hours=3), ago(hours=2), None, 5),
        (ago(hours=3, seconds=30, minutes=5), ago(hours=2, seconds=30, minutes=5), None, 4),
    ],
)
def test_windows_that_are_too_old_are_skipped_and_counted(start, end, first, expired):
    windows, left_out = available_windows(Window(start, end), NOW, "skip", endpoint(HOUR))
    assert left_out == expired
    assert (f"{windows[0].start:%H:%M}" if windows else None) == first
    if windows:
        assert windows[-1].end == end


@settings(deadline=None, database=None)
@given(
    age=st.timedeltas(timedelta(0), timedelta(days=16)),
    length=st.timedeltas(timedelta(seconds=1), timedelta(days=1)),
    max_age=st.one_of(st.none(), st.timedeltas(timedelta(seconds=1), timedelta(days=20))),
)
def test_each_window_of_the_interval_is_fetched_or_counted(age, length, max_age):
    interval = Window(NOW - age - length, NOW - age)
    receiver = endpoint(max_age)
    windows, expired = available_windows(interval, NOW, "skip", receiver)
    calls = list(interval.split())
    oldest = NOW - min(RETENTION, max_age or RETENTION)
    assert windows == [window for window in calls if window.start >= oldest]
    assert expired == len(calls) - len(windows)
    assert all(window.end - window.start <= MAX_WINDOW for window in windows)
    for window in windows:
        check_age(window, receiver, NOW)
        assert not window.expired(NOW)
    if expired:
        with pytest.raises(WindowExpired):
            available_windows(interval, NOW, "fail", receiver)
    else:
        assert available_windows(interval, NOW, "fail", receiver) == (windows, 0)
