"""An Airflow out of separate processes, each of which can die while the others live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from demo.airflow import LocalAirflow
from demo.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from demo.processes import ManagedProcess

STOP_TIMEOUT = 180.0
# Commands, and what the health check calls them; it answers only where there is an API server.
HEARTBEATS = {
    "api-server": (),
    "scheduler": ("scheduler",),
    "dag-processor": ("dag_processor",),
    "triggerer": ("triggerer",),
}


class ComponentAirflow(LocalAirflow):
    """API server, scheduler, DAG processor and triggerer on one database.

    The scheduler's LocalExecutor runs each task below a worker process of its own, which is the task's
    supervisor. Neither of them dies with the scheduler: see `kill` and `kill_alone`.

    Args:
        home: Its AIRFLOW_HOME; DAG files belong into `home / "dags"`.
        database: SQLAlchemy's URL of an empty database.
        settings: More environment variables.
    """

    commands = tuple(HEARTBEATS)

    def __init__(self, home: Path, database: str, **settings: str) -> None:
        super().__init__(home, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database, **settings)
        self._headless: list[ManagedProcess] = []
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        # It also writes airflow.cfg, with the secret by which the components know each other.
        subprocess.run(command, env=self.env, check=True, capture_output=True)

    def start(self, name: str) -> None:
        """Start a component that was ended, and wait until it lives."""
        began = datetime.now(timezone.utc)
        self.launch(name)
        self.wait_until_healthy(began, HEARTBEATS[name])

    def stop(self, name: str) -> None:
        """End a component in good order: a scheduler waits for its tasks, and for those it has queued."""
        process = self.processes.pop(name)
        os.kill(process.pid, signal.SIGTERM)
        wait_for(lambda: process.returncode is not None, timeout=STOP_TIMEOUT, what=f"the {name} to end")
        process.stop()

    def restart(self, name: str) -> None:
        """Stop a component and start it again."""
        self.stop(name)
        self.start(name)

    def kill(self, name: str) -> None:
        """Kill a component with all that it has started, as when its container or machine dies."""
        _kill_all(self.processes.pop(name))

    def kill_alone(self, name: str) -> None:
        """Kill a component's main process only, as when the system runs out of memory.

        What a scheduler has started goes on: tasks to their end, and then those that were queued. A new
        scheduler resets them once it takes the old one for dead, which is while they may still run: until
        its next heartbeat a task does not learn that another has been started in its place.
        """
        process = self.processes.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        self._headless.append(process)

    def _stop_all(self) -> None:
        # Faster than by request, to which workers without a scheduler do not react at all.
        for process in [*self.processes.values(), *self._headless]:
            _kill_all(process)


def _kill_all(process: ManagedProcess) -> None:
    for member in process.members():
        member.kill()
    process.stop()
