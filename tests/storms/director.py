"""Leads a storm from its first run to its last: several tasks at once, killed, tried again, cleared."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.storms import tasks
from tests.storms.clock import nap
from tests.storms.journal import Journal
from tests.storms.plans import ENVIRONMENTS, METRICS, Plan, Run
from tests.storms.servers import StormyGateway, StormyReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Storm"]

MOST_TRIES = 40
"""Tries of one run: with so many, something does not come to its end."""


@dataclass
class _Task:
    run: Run
    number: int = 0
    clears: int = 0
    left: dict[str, Any] | None = None


class Storm:
    """A storm: servers, tasks and the record between them.

    Args:
        plan: What happens.
        directory: Empty, for everything that is kept.
    """

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.journal = Journal(directory / "journal")
        self.complaints: list[str] = []
        self._active: dict[int, _Task] = {}
        self._draw = plan.random("director")

    def run(self) -> None:
        """Deliver everything, then look whether nothing is left to do."""
        with self.servers() as self.place:
            waiting = [_Task(run, clears=run.clears) for run in self.plan.runs]
            while waiting or self._active:
                while waiting and len(self._active) < self.plan.tasks:
                    self._start(waiting.pop(0))
                if task := self._next_to_end():
                    waiting.insert(self._draw.randint(0, min(2, len(waiting))), task)
            self._calm_down()

    def _calm_down(self) -> None:
        for server in (self.place.gateway, self.place.receiver):
            urllib.request.urlopen(f"{server}/calm").close()
        chosen = {"environments": [*ENVIRONMENTS], "metrics": METRICS, "revisit_after": None}
        whole = Run(tasks.CALM, 0, self.plan.minutes, chosen)
        for number in (1, 2):
            self.journal.write("director", "all is calm")
            pid = tasks.fork_attempt(self.plan, self.place, whole, number, self.journal, None)
            _, status = os.waitpid(pid, 0)
            summary = self._left_by(whole)
            if os.waitstatus_to_exitcode(status) != tasks.SUCCESS:
                self.complaints.append(f"pass {number} in calm weather did not succeed")
            elif number == 2 and (summary["sent"] or summary["ambiguous"]):
                self.complaints.append(f"something was left when all had been delivered: {summary}")

    def _start(self, task: _Task) -> None:
        task.number += 1
        left, task.left = task.left, None
        pid = tasks.fork_attempt(self.plan, self.place, task.run, task.number, self.journal, left)
        self._active[pid] = task
        draw = self.plan.random("impatience", task.run.name, task.number)
        if task.number <= 4 and draw.random() < self.plan.kill_rate / 3:
            nap(draw.random() ** 2 * 0.1)
            self.journal.write(f"{task.run.name}/{task.number}", "killed from outside")
            os.kill(pid, signal.SIGKILL)

    def _next_to_end(self) -> _Task | None:
        """Wait until a try has ended; return its task where it is to be run again."""
        pid, status = os.waitpid(-1, 0)
        task = self._active.pop(pid, None)
        if task is None:
            self.complaints.append("the servers have died")
            raise SystemExit
        who = f"{task.run.name}/{task.number}"
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            self.journal.write(who, "is dead")
        elif code == tasks.UNFORESEEN:
            self.complaints.append(f"{who} ended with an error of no kind that it should")
        elif code == tasks.DEFERRED:
            task.left = self._left_by(task.run)
        elif code == tasks.SUCCESS:
            if not task.clears:
                return None
            task.clears -= 1
            self.journal.write(who, "is cleared")
        if task.number >= MOST_TRIES:
            self.complaints.append(f"{task.run.name} has not succeeded in {MOST_TRIES} tries")
            return None
        return task

    def _left_by(self, run: Run) -> Any:
        return json.loads(tasks.left_behind(self.place, run).read_text())

    @contextlib.contextmanager
    def servers(self) -> Iterator[tasks.Place]:
        """Run the servers in a process of their own, so that this one has no threads when it forks."""
        reading, writing = os.pipe()
        parent = os.getpid()
        if not (pid := os.fork()):
            os.close(reading)
            gateway = StormyGateway(self.plan, self.journal).start()
            receiver = StormyReceiver(self.plan, self.journal, parent).start()
            os.write(writing, json.dumps([gateway.address, receiver.address]).encode())
            while True:
                signal.pause()
        os.close(writing)
        try:
            with os.fdopen(reading) as pipe:
                gateway_url, receiver_url = json.loads(os.read(pipe.fileno(), 1000))
            yield tasks.Place(self.directory, gateway_url, receiver_url)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
