"""A fast clock and local time zones change nothing: the windows are the UTC quarter hours, once each."""

from __future__ import annotations

import os
import shutil
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from tests.conftest import make_old
from tests.e2e.dag_runs import connections, run_dag

if TYPE_CHECKING:
    from pathlib import Path

FAKETIME = shutil.which("faketime")

QUARTER = timedelta(minutes=15)
# Nobody waits for a place: beneath faketime Python cannot sleep.
UNLIMITED = {"rate_limit_calls": 1000, "rate_limit_seconds": 1}
AHEAD = timedelta(minutes=10)


@pytest.mark.long
@pytest.mark.skipif(FAKETIME is None, reason="the program faketime is missing (Debian package faketime)")
@pytest.mark.parametrize(
    ("earliest", "latest", "windows"),
    [
        pytest.param("2026-03-29T01:00+01:00", "2026-03-29T03:45+02:00", 8, id="an-hour-is-missing"),
        pytest.param("2026-10-25T01:00+02:00", "2026-10-25T03:45+01:00", 16, id="an-hour-comes-twice"),
    ],
)
def test_the_night_of_a_clock_change(home: Path, earliest: str, latest: str, windows: int) -> None:
    start = datetime.fromisoformat(earliest)
    gateway_is_at = datetime.fromisoformat(latest) + timedelta(hours=1)
    offset = gateway_is_at.timestamp() - time.time()
    # Unchanged since long before the wrong clock's time: else the limiter would take its record for lost,
    # and wait for a period.
    files = home / "tmp" / "airflow-provider-forge"
    files.parent.mkdir(exist_ok=True)
    make_old(files)
    os.utime(files, (0, 0))
    worker = [FAKETIME, "-f", f"{offset + AHEAD.total_seconds():+.0f}s"]
    with (
        SandboxGateway(clock=lambda: time.time() + offset, rate_limit_calls=None) as gateway,
        OtlpSink() as sink,
    ):
        states = run_dag(
            home,
            earliest,
            latest,
            wrapper=worker,
            **connections(gateway, sink.url, forge=UNLIMITED),
            TZ="Asia/Kathmandu",
            AIRFLOW__CORE__DEFAULT_TIMEZONE="Europe/Berlin",
            # Only the wall clock is wrong: nobody can set the other one.
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )

    assert set(states.values()) == {"success"}
    quarters = [start + n * QUARTER for n in range(windows)]
    asked = [(call.start, call.end) for call in gateway.calls if call.operation == "appMetrics"]
    assert asked == [(quarter, quarter + QUARTER) for quarter in quarters]
