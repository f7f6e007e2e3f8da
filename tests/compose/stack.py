"""The whole stack of docker-compose.yaml, brought up as docs/stack.md says, from a copy of the repository."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.windows import MAX_WINDOW
from demo.api import AirflowApi
from demo.dagfile import install_dag
from demo.waiting import wait_for
from tests.deploy.compose import ROOT, SANDBOX, project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compose.engine import Engine

CATCHUP = 4
"""Windows of the history, in place of 14 days."""

START_INTERVAL = 25
"""The first Engine that knows a health check's `start_interval`."""

IMPATIENT = {
    # Airflow takes a task for dead after 5 minutes without a heartbeat, and for lost after 10 in the queue.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
}
"""Settings of the scheduler, so that tasks that die with a service are run again within the test's time."""


class Stack:
    """The stack in an engine; `up` starts it.

    Args:
        engine: With an image for each name in the file.
        directory: A new one, for a copy of the repository's files.
    """

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine = engine
        self._directory = directory
        self._urls: dict[int, str] = {}
        _copy(directory)
        # The tests have no time for 14 days, and no five minutes before each retry.
        # The oldest window is already too old, and the newest may not have settled.
        retention = (CATCHUP + 2) * MAX_WINDOW
        install_dag(directory / "dags", retry_delay=timedelta(seconds=5), retention=retention)
        _run([directory / "deploy" / "new-env.sh", "--sandbox"], directory)
        (directory / "test.yaml").write_text(_changes(engine.version))

    @cached_property
    def values(self) -> dict[str, str]:
        """The variables in `.env`."""
        lines = (self._directory / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def up(self) -> None:
        """Start all services that are down, and wait until all are healthy."""
        try:
            self.compose("up", "--detach", "--wait")
        except RuntimeError as error:
            logs = self.compose("logs", "--tail=30")
            raise RuntimeError(f"{error}\n{logs}") from None

    def down(self, *options: str) -> None:
        """Stop and remove all containers and networks."""
        self.compose("down", *options)

    def compose(self, *arguments: str) -> str:
        """Run a command of `docker compose` and return its output."""
        files = ["--file=docker-compose.yaml", "--file=test.yaml"]
        return self.engine.docker("compose", *files, *arguments, cwd=self._directory)

    def url(self, port: int) -> str:
        """Return where a published port is reached from outside of the engine."""
        if port not in self._urls:
            self._urls[port] = self.engine.address_of(port)
        return self._urls[port]

    def api(self) -> AirflowApi:
        """Log in to Airflow."""
        return AirflowApi(self.url(8080), "admin", self.values["AIRFLOW_ADMIN_PASSWORD"])

    def services(self) -> dict[str, dict[str, Any]]:
        """Return the output of `docker inspect` for the container of each running service."""
        ids = self.compose("ps", "--quiet").split()
        containers = json.loads(self.engine.docker("inspect", *ids)) if ids else []
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in containers}

    def kill(self, service: str) -> None:
        """Kill a service as the kernel does without memory, and wait until it is healthy again.

        `docker kill` would count as a stop by hand, after which nothing is restarted.
        """
        before = self.services()[service]
        os.kill(before["State"]["Pid"], signal.SIGKILL)

        def healthy_again() -> bool:
            now = self.services().get(service)
            return bool(
                now
                and now["RestartCount"] > before["RestartCount"]
                and now["State"]["Health"]["Status"] == "healthy"
            )

        wait_for(healthy_again, timeout=300, what=f"{service} to be restarted", every=1.0)


def _copy(directory: Path) -> None:
    """Copy the repository's files, without a developer's `.env`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)


def _run(command: list[Any], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True, capture_output=True)


def _changes(version: int) -> str:
    """Return an override of the file in YAML: impatience, and no option that the engine is too old for."""
    lines = ["services:"]
    for name, service in project(**SANDBOX)["services"].items():
        lines.append(f"  {name}:")
        lines.append(f"    environment: {json.dumps(IMPATIENT if name == 'airflow-scheduler' else {})}")
        if version < START_INTERVAL and "start_interval" in service["healthcheck"]:
            lines.append("    healthcheck: {start_interval: !reset null}")
    return "\n".join(lines)
