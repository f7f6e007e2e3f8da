from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pendulum
import pytest
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.utils.types import DagRunType

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.timetables import ForgeMetricsTimetable

NOW = pendulum.datetime(2026, 11, 23, 5, 7, 31)


def at(text: str) -> pendulum.DateTime:
    return pendulum.parse(f"{text}Z")


def timetable(now: pendulum.DateTime = NOW, **arguments) -> ForgeMetricsTimetable:
    return ForgeMetricsTimetable(clock=lambda: now, **arguments)


def restriction(earliest=None, latest=None, catchup=True) -> TimeRestriction:
    return TimeRestriction(earliest=earliest, latest=latest, catchup=catchup)


def following(table: ForgeMetricsTimetable, limits: TimeRestriction, last: DataInterval | None = None):
    """Yield the runs as the scheduler asks for them."""
    while run := table.next_dagrun_info(last_automated_data_interval=last, restriction=limits):
        last = run.data_interval
        yield run


def test_catchup_begins_within_the_retention_and_not_at_an_old_start_date():
    runs = following(timetable(), restriction(earliest=at("2024-01-01T00:00:00")))
    first = next(runs)
    assert first.data_interval.start == at("2026-11-09T05:45:00")  # 14 days less 30 minutes, rounded up
    assert first.data_interval.end == at("2026-11-09T06:00:00")


def test_a_run_is_due_when_its_interval_has_settled():
    first = next(following(timetable(), restriction(earliest=at("2026-11-23T04:00:00"))))
    assert first.run_after == first.data_interval.end + timedelta(minutes=5)
    assert first.logical_date == first.data_interval.start


def test_intervals_adjoin_and_are_aligned():
    runs = following(timetable(), restriction(at("2026-11-20T01:07:00"), latest=NOW))
    intervals = [run.data_interval for run in runs]
    assert intervals[0].start == at("2026-11-20T01:15:00")
    assert all(before.end == after.start for before, after in pairwise(intervals))
    assert all(interval.start.minute % 15 == 0 for interval in intervals)
    assert intervals[-1].start == at("2026-11-23T05:00:00")


def test_a_backfill_ends_at_its_latest_moment_and_is_clipped_at_its_earliest():
    limits = restriction(at("2026-10-01T00:00:00"), at("2026-11-09T07:00:00"))
    starts = [run.data_interval.start for run in following(timetable(), limits)]
    assert starts[0] == at("2026-11-09T05:45:00")
    assert starts[-1] == at("2026-11-09T07:00:00")
    assert list(following(timetable(), restriction(None, at("2026-10-01T00:00:00")))) == []


def test_after_an_outage_longer_than_the_retention_the_schedule_continues_within_it():
    last = DataInterval(at("2026-10-01T00:00:00"), at("2026-10-01T00:15:00"))
    run = next(following(timetable(), restriction(at("2024-01-01T00:00:00")), last))
    assert run.data_interval.start == at("2026-11-09T05:45:00")


@pytest.mark.parametrize(
    ("now", "start"),
    [("2026-11-23T05:04:59", "2026-11-23T04:30:00"), ("2026-11-23T05:05:00", "2026-11-23T04:45:00")],
)
def test_without_catchup_the_first_run_is_the_last_settled_interval(now, start):
    limits = restriction(at("2024-01-01T00:00:00"), catchup=False)
    run = next(following(timetable(at(now)), limits))
    assert run.data_interval.start == at(start)
    assert run.run_after <= at(now)


def test_without_catchup_nothing_runs_twice():
    last = DataInterval(at("2026-11-23T04:45:00"), at("2026-11-23T05:00:00"))
    run = next(following(timetable(), restriction(at("2024-01-01T00:00:00"), catchup=False), last))
    assert run.data_interval.start == last.end


def test_a_longer_interval_begins_at_the_end_of_the_shorter_one():
    last = DataInterval(at("2026-11-23T04:00:00"), at("2026-11-23T04:05:00"))
    runs = following(timetable(), restriction(at("2024-01-01T00:00:00")), last)
    assert next(runs).data_interval == DataInterval(at("2026-11-23T04:05:00"), at("2026-11-23T04:15:00"))
    assert next(runs).data_interval == DataInterval(at("2026-11-23T04:15:00"), at("2026-11-23T04:30:00"))


def test_an_aligned_manual_run_has_the_interval_of_the_scheduled_one():
    manual = timetable().infer_manual_data_interval(run_after=at("2026-11-23T04:15:00"))
    assert manual == DataInterval(at("2026-11-23T04:15:00"), at("2026-11-23T04:30:00"))
    # So the schedule goes on behind it, though the date is taken.
    run = timetable().next_dagrun_info(last_automated_data_interval=manual, restriction=restriction())
    assert run.logical_date > at("2026-11-23T04:15:00")


@pytest.mark.parametrize(
    ("run_after", "start"),
    [
        ("2026-11-23T05:04:59.999", "2026-11-23T04:30:00"),
        ("2026-11-23T05:05:00.001", "2026-11-23T04:45:00"),
        ("2026-11-23T05:00:00.001", "2026-11-23T04:30:00"),
    ],
)
def test_any_other_manual_run_gets_the_last_settled_interval(run_after, start):
    manual = timetable().infer_manual_data_interval(run_after=at(run_after))
    assert manual == DataInterval(at(start), at(start) + timedelta(minutes=15))


