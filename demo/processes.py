"""A command whose child processes all end with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import uuid
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import psutil

from demo.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

# Settings of the user who starts the demo or the tests must not leak into the processes.
FOREIGN_PREFIXES = ("AIRFLOW", "FORGE_", "OTEL_")
MARKER = "FORGE_PROCESS_MARKER"


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings that would affect an Airflow."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)}


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports."""
    with ExitStack() as stack:
        # All are bound at once, because the system may otherwise return a port twice.
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]


class ManagedProcess:
    """A command in its own session, with its output in a file.

    Args:
        command: The program and its arguments.
        env: Its complete environment.
        log_file: File to which its output, and that of its children, is appended.
        user: User to run as; None for the current one.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], log_file: Path, user: str | None = None
    ) -> None:
        self.log_file = log_file
        self._marker = uuid.uuid4().hex
        with log_file.open("ab") as log:
            self._popen = subprocess.Popen(
                command,
                # Airflow renames its processes. Unless SPT_NOENV is set, this overwrites the visible
                # environment, which identifies children that have left the session.
                env={**env, MARKER: self._marker, "SPT_NOENV": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
            )

    def __enter__(self) -> ManagedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The command's process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The command's exit status; None while it runs."""
        return self._popen.poll()

    def log(self) -> str:
        """Return the output of the command and its children so far."""
        return self.log_file.read_text(errors="replace")

    def members(self) -> list[psutil.Process]:
        """Return all live processes that the command has started, including itself."""
        self._popen.poll()
        return [process for process in psutil.process_iter() if self._is_member(process)]

    def stop(self, patience: float = 30.0) -> None:
        """End all members: with SIGTERM, and after `patience` seconds with SIGKILL."""
        self._signal_all(signal.SIGTERM)
        with suppress(TimeoutError):
            wait_for(lambda: not self.members(), timeout=patience, what="the processes to end")
        wait_for(self._killed, timeout=10.0, what="the killed processes to be gone")
        # It may have died since its exit status was last read, and zombies are not members.
        self._popen.wait(timeout=10.0)

    def _killed(self) -> bool:
        self._signal_all(signal.SIGKILL)
        return not self.members()

    def _signal_all(self, signum: signal.Signals) -> None:
        for process in self.members():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signum)

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            in_session = os.getsid(process.pid) == self._popen.pid
            return in_session or process.environ().get(MARKER) == self._marker
        except (psutil.Error, OSError):
            # The process has ended meanwhile, or belongs to another user.
            return False
