"""An Airflow with the shipped DAG that delivers a window, and dies at it, when it is told to."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW, floor
from demo.dagfile import DAG_ID, TASK_ID, install_dag
from demo.waiting import wait_for
from tests.e2e.components import ComponentAirflow
from tests.e2e.dag_runs import connections
from tests.e2e.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.sandbox import Point

# Batches of about fifty points.
MAX_BODY_BYTES = 8192
UNLIMITED = {"rate_limit_calls": 1000, "rate_limit_seconds": 1}


@dataclass
class Delivery:
    """What became of one window.

    Args:
        run_id: The run that delivered it.
        generated: All points that the gateway has for it.
        batches: What the receiver has kept of them, request by request.
        summary: What the task returned.
        tries: How often the task was started.
        log: Of the last try.
    """

    run_id: str
    start: datetime
    generated: Counter[Point]
    batches: list[Counter[Point]]
    summary: dict[str, Any]
    tries: int
    log: str

    @property
    def received(self) -> Counter[Point]:
        return sum(self.batches, Counter())


class Deliveries:
    """Delivers windows that nothing else asks for: each call of `begin` takes the next one.

    Args:
        airflow: With the DAG unpaused, and nothing to catch up.
    """

    def __init__(self, airflow: ComponentAirflow, gateway: SandboxGateway, sink: OtlpSink) -> None:
        self.airflow = airflow
        self.gateway = gateway
        self.sink = sink
        # So long ago that a run looks at nothing but its own window, and in the busy hours of a day.
        yesterday = floor(datetime.now(timezone.utc), timedelta(days=1)) - timedelta(days=1)
        self._starts = (yesterday + timedelta(hours=8) + n * MAX_WINDOW for n in count())

    def begin(self, *crashes: str, with_supervisor: bool = False) -> tuple[str, datetime]:
        """Start a run; return its id and the start of its window.

        Args:
            crashes: The steps at which its first tries die, see `crash_plugin`.
            with_supervisor: Whether they die together with the process that watches over them.
        """
        start = next(self._starts)
        conf = {"crashes": crashes, "with_supervisor": with_supervisor}
        return self.airflow.api.trigger(DAG_ID, start, conf), start

    def batches(self, start: datetime) -> list[Counter[Point]]:
        """Return what has been received of a window."""
        generated = self._generated(start).keys()
        received = (Counter(request.points) for request in self.sink.requests)
        return [batch for batch in received if batch.keys() & generated]

    def tries(self, run_id: str) -> int:
        """Return how many tasks have been started for a run."""
        [task] = self.airflow.api.task_instances(DAG_ID, run_id)
        return task["try_number"]

    def finish(self, run_id: str, start: datetime) -> Delivery:
        """Wait for the success of a run."""
        api = self.airflow.api
        states = {"success", "failed"}
        wait_for(lambda: api.run(DAG_ID, run_id)["state"] in states, timeout=300, what=f"the run {run_id}")
        [task] = api.task_instances(DAG_ID, run_id)
        log = api.task_log(task)
        assert task["state"] == "success", log
        summary = api.xcom(DAG_ID, run_id, TASK_ID)
        return Delivery(
            run_id, start, self._generated(start), self.batches(start), summary, task["try_number"], log
        )

    def deliver(self, *crashes: str, with_supervisor: bool = False) -> Delivery:
        """Deliver a window from beginning to end; arguments as for `begin`."""
        return self.finish(*self.begin(*crashes, with_supervisor=with_supervisor))

    def deliver_again(self, delivery: Delivery) -> Delivery:
        """Clear the run of a window and wait for its success."""
        self.airflow.api.clear(DAG_ID, delivery.run_id)
        return self.finish(delivery.run_id, delivery.start)

    def _generated(self, start: datetime) -> Counter[Point]:
        return Counter(
            self.gateway.generated(
                start, start + MAX_WINDOW, environments=["production"], metrics=DEFAULT_METRICS
            )
        )


@contextmanager
def deliveries(home: Path, *, otlp: dict[str, Any] | None = None, **settings: str) -> Iterator[Deliveries]:
    """Start everything.

    Args:
        home: Becomes AIRFLOW_HOME.
        otlp: More extras of the Connection to the receiver.
        settings: Environment variables of Airflow.
    """
    # No catchup: whatever is delivered, a test has asked for it.
    install_dag(home / "dags", retry_delay=timedelta(seconds=1), retention=MAX_WINDOW)
    (home / "plugins").mkdir()
    shutil.copy(Path(__file__).with_name("crash_plugin.py"), home / "plugins")
    with SandboxGateway(rate_limit_calls=None) as gateway, OtlpSink() as sink, postgres() as database:
        extras = {"max_body_bytes": MAX_BODY_BYTES, **(otlp or {})}
        settings = {**connections(gateway, sink.url, forge=UNLIMITED, **extras), **settings}
        with ComponentAirflow(home, database, **settings) as airflow:
            airflow.wait_for_dag(DAG_ID)
            airflow.api.pause(DAG_ID, paused=False)
            yield Deliveries(airflow, gateway, sink)
