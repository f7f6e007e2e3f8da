"""`make demo`: it refuses what it cannot do, shows that metrics arrive, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil
import pytest

from demo.dagfile import SHIPPED, install_dag
from demo.processes import ManagedProcess, clean_environment
from demo.settings import Settings, SettingsError
from demo.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

REAL = {"FORGE_EMAIL": "dev@example.com", "FORGE_API_TOKEN": "token", "FORGE_APP_ID": "app"}
DEMO = [sys.executable, "-m", "demo"]

# Leaves its parent's session and process group, as a daemon does.
DAEMON = "import os, time; os.fork() or (os.setsid(), print('gone', flush=True), time.sleep(600))"


def test_without_settings_everything_is_simulated() -> None:
    settings = Settings.from_environment({"OTEL_EXPORTER_OTLP_HEADERS": "a=b"})
    assert (settings.credentials, settings.collector, settings.otlp_environment) == (None, None, {})


def test_the_real_servers_are_read_from_the_environment() -> None:
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}
    settings = Settings.from_environment({**REAL, **collector, "OTEL_SERVICE_NAME": "airflow"})

    assert settings.credentials == tuple(REAL.values())
    assert settings.collector == "http://127.0.0.1:4318"
    assert settings.otlp_environment == collector


@pytest.mark.parametrize("missing", REAL)
def test_half_set_credentials_are_refused(missing: str) -> None:
    environment = {name: value for name, value in REAL.items() if name != missing}
    with pytest.raises(SettingsError, match=f"^{missing} not set"):
        Settings.from_environment(environment)


def test_a_collector_that_cannot_be_used_is_refused_before_anything_starts() -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT: port 4317 is OTLP over gRPC"):
        Settings.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"})


@pytest.mark.parametrize("hours", ["0", "-1", "1.5", "336", "many"])
def test_hours_out_of_range_are_refused(hours: str) -> None:
    with pytest.raises(SettingsError, match="DEMO_HOURS must be"):
        Settings.from_environment({"DEMO_HOURS": hours})


def test_the_dag_file_is_the_shipped_one(tmp_path: Path) -> None:
    assert install_dag(tmp_path).read_text() == SHIPPED.read_text()
    assert "ForgeMetricsTimetable(settle=timedelta(seconds=5))" in (
        install_dag(tmp_path, settle=timedelta(seconds=5)).read_text()
    )


def test_a_process_that_has_left_the_session_is_ended_too(tmp_path: Path) -> None:
    with ManagedProcess(
        [sys.executable, "-c", DAEMON], env=clean_environment(), log_file=tmp_path / "log"
    ) as process:
        wait_for(lambda: "gone" in process.log(), timeout=20, what="the daemon")
        [daemon] = process.members()
    assert process.members() == []
    assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE


@pytest.mark.timeout(300)
def test_metrics_arrive_and_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    environment = {**clean_environment(), "DEMO_HOURS": "1"}
    with ManagedProcess(
        [*DEMO, str(tmp_path / "demo")], env=environment, log_file=tmp_path / "demo.log"
    ) as demo:
        wait_for(
            lambda: re.search(r"^[1-9]\d* of \d windows delivered.*; [1-9]", demo.log(), re.MULTILINE),
            timeout=200,
            what="delivered windows",
        )
        assert airflow_processes(tmp_path)
        second = subprocess.run(
            [*DEMO, str(tmp_path / "demo")], env=environment, check=False, text=True, capture_output=True
        )
        os.kill(demo.pid, signal.SIGINT)
        wait_for(lambda: demo.returncode is not None, timeout=60, what="the demo to end")

    assert demo.returncode == 0
    assert "Everything has ended" in demo.log()
    assert airflow_processes(tmp_path) == []
    assert second.returncode == 2
    assert "Another demo is running" in second.stdout


def airflow_processes(directory: Path) -> list[psutil.Process]:
    """Return the living processes of an Airflow whose home is below `directory`."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("AIRFLOW_HOME", "")
            if home.startswith(str(directory)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_process_that_ends_by_itself_is_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = ManagedProcess(["true"], env=clean_environment(), log_file=tmp_path / "true.log")
    # As when it ends between the look at its exit status and the list of the living.
    monkeypatch.setattr(process, "members", list)
    process.stop()
    assert process._popen.returncode == 0
