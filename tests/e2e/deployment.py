"""A real Airflow with the provider, between a stand-in gateway and a sink, as the tests see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from demo.api import parse_time
from demo.dagfile import DAG_ID, TASK_ID
from demo.waiting import wait_for

if TYPE_CHECKING:
    from airflow_provider_forge.sandbox import OtlpSink, Point, SandboxGateway
    from demo.airflow import StandaloneAirflow
    from tests.e2e.statsd import Statsd

EMAIL = "dev@example.com"
# Unmistakable, because the test of secrets looks for them in everything that Airflow writes.
API_TOKEN = "canary-of-the-api-token-c41f7e"
OTLP_SECRET = "canary-of-the-otlp-secret-9d02ab"

RATE_CALLS, RATE_SECONDS = 5, 3.0
MINUTE = timedelta(minutes=1)
CATCHUP = 36 * MINUTE

Run = dict[str, Any]
Window = tuple[datetime, datetime]


@dataclass(frozen=True)
class Deployment:
    """Everything that takes part.

    Args:
        database: SQLAlchemy's URL of Airflow's database.
        statsd: Where Airflow sends its own metrics.
    """

    airflow: StandaloneAirflow
    gateway: SandboxGateway
    sink: OtlpSink
    database: str
    statsd: Statsd

    @cached_property
    def first(self) -> datetime:
        """Start of the first window that catchup fills."""
        return min(map(interval_start, self.airflow.api.runs(DAG_ID, run_type="scheduled")))

    def successes(self, **filters: Any) -> int:
        return self.airflow.api.count_runs(DAG_ID, state="success", **filters)

    def dated_runs(self) -> list[Run]:
        """Return all runs since `first`, whoever has started them, but for those without a date."""
        runs = [run for run in self.airflow.api.runs(DAG_ID) if run["logical_date"]]
        return [run for run in runs if interval_start(run) >= self.first]

    def finished(self, run_id: str, dag_id: str = DAG_ID) -> Run:
        """Wait for the end of a run and return it."""

        def finished_run() -> Run | None:
            run = self.airflow.api.run(dag_id, run_id)
            return run if run["state"] in {"success", "failed"} else None

        return wait_for(finished_run, timeout=180, what=f"the run {run_id}")

    def metrics_calls(self) -> list[Any]:
        return [call for call in self.gateway.calls if call.operation == "appMetrics"]

    def window_asked_for(self, run: Run) -> Window:
        """Return the window in a run's summary, which must be one that the gateway has been asked for."""
        window = self.airflow.api.xcom(DAG_ID, run["dag_run_id"], TASK_ID)["window"]
        start, end = map(parse_time, window.split("/"))
        assert (start, end) in {(call.start, call.end) for call in self.metrics_calls()}
        return start, end

    def delivered_until(self) -> datetime:
        """Return the moment until which every window since `first` has been delivered."""
        runs = self.dated_runs()
        unfinished = [interval_start(run) for run in runs if run["state"] != "success"]
        return min([*unfinished, max(map(interval_end, runs))])

    def generated(self, start: datetime, end: datetime) -> list[Point]:
        return self.gateway.generated(start, end, environments=["production"])


def interval_start(run: Run) -> datetime:
    return parse_time(run["data_interval_start"])


def interval_end(run: Run) -> datetime:
    return parse_time(run["data_interval_end"])
