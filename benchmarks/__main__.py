"""`make bench`: the steps of the payload path and of alternatives, as multiples of `orjson.loads`.

pyperf measures each step in separate processes, in CPU time and without the deallocation of its result, so
that neither load on the machine nor another step has an effect. Peak memory is that of a fresh process.
Commands are measured as multiples of the import of Airflow.
"""

from __future__ import annotations

import functools
import gc
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import orjson
import pyperf

from benchmarks import commands, steps
from benchmarks.response import MANY, POINTS, response_body

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATH = "conform + fingerprints + protobuf"
ARCHIVED = f"{PATH}, archived before"

TARGETS = {
    "pass-through": 0.10,
    PATH: 0.60,
    "conform + fingerprints + JSON": 0.60,
    **dict.fromkeys([*steps.UNUSUAL, steps.AROUND], 2),
}
"""Upper limits, as multiples of `orjson.loads`."""

MEMORY_TARGET = 4
"""Upper limit of the peak memory on top of the response, as a multiple of the protobuf request."""


def main() -> None:
    """Run the benchmark."""
    if sys.argv[1:] == ["--profile"]:
        profile()
        return
    runner = pyperf.Runner(processes=3, values=3, warmups=1, loops=1, program_args=("-m", "benchmarks"))
    times = {
        name: runner.bench_time_func(name, functools.partial(seconds, step))
        for name, step in measured_steps()
    }
    if not runner.args.worker:
        missed = report({name: min(bench.get_values()) for name, bench in times.items()}) + memory()
        missed += commands.measure()
        sys.exit(f"Missed: {', '.join(missed)}" if missed else None)


def measured_steps() -> list[tuple[str, Callable[[], Any]]]:
    """Return the steps to measure."""
    body = response_body(POINTS)
    return [
        ("orjson.loads", lambda: orjson.loads(body)),
        ("orjson.loads in an empty process", functools.partial(as_in_empty_process, orjson.loads, body)),
        *steps.ours(body),
        (
            f"{PATH}, one point per series",
            lambda: steps.one_point_per_series(POINTS),
        ),
        *steps.unusual(POINTS),
        (ARCHIVED, lambda: steps.archived(body)),
        *steps.others(body),
        *steps.compressions(body),
    ]


def as_in_empty_process(step: Callable[..., Any], *arguments: Any) -> Any:
    """Run a step as in an empty process, where the garbage collector does not scan the imported modules.

    The collector takes most of orjson's time, and almost none of this package's.
    """
    gc.freeze()
    try:
        return step(*arguments)
    finally:
        gc.unfreeze()


def seconds(step: Callable[[], Any], loops: int = 1) -> float:
    """Return the CPU time of a step in seconds."""
    taken = 0.0
    for _ in range(loops):
        gc.collect()
        start = time.process_time()
        result = step()
        taken += time.process_time() - start
        del result
    return taken


def report(times: dict[str, float]) -> list[str]:
    """Print the best times as multiples of orjson's, and return the steps that miss their target."""
    base, missed = times["orjson.loads"], []
    body = response_body(POINTS)
    print(f"\n{POINTS} points, 7 attributes, {len(body) / 1e6:.1f} MB of JSON")
    sizes = {name: f"  {len(step()) // 1000} kB" for name, step in steps.compressions(body)}
    for name, taken in times.items():
        multiple, target = taken / base, TARGETS.get(name)
        note = sizes.get(name, "") if target is None else f"  (limit {target})"
        print(f"{name:50} {taken * 1000:8.1f} ms  x {multiple:7.3f}{note}")
        if target is not None and multiple > target:
            missed.append(name)
    print(f"An archive on a local disk takes x {times[ARCHIVED] / times[PATH]:.2f} of the time without one")
    return missed


def memory() -> list[str]:
    """Print peak memory, and its growth and that of time with the points; return the missed targets."""
    missed = []
    for path in ("protobuf", "json", "pass-through"):
        few, many = (measure_separately(path, points) for points in (POINTS, MANY))
        multiple = few["peak"] / few["protobuf"]
        print(
            f"{path:13} peak {few['peak'] / 1e6:6.1f} MB beyond response, {multiple:.1f} times the protobuf;"
            f" {MANY // POINTS} times the points: {many['peak'] / few['peak']:.1f} times the memory,"
            f" {many['seconds'] / few['seconds']:.1f} times the time"
        )
        if multiple > MEMORY_TARGET:
            missed.append(f"memory of {path}")
    return missed


def measure_separately(path: str, points: int) -> dict[str, float]:
    """Run `benchmarks.memory` in a separate process and return its measurements."""
    program = [sys.executable, "-m", "benchmarks.memory", path, str(points)]
    found: dict[str, float] = json.loads(subprocess.run(program, check=True, capture_output=True).stdout)
    return found


def profile() -> None:
    """Print a profile of the payload path."""
    from pyinstrument import Profiler

    body = response_body(POINTS)
    with Profiler(interval=0.0002) as profiler:
        for _ in range(10):
            steps.request(steps.source(body, "http/protobuf"))
    print(profiler.output_text(show_all=True))


if __name__ == "__main__":
    main()
