"""One Airflow for all end-to-end tests that need a whole one: it takes a while to start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.sandbox.catalogue import METRICS
from demo.airflow import StandaloneAirflow, airflow_environment
from demo.dagfile import DAG_ID, install_dag
from tests.e2e.deployment import (
    API_TOKEN,
    CATCHUP,
    EMAIL,
    MINUTE,
    OTLP_SECRET,
    RATE_CALLS,
    RATE_SECONDS,
    Deployment,
)
from tests.e2e.postgres import postgres
from tests.e2e.statsd import Statsd

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The shipped DAG with windows of a minute, unpaused, with both Connections."""
    home = tmp_path_factory.mktemp("airflow")
    # Windows of a minute, so all would look back.
    faster = {"interval": MINUTE, "retention": CATCHUP, "settle": timedelta(0)}
    install_dag(home / "dags", operator={"revisit_after": None, "live_first": False}, **faster)
    shutil.copy(Path(__file__).with_name("failing_dag.py"), home / "dags")
    limit = {"rate_limit_calls": RATE_CALLS, "rate_limit_seconds": RATE_SECONDS}
    with (
        SandboxGateway(email=EMAIL, api_token=API_TOKEN, **limit) as gateway,
        OtlpSink() as sink,
        postgres() as database,
        Statsd() as statsd,
        StandaloneAirflow(
            home,
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database,
            AIRFLOW__METRICS__STATSD_ON="True",
            AIRFLOW__METRICS__STATSD_HOST="127.0.0.1",
            AIRFLOW__METRICS__STATSD_PORT=str(statsd.port),
        ) as airflow,
    ):
        api = airflow.api
        extra = json.dumps({"app_id": gateway.app_id, "metrics": list(METRICS), **limit})
        account = {"login": EMAIL, "password": API_TOKEN, "extra": extra}
        api.create_connection("forge_default", "forge", host=gateway.url, **account)
        api.create_connection("otlp_default", "otlp", host=sink.url, password=OTLP_SECRET)
        airflow.wait_for_dag(DAG_ID)
        api.pause(DAG_ID, paused=False)
        yield Deployment(airflow, gateway, sink, database, statsd)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an AIRFLOW_HOME with an empty database."""
    home = tmp_path_factory.mktemp("migrated")
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, env=airflow_environment(home), check=True, capture_output=True)
    return home


@pytest.fixture
def home(migrated: Path, tmp_path: Path) -> Path:
    """Make an AIRFLOW_HOME with the shipped DAG file and a database of its own."""
    home = tmp_path / "airflow"
    home.mkdir()
    shutil.copy(migrated / "airflow.db", home)
    # Which window a test asks for is to be what it says, whatever the clock says.
    install_dag(home / "dags", operator={"revisit_after": None, "live_first": False})
    return home
