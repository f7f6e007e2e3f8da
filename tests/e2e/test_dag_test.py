"""The shipped DAG file, unchanged: it runs in `dag.test()`, and parsing it touches no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from demo.airflow import airflow_environment
from demo.dagfile import SHIPPED
from tests.airflow_version import AIRFLOW
from tests.e2e.dag_runs import connections, run_dag

if TYPE_CHECKING:
    from pathlib import Path

COVERAGE = SHIPPED.with_name("forge_metrics_coverage.py")

PARSE_WITHOUT_SOCKETS = """
import socket, sys
try:
    from airflow.dag_processing.dagbag import DagBag
except ModuleNotFoundError:  # Airflow 3.0 and 3.1
    from airflow.models.dagbag import DagBag

class Refused(socket.socket):
    def __init__(self, *args, **kwargs):
        raise AssertionError("parsing a DAG file opened a socket")

socket.socket = socket.create_connection = socket.getaddrinfo = Refused
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
print(*bag.dags)
"""


def test_dag_test_delivers_a_window(home: Path) -> None:
    start = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    end = start + timedelta(minutes=15)
    with SandboxGateway() as gateway, OtlpSink() as sink:
        states = run_dag(home, start.isoformat(), start.isoformat(), **connections(gateway, sink.url))

    assert states == {start.isoformat(): "success"}
    generated = gateway.generated(start, end, environments=["production"], metrics=DEFAULT_METRICS)
    assert generated
    assert Counter(sink.points) == Counter(generated)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kept",
    # Both read the same few values, so one of them is enough for make test.
    ["ledger_url", pytest.param("asset state store", marks=pytest.mark.long)],
)
def test_dag_test_checks_the_coverage(home: Path, tmp_path: Path, kept: str) -> None:
    """It fails for the 14 days before the one window that was delivered, and the next time it does not."""
    if kept == "asset state store" and AIRFLOW < (3, 3):
        pytest.skip("Airflow has an asset state store as of 3.3")
    shutil.copy(COVERAGE, home / "dags")
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    looks = [(hour + timedelta(minutes=12, hours=number)).isoformat() for number in range(2)]
    with SandboxGateway() as gateway, OtlpSink() as sink:
        otlp = {"ledger_url": f"file://{tmp_path}/ledger"} if kept == "ledger_url" else {}
        settings = connections(gateway, sink.url, **otlp)
        run_dag(home, hour.isoformat(), hour.isoformat(), **settings)
        states = [run_dag(home, look, look, file=COVERAGE.name, **settings)[look] for look in looks]

    assert states == ["failed", "success"]


@pytest.mark.parametrize("file", [SHIPPED, COVERAGE], ids=lambda file: file.stem)
def test_parsing_opens_no_socket(tmp_path: Path, file: Path) -> None:
    command = [sys.executable, "-c", PARSE_WITHOUT_SOCKETS, str(file)]
    env = airflow_environment(tmp_path)
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == file.stem
