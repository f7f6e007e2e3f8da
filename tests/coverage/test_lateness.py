"""The lateness of windows, and what it advises."""

from __future__ import annotations

import datetime as dt

import pytest

from airflow_provider_forge.coverage.coverage import QUARTER, Coverage, Quarter, WindowStatus
from airflow_provider_forge.coverage.lateness import measure_lateness
from airflow_provider_forge.coverage.report import render_text
from airflow_provider_forge.coverage.telemetry import report_coverage
from airflow_provider_forge.delivery.telemetry import LATE, Reporter
from airflow_provider_forge.otlp.endpoint import Endpoint, metrics_url
from airflow_provider_forge.sandbox import OtlpSink

START = dt.datetime(2026, 11, 22, 22, tzinfo=dt.timezone.utc)
KEEP = dt.timedelta(days=14)


def minutes(number: float) -> dt.timedelta:
    return dt.timedelta(minutes=number)


def coverage(*delays: tuple[float, float]) -> Coverage:
    """Return windows that were first fetched, and got their last points, so many minutes after their end."""
    quarters = []
    for number, (first, latest) in enumerate(delays):
        start = START + number * QUARTER
        end = start + QUARTER
        status = WindowStatus.DELIVERED
        quarters.append(
            Quarter(start, status, 5, 1, first=end + minutes(first), latest=end + minutes(latest))
        )
    return Coverage(tuple(quarters), ("production",), ("COUNT",), KEEP)


def test_percentiles_are_of_the_last_points():
    measured = measure_lateness(coverage(*[(6, 6)] * 18, (6, 66), (6, 80)))
    assert (measured.windows, measured.late) == (20, 2)
    assert (measured.p50, measured.p95) == (minutes(6), minutes(66))


@pytest.mark.parametrize(("windows", "told"), [(19, []), (20, [0.1])])
def test_the_share_of_late_windows_is_told_once_it_means_something(windows, told):
    found = coverage((6, 66), (6, 80), *[(6, 6)] * (windows - 2))
    with OtlpSink() as sink:
        report_coverage(found, None, None, START, Endpoint(metrics_url(sink.url)), Reporter("app", "mine"))
    [request] = sink.telemetry
    shares = [point for point in request.telemetry if point.metric == LATE.name]
    assert [point.data().as_double for point in shares] == told


def test_a_backfill_says_nothing_of_when_data_came():
    assert measure_lateness(coverage((6, 6), (600, 600))).windows == 1


def test_windows_without_points_and_of_earlier_versions_are_not_measured():
    quarters = (
        Quarter(START, WindowStatus.EMPTY, first=START + 2 * QUARTER),
        Quarter(START, WindowStatus.DELIVERED),
    )
    measured = measure_lateness(Coverage(quarters, (), (), KEEP))
    assert measured == (0, 0, None, None)


@pytest.mark.parametrize(
    ("late", "windows", "advice"),
    [
        (0, 19, "Advice needs 20 windows that were delivered live; there are 19"),
        (0, 20, "so the settle delay is long enough"),
        (1, 20, "1 of 20 windows got points after they had been delivered, and revisit_after found them"),
        (2, 20, "increase the timetable's settle, and keep revisit_after"),
    ],
)
def test_it_advises(late, windows, advice):
    found = coverage(*[(6, 66)] * late, *[(6, 6)] * (windows - late))
    assert advice in measure_lateness(found).advice
    [line] = [line for line in render_text(found, START, KEEP, "mine") if "last points" in line]
    assert advice in line
