from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.sdk import DAG, Asset

from airflow_provider_forge.timetables import ForgeMetricsTimetable
from airflow_provider_forge.utils.run_interval import settled_at
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
