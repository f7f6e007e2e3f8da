"""Measure a backfill: its use of the gateway's limit, and the freshness of live windows meanwhile.

Runs a real Airflow (LocalExecutor, PostgreSQL) with the shipped DAG, between the sandbox's gateway and sink::

    python -m benchmarks.backfill                          # 15 minutes, and 5 more with deferral
    python -m benchmarks.backfill --second-dag             # live windows in a separate DAG
    python -m benchmarks.backfill --unlimited              # 14 days without the gateway's limit
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
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
from demo.api import parse_time
from demo.dagfile import DAG_ID, TASK_ID, install_dag
from demo.waiting import wait_for
from tests.e2e.components import ComponentAirflow
from tests.e2e.dag_runs import connections
from tests.e2e.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_forge.sandbox import CallRecord, Point
    from airflow_provider_forge.sandbox.server import Request

CALLS, SECONDS = 5, 60.0
WINDOWS_OF_ALL_DAYS = RETENTION // MAX_WINDOW
LIVE_DAG_ID = "forge_metrics_live"
# The value that the README recommends for the form in the UI.
MAX_ACTIVE_RUNS = 8
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 1}
MINUTE = timedelta(minutes=1)
WARM_UP = 60.0
# Calls per minute of the shipped DAG: four windows an hour, and a second pass over four.
LIVE_CALLS = 8 / 60
# The shipped DAG's `max_active_tis_per_dag`.
AT_ONCE = 3
PARTS = {
    "queued": "Airflow's executor: from the queue to a running process",
    "started": "Airflow's start-up: process, DAG file, context",
    "executed": "this provider: imports, call, delivery, ledger",
    "ended": "Airflow's completion: XCom, asset event, state",
}
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
    """

    minutes: float
    days: float
    interval: timedelta
    second_dag: bool = False
    apps: int = 1
    deferrable: bool = False
    limited: bool = True

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
        return f"{gateway}, with{'' if self.deferrable else 'out'} deferral: {what}{apps}, {live}"

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
        path.write_text(source.replace("DAGS = {\n", "\n".join(["DAGS = {", *more, ""]), 1))


def _app_id(number: int) -> str:
    return f"ari:cloud:ecosystem::app/00000000-0000-4000-8000-{number:012}"


class TimedSink(OtlpSink):
    """A sink that records the arrival time of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def _keep(self, request: Request, body: bytes, *more: Any) -> None:
        with self._lock:
            self.times.append(time.time())
        super()._keep(request, body, *more)

    def arrivals(self) -> list[tuple[float, set[Point]]]:
        """Return the arrival time and the points of each request."""
        return [(at, set(each.points)) for at, each in zip(self.times, self.requests, strict=False)]


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


@dataclass(frozen=True)
class Execution:
    """The time of one task in seconds: in the queue, before `execute`, in it, and after it."""

    queued: float
    started: float
    executed: float
    ended: float


@dataclass(frozen=True)
class Outcome:
    """The measurements.

    Attributes:
        begin: Time of the first call, in seconds since the epoch.
        end: End of the measurement, in seconds since the epoch.
        calls: All calls to the gateway.
        violations: Number of calls that the gateway rejected.
        over_limit: Number of periods with more calls than allowed.
        freshness: Seconds from the time when a live window had settled to its arrival; None if it never
            arrived.
        worker_seconds: Total time of all tasks.
        tasks: The started tasks, from Airflow's database.
        sandbox_seconds: CPU time of the gateway and the sink.
        executions: Of all successful tasks, if there is no limit.
    """

    begin: float
    end: float
    calls: list[CallRecord]
    violations: int
    over_limit: int
    freshness: list[float | None]
    worker_seconds: float
    tasks: list[dict[str, Any]]
    sandbox_seconds: float
    executions: list[Execution]

    def times(self, since: float = 0.0) -> list[float]:
        """Return the times of the calls, from `since` seconds after the first one."""
        begin = self.begin + since
        return sorted(call.received_at for call in self.calls if begin <= call.received_at < self.end)

    def to_json(self) -> dict[str, Any]:
        """Return the measurements as JSON data."""
        calls = [call.to_json() for call in self.calls]
        return {**vars(self), "calls": calls, "executions": [vars(each) for each in self.executions]}


@contextmanager
def running(load: Load, home: Path) -> Iterator[tuple[ComponentAirflow, SandboxGateway, TimedSink, Sampler]]:
    """Start everything, with all DAGs paused."""
    load.install(home / "dags")
    limit = {"rate_limit_calls": CALLS, "rate_limit_seconds": SECONDS} if load.limited else {}
    with ExitStack() as stack:
        gateway = stack.enter_context(SandboxGateway(**limit or {"rate_limit_calls": None}))
        sink = stack.enter_context(TimedSink())
        database = stack.enter_context(postgres())
        settings = connections(gateway, sink.url, forge=limit or NO_LIMIT)
        settings["AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"] = str(load.deferrable)
        settings["AIRFLOW__CORE__PARALLELISM"] = str(AT_ONCE * (load.apps + load.second_dag) + 1)
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
    load: Load, gateway: SandboxGateway, sink: TimedSink, begin: float, end: float
) -> list[float | None]:
    """Return the delay of each live window that had at least a minute to arrive completely."""
    arrivals = sink.arrivals()
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


def succeeded(tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tasks that have delivered a window."""
    return [task for task in tasks if task["state"] == "success"]


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


