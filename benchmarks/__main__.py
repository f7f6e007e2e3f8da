"""`make bench`: each step of the payload path beside what others take, as multiples of `orjson.loads`.

Each step is measured by pyperf in processes of its own, in processor time and without what letting go of its
result takes, so that neither a busy machine nor another step counts. Peak memory is that of a fresh process.
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

from benchmarks import steps
from benchmarks.response import MANY, POINTS, answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TARGETS = {"pass-through": 0.10, "conform + digest + protobuf": 0.60, "conform + digest + JSON": 0.60}
"""Multiples of `orjson.loads` that are not to be passed."""

MEMORY_TARGET = 4
"""Peak memory beyond the answer, as a multiple of the request in protobuf."""


def main() -> None:
    """Run the benchmark."""
    if sys.argv[1:] == ["--profile"]:
        profile()
        return
    runner = pyperf.Runner(processes=3, values=3, warmups=1, loops=1, program_args=("-m", "benchmarks"))
    times = {name: runner.bench_time_func(name, functools.partial(seconds, step)) for name, step in todo()}
    if not runner.args.worker:
        missed = report({name: min(bench.get_values()) for name, bench in times.items()}) + memory()
        sys.exit(f"Missed: {', '.join(missed)}" if missed else None)


def todo() -> list[tuple[str, Callable[[], Any]]]:
    """Return what is measured."""
    body = answer(POINTS)
    return [
        ("orjson.loads", lambda: orjson.loads(body)),
        ("orjson.loads in a process with nothing in it", functools.partial(as_if_alone, orjson.loads, body)),
        *steps.ours(body),
        ("conform + digest + protobuf, no series twice", lambda: steps.unrepeated(POINTS)),
        *steps.others(body),
        *steps.compressions(body),
    ]


def as_if_alone(step: Callable[..., Any], *arguments: Any) -> Any:
    """Do it as in a process that has imported nothing: else the collector looks through that again and again.

    It takes most of orjson's time, and next to none of ours.
    """
    gc.freeze()
    try:
        return step(*arguments)
    finally:
        gc.unfreeze()


def seconds(step: Callable[[], Any], loops: int = 1) -> float:
    """Return the processor time of a step."""
    taken = 0.0
    for _ in range(loops):
        gc.collect()
        start = time.process_time()
        result = step()
        taken += time.process_time() - start
        del result
    return taken


def report(times: dict[str, float]) -> list[str]:
    """Print the best times as multiples of orjson's; return what misses its target."""
    base, missed = times["orjson.loads"], []
    body = answer(POINTS)
    print(f"\n{POINTS} points, 7 attributes, {len(body) / 1e6:.1f} MB of JSON")
    sizes = {name: f"  {len(step()) // 1000} kB" for name, step in steps.compressions(body)}
    for name, taken in times.items():
        multiple, target = taken / base, TARGETS.get(name)
        note = sizes.get(name, "") if target is None else f"  (at most {target})"
        print(f"{name:50} {taken * 1000:8.1f} ms  x {multiple:7.3f}{note}")
        if target is not None and multiple > target:
            missed.append(name)
    return missed


def memory() -> list[str]:
    """Print peak memory, and how it and time grow with the points; return what misses its target."""
    missed = []
    for way in ("protobuf", "json", "pass-through"):
        few, many = (measure_apart(way, points) for points in (POINTS, MANY))
        multiple = few["peak"] / few["protobuf"]
        print(
            f"{way:13} peak {few['peak'] / 1e6:6.1f} MB beyond the answer, {multiple:.1f} times the protobuf;"
            f" {MANY // POINTS} times the points: {many['peak'] / few['peak']:.1f} times the memory,"
            f" {many['seconds'] / few['seconds']:.1f} times the time"
        )
        if multiple > MEMORY_TARGET:
            missed.append(f"memory of {way}")
    return missed


def measure_apart(way: str, points: int) -> dict[str, float]:
    """Return what `benchmarks.memory` measures, in a process of its own."""
    program = [sys.executable, "-m", "benchmarks.memory", way, str(points)]
    found: dict[str, float] = json.loads(subprocess.run(program, check=True, capture_output=True).stdout)
    return found


def profile() -> None:
    """Print where the time goes."""
    from pyinstrument import Profiler

    body = answer(POINTS)
    with Profiler(interval=0.0002) as profiler:
        for _ in range(10):
            steps.request(steps.source(body, "http/protobuf"))
    print(profiler.output_text(show_all=True))


if __name__ == "__main__":
    main()
