"""A Docker Engine in namespaces of its own, of which nothing stays on the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.processes import ManagedProcess, clean_environment
from demo.waiting import wait_for
from tests.receivers import programs

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PACKAGES = {
    "debootstrap": "debootstrap",
    "docker": "docker.io",
    "dockerd": "docker.io",
    "go": "golang-go",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "openssl": "openssl",
}
"""The programs that the tests call, each with its Debian package."""

WEIGHT = 4096
"""Share of the processors for all containers together, when others want them too. A process has 1024."""

CGROUPS = Path("/sys/fs/cgroup")
BUILD = Path(programs.__file__).with_name("build.sh")
PROGRAMS = ("compose-config", "docker-compose", "otelcol", "prometheus", "promtool")
RELAY = Path(__file__).with_name("relay.py")
LOG_TAIL = 4000


def require_engine() -> None:
    """Skip the test, with the reason, where no engine can run; build the programs that Debian lacks."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        pytest.skip("a Docker Engine needs Linux and root")
    for name, package in PACKAGES.items():
        if shutil.which(name) is None:
            pytest.skip(f"the program {name} is missing (Debian package {package})")
    # Compose's plugin is half of it: 8 minutes of CPU time, once.
    subprocess.run([BUILD, *PROGRAMS], check=True)


class Engine:
    """A running `dockerd`, with all of its data in one directory: ready inside the `with` block.

    Its containers have no way out of the machine, and no bridge or rule of theirs is in the machine's own
    network namespace.

    Args:
        directory: For its data. It is deleted at the end.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # Not "docker", which a user's own engine may have.
        self._group = f"forge-tests-{os.getpid()}"
        self._relays = ExitStack()
        plugins = directory / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(programs.program("docker-compose"))
        self.env = {
            **clean_environment(),
            "DOCKER_HOST": f"unix://{directory}/docker.sock",
            # A user's settings may have proxies in them, which Docker hands to each container.
            "DOCKER_CONFIG": str(directory / "config"),
            # Debian's engine and client are without BuildKit.
            "DOCKER_BUILDKIT": "0",
        }

    def __enter__(self) -> Self:
        self._weigh()
        self._process = ManagedProcess(
            self._command(), env=self.env, log_file=self._directory / "dockerd.log"
        )
        try:
            wait_for(self._is_ready, timeout=60, what="the engine", every=0.5)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def version(self) -> int:
        """The major version."""
        return int(self.docker("version", "--format", "{{.Server.Version}}").partition(".")[0])

    def docker(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run a command of `docker` and return its output.

        Raises:
            RuntimeError: It fails.
        """
        command = ["docker", *arguments]
        done = subprocess.run(command, cwd=cwd, env=self.env, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-LOG_TAIL:]}{done.stderr[-LOG_TAIL:]}")
        return done.stdout

    def address_of(self, port: int) -> str:
        """Return a URL outside of the engine's namespace for a port that a container publishes."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            namespace = f"--net=/proc/{self._process.pid}/ns/net"
            command = ["nsenter", namespace, sys.executable, str(RELAY)]
            relay = subprocess.Popen(
                [*command, str(listening.fileno()), str(port)], pass_fds=[listening.fileno()]
            )
            self._relays.callback(relay.wait)
            self._relays.callback(relay.kill)
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

    def _weigh(self) -> None:
        """Give weight to the group of all containers, which otherwise has that of a single process."""
        processor = CGROUPS / "cpu"
        if processor.exists():
            (processor / self._group).mkdir()
            (processor / self._group / "cpu.shares").write_text(str(WEIGHT))

    def _command(self) -> list[str]:
        options = {
            "data-root": self._directory / "data",
            "exec-root": self._directory / "exec",
            "pidfile": self._directory / "dockerd.pid",
            "host": f"unix://{self._directory}/docker.sock",
            "storage-driver": "overlay2",
            "cgroup-parent": f"/{self._group}",
        }
        dockerd = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
        # Mounts of containers are not to be seen on the machine either.
        own = ["unshare", "--net", "--mount", "--propagation", "slave"]
        return [*own, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *dockerd]

    def _is_ready(self) -> bool:
        if self._process.returncode is not None:
            pytest.skip(f"no Docker Engine runs here: {self._process.log()[-LOG_TAIL:]}")
        command = ["docker", "version"]
        return subprocess.run(command, env=self.env, check=False, capture_output=True).returncode == 0

    def _end(self) -> None:
        """End the engine with its containers, and remove everything it has made."""
        self._relays.close()
        if self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: self._process.returncode is not None, timeout=120, what="the engine to end")
        self._process.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
        for group in (*CGROUPS.glob(self._group), *CGROUPS.glob(f"*/{self._group}")):
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                folder.rmdir()
            group.rmdir()
