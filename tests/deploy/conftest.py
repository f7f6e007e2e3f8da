"""A window of the sandbox gateway, sent through a Collector by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway, Scenario
from airflow_provider_forge.sandbox.catalogue import METRICS
from demo.processes import clean_environment
from tests.deploy.compose import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from airflow_provider_forge.sandbox import Point


@pytest.fixture
def sink():
    with OtlpSink() as sink:
        yield sink


# A receiver that is unavailable would otherwise be tried for a minute.
WITHOUT_RETRIES = """
import sys
from airflow_provider_forge.cli.main import main
from airflow_provider_forge.delivery import attempts
attempts.PATIENCE = 0.0
sys.exit(main(sys.argv[1:]))
"""


class Source:
    """A sandbox gateway and a window of its data."""

    def __init__(self, gateway: SandboxGateway, home: Path) -> None:
        self._gateway = gateway
        self._home = home

    def send(self, url: str, start: datetime, end: datetime, **otlp: str) -> subprocess.CompletedProcess[str]:
        """Send all metrics of production to a receiver; `otlp` has additional fields of its Connection."""
        gateway = self._gateway
        extra = {"app_id": gateway.app_id, "metrics": list(METRICS), "rate_limit_calls": 1000}
        extra["rate_limit_seconds"] = 0.1
        account = {"login": gateway.email, "password": gateway.api_token, "extra": extra}
        connections = {
            "FORGE_DEFAULT": {"conn_type": "forge", "host": gateway.url, **account},
            "OTLP_DEFAULT": {"conn_type": "otlp", "host": url, **otlp},
        }
        variables = {f"AIRFLOW_CONN_{name}": json.dumps(each) for name, each in connections.items()}
        command = [sys.executable, "-c", WITHOUT_RETRIES, "send", "--no-ledger"]
        return subprocess.run(
            [*command, "--start", start.isoformat(), "--end", end.isoformat()],
            env={
                **clean_environment(),
                **variables,
                "AIRFLOW_HOME": str(self._home),
                "PYTHONPATH": str(ROOT),
            },
            check=False,
            capture_output=True,
            text=True,
        )

    def generated(self, start: datetime, end: datetime) -> list[Point]:
        """Return the points of all metrics of production."""
        return self._gateway.generated(start, end, environments=["production"], metrics=list(METRICS))


@pytest.fixture
def source_of(tmp_path):
    """Return a function that starts a gateway with a scenario; all are stopped after the test."""
    started = []

    def source_of(**scenario) -> Source:
        gateway = SandboxGateway(Scenario(**scenario), rate_limit_calls=None)
        started.append(gateway)
        gateway.__enter__()
        return Source(gateway, tmp_path)

    yield source_of
    for gateway in started:
        gateway.__exit__(None, None, None)


@pytest.fixture
def noon():
    """The middle of a busy day in the last week."""
    day = datetime.now(timezone.utc).replace(hour=13, minute=0, second=0, microsecond=0) - timedelta(days=1)
    while day.weekday() >= 5:
        day -= timedelta(days=1)
    return day


def totals(points: Iterable[Point]) -> dict[str, float]:
    """Return the sum of the values or counts of each metric."""
    totals: defaultdict[str, float] = defaultdict(float)
    for point in points:
        data = point.data()
        totals[point.metric] += data.as_int + data.as_double if point.kind in {"gauge", "sum"} else data.count
    return totals
