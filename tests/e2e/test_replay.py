"""The archive and real receivers: a replay that is killed again and again, and three that go away."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.archive.archive import Archive
from airflow_provider_forge.archive.storage import Storage
from airflow_provider_forge.connections.ledger import open_ledger
from airflow_provider_forge.coverage.coverage import EXPECTED_AFTER, find_coverage
from airflow_provider_forge.exceptions import RetryableError
from airflow_provider_forge.gateway.queries import PUBLISHED_METRICS
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Fault, OtlpSink, SandboxGateway, Scenario
from airflow_provider_forge.utils.ledger import delivery_asset, find_store
from airflow_provider_forge.windows import Window
from demo.waiting import wait_for
from tests.e2e.components import ComponentAirflow
from tests.e2e.dag_runs import connections
from tests.e2e.postgres import postgres
from tests.receivers.collector import SIDECAR, Collector
from tests.receivers.gate import Gate
from tests.receivers.prometheus import Prometheus
from tests.receivers.totals import totals_of
from tests.receivers.victoria_metrics import VictoriaMetrics

SHIPPED = Path(__file__).parents[2] / "dags" / "forge_metrics_replay.py"
DAG_ID = "forge_metrics_replay"
# As many as Atlassian keeps; fewer for a quick trial.
DAYS = int(os.environ.get("FORGE_TESTS_REPLAY_DAYS", "14"))
KILLS = 5
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 0.1}
SETTINGS = {
    # The end of a supervisor is noticed by its silence,
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # and that of a scheduler after thirty seconds of its silence.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
}


def install(folder: Path, conn_ids: list[str]) -> None:
    """Install the shipped DAG for several receivers, with retries after a second."""
    source = SHIPPED.read_text()
    for before, after in [
        ('"otlp_conn_id": "otlp_default"},\n}', f'"otlp_conn_id": {conn_ids!r}}},\n}}'),
        ('"retry_delay": timedelta(minutes=5)', '"retry_delay": timedelta(seconds=1)'),
    ]:
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    folder.mkdir(parents=True)
    (folder / SHIPPED.name).write_text(source)


def fill(archive: Path, interval: Window) -> None:
    """Fetch each window of an interval into the archive, as a task does before it sends anything."""
    hook, kept = ForgeMetricsHook(), Archive(Storage(archive))
    for window in interval.split():
        kept.write(hook.fetch(window.start, window.end))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_14_days_are_replayed_without_the_gateway_to_the_point_though_all_is_killed_five_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    end = pendulum.now("UTC").subtract(minutes=10).start_of("hour")
    # The first window must not expire before it is fetched.
    interval = Window(end.subtract(days=DAYS).add(hours=2), end)
    urls = {"archive_url": (tmp_path / "archive").as_uri(), "metrics": PUBLISHED_METRICS, **NO_LIMIT}
    ledger = (tmp_path / "ledger").as_uri()
    with (
        Prometheus(tmp_path) as prometheus,
        # Without this, it would add up what is sent twice because its acknowledgement was lost.
        VictoriaMetrics(tmp_path, "-dedup.minScrapeInterval=1ms") as victoria,
        postgres() as database,
    ):
        with SandboxGateway(Scenario(traffic=0.1, containers=False), rate_limit_calls=0) as gateway:
            environment = connections(gateway, victoria.url, forge=urls, ledger_url=ledger)
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            fill(tmp_path / "archive", interval)
            points = gateway.generated(
                interval.start, interval.end, environments=["production"], metrics=PUBLISHED_METRICS
            )
            made = len(gateway.calls)
        environment["AIRFLOW_CONN_OTLP_PROMETHEUS"] = json.dumps(
            {"conn_type": "otlp", "host": prometheus.url, "extra": {"ledger_url": ledger}}
        )
        install(tmp_path / "airflow" / "dags", ["otlp_default", "otlp_prometheus"])
        with ComponentAirflow(tmp_path / "airflow", database, **environment, **SETTINGS) as airflow:
            replay(airflow, interval)
        assert len(gateway.calls) == made
        assert victoria.totals() == totals_of(points, str)
        assert prometheus.totals() == totals_of(points, prometheus.name_of)


def replay(airflow: ComponentAirflow, interval: Window) -> None:
    """Backfill the interval as the UI does, and kill the scheduler with all its tasks now and then."""
    api, runs = airflow.api, int((interval.end - interval.start).total_seconds() // 3600)
    airflow.wait_for_dag(DAG_ID)
    api.pause(DAG_ID, paused=False)
    api.backfill(DAG_ID, interval.start, interval.end - timedelta(hours=1))
    for number in range(1, KILLS + 1):
        # While tasks run, and some have run.
        wait_for(
            lambda number=number: (
                api.count_runs(DAG_ID, state="success") >= number * runs // (KILLS + 2)
                and api.count_task_instances(DAG_ID, state="running")
            ),
            timeout=3600,
            what=f"the moment of the kill {number}",
        )
        airflow.kill("scheduler")
        airflow.start("scheduler")
    wait_for(
        lambda: api.count_runs(DAG_ID, state="success") == runs, timeout=3600, what="the end of the replay"
    )
    assert api.count_runs(DAG_ID) == runs  # none but those of the backfill


@pytest.mark.long
@pytest.mark.timeout(900)
def test_receivers_that_are_away_in_turn_get_everything_with_the_calls_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Three real ones, each away from another window on, and one that rejects points."""
    end = pendulum.now("UTC").start_of("hour").subtract(days=2)
    interval = Window(end.subtract(hours=2), end)
    with (
        SandboxGateway(rate_limit_calls=0) as gateway,
        OtlpSink() as rejecting,
        OtlpSink() as sink,
        Collector(tmp_path, SIDECAR, DESTINATION_URL=sink.url) as collector,
        Prometheus(tmp_path) as prometheus,
        VictoriaMetrics(tmp_path) as victoria,
        Gate(collector.url) as first,
        Gate(prometheus.url) as second,
        Gate(victoria.url) as third,
    ):
        rejecting.add_fault(Fault("partial_success", rejected=2, message="too old", calls={3}))
        gates = {"otlp_default": first, "otlp_prometheus": second, "otlp_victoria": third}
        urls = {**{conn_id: gate.url for conn_id, gate in gates.items()}, "otlp_rejecting": rejecting.url}
        task = a_task(monkeypatch, tmp_path, gateway, urls)
        started = datetime.now(timezone.utc)
        close_in_turn(monkeypatch, list(gates.values()))
        with pytest.raises(RetryableError, match=" \\| ".join(f"{conn_id}: .*" for conn_id in gates)):
            task.execute(context_of(interval, started, 1))
        for gate in gates.values():
            gate.is_open = True
        # All is delivered, and the rejected points are named.
        with pytest.raises(AirflowFailException, match="otlp_rejecting: ") as failed:
            task.execute(context_of(interval, started, 2))
        assert "otlp_default: " not in str(failed.value)
        points = gateway.generated(
            interval.start, interval.end, environments=["production"], metrics=PUBLISHED_METRICS
        )
        assert len([call for call in gateway.calls if call.operation == "appMetrics"]) == 8
        assert Counter(sink.points) == Counter(points)
        assert prometheus.totals() == totals_of(points, prometheus.name_of)
        assert victoria.totals() == totals_of(points, str)
        assert len(rejecting.points) + 2 == len(points)
        for conn_id in urls:
            assert_covered(conn_id, interval, rejected=conn_id == "otlp_rejecting")


