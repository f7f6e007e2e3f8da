"""The exporter's own metrics add up, at receivers that nobody here has written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery import telemetry as own
from airflow_provider_forge.delivery.telemetry import Measurement, Reporter
from airflow_provider_forge.otlp.endpoint import Endpoint, metrics_url
from tests.receivers.prometheus import Prometheus
from tests.receivers.totals import Total
from tests.receivers.victoria_metrics import VictoriaMetrics

if TYPE_CHECKING:
    from pathlib import Path

APPS = ("8ce114f4-d82c-45e2-b4fb-c6a0751d7d57", "6f5f56e9-55c0-4551-9247-ee1484340f64")
TASKS = 3


def send_for_two_apps(url: str) -> None:
    """Send what tasks of two apps measure, one after another."""
    for task in range(TASKS):
        for app in APPS:
            measured = [
                Measurement(own.HEARTBEAT, 1),
                Measurement(own.WINDOW_END, 1_795_410_000 + task),
                Measurement(own.LAG, 312.5),
                Measurement(own.POINTS, 7, {own.OUTCOME: "sent"}),
                Measurement(own.POINTS, 0, {own.OUTCOME: "rejected"}),
                Measurement(own.WAIT, 0.25),
                Measurement(own.FAILURES, 1, {own.ERROR_TYPE: "RateLimited"}),
            ]
            reporter, start = Reporter(app, "forge_metrics"), time.time_ns()
            assert own.send_measurements(Endpoint(metrics_url(url)), measured, reporter, start=start)


def test_prometheus_has_each_point_under_a_name_of_its_own(tmp_path: Path) -> None:
    with Prometheus(tmp_path) as receiver:
        send_for_two_apps(receiver.url)
        totals = receiver.totals(own=True)
        series = receiver.series("forge_exporter_points_total")
    assert len(series) == len(APPS) * 2
    assert {(each["job"], each["instance"], each["forge_exporter_dag_id"]) for each in series} == {
        ("atlassian-forge/airflow-provider-forge", app, "forge_metrics") for app in APPS
    }
    assert {each["forge_exporter_outcome"] for each in series} == {"sent", "rejected"}
    ends = sum(1_795_410_000 + task for task in range(TASKS))
    assert totals == {
        "forge_exporter_heartbeat": Total(2 * TASKS, 2 * TASKS),
        "forge_exporter_window_end_seconds": Total(2 * TASKS, 2 * ends),
        "forge_exporter_lag_seconds": Total(2 * TASKS, 2 * TASKS * 312.5),
        "forge_exporter_points_total": Total(4 * TASKS, 2 * TASKS * 7),
        "forge_exporter_wait_seconds_total": Total(2 * TASKS, 2 * TASKS * 0.25),
        "forge_exporter_failures_total": Total(2 * TASKS, 2 * TASKS),
    }


def test_victoria_metrics_has_each_point(tmp_path: Path) -> None:
    with VictoriaMetrics(tmp_path) as receiver:
        send_for_two_apps(receiver.url)
        totals = receiver.totals(own=True)
    assert totals["forge.exporter.points"] == Total(4 * TASKS, 2 * TASKS * 7)
    assert totals["forge.exporter.heartbeat"] == Total(2 * TASKS, 2 * TASKS)
