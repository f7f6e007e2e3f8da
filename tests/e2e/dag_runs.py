"""`dag.test()` of the shipped DAG in a process of its own, between partners in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.airflow import airflow_environment
from demo.dagfile import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_forge.sandbox import SandboxGateway

RUN_DAG = Path(__file__).with_name("run_dag.py")


def connections(
    gateway: SandboxGateway, otlp_url: str, *, forge: dict[str, Any] | None = None, **otlp: Any
) -> dict[str, str]:
    """Return both Connections as environment variables.

    Args:
        forge: More extras of the Connection to the gateway.
        otlp: Extras of the Connection to the receiver.
    """
    account = {"login": gateway.email, "password": gateway.api_token}
    extra = {"app_id": gateway.app_id, **(forge or {})}
    return {
        "AIRFLOW_CONN_FORGE_DEFAULT": json.dumps(
            {"conn_type": "forge", "host": gateway.url, **account, "extra": extra}
        ),
        "AIRFLOW_CONN_OTLP_DEFAULT": json.dumps({"conn_type": "otlp", "host": otlp_url, "extra": otlp}),
    }


def run_dag(
    home: Path,
    earliest: str,
    latest: str,
    *,
    file: str = SHIPPED.name,
    wrapper: Sequence[str] = (),
    **settings: str,
) -> dict[str, str]:
    """Run every window from `earliest` to `latest`, inclusive; return the states by logical date.

    Args:
        home: AIRFLOW_HOME, with the DAG file.
        earliest: First logical date, in ISO 8601.
        latest: Last one.
        file: Name of the DAG file.
        wrapper: A command that starts Python.
        settings: Environment variables.
    """
    command = [*wrapper, sys.executable, str(RUN_DAG), str(home / "dags" / file), earliest, latest]
    env = airflow_environment(home, **settings)
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Libraries of an upcoming Airflow print more when the process ends.
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
