"""Runs seeds, each in a process group of its own, a few at once."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import traceback
from typing import TYPE_CHECKING

import certifi

from airflow_provider_forge.delivery import session
from tests.storms import tasks
from tests.storms.director import Storm
from tests.storms.judge import judge, story_of
from tests.storms.plans import Plan, Run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["run_seeds", "warm_up"]

PATIENCE = 300
"""Seconds after which a seed that has not ended is ended: something waits for ever."""


def warm_up(home: Path) -> None:
    """Have everything loaded that a task needs, so that a new process has it, too."""
    end = "-----END CERTIFICATE-----\n"
    authority = home / "authority.pem"
    authority.write_text(certifi.contents().partition(end)[0] + end)
    os.environ["SSL_CERT_FILE"] = str(authority)
    for in_files in (False, True):
        plan = Plan(0)
        plan.in_files, plan.fault_rate, plan.kill_rate = in_files, 0.0, 0.0
        plan.runs = [Run("warm", 0, 15)]
        directory = home / f"warm-{in_files}"
        directory.mkdir()
        storm = Storm(plan, directory)
        with storm.servers() as place:
            # Nobody judges by how long a write takes.
            if hasattr(session, "SLOW"):
                session.SLOW = float("inf")
            tasks.attempt(plan, place, plan.runs[0], 1, storm.journal)


def run_seeds(seeds: Iterable[int], home: Path, jobs: int, *, trace: bool) -> int:
    """Run them; return how many went wrong."""
    active: dict[int, int] = {}
    wrong = 0
    left = list(seeds)[::-1]
    try:
        while left or active:
            while left and len(active) < jobs:
                seed = left.pop()
                active[_fork_seed(seed, home, trace=trace)] = seed
            pid = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid
            # As long as it is not waited for, nobody else can have this id.
            _end_group(pid)
            seed = active.pop(pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code == -signal.SIGALRM:
                print(f"seed {seed} has not ended in {PATIENCE} s", flush=True)
            wrong += code != 0
            shutil.rmtree(home / str(seed), ignore_errors=True)
    finally:
        for pid in active:
            _end_group(pid)
    return wrong


def _fork_seed(seed: int, home: Path, *, trace: bool) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        directory = home / str(seed)
        directory.mkdir()
        code = _run_seed(seed, directory, trace=trace)
    except BaseException:  # noqa: BLE001 - whatever it is, it has to be seen
        traceback.print_exc()
    finally:
        logging.shutdown()
        os._exit(code)


def _run_seed(seed: int, directory: Path, *, trace: bool) -> int:
    plan = Plan(seed)
    storm = Storm(plan, directory)
    storm.run()
    events = storm.journal.read()
    verdict = judge(plan, events)
    if trace:
        print("\n".join(map(str, events)))
    if trace or storm.complaints or not verdict.is_good:
        print(
            f"seed {seed}, again by: .venv/bin/python -m tests.storms --trace {seed}",
            vars(plan),
            *storm.complaints,
            verdict,
            sep="\n",
            flush=True,
        )
        for kind in (verdict.lost, verdict.missing, verdict.silent, verdict.causeless):
            if kind:
                print(f"The story of {kind[0]}:", *story_of(kind[0], events), sep="\n", flush=True)
    return 1 if storm.complaints or not verdict.is_good else 0


def _end_group(leader: int) -> None:
    """End what a seed has left behind."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
