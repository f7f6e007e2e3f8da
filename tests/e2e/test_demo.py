"""`make demo`: it refuses what it cannot do, shows that metrics arrive, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_provider_forge.windows import MAX_WINDOW, ceil
from demo.__main__ import ending, otlp_connection
from demo.airflow import StandaloneAirflow
from demo.api import AirflowApi
from demo.dagfile import SHIPPED, TASK_ID, install_dag
from demo.processes import ManagedProcess, clean_environment
from demo.progress import Progress, ProgressMeter
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


def test_the_dag_file_can_start_later(tmp_path: Path) -> None:
    source = install_dag(tmp_path, start=datetime(2026, 11, 8, 9, 15, tzinfo=timezone.utc)).read_text()
    assert "start_date=datetime.fromisoformat('2026-11-08T09:15:00+00:00')," in source


LOG = [
    {"event": "::group::27 Nov 14:00\u201314:15 UTC"},
    {
        "level": "error",
        "event": "The receiver timed out. If the task has retries left, it will be retried",
    },
    {
        "level": "error",
        "event": "Task failed with exception",
        "error_detail": [{"exc_type": "ReceiverTimeout", "exc_value": "The receiver timed out"}],
    },
]
BY_EXCEPTION = "ReceiverTimeout: The receiver timed out"


class OneFailure:
    """Airflow's API with one window that has failed, and the sink, which has received nothing."""

    def __init__(self, state: str, log: list[dict[str, Any]]) -> None:
        self.state, self.log = state, log

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        if path.endswith(f"/tasks/{TASK_ID}"):
            return {"retry_delay": {"__type": "TimeDelta", "days": 0, "seconds": 300, "microseconds": 0}}
        task = {"dag_run_id": "a", "try_number": 1, "state": self.state, "end_date": "2026-11-27T14:21:30Z"}
        tasks = [task] if params.get("state") == self.state else []
        return {"total_entries": len(tasks), "task_instances": tasks, "dag_runs": []}

    def count_runs(self, dag_id: str, **filters: str) -> int:
        return 0

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return {
            "data_interval_start": "2026-11-27T14:00:00Z",
            "data_interval_end": "2026-11-27T14:15:00Z",
        }

    def task_log(self, ti: dict[str, Any]) -> str:
        return json.dumps({"content": self.log})

    def summary(self) -> dict[str, int]:
        return {"points": 0}


@pytest.mark.parametrize(
    ("state", "log", "told"),
    [
        ("up_for_retry", LOG, "The receiver timed out. It is tried again by 14:26 UTC"),
        ("up_for_retry", LOG[2:], f"{BY_EXCEPTION}. It is tried again by 14:26 UTC"),
        ("failed", LOG, "The receiver timed out."),
        ("failed", [], "its log has no error."),
    ],
)
def test_a_failed_window_says_why_and_when_it_is_tried_again(
    state: str, log: list[dict[str, Any]], told: str
) -> None:
    airflow: Any = OneFailure(state, log)
    progress = ProgressMeter(airflow, airflow).read()
    assert progress.problem == f"27 Nov 14:00\u201314:15 UTC failed: {told}"
    assert progress.retrying + progress.failed == 1


def test_the_newest_window_stays_the_newest_when_older_ones_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    airflow: Any = OneFailure("failed", [])
    meter = ProgressMeter(airflow, airflow)
    live = {"data_interval_start": None, "data_interval_end": None, "conf": {"to": "2026-11-27T14:00:00Z"}}
    for runs in ([live], [airflow.run("", "") | {"data_interval_end": "2026-11-26T14:00:00Z"}], []):
        monkeypatch.setattr(meter, "_newest_runs", lambda runs=runs: runs)
        assert meter.read().newest == datetime(2026, 11, 27, 14, 0, tzinfo=timezone.utc)


def test_the_end_names_the_next_window() -> None:
    newest = datetime(2026, 11, 27, 14, 0, tzinfo=timezone.utc)
    progress = Progress(due=96, delivered=96, points=1234, newest=newest)
    assert progress.is_complete
    assert not replace(progress, delivered=95).is_complete
    assert replace(progress, delivered=95, failed=1).is_complete
    text = ending(progress, "http://127.0.0.1:8080", "1:34")
    assert text.startswith("All 96 windows are delivered, 1:34 after the start.")
    assert "The next one is 27 Nov 14:00\u201314:15 UTC at 14:20." in text
    assert max(map(len, text.splitlines())) < 80


@pytest.mark.parametrize("minutes", [0, 1, 14])
def test_the_destination_keeps_points_until_the_first_window_is_delivered(minutes: int) -> None:
    """It does not keep them for so long that a window before the first one counts as missing."""
    began = datetime(2026, 11, 27, 14, minutes, 30, tzinfo=timezone.utc)
    first = ceil(began - timedelta(hours=24), MAX_WINDOW)
    sink: Any = type("Sink", (), {"url": ""})
    keep = timedelta(seconds=otlp_connection(sink, began - first)["extra"]["max_age"])
    for later in (timedelta(seconds=30), timedelta(minutes=13)):
        assert first - MAX_WINDOW < began + later - keep <= first


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
        [url] = re.findall(r"^Open +(http://[\d.:]+)/dags/", demo.log(), re.MULTILINE)
        AirflowApi(url, StandaloneAirflow.username, StandaloneAirflow.username).close()
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
