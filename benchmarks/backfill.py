"""Measure a backfill: its use of the gateway's limit, and the freshness of live windows meanwhile.

Runs a real Airflow (LocalExecutor, PostgreSQL) with the shipped DAG, between the sandbox's gateway and sink::

    python -m benchmarks.backfill                          # 15 minutes, and 5 more with deferral
    python -m benchmarks.backfill --second-dag             # live windows in a separate DAG
    python -m benchmarks.backfill --places 2 --slow-start 20   # two tasks at once, which start slowly
    python -m benchmarks.backfill --unlimited              # 14 days without the gateway's limit
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW, RETENTION, SETTLE_DELAY, ceil
from benchmarks.outcome import (
    CALLS,
    SECONDS,
    Execution,
    Outcome,
    machine,
    report,
    report_unlimited,
    succeeded,
)
from demo.api import parse_time
from demo.dagfile import DAG_ID, SHIPPED, TASK_ID, install_dag
from demo.waiting import wait_for
from tests.e2e.components import ComponentAirflow
from tests.e2e.dag_runs import connections
from tests.e2e.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_forge.sandbox import Point

LIVE_DAG_ID = "forge_metrics_live"
# The value that the README recommends for the form in the UI.
MAX_ACTIVE_RUNS = 8
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 1}
MINUTE = timedelta(minutes=1)
# The shipped DAG's `max_active_tis_per_dag`.
PLACES = int(re.search(r"max_active_tis_per_dag=(\d+)", SHIPPED.read_text())[1])
TI_COLUMNS = ("dag_id", "run_id", "state", "try_number", "queued", "began", "ended", "start", "end", "type")
TASKS = """
SELECT ti.dag_id, ti.run_id, ti.state, ti.try_number, extract(epoch FROM ti.queued_dttm)::float,
       extract(epoch FROM ti.start_date)::float, extract(epoch FROM ti.end_date)::float,
       extract(epoch FROM dr.data_interval_start)::float, extract(epoch FROM dr.data_interval_end)::float,
       dr.run_type
FROM task_instance ti JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id
WHERE ti.start_date IS NOT NULL
"""


@dataclass(frozen=True)
class Load:
    """The configuration of a run.

    Attributes:
        minutes: Duration of the measurement in minutes, from the first call.
        days: Length of the backfill in days.
        interval: Length of live windows.
        second_dag: Whether live windows have a separate DAG beside the shipped one with its windows of 15
            minutes; otherwise one DAG runs both.
        apps: Number of apps of one account that are backfilled at the same time.
        deferrable: Airflow's `operators.default_deferrable`.
        limited: Whether the gateway has its limit; without it, there are no live windows.
        places: The DAG's `max_active_tis_per_dag`.
        slow_start: Seconds that each task sleeps before it executes, like a pod that starts slowly.
    """

    minutes: float
    days: float
    interval: timedelta
    second_dag: bool = False
    apps: int = 1
    deferrable: bool = False
    limited: bool = True
    places: int = PLACES
    slow_start: float = 0.0

    @property
    def dag_ids(self) -> list[str]:
        """The ids of the DAGs to backfill."""
        return [DAG_ID, *(f"{DAG_ID}_{number}" for number in range(2, self.apps + 1))]

    @property
    def length(self) -> timedelta:
        """Length of the backfilled windows."""
        return MAX_WINDOW if self.second_dag or not self.limited else self.interval

    def __str__(self) -> str:
        gateway = f"{CALLS} calls per {SECONDS:.0f} s, {self.minutes:g} minutes"
        what = f"{self.days:g} d in windows of {self.length // MINUTE} min"
        apps = f" of {self.apps} apps" if self.apps > 1 else ""
        which = "a second" if self.second_dag else "the same"
        live = f"live windows of {self.interval // MINUTE} min in {which} DAG"
        places = f"{self.places} tasks at once"
        if self.slow_start:
            places += f", each after {self.slow_start:g} s"
        deferral = f"with{'' if self.deferrable else 'out'} deferral"
        return f"{gateway}, {deferral}, {places}: {what}{apps}, {live}"

    def install(self, dags_folder: Path) -> None:
        """Write the shipped DAG file with the DAGs of this configuration."""
        timetable = {} if self.length == MAX_WINDOW else {"interval": self.length}
        path = install_dag(dags_folder, operator={"catchup": False}, **timetable)
        minutes = self.interval // MINUTE
        schedule = f"ForgeMetricsTimetable(interval=timedelta(minutes={minutes}))"
        more = [
            f'    "{dag_id}": {{"app_id": "{_app_id(number)}", "catchup": False}},'
            for number, dag_id in enumerate(self.dag_ids[1:], start=2)
        ]
        if self.second_dag:
            more.append(
                f'    "{LIVE_DAG_ID}": {{"schedule": {schedule}, "catchup": False, "revisit_after": None}},'
            )
        source = path.read_text()
        source = source.replace("DAGS = {\n", "\n".join(["DAGS = {", *more, ""]), 1)
        places = f"max_active_tis_per_dag={self.places}"
        if self.slow_start:
            places += f", pre_execute=lambda context: __import__('time').sleep({self.slow_start})"
        path.write_text(source.replace(f"max_active_tis_per_dag={PLACES}", places))


def _app_id(number: int) -> str:
    return f"ari:cloud:ecosystem::app/00000000-0000-4000-8000-{number:012}"


class Sampler(threading.Thread):
    """Counts Airflow's tasks by state once a second, because durations in the database include deferrals."""

    def __init__(self, database: str) -> None:
        super().__init__(daemon=True)
        self._connection = psycopg2.connect(database.replace("+psycopg2", ""))
        self._connection.autocommit = True
        self._ended = threading.Event()
        self.samples: list[tuple[float, dict[str, int]]] = []

    def run(self) -> None:
        """Sample until stopped."""
        while not self._ended.wait(1.0):
            rows = self.query("SELECT state, count(*) FROM task_instance WHERE state IS NOT NULL GROUP BY 1")
            self.samples.append((time.time(), dict(rows)))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def tasks(self) -> list[dict[str, Any]]:
        """Return all tasks that have started."""
        return [dict(zip(TI_COLUMNS, row, strict=True)) for row in self.query(TASKS)]

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        self._connection.close()

    def running(self, begin: float, end: float) -> float:
        """Return the total time in seconds that workers spent on tasks."""
        seconds = 0.0
        for (before, _), (at, states) in zip(self.samples, self.samples[1:], strict=False):
            if begin <= at < end:
                seconds += (at - before) * states.get("running", 0)
        return seconds


