"""A day of the sandbox's data in a Prometheus, with what the exporter tells of itself.

The operator puts it there, through a Collector as in the compose stack.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.hooks import memory
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import SandboxGateway, Scenario
from airflow_provider_forge.sandbox.app_model import DAY as MINUTES_OF_A_DAY
from airflow_provider_forge.sandbox.app_model import ROLLOUT_CYCLE, app_model_of
from airflow_provider_forge.sandbox.catalogue import METRICS
from airflow_provider_forge.sandbox.environments import DEFAULT_APP
from demo.processes import free_ports
from tests.dashboards import exporter
from tests.receivers.collector import CONFIGURATIONS, Collector
from tests.receivers.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.sandbox import Point
    from airflow_provider_forge.sandbox.scenario import LatencyShape

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yaml"
WEDNESDAY = 2
# Where Prometheus takes OTLP; the Collector's configuration adds it itself.
OTLP_PATH = "/api/v1/otlp"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 0.1}
ENVIRONMENTS = ("production", "staging")


@dataclass
class App:
    """An app of which a Prometheus has data.

    Attributes:
        id: UUID.
        start: Of the data, aware; a whole hour.
        end: Of the data.
    """

    gateway: SandboxGateway
    id: str
    start: datetime
    end: datetime

    def served(self) -> list[Point]:
        """Return what the gateway has served."""
        return self.gateway.served(self.start, self.end, app_id=self.id, environments=ENVIRONMENTS)

    @property
    def names(self) -> dict[str, str]:
        """Its environments' names, by UUID."""
        return {each.id: each.key for each in self.gateway.environments_of(self.id)}


@dataclass
class Day:
    """A Prometheus, and the apps that it has data of, by the type of their latency."""

    prometheus: Prometheus
    apps: dict[LatencyShape, App]
    own: list[exporter.Told]

    @property
    def app(self) -> App:
        """The app with the whole day; the exporter's own metrics are of it, too."""
        return self.apps["histogram"]


def last_wednesday() -> datetime:
    """Return the start of the last whole Wednesday, when the sandbox has an incident and much to do."""
    today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=(today.weekday() - WEDNESDAY - 1) % 7 + 1)


@contextmanager
def day(directory: Path) -> Iterator[Day]:
    """Start a Prometheus with the files of the compose stack, and deliver a day to it.

    Args:
        directory: For its files, and for the record of deliveries.
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
            _deliver(app, collector.url, directory)
            apps[shape] = app
        own = exporter.tellings(int(start.timestamp()), int((start + DAY).timestamp()))
        exporter.send(own, collector.url, DEFAULT_APP)
        yield Day(prometheus, apps, own)


def _seed_with_rollout(start: datetime) -> int:
    """Return a seed with which a version is rolled out in production on that day."""
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
    variables: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_FORGE_DEFAULT", json.dumps(forge))
        patch.setenv("AIRFLOW_CONN_OTLP_DEFAULT", json.dumps(otlp))
        # The rate limit's files are there.
        patch.setattr(tempfile, "tempdir", str(directory))
        # Variables can't be had outside of a task.
        patch.setattr(memory.Variable, "get", lambda key, default=None: variables.get(key, default))
        patch.setattr(memory.Variable, "set", lambda key, value, **_: variables.__setitem__(key, value))
        interval = {"data_interval_start": app.start, "data_interval_end": app.end}
        # What it tells of itself would be of now.
        task = ForgeMetricsToOtlpOperator(task_id="export", metrics=list(METRICS), telemetry=False)
        task.execute({**interval, "dag_run": SimpleNamespace(run_after=app.end)})