def close_in_turn(monkeypatch: pytest.MonkeyPatch, gates: list[Gate]) -> None:
    """Close a gate at every second window that is fetched."""
    fetch, fetched = ForgeMetricsHook.fetch, []

    def watched(hook: ForgeMetricsHook, *arguments: Any) -> Any:
        fetched.append(arguments)
        if len(fetched) % 2 == 0 and len(fetched) // 2 <= len(gates):
            gates[len(fetched) // 2 - 1].is_open = False
        return fetch(hook, *arguments)

    monkeypatch.setattr(ForgeMetricsHook, "fetch", watched)


def a_task(
    monkeypatch: pytest.MonkeyPatch, directory: Path, gateway: SandboxGateway, urls: dict[str, str]
) -> ForgeMetricsToOtlpOperator:
    """Return a task over all these receivers, with an archive."""
    forge = {"archive_url": (directory / "archive").as_uri(), "metrics": PUBLISHED_METRICS, **NO_LIMIT}
    for name, value in connections(gateway, "", forge=forge).items():
        monkeypatch.setenv(name, value)
    extra = {"ledger_url": (directory / "ledger").as_uri()}
    for conn_id, url in urls.items():
        value = {"conn_type": "otlp", "host": url, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))
    return ForgeMetricsToOtlpOperator(task_id="export", otlp_conn_id=[*urls], telemetry=False)


def assert_covered(conn_id: str, interval: Window, *, rejected: bool) -> None:
    """Assert what the coverage of a destination says: delivered, but for a window with rejected points."""
    hook, forge = OtlpHook(conn_id), ForgeMetricsHook()
    store = find_store({}, delivery_asset("forge_default", conn_id), hook.ledger_url)
    ledger = open_ledger(forge.runtime, store, forge.app_id, hook.endpoint().destination)
    now = pendulum.now("UTC")
    coverage = find_coverage(ledger, now, keep=timedelta(days=14), expected_after=EXPECTED_AFTER)
    statuses = [
        quarter.status.value
        for quarter in coverage.quarters
        if interval.start <= quarter.start < interval.end
    ]
    assert Counter(statuses) == Counter({"delivered": 8 - rejected, "rejected": int(rejected)})


def context_of(interval: Window, started: datetime, number: int) -> dict[str, Any]:
    """Return the context of a try."""
    return {
        "dag_run": SimpleNamespace(run_after=started, start_date=started, clear_number=0),
        "ti": SimpleNamespace(try_number=number),
        "data_interval_start": interval.start,
        "data_interval_end": interval.end,
    }