def report(outcome: Outcome) -> Iterator[str]:
    """Yield the report of a backfill at the limit."""
    times = outcome.times(since=WARM_UP)
    ideal = CALLS * (outcome.end - outcome.begin - WARM_UP) / SECONDS
    # Calls come in bursts of five: only complete bursts give the rate.
    whole = (len(times) - 1) // CALLS * CALLS
    rate = 60 * whole / (times[whole] - times[0])
    late = [seconds for seconds in outcome.freshness if seconds is not None]
    never = len(outcome.freshness) - len(late)
    yield f"  calls           {len(outcome.times())}, {len(times)} of them after the first minute"
    yield f"  utilization     {len(times) / ideal:.1%} of {ideal:.0f} after it; {rate:.2f} calls a minute"
    yield f"  violations      {outcome.violations}; periods over the limit: {outcome.over_limit}"
    if late:
        p50, p95 = percentile(late, 0.5), percentile(late, 0.95)
        yield f"  live freshness  p50 {p50:.0f} s, p95 {p95:.0f} s, worst {max(late):.0f} s after settling"
    yield f"  live windows    {len(outcome.freshness)}, {never} of them never arrived"
    yield f"  worker seconds  {outcome.worker_seconds / len(outcome.times()):.1f} per window"
    alone, beside = WINDOWS_OF_ALL_DAYS / rate, WINDOWS_OF_ALL_DAYS / (rate - LIVE_CALLS)
    floor = WINDOWS_OF_ALL_DAYS * SECONDS / CALLS / 60
    yield (
        f"  14 days         {WINDOWS_OF_ALL_DAYS:,} windows in {alone:.0f} minutes, {beside:.0f} with live"
        f" windows at the same time; the minimum is {floor:.1f}"
    )


def report_unlimited(outcome: Outcome) -> Iterator[str]:
    """Yield the report of a backfill without a limit."""
    done = succeeded(outcome.tasks)
    minutes = (max(task["ended"] for task in done) - min(task["began"] for task in done)) / 60
    calls = len(outcome.calls)
    parts = {name: statistics.fmean(vars(each)[name] for each in outcome.executions) for name in PARTS}
    # Per slot of the concurrency, so that the scheduler's time between two tasks counts, too.
    whole = AT_ONCE * minutes * 60 / len(done)
    pace = f"{len(done) / minutes:.0f} a minute, {calls:,} calls"
    yield f"  windows         {len(done):,} in {minutes:.1f} minutes: {pace}"
    yield f"  each window     {whole:.2f} s of one of {AT_ONCE} slots, consisting of"
    for name, meaning in PARTS.items():
        yield f"    {parts[name]:.2f} s  {meaning}"
    yield f"    {whole - sum(parts.values()):.2f} s  Airflow's scheduler: from one task to the next"
    yield f"  overhead        {whole - parts['executed']:.2f} s per window are Airflow's"
    yield f"  sandbox         {outcome.sandbox_seconds / len(done):.2f} s of CPU time per window"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that a share of the values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def machine() -> str:
    """Describe the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB"


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
    add("--unlimited", action="store_true", help="14 days without a limit")
    add("--raw", type=Path, help="file for all measurements, as JSON")
    return parser.parse_args()


def loads(given: argparse.Namespace) -> Iterator[tuple[str, Load]]:
    """Yield the loads that the command line selects, with headings."""
    interval = timedelta(minutes=given.interval)
    if given.unlimited:
        yield "Without the gateway's limit", Load(given.minutes, RETENTION.days, interval, limited=False)
        return
    for deferrable, minutes in ((False, given.minutes), (True, given.deferred_minutes)):
        if minutes:
            load = Load(minutes, given.days, interval, given.second_dag, given.apps, deferrable)
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
        lines = report(outcome) if load.limited else report_unlimited(outcome)
        print("\n".join([heading, *lines]), flush=True)
    if given.raw:
        given.raw.write_text(json.dumps(raw))


if __name__ == "__main__":
    main()
