"""With Connections in variables, no command imports Airflow, which takes seconds."""

from __future__ import annotations

import pytest

from tests.cli.airflow_api import AirflowApi

LINES = {
    "check": 0,
    "apps": 0,
    "environments": 0,
    "fetch": 0,
    "fetch --cardinality --environments staging": 0,
    "send --last 15m": 0,
    "send --last 15m --dry-run": 0,
    "coverage": 1,
}


@pytest.fixture
def without_airflow(shell, tmp_path):
    """The shell, where importing Airflow is an error."""
    with AirflowApi("a token") as api:
        stub = tmp_path / "stub" / "airflow"
        stub.mkdir(parents=True)
        (stub / "__init__.py").write_text("raise SystemExit('Airflow was imported')")
        shell.variables |= {
            "PYTHONPATH": str(stub.parent),
            "AIRFLOW_API_URL": api.address,
            "AIRFLOW_API_TOKEN": "a token",
        }
        yield shell


def test_every_command(without_airflow):
    for line, status in LINES.items():
        done = without_airflow(line)
        assert (done.status, "was imported" in done.err) == (status, False), line


def test_a_connection_that_is_not_in_a_variable_is_looked_for_in_airflow(without_airflow):
    assert "Airflow was imported" in without_airflow("check --otlp-conn-id other").err
