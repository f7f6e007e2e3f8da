"""Revised days at receivers that nobody here has written: each value replaces the one before."""

from __future__ import annotations

import dataclasses
import json
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.gateway.queries import RESOURCES
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.operators.forge_usage_to_otlp import MAX_LOOKBACK, ForgeUsageToOtlpOperator
from airflow_provider_forge.sandbox import SandboxGateway
from airflow_provider_forge.usage.months import interval_to_read
from demo.airflow import StandaloneAirflow
from demo.processes import free_ports
from demo.waiting import wait_for
from tests.e2e.usage import PrometheusStore, Truth, VictoriaMetricsStore, assert_true
from tests.receivers.collector import CONFIGURATIONS, Collector
from tests.receivers.prometheus import Prometheus
from tests.receivers.victoria_metrics import VictoriaMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.usage import Store

CONFIGURATION = CONFIGURATIONS.parent / "prometheus" / "prometheus.yaml"
SHIPPED = Path(__file__).parents[2] / "dags" / "forge_usage.py"
DAG_ID = "forge_usage"
DAY = timedelta(days=1)
DAYS = 30
SOME = ("FUNCTION_COMPUTE", "OS_REQUESTS")
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 0.1}


class Calendar:
    """The clock of the gateway: days pass while the observations follow each other by the real clock."""

    def __init__(self, days: int) -> None:
        self.today = datetime.now(timezone.utc)
        self.now = self.today - days * DAY

    def __call__(self) -> float:
        return self.now.timestamp()


@contextmanager
def stores(directory: Path) -> Iterator[dict[str, tuple[str, Store]]]:
    """Start a Prometheus behind a Collector, as in the compose stack, and a VictoriaMetrics."""
    [health] = free_ports(1)
    with (
        Prometheus(directory, CONFIGURATION) as prometheus,
        Collector(
            directory,
            CONFIGURATIONS / "prometheus.yaml",
            PROMETHEUS_URL=prometheus.url.removesuffix("/api/v1/otlp"),
            HEALTH_LISTEN=f"127.0.0.1:{health}",
        ) as collector,
        VictoriaMetrics(directory) as victoria_metrics,
    ):
        yield {
            "prometheus": (collector.url, PrometheusStore(prometheus)),
            "victoria_metrics": (victoria_metrics.url, VictoriaMetricsStore(victoria_metrics)),
        }


@pytest.mark.timeout(300)
def test_a_revised_day_replaces_and_an_older_observation_does_not(tmp_path, connect, monkeypatch):
    calendar = Calendar(days=2)
    with SandboxGateway(rate_limit_calls=0, clock=calendar) as gateway, stores(tmp_path) as receivers:
        truth = Truth(gateway, interval_to_read(calendar.today, 7 * DAY)[0], SOME)

        def run() -> None:
            for url, _ in receivers.values():
                connect(gateway, gateway)
                connection = {"conn_type": "otlp", "host": url}
                monkeypatch.setenv("AIRFLOW_CONN_OTLP_DEFAULT", json.dumps(connection))
                ForgeUsageToOtlpOperator(task_id="usage", usage_resources=SOME).execute({})

        def check() -> None:
            for _, store in receivers.values():
                assert_true(store, truth.at(calendar.now))

        for _ in range(3):
            run()
            check()
            calendar.now += DAY
        calendar.now -= DAY
        run()
        check()
        # An observation of two days ago that arrives only now: a task was stopped before it sent its points.
        real = ForgeMetricsHook.fetch_usage

        def fetch_usage(*arguments):
            usage = real(*arguments)
            return dataclasses.replace(usage, observed_at=usage.observed_at - timedelta(hours=6))

        calendar.now -= 2 * DAY
        monkeypatch.setattr(ForgeMetricsHook, "fetch_usage", fetch_usage)
        run()
        calendar.now += 2 * DAY
        check()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_thirty_days_through_airflow(tmp_path):
    """After each run, each day and month at both receivers is what the gateway knew. Re-runs change none."""
    calendar = Calendar(DAYS)
    home = tmp_path / "airflow"
    install(home / "dags")
    with (
        SandboxGateway(rate_limit_calls=0, clock=calendar) as gateway,
        stores(tmp_path) as receivers,
        StandaloneAirflow(home) as airflow,
    ):
        api = airflow.api
        extra = json.dumps({"app_id": gateway.app_id, **NO_LIMIT})
        account = {"login": gateway.email, "password": gateway.api_token, "extra": extra}
        api.create_connection("forge_default", "forge", host=gateway.url, **account)
        for name, (url, _) in receivers.items():
            api.create_connection(f"otlp_{name}", "otlp", host=url)
        airflow.wait_for_dag(DAG_ID)
        api.pause(DAG_ID, paused=False)
        # The start of what tasks read does not move while the test runs, except at midnight of a first.
        truth = Truth(gateway, interval_to_read(calendar.today, MAX_LOOKBACK)[0], RESOURCES)

        def finish(run_id: str) -> None:
            wait_for(lambda: api.run(DAG_ID, run_id)["end_date"], timeout=600, what=f"the run {run_id}")
            assert api.run(DAG_ID, run_id)["state"] == "success"

        def check() -> None:
            for _, store in receivers.values():
                assert_true(store, truth.at(calendar.now))

        for _ in range(DAYS):
            calendar.now += DAY
            last = api.trigger(DAG_ID)
            finish(last)
            check()
        # A clear, and two manual runs at once.
        api.clear(DAG_ID, last)
        wait_for(lambda: not api.run(DAG_ID, last)["end_date"], timeout=120, what="the cleared run to begin")
        finish(last)
        check()
        for run_id in [api.trigger(DAG_ID), api.trigger(DAG_ID)]:
            finish(run_id)
        check()
        assert (gateway.violations, gateway.over_limit(1000, 0.1)) == (0, 0)


def install(dags_folder: Path) -> None:
    """Copy the shipped DAG, with a task for each receiver, and the longest lookback."""
    before, opening, after = SHIPPED.read_text().partition("APPS = {\n")
    days = MAX_LOOKBACK.days
    entries = [
        f'    "{name}": {{"otlp_conn_id": "otlp_{name}", "lookback": timedelta(days={days})}},\n'
        for name in ("prometheus", "victoria_metrics")
    ]
    dags_folder.mkdir(parents=True)
    rest = after.partition("}\n\nwith")[2]
    (dags_folder / SHIPPED.name).write_text(f"{before}{opening}{''.join(entries)}}}\n\nwith{rest}")