@contextmanager
def running(load: Load, home: Path) -> Iterator[tuple[ComponentAirflow, SandboxGateway, OtlpSink, Sampler]]:
    """Start everything, with all DAGs paused."""
    load.install(home / "dags")
    limit = {"rate_limit_calls": CALLS, "rate_limit_seconds": SECONDS} if load.limited else {}
    with ExitStack() as stack:
        gateway = stack.enter_context(SandboxGateway(**limit or {"rate_limit_calls": None}))
        sink = stack.enter_context(OtlpSink())
        database = stack.enter_context(postgres())
        settings = connections(gateway, sink.url, forge=limit or NO_LIMIT)
        settings["AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"] = str(load.deferrable)
        settings["AIRFLOW__CORE__PARALLELISM"] = str(load.places * (load.apps + load.second_dag) + 1)
        airflow = stack.enter_context(ComponentAirflow(home, database, **settings))
        yield airflow, gateway, sink, stack.enter_context(Sampler(database))


def begin(airflow: ComponentAirflow, load: Load) -> None:
    """Unpause the DAGs, and once they have runs, send the request of the form "Backfill"."""
    api = airflow.api
    dag_ids = [*load.dag_ids, *([LIVE_DAG_ID] if load.second_dag else [])]
    for dag_id in dag_ids:
        airflow.wait_for_dag(dag_id)
        api.pause(dag_id, paused=False)
    for dag_id in dag_ids:
        wait_for(lambda dag_id=dag_id: api.count_runs(dag_id), timeout=120, what=f"a run of {dag_id}")
    now = datetime.now(timezone.utc)
    for dag_id in load.dag_ids:
        body = {
            "dag_id": dag_id,
            "from_date": (now - timedelta(days=load.days)).isoformat(),
            # The windows that have settled. Later ones belong to the schedule, and would wait at the
            # backfill's end.
            "to_date": (now - SETTLE_DELAY - load.length).isoformat(),
            "reprocess_behavior": "none",
            "max_active_runs": MAX_ACTIVE_RUNS,
        }
        api.send("POST", "backfills", body)


def measure(load: Load, home: Path) -> Outcome:
    """Run the load and return the measurements."""
    with running(load, home) as (airflow, gateway, sink, sampler):
        begin(airflow, load)
        wait_for(lambda: gateway.calls, timeout=300, what="the first call")
        began, cpu = gateway.calls[0].received_at, time.process_time()
        watch(gateway, airflow, load, until=began + load.minutes * 60)
        ended, cpu = time.time(), time.process_time() - cpu
        tasks = sampler.tasks()
        return Outcome(
            begin=began,
            end=ended,
            calls=gateway.calls,
            violations=gateway.violations,
            over_limit=gateway.over_limit(),
            freshness=freshness(load, gateway, sink, began, ended) if load.limited else [],
            worker_seconds=sampler.running(began, ended),
            tasks=tasks,
            sandbox_seconds=cpu,
            executions=[] if load.limited else [_execution(home, task) for task in succeeded(tasks)],
        )


