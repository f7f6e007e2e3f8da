"""A token that is refused while windows are queued: the account stops, and one backfill heals them all."""

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
def refused(deployment: Deployment, before: Counter[Point], start: datetime, end: datetime) -> int:
    """Run all windows again with a token that has expired; return how many calls were made with it."""
    calls = len(deployment.gateway.calls)
    deployment.gateway.api_token = "renewed"
    run_again(deployment, start, end, "completed")
    outcomes = Counter(call.outcome for call in deployment.gateway.calls[calls:])
    return outcomes["unauthorized"]


@pytest.fixture(scope="module")
def failed(deployment: Deployment, refused: int, start: datetime, end: datetime) -> list[Run]:
    return runs_between(deployment, start, end)


@pytest.fixture(scope="module")
def healed(deployment: Deployment, failed: list[Run], start: datetime, end: datetime) -> list[Run]:
    """Put the new token into the Connection, and backfill "Missing and Errored Runs"."""
    body = {"connection_id": "forge_default", "conn_type": "forge", "password": deployment.gateway.api_token}
    deployment.airflow.api.send("PATCH", "connections/forge_default?update_mask=password", body)
    run_again(deployment, start, end, "failed")
    return runs_between(deployment, start, end)


def test_all_windows_fail_and_few_calls_are_made(failed: list[Run], refused: int) -> None:
    assert len(failed) > 2 * MOST_REFUSED
    assert {run["state"] for run in failed} == {"failed"}
    assert 1 <= refused <= MOST_REFUSED


def test_one_backfill_heals_them_all(failed: list[Run], healed: list[Run]) -> None:
    assert len(healed) == len(failed)
    assert {run["state"] for run in healed} == {"success"}


def test_delivered_points_are_not_sent_again(
    deployment: Deployment, healed: list[Run], before: Counter[Point]
) -> None:
    received = Counter(deployment.sink.points)

    assert {point: received[point] for point in before} == before


def run_again(deployment: Deployment, start: datetime, end: datetime, reprocess: str) -> None:
    api = deployment.airflow.api
    backfill = api.backfill(DAG_ID, start, end, reprocess=reprocess)
    wait_for(lambda: api.backfill_is_complete(backfill), timeout=180, what="the end of the backfill")


def runs_between(deployment: Deployment, start: datetime, end: datetime) -> list[Run]:
    return [run for run in deployment.dated_runs() if start <= interval_start(run) <= end]
