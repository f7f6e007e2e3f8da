"""A token that is refused while windows are queued: the account stops, and they wait for a new one."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.windows import floor
from demo.dagfile import DAG_ID
from demo.waiting import wait_for
from tests.e2e.deployment import CATCHUP, MINUTE, Deployment, Run, interval_start

if TYPE_CHECKING:
    from airflow_provider_forge.sandbox import Point

pytestmark = pytest.mark.timeout(600)

# What may be under way when the first of them learns of it.
MOST_REFUSED = 5
WINDOWS = CATCHUP // MINUTE


@pytest.fixture(scope="module")
def start(deployment: Deployment) -> datetime:
    """The first of the windows that are run again: so late that none is too old when it is healed."""
    wait_for(lambda: deployment.successes() >= WINDOWS, timeout=300, what="windows to run again")
    return floor(datetime.now(timezone.utc), MINUTE) - CATCHUP + timedelta(minutes=10)


@pytest.fixture(scope="module")
def end(deployment: Deployment) -> datetime:
    """The last of them: a run that is there, because the schedule may be about to make the next."""
    return deployment.delivered_until() - MINUTE


@pytest.fixture(scope="module")
def before(deployment: Deployment, start: datetime, end: datetime) -> Counter[Point]:
    """The points that were delivered before."""
    assert deployment.generated(start, end)
    return Counter(deployment.sink.points)


@pytest.fixture(scope="module")
def backfill(deployment: Deployment, before: Counter[Point], start: datetime, end: datetime) -> int:
    """Run all windows again with a token that has expired, until all that have begun have failed or wait."""
    api = deployment.airflow.api
    deployment.gateway.api_token = "renewed"
    backfill = api.backfill(DAG_ID, start, end, reprocess="completed")
    wait_for(lambda: failures(deployment), timeout=180, what="the window whose token was refused")
    wait_for(lambda: len(waiting(deployment)) > MOST_REFUSED, timeout=180, what="windows that wait")
    return backfill


@pytest.fixture(scope="module")
def healed(deployment: Deployment, backfill: int, start: datetime, end: datetime) -> list[Run]:
    """Put the new token into the Connection, clear what waits, and backfill "Missing and Errored Runs"."""
    api = deployment.airflow.api
    body = {"connection_id": "forge_default", "conn_type": "forge", "password": deployment.gateway.api_token}
    api.send("PATCH", "connections/forge_default?update_mask=password", body)

    def has_ended() -> bool:
        for run_id in waiting(deployment):
            api.clear(DAG_ID, run_id)
        return api.backfill_is_complete(backfill)

    wait_for(has_ended, timeout=180, what="the end of the backfill")
    again = api.backfill(DAG_ID, start, end, reprocess="failed")
    wait_for(lambda: api.backfill_is_complete(again), timeout=180, what="the end of the second backfill")
    return [run for run in deployment.dated_runs() if start <= interval_start(run) <= end]


def test_few_windows_fail_with_few_calls_and_all_others_wait(deployment: Deployment, backfill: int) -> None:
    calls = [call for call in deployment.gateway.calls if call.outcome == "unauthorized"]
    assert 1 <= failures(deployment) <= len(calls) <= MOST_REFUSED


def test_all_are_delivered_with_a_new_token(healed: list[Run]) -> None:
    assert len(healed) > 2 * MOST_REFUSED
    assert {run["state"] for run in healed} == {"success"}


def test_delivered_points_are_not_sent_again(
    deployment: Deployment, healed: list[Run], before: Counter[Point]
) -> None:
    received = Counter(deployment.sink.points)

    assert {point: received[point] for point in before} == before


def failures(deployment: Deployment) -> int:
    return deployment.airflow.api.count_task_instances(DAG_ID, state="failed")


def waiting(deployment: Deployment) -> list[str]:
    """Return the ids of the runs whose task is to be retried."""
    tasks = deployment.airflow.api.task_instances(DAG_ID)
    return [task["dag_run_id"] for task in tasks if task["state"] == "up_for_retry"]
