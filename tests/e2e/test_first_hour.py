"""The first hour with the DAG as it is shipped: unpaused, and nothing else done."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW, Window
from demo.airflow import StandaloneAirflow
from demo.dagfile import DAG_ID, install_dag
from demo.waiting import wait_for
from tests.e2e.deployment import API_TOKEN, EMAIL, Deployment
from tests.e2e.postgres import postgres
from tests.e2e.statsd import Statsd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

WINDOWS = 48
"""Windows of the history: twelve hours, in place of 14 days."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Airflow, with both Connections, and the DAG just unpaused."""
    home = tmp_path_factory.mktemp("airflow")
    install_dag(home / "dags", retention=WINDOWS * MAX_WINDOW)
    limit = {"rate_limit_calls": 5, "rate_limit_seconds": 6.0}
    with (
        SandboxGateway(email=EMAIL, api_token=API_TOKEN, **limit) as gateway,
        OtlpSink() as sink,
        postgres() as database,
        Statsd() as statsd,
        StandaloneAirflow(home, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database) as airflow,
    ):
        extra = json.dumps({"app_id": gateway.app_id, **limit})
        account = {"login": EMAIL, "password": API_TOKEN, "extra": extra}
        airflow.api.create_connection("forge_default", "forge", host=gateway.url, **account)
        airflow.api.create_connection("otlp_default", "otlp", host=sink.url)
        airflow.wait_for_dag(DAG_ID)
        airflow.api.pause(DAG_ID, paused=False)
        yield Deployment(airflow, gateway, sink, database, statsd)


@pytest.fixture(scope="module")
def newest(started: Deployment) -> Window:
    """The newest window that had settled when the DAG was unpaused."""
    return Window.last_settled(datetime.now(timezone.utc))


def test_the_newest_window_comes_first(started: Deployment, newest: Window) -> None:
    def asked() -> list[datetime]:
        return [call.start for call in started.metrics_calls()]

    wait_for(lambda: newest.start in asked(), timeout=120, what="the newest window")
    assert asked().index(newest.start) <= WINDOWS // 4
    assert [
        run["dag_run_id"] for run in started.airflow.api.runs(DAG_ID) if run["run_type"] != "scheduled"
    ] == [f"live__{newest.start.isoformat()}_to_{newest.end:%H:%M}"]


def test_a_backfill_during_catchup_loses_nothing(started: Deployment, newest: Window) -> None:
    """Catchup continues behind the backfill, and the backfill's first run has healed what lies between."""
    api = started.airflow.api
    wait_for(started.successes, timeout=120, what="the first window of the history")
    first, jump = started.first, newest.start - 6 * MAX_WINDOW
    assert api.count_runs(DAG_ID) < WINDOWS // 2
    api.backfill(DAG_ID, jump, newest.start - 4 * MAX_WINDOW, reprocess="none")

    def missing() -> int:
        received = Counter(started.sink.points)
        made = started.gateway.generated(
            first, newest.end, environments=["production"], metrics=DEFAULT_METRICS
        )
        return sum((Counter(made) - received).values())

    wait_for(lambda: not missing(), timeout=600, what="all windows", every=2.0)
    healing = [run for run in api.runs(DAG_ID) if run["dag_run_id"].startswith("heal__")]
    assert len(healing) == 1
    assert set(Counter(started.sink.points).values()) == {1}
    assert started.gateway.calls
    assert not [call for call in started.gateway.calls if call.status == 429]
    assert api.count_runs(DAG_ID, state="failed") == 0
    assert datetime.now(timezone.utc) - newest.end < timedelta(hours=1)