@pytest.mark.parametrize("minutes", [1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60])
def test_every_divisor_of_an_hour_is_an_interval(minutes):
    table = timetable(interval=timedelta(minutes=minutes), settle=timedelta(0))
    runs = following(table, restriction(at("2026-11-23T03:59:59"), latest=at("2026-11-23T05:00:00")))
    first = next(runs)
    assert first.data_interval == DataInterval(
        at("2026-11-23T04:00:00"), at("2026-11-23T04:00:00") + timedelta(minutes=minutes)
    )
    assert first.run_after == first.data_interval.end
    assert sum(1 for _ in runs) == 60 // minutes  # the first is taken, the one at 05:00 is in


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"interval": timedelta(minutes=7)}, "interval"),
        ({"interval": timedelta(seconds=30)}, "interval"),
        ({"interval": timedelta(seconds=90)}, "interval"),
        ({"interval": timedelta(0)}, "interval"),
        ({"interval": timedelta(hours=2)}, "interval"),
        ({"retention": timedelta(days=40_000)}, "retention"),
        ({"retention": timedelta(minutes=1)}, "retention"),
        ({"settle": timedelta(seconds=-1)}, "settle"),
        ({"scheduled": "no"}, "scheduled"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, field):
    with pytest.raises(ConfigurationError) as refused:
        ForgeMetricsTimetable(**arguments)
    assert refused.value.field == field


def test_it_is_the_same_after_serialization():
    table = ForgeMetricsTimetable(timedelta(minutes=5), timedelta(days=2), timedelta(seconds=90))
    again = ForgeMetricsTimetable.deserialize(table.serialize())
    assert again.serialize() == table.serialize()
    assert (again.interval, again.retention, again.settle) == (
        timedelta(minutes=5),
        timedelta(days=2),
        timedelta(seconds=90),
    )
    assert again.summary == "Forge metrics, 5 min"


def test_airflow_serializes_it_through_the_plugin():
    from airflow.serialization.serialized_objects import decode_timetable, encode_timetable

    table = ForgeMetricsTimetable(timedelta(minutes=5))
    assert decode_timetable(encode_timetable(table)).interval == timedelta(minutes=5)


@pytest.mark.parametrize("date", ["9999-12-31T23:45:00", "9999-12-31T23:59:59", "0001-01-01T00:01:00"])
def test_a_manual_run_at_an_end_of_time_is_refused(date):
    with pytest.raises(ConfigurationError, match=r"^logical_date: "):
        timetable().infer_manual_data_interval(run_after=at(date))


@pytest.mark.parametrize("catchup", [True, False])
@pytest.mark.parametrize("date", ["9999-12-31T23:45:00", "9999-12-31T23:59:59"])
def test_after_the_end_of_time_there_is_no_run(date, catchup):
    start = restriction(at(date), catchup=catchup)
    assert timetable().next_dagrun_info(last_automated_data_interval=None, restriction=start) is None
    last = DataInterval(at("9999-12-31T23:30:00"), at(date))
    limits = restriction(catchup=catchup)
    assert timetable().next_dagrun_info(last_automated_data_interval=last, restriction=limits) is None


def test_a_long_retention_is_for_what_is_archived():
    limits = restriction(at("2021-01-01T00:00:00"), at("2021-01-01T01:00:00"))
    runs = following(timetable(retention=timedelta(days=3650)), limits)
    assert next(runs).data_interval.start == at("2021-01-01T00:00:00")


def test_without_scheduled_runs_there_are_backfills_only():
    table = timetable(scheduled=False)
    assert (
        table.next_dagrun_info(last_automated_data_interval=None, restriction=restriction(catchup=False))
        is None
    )
    assert next(following(table, restriction(earliest=at("2026-11-23T04:00:00"))))
    assert ForgeMetricsTimetable.deserialize(table.serialize()).scheduled is False
    assert "only" in table.description


def test_what_an_earlier_version_serialized_is_scheduled():
    serialized = ForgeMetricsTimetable().serialize()
    del serialized["scheduled"]
    assert ForgeMetricsTimetable.deserialize(serialized).scheduled is True


def test_the_ui_offers_backfills():
    assert ForgeMetricsTimetable().periodic


def test_a_scheduled_run_is_named_by_the_interval_that_it_delivers():
    start = pendulum.datetime(2026, 11, 27, 14, tz="Europe/Berlin")
    interval = DataInterval(start=start, end=start.add(minutes=15))
    run = {"run_after": start.add(minutes=20), "data_interval": interval}
    name = ForgeMetricsTimetable().generate_run_id(run_type=DagRunType.SCHEDULED, **run)
    assert name == "scheduled__2026-11-27T13:00:00+00:00_to_13:15"
    assert DagRunType.from_run_id(name) == DagRunType.SCHEDULED
    manual = ForgeMetricsTimetable().generate_run_id(run_type=DagRunType.MANUAL, **run)
    assert manual == DagRunType.MANUAL.generate_run_id(suffix=run["run_after"].isoformat())
