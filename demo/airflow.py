"""A local Airflow with its own directory and free ports."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from demo.api import AirflowApi, parse_time
from demo.processes import ManagedProcess, clean_environment, free_ports
from demo.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from typing_extensions import Self

COMPONENTS = ("scheduler", "triggerer", "dag_processor")
START_TIMEOUT = 180.0
LOG_TAIL = 4000
PASSWORDS = "simple_auth_manager_passwords.json.generated"
"""Name of the file in which Airflow stores the generated passwords, below its home."""


def airflow_environment(home: Path, **settings: str) -> dict[str, str]:
    """Create the directories of an Airflow with all files in `home`, and return its environment.

    Args:
        home: The AIRFLOW_HOME.
        settings: Additional variables, which take precedence.
    """
    dags_folder, temporary = home / "dags", home / "tmp"
    for directory in (dags_folder, temporary):
        directory.mkdir(parents=True, exist_ok=True)
    _prepare_rate_limit(temporary)
    return {
        **clean_environment(),
        # `airflow standalone` starts its components by the command name `airflow`.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        # The rate limiter keeps its files here, so that two Airflows do not share a limit.
        "TMPDIR": str(temporary),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # By default, Airflow keeps 32 idle workers.
        "AIRFLOW__CORE__PARALLELISM": "6",
        # Airflow 3.0 starts four, and uvicorn kills those that take more than 5 s for their imports.
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        **settings,
    }


def _prepare_rate_limit(temporary: Path) -> None:
    """Create the rate limiter's directory as one that has not changed since 1970.

    No call can have been forgotten in a new `AIRFLOW_HOME`, so the first one need not wait for a period.
    """
    directory = temporary / "airflow-provider-forge"
    if not directory.exists():
        directory.mkdir()
        directory.chmod(0o1777)
        os.utime(directory, (0, 0))


class LocalAirflow:
    """An Airflow that runs `commands`: healthy inside the `with` block, with all processes ended after it.

    Args:
        home: Its AIRFLOW_HOME; DAG files are in `home / "dags"`.
        settings: Additional environment variables.
    """

    commands: tuple[str, ...]
    username = "admin"

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        port, worker_logs, triggerer_logs = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        listening = {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(triggerer_logs),
        }
        self.env = airflow_environment(home, **listening, **settings)
        self.dags_folder = home / "dags"
        self.processes: dict[str, ManagedProcess] = {}

    def __enter__(self) -> Self:
        began = datetime.now(timezone.utc)
        try:
            for name in self.commands:
                self.launch(name)
            self.wait_until_healthy(since=began)
            self.api = AirflowApi(self.url, self.username, self.password)
        except BaseException:
            self._stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.api.close()
        self._stop_all()

    @property
    def password(self) -> str:
        """The password that Airflow has generated for `username`."""
        passwords = json.loads((self.home / PASSWORDS).read_text())
        return str(passwords[self.username])

    def launch(self, name: str) -> None:
        """Start one of the commands, without waiting for it."""
        command = [sys.executable, "-m", "airflow", name]
        self.processes[name] = ManagedProcess(command, env=self.env, log_file=self.home / f"{name}.log")

    def wait_until_healthy(self, since: datetime, components: Collection[str] = COMPONENTS) -> None:
        """Wait until the API server responds and these components have had a heartbeat after `since`.

        Raises:
            RuntimeError: A command has ended.
        """
        wait_for(
            lambda: self._is_healthy(since, components),
            timeout=START_TIMEOUT,
            what=f"Airflow, see the logs in {self.home}",
        )

    def wait_for_dag(self, dag_id: str, timeout: float = 120.0) -> None:
        """Wait until a DAG has been parsed.

        Raises:
            RuntimeError: A DAG file cannot be imported.
        """

        def is_parsed() -> bool:
            if errors := self.api.import_errors():
                raise RuntimeError("\n".join(error["stack_trace"] for error in errors))
            return self.api.has_dag(dag_id)

        wait_for(is_parsed, timeout=timeout, what=f"the DAG {dag_id} to be parsed", every=0.5)

    def _is_healthy(self, since: datetime, components: Collection[str]) -> bool:
        for name, process in self.processes.items():
            if process.returncode is not None:
                status, log = process.returncode, process.log()
                raise RuntimeError(f"airflow {name} ended with status {status}:\n{log[-LOG_TAIL:]}")
        try:
            answer = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=10.0, trust_env=False)
        except httpx.TransportError:
            return False
        if not answer.is_success:
            return False
        # Airflow reports a dead component as healthy for half a minute.
        beats = [answer.json()[name][f"latest_{name}_heartbeat"] for name in components]
        return all(beat and parse_time(beat) > since for beat in beats)

    def _stop_all(self) -> None:
        for process in self.processes.values():
            process.stop()


class StandaloneAirflow(LocalAirflow):
    """`airflow standalone`."""

    commands = ("standalone",)
