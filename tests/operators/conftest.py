from __future__ import annotations

import json

import pytest

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.utils import variables as variables_module

# Where the gateway counts too many calls and does not say for how long, a task waits for that span.
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 0.1}


@pytest.fixture
def gateway():
    with SandboxGateway(rate_limit_calls=0) as running:
        yield running


@pytest.fixture
def sink():
    with OtlpSink() as running:
        yield running


@pytest.fixture
def variables(monkeypatch):
    """Airflow Variables, which cannot be set outside of a task."""
    kept: dict[str, str] = {}
    monkeypatch.setattr(variables_module.Variable, "get", lambda key, default=None: kept.get(key, default))
    monkeypatch.setattr(
        variables_module.Variable, "set", lambda key, value, **_: kept.__setitem__(key, value)
    )
    return kept


@pytest.fixture
def connect(monkeypatch, variables):
    """Return a function that sets the Connections to a gateway and a receiver."""

    def connect(gateway, receiver, *, forge=None, otlp=None) -> None:
        connections = {
            "FORGE_DEFAULT": {
                "conn_type": "forge",
                "host": gateway.url,
                "login": gateway.email,
                "password": gateway.api_token,
                "extra": {"app_id": gateway.app_id, **NO_LIMIT, **(forge or {})},
            },
            "OTLP_DEFAULT": {"conn_type": "otlp", "host": receiver.url, "extra": otlp or {}},
        }
        for name, connection in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))

    return connect
