"""The main job in a real Airflow: catchup, a backfill, manual runs and live windows, each point once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import accumulate

import pytest

from airflow_provider_forge.windows import floor
from demo.api import parse_time
from demo.dagfile import DAG_ID
from demo.waiting import wait_for
from tests.e2e.deployment import CATCHUP, MINUTE, RATE_CALLS, RATE_SECONDS, Deployment, Run, interval_start

pytestmark = pytest.mark.timeout(600)

QUARTER, SETTLE = timedelta(minutes=15), timedelta(minutes=5)
BY_CATCHUP = 20
MOST_AT_ONCE = 3


@dataclass(frozen=True)
class ManualRuns:
    """Manual runs, by the logical date they were given."""

    aligned: Run
    unaligned: Run
    undated: Run


@pytest.fixture(scope="module")
def catching_up(deployment: Deployment) -> Deployment:
    """Wait until catchup has delivered most of its windows."""
    wait_for(lambda: deployment.successes(run_type="scheduled") >= BY_CATCHUP, timeout=300, what="catchup")
    return deployment


@pytest.fixture(scope="module")
def backfilled(catching_up: Deployment) -> Deployment:
    """Backfill what is missing in the whole period of catchup, while that goes on."""
    api, first = catching_up.airflow.api, catching_up.first
    backfill_id = api.backfill(DAG_ID, first, first + CATCHUP)
    wait_for(lambda: api.backfill_is_complete(backfill_id), timeout=180, what="the backfill")
    return catching_up


@pytest.fixture(scope="module")
def manual(backfilled: Deployment) -> ManualRuns:
    """Run windows that nothing else asks for, and one without any date."""
    api, first = backfilled.airflow.api, backfilled.first
    run_ids = [
        api.trigger(DAG_ID, first - 30 * MINUTE),
        api.trigger(DAG_ID, first - 40 * MINUTE + timedelta(seconds=30)),
        api.trigger(DAG_ID),
    ]
    runs = [backfilled.finished(run_id) for run_id in run_ids]
    assert [run["state"] for run in runs] == ["success"] * len(runs)
    return ManualRuns(*runs)


@pytest.fixture(scope="module")
def advanced(backfilled: Deployment, manual: ManualRuns) -> Deployment:
    """Take the schedule's next logical date for a manual run, and wait for the schedule to go past it."""
    next_date = floor(datetime.now(timezone.utc), MINUTE)
    run_id = backfilled.airflow.api.trigger(DAG_ID, next_date)
    # It waits until its window is over.
    assert backfilled.finished(run_id)["state"] == "success"
    later = (next_date + MINUTE).isoformat()
    wait_for(
        lambda: backfilled.successes(run_type="scheduled", logical_date_gte=later),
        timeout=300,
        what="a live window after the manual runs",
    )
    return backfilled


def test_a_backfill_runs_only_the_windows_that_are_missing(backfilled: Deployment) -> None:
    assert backfilled.airflow.api.count_runs(DAG_ID, run_type="backfill") > 0
    assert_each_minute_has_one_run(backfilled)


def test_an_aligned_manual_run_covers_the_window_that_begins_there(
    backfilled: Deployment, manual: ManualRuns
) -> None:
    start = backfilled.first - 30 * MINUTE
    assert backfilled.window_asked_for(manual.aligned) == (start, start + MINUTE)


def test_an_unaligned_manual_run_covers_the_last_settled_window(
    backfilled: Deployment, manual: ManualRuns
) -> None:
    end = backfilled.first - 40 * MINUTE
    assert backfilled.window_asked_for(manual.unaligned) == (end - MINUTE, end)


def test_a_manual_run_without_a_date_covers_the_last_settled_quarter_hour(
    backfilled: Deployment, manual: ManualRuns
) -> None:
    start, end = backfilled.window_asked_for(manual.undated)

    settled = parse_time(manual.undated["run_after"]) - SETTLE
    assert manual.undated["logical_date"] is None
    assert end - start == QUARTER
    assert end.minute % 15 == end.second == 0
    assert end <= settled < end + QUARTER


def test_the_schedule_goes_past_a_manual_run_that_has_taken_its_next_date(advanced: Deployment) -> None:
    assert_each_minute_has_one_run(advanced)


def test_every_window_is_fetched_once(advanced: Deployment) -> None:
    asked = Counter((call.start, call.end) for call in advanced.metrics_calls())

    assert set(asked.values()) == {1}


def test_every_generated_point_arrives_once(advanced: Deployment, manual: ManualRuns) -> None:
    """Compared with what there is, not with what was asked for: a window that is left out shows.

    The manual runs without an aligned date deliver what catchup delivers, too.
    """
    until = advanced.delivered_until()
    windows = [(advanced.first, until)]
    windows += [advanced.window_asked_for(run) for run in (manual.aligned, manual.unaligned, manual.undated)]
    expected = Counter({point for window in windows for point in advanced.generated(*window)})

    received = Counter(advanced.sink.points)
    # Live windows go on arriving.
    received -= Counter(advanced.generated(until, datetime.now(timezone.utc)))

    assert expected
    assert received == expected


def test_the_asset_event_has_the_summary_of_the_delivery(advanced: Deployment, manual: ManualRuns) -> None:
    """It is what downstream DAGs are scheduled on."""
    events = advanced.airflow.api.asset_events("forge_metrics:forge_default:otlp_default")
    told = {event["source_run_id"]: event["extra"] for event in events}

    assert told[manual.aligned["dag_run_id"]]["sent"] > 0
    assert told[manual.undated["dag_run_id"]]["unchanged"] > 0


def test_no_call_goes_beyond_the_limit(advanced: Deployment) -> None:
    gateway = advanced.gateway

    assert len(advanced.metrics_calls()) > CATCHUP // MINUTE
    assert gateway.over_limit(RATE_CALLS, RATE_SECONDS) == 0
    assert gateway.violations == 0


def test_environments_are_looked_up_once_for_all_tasks(advanced: Deployment) -> None:
    looked_up = [call for call in advanced.gateway.calls if call.operation == "app"]

    # The first tasks start together, before any of them can know.
    assert 1 <= len(looked_up) <= MOST_AT_ONCE


def test_no_more_than_three_tasks_run_at_once(advanced: Deployment) -> None:
    """Whatever kind of run they are of: more would only wait for the rate limit."""
    tasks = [
        task
        for task in advanced.airflow.api.task_instances(DAG_ID)
        # A manual run's task may have been deferred in between.
        if task["end_date"] and not task["dag_run_id"].startswith("manual__")
    ]
    moments = [(parse_time(task["start_date"]), 1) for task in tasks]
    moments += [(parse_time(task["end_date"]), -1) for task in tasks]
    running = list(accumulate(change for _, change in sorted(moments)))

    assert max(running) == MOST_AT_ONCE


def assert_each_minute_has_one_run(deployment: Deployment) -> None:
    starts = sorted(map(interval_start, deployment.dated_runs()))
    assert starts == [deployment.first + n * MINUTE for n in range(len(starts))]
