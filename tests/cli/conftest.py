"""The commands as a person runs them: processes of their own, in a pipe or on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyte
import pytest

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway

TOKEN, SECRET = "c4n4ry-t0ken-of-the-account", "c4n4ry-s3cret-of-the-receiver"
ROOT = Path(__file__).parent.parent.parent
DECIDING = ("COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR")
"""Variables of whoever runs the tests that say what output looks like."""


@dataclass(frozen=True)
class Done:
    """What a command did."""

    status: int
    out: str
    err: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """What stands between tabs."""
        return [line.split("\t") for line in self.out.splitlines()]


def screen(shown: str, columns: int) -> list[str]:
    """Return what stands on a terminal in the end, line for line."""
    terminal = pyte.Screen(columns, 200)
    pyte.Stream(terminal).feed(shown.replace("\n", "\r\n"))
    return "\n".join(line.rstrip() for line in terminal.display).rstrip().splitlines()


@pytest.fixture
def gateway():
    with SandboxGateway(api_token=TOKEN, rate_limit_calls=None) as gateway:
        yield gateway


@pytest.fixture
def sink():
    with OtlpSink() as sink:
        yield sink


class Shell:
    """An environment with both Connections, in which commands are run."""

    def __init__(self, gateway: SandboxGateway, sink: OtlpSink, home: Path) -> None:
        self.connections: dict[str, dict[str, Any]] = {
            "FORGE_DEFAULT": {
                "conn_type": "forge",
                "host": gateway.url,
                "login": gateway.email,
                "password": gateway.api_token,
                "extra": {"app_id": gateway.app_id, "rate_limit_calls": 1000},
            },
            "OTLP_DEFAULT": {"conn_type": "otlp", "host": sink.url, "password": SECRET, "extra": {}},
        }
        self.variables = {"AIRFLOW_HOME": str(home), "TERM": "xterm-256color"}
        self.program = ("airflow_provider_forge",)

    def environment(self) -> dict[str, str]:
        connections = {f"AIRFLOW_CONN_{name}": json.dumps(each) for name, each in self.connections.items()}
        inherited = {name: value for name, value in os.environ.items() if name not in DECIDING}
        return {**inherited, "PYTHONPATH": str(ROOT), **connections, **self.variables}

    def command(self, line: str) -> list[str]:
        return [sys.executable, "-m", *self.program, *line.split()]

    def __call__(self, line: str) -> Done:
        """Run a command in a pipe."""
        run = subprocess.run(
            self.command(line), env=self.environment(), capture_output=True, text=True, timeout=60, cwd="/"
        )
        assert_tells_no_secret(run.stdout + run.stderr)
        assert "Traceback" not in run.stderr
        return Done(run.returncode, run.stdout, run.stderr)

    def on_a_terminal(self, line: str, columns: int = 100) -> Done:
        """Run a command on a terminal, which shows both outputs."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        process = subprocess.Popen(
            self.command(line), env=self.environment(), stdin=theirs, stdout=theirs, stderr=theirs, cwd="/"
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux's way of saying that the last process has closed it
            while chunk := os.read(ours, 65536):
                shown += chunk
        os.close(ours)
        text = shown.decode().replace("\r\n", "\n")
        assert_tells_no_secret(text)
        return Done(process.wait(60), text)


def assert_tells_no_secret(text: str) -> None:
    assert TOKEN not in text
    assert SECRET not in text


@pytest.fixture
def shell(gateway, sink, tmp_path):
    return Shell(gateway, sink, tmp_path / "airflow")
