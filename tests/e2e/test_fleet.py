"""A fleet: two Celery workers that share no files, one account, and its limit in a Redis.

Catchup and a backfill go on at once. What the gateway saw is judged, not what the limiter meant.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW
from demo.airflow import airflow_environment
from demo.api import parse_time
from demo.dagfile import DAG_ID, install_dag
from demo.processes import ManagedProcess
from demo.waiting import wait_for
from tests.e2e.components import ComponentAirflow
from tests.e2e.postgres import postgres
from tests.redis_program import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_forge.sandbox import Point

pytestmark = pytest.mark.timeout(900)

CALLS = 5
LOG_TAIL = 4000
WORKERS = ("worker-1", "worker-2")
# What the limit and the leases of a single machine would write below AIRFLOW_HOME.
PROCESSES_SHARE = "tmp/airflow-provider-forge"
EXECUTION_API = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
    "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
}


@dataclass(frozen=True)
class Form:
    """How long the fleet has to work, and how fast; `make bench-backfill` says how much of the limit is used.

    Args:
        windows: How many there are to catch up with.
        seconds: For so long `CALLS` calls are allowed.
    """

    windows: int
    seconds: float


SHORT = Form(windows=16, seconds=10.0)
# With three tasks let in, two cores start and end about one Celery task a second, beside gateway and sink.
# The limit is below that, so that it is the gateway that is waited for.
LONG = Form(windows=60, seconds=10.0)


class Worker(ManagedProcess):
    """A Celery worker on a machine of its own, as far as files go; it has no access to the database.

    Args:
        home: Its AIRFLOW_HOME, with the DAG file.
        name: Tells it from others.
        settings: Those of Airflow that a fleet has in common.
    """

    def __init__(self, home: Path, name: str, **settings: str) -> None:
        self.home = home
        command = ["celery", "worker", "--celery-hostname", f"{name}@%h", "--skip-serve-logs"]
        super().__init__(
            [sys.executable, "-m", "airflow", *command],
            env=airflow_environment(home, **settings),
            log_file=home / "worker.log",
        )

    def wait_until_ready(self) -> None:
        wait_for(self._is_ready, timeout=120, what=f"a Celery worker, see {self.log_file}")

    def delivered(self) -> int:
        """Return how many tasks have come to their end here, by the logs that they left."""
        logs = (self.home / "logs").glob(f"dag_id={DAG_ID}/run_id=*/task_id=*/attempt=*.log")
        return sum('"event":"Summary: ' in log.read_text() for log in logs)

    def stop(self, patience: float = 1.0) -> None:
        # Asked to end, it would wait for its tasks.
        super().stop(patience)

    def _is_ready(self) -> bool:
        if self.returncode is not None:
            raise RuntimeError(self.log()[-LOG_TAIL:])
        return " ready." in self.log()


@dataclass
class Fleet:
    """An Airflow whose tasks run on two workers, between a gateway that judges and a sink."""

    form: Form
    airflow: ComponentAirflow
    workers: list[Worker]
    gateway: SandboxGateway
    sink: OtlpSink

    def work(self) -> None:
        """Catch up with all windows and backfill them at once, and wait until all are delivered."""
        api = self.airflow.api
        self.airflow.wait_for_dag(DAG_ID)
        api.pause(DAG_ID, paused=False)
        wait_for(lambda: self.sink.requests, timeout=120, what="the first window", every=0.05)
        first = min(parse_time(run["data_interval_start"]) for run in api.runs(DAG_ID))
        self.backfill_id = api.backfill(DAG_ID, first, first + self.form.windows * MAX_WINDOW)
        wait_for(self._is_done, timeout=600, what="the success of all runs", every=1.0)
        # No live window is to begin while the outcome is looked at.
        api.pause(DAG_ID)
        wait_for(self._is_idle, timeout=60, what="the end of all tasks")

    def _is_done(self) -> bool:
        api = self.airflow.api
        assert self.airflow.processes["scheduler"].returncode is None, self.airflow.processes[
            "scheduler"
        ].log()
        assert not api.count_runs(DAG_ID, state="failed")
        done = api.count_runs(DAG_ID, state="success") >= self.form.windows
        return done and api.backfill_is_complete(self.backfill_id)

    def _is_idle(self) -> bool:
        under_way = ["queued", "running", "deferred", "up_for_retry"]
        return not self.airflow.api.count_task_instances(DAG_ID, state=under_way)

    @cached_property
    def runs(self) -> list[dict[str, Any]]:
        """The runs that have delivered their windows."""
        return self.airflow.api.runs(DAG_ID, state="success")

    def generated(self) -> Counter[Point]:
        """Return all points of their windows."""
        chosen = {"environments": ["production"], "metrics": DEFAULT_METRICS}
        points: Counter[Point] = Counter()
        for run in self.runs:
            start, end = (parse_time(run[f"data_interval_{name}"]) for name in ("start", "end"))
            points.update(self.gateway.generated(start, end, **chosen))
        return points


@contextmanager
def fleet(directory: Path, form: Form) -> Iterator[Fleet]:
    """Start everything; nothing is below `directory` that two machines would both see."""
    limit = {"rate_limit_calls": CALLS, "rate_limit_seconds": form.seconds}
    homes = {name: directory / name for name in ("scheduler", "worker-1", "worker-2")}
    for home in homes.values():
        install_dag(
            home / "dags",
            operator={"live_first": False},
            retry_delay=timedelta(seconds=1),
            retention=(form.windows + 1) * MAX_WINDOW,
            settle=timedelta(0),
        )
    with ExitStack() as stack:
        gateway = stack.enter_context(SandboxGateway(**limit))
        sink = stack.enter_context(OtlpSink())
        redis = stack.enter_context(Redis(directory))
        database = stack.enter_context(postgres())
        settings = {**SETTINGS, "AIRFLOW__CELERY__BROKER_URL": redis.url}
        settings["AIRFLOW__CELERY__RESULT_BACKEND"] = redis.url
        settings["AIRFLOW__API_AUTH__JWT_SECRET"] = secrets.token_hex(32)
        airflow = ComponentAirflow(homes["scheduler"], database, **settings)
        settings[EXECUTION_API] = airflow.env[EXECUTION_API]
        workers = []
        for name in WORKERS:
            workers.append(Worker(homes[name], name, **settings))
            stack.push(workers[-1])
        stack.enter_context(airflow)
        extra = json.dumps({"app_id": gateway.app_id, "rate_limit_store": redis.url, **limit})
        account = {"login": gateway.email, "password": gateway.api_token, "extra": extra}
        airflow.api.create_connection("forge_default", "forge", host=gateway.url, **account)
        airflow.api.create_connection("otlp_default", "otlp", host=sink.url)
        for worker in workers:
            worker.wait_until_ready()
        yield Fleet(form, airflow, workers, gateway, sink)


@pytest.fixture(
    scope="module",
    params=[pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.long)],
)
def worked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Let a fleet do all its work."""
    with fleet(tmp_path_factory.mktemp("fleet"), request.param) as working:
        working.work()
        yield working


def test_the_gateway_never_sees_more_calls_than_it_allows(worked: Fleet) -> None:
    assert worked.gateway.violations == 0
    assert worked.gateway.over_limit() == 0


def test_both_workers_deliver(worked: Fleet) -> None:
    assert all(worker.delivered() for worker in worked.workers)


def test_they_share_nothing_but_the_redis(worked: Fleet) -> None:
    # Airflow creates the directory when it starts.
    assert not any(list((worker.home / PROCESSES_SHARE).glob("*")) for worker in worked.workers)


def test_catchup_and_backfill_went_on_at_once(worked: Fleet) -> None:
    delivered = Counter(run["run_type"] for run in worked.runs)

    assert delivered.keys() == {"scheduled", "backfill"}
    assert delivered.total() >= worked.form.windows


def test_each_generated_point_arrives_once(worked: Fleet) -> None:
    generated = worked.generated()

    assert generated
    assert Counter(worked.sink.points) == generated
