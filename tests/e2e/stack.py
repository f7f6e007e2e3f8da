"""The services of docker-compose.yaml without Docker: commands, environments and files, with real programs.

Each service has a directory in the place of a container, with what the file mounts in it. In all texts of the
file, addresses of services become ports of this machine, and paths inside a container paths in its directory.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from demo.processes import ManagedProcess, clean_environment, free_ports
from demo.waiting import wait_for
from tests.deploy.compose import ROOT, Json
from tests.e2e.postgres import postgres
from tests.receivers.programs import installed, program

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

START_TIMEOUT = 180.0
LOG_TAIL = 4000
# Where services listen.
LISTENING = (
    ("airflow-api-server", 8080),
    ("airflow-scheduler", 8974),
    ("otel-collector", 4318),
    ("otel-collector", 13133),
    ("prometheus", 9090),
    ("redis", 6379),
    ("sandbox", 4318),
    ("sandbox", 8080),
)
# Here a container's loopback, and all of its addresses, are one port of the machine's.
OWN_ADDRESS = r"(?:0\.0\.0\.0|127\.0\.0\.1|localhost):{port}\b"
INSIDE = re.compile(r"(?<![\w.])/(?=opt/airflow|etc/|prometheus\b|usr/local/etc/)")
DATABASE = "@postgres:5432/airflow"


class Stack:
    """The services, started in the order that the file asks for: all healthy inside the `with` block.

    Its PostgreSQL is the tests' own, which knows no passwords.

    Args:
        directory: For all files.
        services: Of the Compose file, without those that this machine has no program for.
    """

    def __init__(self, directory: Path, services: Json) -> None:
        self._directory = directory
        self._services = {name: each for name, each in services.items() if name != "postgres"}
        self._ports = dict(zip(LISTENING, free_ports(len(LISTENING)), strict=True))
        self._environments: dict[str, dict[str, str]] = {}
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            self._database = starting.enter_context(postgres())
            self._start_all(starting)
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def url(self, name: str, port: int) -> str:
        """Return where a service answers."""
        return f"http://127.0.0.1:{self._ports[name, port]}"

    def path(self, name: str, inside: str) -> Path:
        """Return what stands for a path inside a service's container."""
        return self._directory / name / inside.lstrip("/")

    def environment(self, name: str) -> dict[str, str]:
        """Return the whole environment in which a service runs."""
        return self._environments[name]

    def logs(self) -> dict[str, str]:
        """Return what each service has printed."""
        return {name: (self._directory / f"{name}.log").read_text() for name in self._services}

    def _start_all(self, starting: ExitStack) -> None:
        waiting, done = dict(self._services), {"postgres"}
        while waiting:
            next_ones = [
                name for name, each in waiting.items() if (each.get("depends_on") or {}).keys() <= done
            ]
            assert next_ones, f"these wait for one another: {sorted(waiting)}"
            processes = {name: starting.enter_context(self._launched(name)) for name in next_ones}
            for name, process in processes.items():
                self._wait_for(name, process)
                del waiting[name]
            done.update(next_ones)

    def _launched(self, name: str) -> ManagedProcess:
        for mount in self._services[name].get("volumes", []):
            self._mount(name, mount)
        log_file = self._directory / f"{name}.log"
        self._environments[name] = self._environment(name)
        return ManagedProcess(self._command(name), env=self._environments[name], log_file=log_file)

    def _mount(self, name: str, mount: Json) -> None:
        source = Path(mount["source"])
        if mount["type"] == "volume":
            source = self._directory / "volumes" / source
            source.mkdir(parents=True, exist_ok=True)
        target = self.path(name, mount["target"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)

    def _command(self, name: str) -> list[str]:
        service = self._services[name]
        told = [*(service["entrypoint"] or []), *service["command"]]
        command = [self._outside(name, text) for text in told]
        if name == "otel-collector":
            return [program("otelcol"), *command]
        if name == "prometheus":
            return [program("prometheus"), *command, f"--web.listen-address={self._address(name, 9090)}"]
        if name == "redis":
            installed("redis-server")
            listen = ["--port", str(self._ports[name, 6379]), "--bind", "127.0.0.1"]
            return [*command, *listen, "--dir", str(self.path(name, "/data"))]
        # As the entry point of Airflow's image does.
        return command if command[0] in {"bash", "python"} else ["airflow", *command]

    def _environment(self, name: str) -> dict[str, str]:
        environment = self._services[name].get("environment") or {}
        told = {key: self._outside(name, value) for key, value in environment.items()}
        return {**self._surroundings(name), **told}

    def _surroundings(self, name: str) -> dict[str, str]:
        """Return what an image, or Docker, would add."""
        temporary = self.path(name, "tmp")
        temporary.mkdir(parents=True)
        surroundings = {
            **clean_environment(),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(ROOT),
            "HOSTNAME": socket.gethostname(),
            "TMPDIR": str(temporary),
        }
        if name == "redis":
            surroundings["REDIS_CONFIG"] = str(self.path(name, "/usr/local/etc/redis/redis.conf"))
        if name.startswith("airflow-"):
            surroundings.update(self._image_of_airflow(name))
        return surroundings

    def _image_of_airflow(self, name: str) -> dict[str, str]:
        home = self.path(name, "/opt/airflow")
        # What deploy/airflow/Dockerfile copies beside the package.
        shutil.copytree(ROOT / "deploy" / "airflow", home / "deploy")
        worker_logs, triggerer_logs = free_ports(2)
        return {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._ports["airflow-api-server", 8080]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(triggerer_logs),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(
                self._ports["airflow-scheduler", 8974]
            ),
        }

    def _wait_for(self, name: str, process: ManagedProcess) -> None:
        """Wait until a service is healthy by its own check, or has done what it was there for."""
        check = self._services[name]["healthcheck"]

        def is_there() -> bool:
            status = process.returncode
            if check.get("disable") and status == 0:
                return True
            if status is not None:
                raise RuntimeError(f"{name} ended with status {status}:\n{process.log()[-LOG_TAIL:]}")
            return not check.get("disable") and self._is_healthy(name, check["test"])

        wait_for(is_there, timeout=START_TIMEOUT, what=f"{name}, see {process.log_file}", every=0.5)

    def _is_healthy(self, name: str, test: list[str]) -> bool:
        kind, *told = test
        command = [self._outside(name, text) for text in told]
        if kind == "CMD-SHELL":
            command = ["sh", "-c", *command]
        elif name == "prometheus":
            command[0] = program(command[0])
        elif name == "redis":
            command[1:1] = ["-p", str(self._ports[name, 6379])]
        elif command[0] != "airflow":
            command[0] = installed(Path(command[0]).name)
        env = self._environments[name]
        return subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0

    def _outside(self, name: str, text: str) -> str:
        """Return a text of the file with the addresses and paths that it has here."""
        text = text.replace(DATABASE, "@" + self._database.partition("@")[2])
        for (service, port), free in self._ports.items():
            text = text.replace(f"{service}:{port}", f"127.0.0.1:{free}")
            if service == name:
                text = re.sub(OWN_ADDRESS.format(port=port), f"127.0.0.1:{free}", text)
                text = re.sub(rf"^(--[a-z]+-port)={port}$", rf"\1={free}", text)
        text = text.replace("--host=0.0.0.0", "--host=127.0.0.1")
        return INSIDE.sub(f"{self._directory / name}/", text)

    def _address(self, name: str, port: int) -> str:
        return f"127.0.0.1:{self._ports[name, port]}"
