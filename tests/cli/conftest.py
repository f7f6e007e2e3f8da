"""The commands as a person runs them: processes of their own, in a pipe or on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway

TOKEN, SECRET = "c4n4ry-t0ken-of-the-account", "c4n4ry-s3cret-of-the-receiver"
ROOT = Path(__file__).parent.parent.parent


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
        self.variables = {"AIRFLOW_HOME": str(home), "COLUMNS": "100", "TERM": "xterm-256color"}
        self.program = ("airflow_provider_forge",)

    def environment(self) -> dict[str, str]:
        connections = {f"AIRFLOW_CONN_{name}": json.dumps(each) for name, each in self.connections.items()}
        return {**os.environ, "PYTHONPATH": str(ROOT), **connections, **self.variables}

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

    def on_a_terminal(self, line: str) -> Done:
        """Run a command on a terminal of 100 columns, which shows both outputs."""
        ours, theirs = pty.openpty()
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
