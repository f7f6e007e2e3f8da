"""The measurements of a backfill, and the report of them."""

from __future__ import annotations

import math
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.windows import MAX_WINDOW, RETENTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_forge.sandbox import CallRecord

CALLS, SECONDS = 5, 60.0
WINDOWS_OF_ALL_DAYS = RETENTION // MAX_WINDOW
WARM_UP = 60.0
# Calls per minute of the shipped DAG: four windows an hour, and four revisits.
LIVE_CALLS = 8 / 60
PARTS = {
    "queued": "Airflow's executor: from the queue to a running process",
    "started": "Airflow's start-up: process, DAG file, context",
    "executed": "this provider: imports, call, delivery, ledger",
    "ended": "Airflow's completion: XCom, asset event, state",
}


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


def succeeded(tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tasks that have delivered a window."""
    return [task for task in tasks if task["state"] == "success"]


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


def report_unlimited(outcome: Outcome, places: int) -> Iterator[str]:
    """Yield the report of a backfill without a limit."""
    done = succeeded(outcome.tasks)
    minutes = (max(task["ended"] for task in done) - min(task["began"] for task in done)) / 60
    calls = len(outcome.calls)
    parts = {name: statistics.fmean(vars(each)[name] for each in outcome.executions) for name in PARTS}
    # Per slot of the concurrency, so that the scheduler's time between two tasks counts, too.
    whole = places * minutes * 60 / len(done)
    pace = f"{len(done) / minutes:.0f} a minute, {calls:,} calls"
    yield f"  windows         {len(done):,} in {minutes:.1f} minutes: {pace}"
    yield f"  each window     {whole:.2f} s of one of {places} slots, consisting of"
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
