"""A day of the sandbox's data, and of the exporter's own metrics, in a Prometheus.

The operator delivers it through a Collector, as in the compose stack.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import SandboxGateway, Scenario
from airflow_provider_forge.sandbox.app_model import DAY as MINUTES_OF_A_DAY
from airflow_provider_forge.sandbox.app_model import ROLLOUT_CYCLE, app_model_of
from airflow_provider_forge.sandbox.catalogue import METRICS
from airflow_provider_forge.sandbox.environments import DEFAULT_APP
from airflow_provider_forge.utils import secrets
from demo.processes import free_ports
from tests.dashboards import exporter, usage
from tests.receivers.collector import CONFIGURATIONS, Collector
from tests.receivers.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.sandbox import Point
    from airflow_provider_forge.sandbox.scenario import LatencyShape
    from airflow_provider_forge.usage.metrics import UsagePoint

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yaml"
WEDNESDAY = 2
# Prometheus' path for OTLP; the Collector's configuration contains it.
OTLP_PATH = "/api/v1/otlp"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 0.1}
ENVIRONMENTS = ("production", "staging")


@dataclass
class App:
    """An app with data in a Prometheus.

    Attributes:
        id: UUID.
        start: Start of the data, aware; a full hour.
        end: End of the data, aware.
    """

    gateway: SandboxGateway
    id: str
    start: datetime
    end: datetime

    def served(self) -> list[Point]:
        """Return the points that the gateway has served."""
        return self.gateway.served(self.start, self.end, app_id=self.id, environments=ENVIRONMENTS)

    @property
    def names(self) -> dict[str, str]:
        """Names of its environments, by UUID."""
        return {each.id: each.key for each in self.gateway.environments_of(self.id)}


@dataclass
class Day:
    """A Prometheus, and the apps with data in it, by their type of latency."""

    prometheus: Prometheus
    apps: dict[LatencyShape, App]
    own: list[exporter.Told]
    usage: list[UsagePoint]

    @property
    def app(self) -> App:
        """The app with a full day of data, which the exporter's own metrics are about."""
        return self.apps["histogram"]


def last_wednesday() -> datetime:
    """Return the start of the last complete Wednesday, a busy day with an incident in the sandbox."""
    today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=(today.weekday() - WEDNESDAY - 1) % 7 + 1)


@contextmanager
def day(directory: Path, *, and_before: bool = False) -> Iterator[Day]:
    """Start a Prometheus with the files of the compose stack, and deliver a day to it.

    Args:
        directory: Directory for its files and for the ledger.
        and_before: Whether to deliver the app's data of the day before, too, for comparisons with it.
    """
    start = last_wednesday()
    noon = start + 12 * HOUR
    spans: dict[LatencyShape, tuple[datetime, datetime]] = {
        "histogram": (start, start + DAY),
        "exponential_histogram": (noon, noon + 3 * HOUR),
        "summary": (noon, noon + HOUR),
        "gauge": (noon, noon + HOUR),
    }
    seed = _seed_with_rollout(start)
    with ExitStack() as stack:
        prometheus = stack.enter_context(Prometheus(directory, CONFIGURATION))
        collector = stack.enter_context(_collector(directory, prometheus))
        apps = {}
        for number, (shape, (since, until)) in enumerate(spans.items()):
            scenario = Scenario(seed, latency_shape=shape, site_incident_weekdays=frozenset({WEDNESDAY}))
            gateway = stack.enter_context(SandboxGateway(scenario, rate_limit_calls=0))
            app = App(gateway, f"{DEFAULT_APP[:-1]}{number}" if number else DEFAULT_APP, since, until)
            if and_before and shape == "histogram":
                _deliver(replace(app, start=start - DAY, end=start), collector.url, directory)
            _deliver(app, collector.url, directory)
            apps[shape] = app
        own = exporter.tellings(int(start.timestamp()), int((start + DAY).timestamp()))
        exporter.send(own, collector.url, DEFAULT_APP)
        names = apps["histogram"].names
        of_usage = usage.readings(start, DEFAULT_APP, names)
        usage.send(of_usage, collector.url, DEFAULT_APP, names)
        yield Day(prometheus, apps, own, of_usage)


def _seed_with_rollout(start: datetime) -> int:
    """Return a seed for which a version is rolled out in production on that day."""
    minute = int(start.timestamp() // 60)
    production = SandboxGateway().environments[2].id
    return next(
        seed
        for seed in range(1, 100)
        if MINUTES_OF_A_DAY // 4
        < -(minute + app_model_of(seed, DEFAULT_APP, production, large=False).rollout_phase) % ROLLOUT_CYCLE
        < MINUTES_OF_A_DAY // 2
    )


def _collector(directory: Path, prometheus: Prometheus) -> Collector:
    [port] = free_ports(1)
    return Collector(
        directory,
        CONFIGURATIONS / "prometheus.yaml",
        PROMETHEUS_URL=prometheus.url.removesuffix(OTLP_PATH),
        HEALTH_LISTEN=f"127.0.0.1:{port}",
    )


def _deliver(app: App, url: str, directory: Path) -> None:
    forge = {
        "conn_type": "forge",
        "host": app.gateway.url,
        "login": app.gateway.email,
        "password": app.gateway.api_token,
        "extra": {"app_id": app.id, "environments": ",".join(ENVIRONMENTS), **NO_LIMIT},
    }
    ledger = {"ledger_url": (directory / "ledger").as_uri()}
    otlp = {"conn_type": "otlp", "host": url, "extra": ledger}
    kept: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_FORGE_DEFAULT", json.dumps(forge))
        patch.setenv("AIRFLOW_CONN_OTLP_DEFAULT", json.dumps(otlp))
        # Directory of the rate limit's files.
        patch.setattr(tempfile, "tempdir", str(directory))
        # Variables are not available outside a task.
        patch.setattr(secrets.Variable, "get", lambda key, default=None: kept.get(key, default))
        patch.setattr(secrets.Variable, "set", lambda key, value, **_: kept.__setitem__(key, value))
        interval = {"data_interval_start": app.start, "data_interval_end": app.end}
        # Its own metrics would have the current time.
        task = ForgeMetricsToOtlpOperator(task_id="export", metrics=list(METRICS), telemetry=False)
        task.execute({**interval, "dag_run": SimpleNamespace(run_after=app.end)})