def watch(gateway: SandboxGateway, airflow: ComponentAirflow, load: Load, until: float) -> None:
    """Print the progress once a minute, until the time is up or everything is done."""
    shown = time.time()
    while time.time() < until:
        if ended := [name for name, each in airflow.processes.items() if each.returncode is not None]:
            raise RuntimeError(
                f"Airflow's {ended[0]} has ended:\n{airflow.processes[ended[0]].log()[-4000:]}"
            )
        if time.time() - shown >= 60:
            shown += 60
            print(f"  {len(gateway.calls)} calls so far", file=sys.stderr, flush=True)
        # Polling is work for Airflow, too.
        time.sleep(1 if load.limited else 5)
        if not load.limited and not airflow.api.count_runs(DAG_ID, state=["queued", "running"]):
            return


def freshness(
    load: Load, gateway: SandboxGateway, sink: OtlpSink, begin: float, end: float
) -> list[float | None]:
    """Return the delay of each live window that had at least a minute to arrive completely."""
    arrivals = [(request.received_at, set(request.points)) for request in sink.requests]
    found = []
    start = ceil(_moment(begin) - SETTLE_DELAY, load.interval) - load.interval
    while (due := start + load.interval + SETTLE_DELAY) <= _moment(end) - MINUTE:
        if due >= _moment(begin):
            arrived = _arrived(arrivals, gateway, start, start + load.interval)
            found.append(None if arrived is None else arrived - due.timestamp())
        start += load.interval
    return found


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _arrived(
    arrivals: Sequence[tuple[float, set[Point]]], gateway: SandboxGateway, start: datetime, end: datetime
) -> float | None:
    missing = set(gateway.generated(start, end, environments=["production"], metrics=DEFAULT_METRICS))
    for at, points in arrivals:
        missing -= points
        if not missing:
            return at
    return None


def _execution(home: Path, task: dict[str, Any]) -> Execution:
    """Read from a task's log when Airflow called the operator, and when it returned."""
    folder = f"dag_id={task['dag_id']}/run_id={task['run_id']}/task_id={TASK_ID}"
    log = home / "logs" / folder / f"attempt={task['try_number']}.log"
    seen = {}
    for line in map(json.loads, log.read_text().splitlines()):
        seen.setdefault(line["event"], parse_time(line["timestamp"]).timestamp())
    called, returned = seen["::endgroup::"], seen["::group::Post Execute"]
    began, ended = task["began"], task["ended"]
    return Execution(began - task["queued"], called - began, returned - called, ended - returned)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add(
        "--minutes",
        type=float,
        default=15,
        help="duration of the measurement (15); the maximum with --unlimited",
    )
    add(
        "--deferred-minutes",
        type=float,
        default=5,
        help="duration of a second run with deferral (5); 0 for none",
    )
    add("--days", type=float, default=1, help="length of the backfill (1)")
    add("--interval", type=int, default=1, help="length of a live window in minutes (1)")
    add(
        "--second-dag",
        action="store_true",
        help="run live windows in a separate DAG",
    )
    add("--apps", type=int, default=1, help="number of apps of the account to backfill at the same time (1)")
    add("--places", type=int, default=PLACES, help=f"the DAG's max_active_tis_per_dag ({PLACES})")
    add("--slow-start", type=float, default=0.0, help="seconds that each task sleeps first (0)")
    add("--unlimited", action="store_true", help="14 days without a limit")
    add("--raw", type=Path, help="file for all measurements, as JSON")
    return parser.parse_args()


def loads(given: argparse.Namespace) -> Iterator[tuple[str, Load]]:
    """Yield the loads that the command line selects, with headings."""
    interval = timedelta(minutes=given.interval)
    tasks = {"places": given.places, "slow_start": given.slow_start}
    if given.unlimited:
        load = Load(given.minutes, RETENTION.days, interval, limited=False, **tasks)
        yield "Without the gateway's limit", load
        return
    for deferrable, minutes in ((False, given.minutes), (True, given.deferred_minutes)):
        if minutes:
            load = Load(minutes, given.days, interval, given.second_dag, given.apps, deferrable, **tasks)
            yield str(load), load


def main() -> None:
    """Run the selected loads and print the report."""
    given = arguments()
    raw = {}
    today = datetime.now(timezone.utc).date()
    print(
        f"{today}, Airflow {version('apache-airflow')}, Python {platform.python_version()}, {machine()}",
        flush=True,
    )
    for heading, load in loads(given):
        with tempfile.TemporaryDirectory(prefix="forge-benchmark-") as name:
            outcome = measure(load, Path(name))
        raw[heading] = outcome.to_json()
        lines = report(outcome) if load.limited else report_unlimited(outcome, load.places)
        print("\n".join([heading, *lines]), flush=True)
    if given.raw:
        given.raw.write_text(json.dumps(raw))


if __name__ == "__main__":
    main()
