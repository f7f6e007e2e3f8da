from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, Asset

from airflow_provider_forge.timetables import ForgeMetricsTimetable
from airflow_provider_forge.utils.run_interval import find_interval, settled_at
from airflow_provider_forge.windows import Window

try:
    from airflow.sdk import AssetOrTimeSchedule
except ImportError:  # Airflow before 3.2
    from airflow.timetables.assets import AssetOrTimeSchedule

UTC = timezone.utc
NOW = datetime(2026, 11, 23, 5, 20, 30, tzinfo=UTC)


def ago(**delta: float) -> datetime:
    return NOW - timedelta(**delta)


@pytest.mark.parametrize("settle", [timedelta(0), timedelta(minutes=7)])
@pytest.mark.parametrize("inside", [False, True])
def test_a_timetable_inside_another_has_a_settle_time(settle, inside):
    schedule = ForgeMetricsTimetable(settle=settle)
    if inside:
        schedule = AssetOrTimeSchedule(timetable=schedule, assets=[Asset("another")])
    with DAG("scheduled", schedule=schedule) as dag:
        pass
    assert settled_at(Window(ago(hours=1), NOW), {"dag": dag}, NOW) == NOW + settle


def test_a_schedule_without_a_settle_time_adds_none():
    with DAG("scheduled", schedule="@daily") as dag:
        pass
    for context in ({"dag": dag}, {"dag": None}, {}):
        assert settled_at(Window(ago(hours=1), NOW), context, NOW) == NOW


@pytest.mark.parametrize(
    ("schedule", "start", "end"),
    [
        (ForgeMetricsTimetable(), "05:00", "05:15"),
        (ForgeMetricsTimetable(settle=timedelta(minutes=7)), "04:45", "05:00"),
        (ForgeMetricsTimetable(interval=timedelta(hours=1), settle=timedelta(minutes=30)), "03:00", "04:00"),
        (ForgeMetricsTimetable(interval=timedelta(minutes=5), settle=timedelta(0)), "05:15", "05:20"),
        ("@daily", "05:00", "05:15"),
        (None, "05:00", "05:15"),
    ],
)
def test_a_run_without_a_logical_date_has_the_last_settled_interval_of_its_timetable(schedule, start, end):
    with DAG("scheduled", schedule=schedule) as dag:
        pass
    run = SimpleNamespace(run_after=NOW)
    for context in ({"dag": dag, "dag_run": run}, *([] if schedule else [{"dag_run": run}])):
        found = find_interval(context, None, "")
        assert (f"{found.start:%H:%M}", f"{found.end:%H:%M}") == (start, end)
