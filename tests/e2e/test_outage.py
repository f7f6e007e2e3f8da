"""A receiver is away for longer than all retries of a task would last; afterwards its try number is still 1.

Durations are scaled: a delay of five minutes is a second. Ten retries last for 50 minutes, and this outage
for more tries than that.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW
from demo.airflow import StandaloneAirflow
from demo.api import parse_time
from demo.dagfile import DAG_ID, install_dag
from demo.waiting import wait_for
from tests.airflow_version import AIRFLOW
from tests.e2e.dag_runs import connections

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(AIRFLOW < (3, 4), reason="Airflow runs a failed task again without a retry as of 3.4"),
]

RETRIES = 10
"""Those of the shipped DAG."""

TRIES = RETRIES + 5
"""Tries of each window during the outage."""

FASTER = """
# A task bridges short outages itself; here it leaves them to Airflow at once.
from airflow_provider_forge.delivery import attempts
attempts.PATIENCE = 0.0
"""

Task = dict[str, Any]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make an AIRFLOW_HOME with the shipped DAG, but for its delays and how far it goes back."""
    home = tmp_path / "airflow"
    file = install_dag(
        home / "dags",
        operator={"live_first": False},
        retry_delay=timedelta(seconds=1),
        retention=2 * MAX_WINDOW,
        settle=timedelta(0),
    )
    assert f'"retries": {RETRIES}' in file.read_text()
    file.write_text(file.read_text() + FASTER)
    return home


def test_an_outage_longer_than_all_retries_uses_none(home: Path) -> None:
    with SandboxGateway(rate_limit_calls=0) as gateway, OtlpSink() as sink:
        limit = {"rate_limit_calls": 1000, "rate_limit_seconds": 0.1}
        with StandaloneAirflow(home, **connections(gateway, sink.url, forge=limit)) as airflow:
            sink.stop()
            airflow.wait_for_dag(DAG_ID)
            airflow.api.pause(DAG_ID, paused=False)
            waiting = wait_for(lambda: waiting_tasks(gateway, airflow), timeout=600, what="tries", every=0.5)
            assert {task["try_number"] for task in waiting} == {1}

            sink.start()
            done = wait_for(lambda: succeeded(airflow, waiting), timeout=120, what="the end of the outage")

            assert [(task["try_number"], task["max_tries"]) for task in done] == [(1, RETRIES)] * len(done)
            assert "Retry policy rescheduled the task" in airflow.api.task_log(done[0])
            assert Counter(sink.points) == generated(gateway, airflow, done)


def tries_of(gateway: SandboxGateway) -> Counter[Any]:
    """Return the number of tries by window: each try asks for it once."""
    return Counter(call.start for call in gateway.calls if call.operation == "appMetrics")


def waiting_tasks(gateway: SandboxGateway, airflow: StandaloneAirflow) -> list[Task]:
    """Return the tasks that wait to be run again, once a window has been tried often enough."""
    tried = [start for start, tries in tries_of(gateway).items() if tries >= TRIES]
    if not tried:
        return []
    tasks = airflow.api.task_instances(DAG_ID)
    return [task for task in tasks if task["state"] == "up_for_reschedule"]


def succeeded(airflow: StandaloneAirflow, waiting: list[Task]) -> list[Task]:
    """Return all tasks, once all have succeeded."""
    tasks = airflow.api.task_instances(DAG_ID)
    states = {task["state"] for task in tasks}
    assert not states & {"failed", "up_for_retry"}
    return tasks if states == {"success"} and len(tasks) >= len(waiting) else []


def generated(gateway: SandboxGateway, airflow: StandaloneAirflow, tasks: list[Task]) -> Counter[Any]:
    """Return the points of the windows that these tasks have delivered."""
    points: Counter[Any] = Counter()
    for task in tasks:
        window = airflow.api.xcom(DAG_ID, task["dag_run_id"], task["task_id"])["window"]
        start, end = map(parse_time, window.split("/"))
        points.update(gateway.generated(start, end, environments=["production"], metrics=DEFAULT_METRICS))
    return points
