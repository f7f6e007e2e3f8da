"""The apps of an account, each with an entry for the DAG file."""

from __future__ import annotations

import ast

import pytest

from airflow_provider_forge.cli.apps import _entries
from airflow_provider_forge.gateway.apps import DeveloperApp
from airflow_provider_forge.sandbox import SandboxGateway, Scenario
from airflow_provider_forge.sandbox.developer_spaces import SPACES
from tests.cli.conftest import TOKEN

UUID = "11111111-2222-4333-8444-555555555555"


def app(name, uuid=UUID):
    return DeveloperApp(f"ari:cloud:ecosystem::app/{uuid}", name, "space", "Space")


def dags(*apps, conn_id="forge_default"):
    """Return the entries as the DAG file would have them."""
    return ast.literal_eval("{" + "\n".join(_entries(apps, conn_id)) + "}")


def test_the_apps_in_each_format(shell, gateway):
    shell.connections["FORGE_DEFAULT"]["extra"].pop("app_id")  # it is what one looks for
    done = shell("apps")
    assert (done.status, done.rows[0]) == (0, ["DEVELOPER SPACE", "NAME", "APP ID", "ENTRY FOR DAGS"])
    assert {row[1] for row in done.rows[1:]} == {name for space in SPACES for name in space.apps.values()}
    assert "of the account that owns the app" in done.err
    assert len(gateway.calls) == 1 + len(SPACES)
    answer = shell("apps --json").json
    assert [
        [each["developer_space"]["name"], each["name"], each["app_id"], each["dags"]] for each in answer
    ] == done.rows[1:]
    assert shell("apps --format csv").out.startswith("DEVELOPER SPACE,NAME,APP ID,ENTRY FOR DAGS\n")
    assert shell("apps --format markdown").out.startswith("| DEVELOPER SPACE | NAME |")


def test_a_refusal_is_one_line_and_status_3(shell):
    with SandboxGateway(Scenario(insufficient_scopes=True), api_token=TOKEN, rate_limit_calls=0) as refusing:
        shell.connections["FORGE_DEFAULT"]["host"] = refusing.url
        done = shell("apps")
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("The API token lacks a scope that this call needs")


def test_an_entry_is_a_line_of_the_dag_file():
    ari = f"ari:cloud:ecosystem::app/{UUID}"
    assert dags(app("Time Tracker: Größe XL")) == {
        "forge_metrics_time_tracker_grosse_xl": {"app_id": ari},
    }
    assert dags(app("App"), conn_id="forge_other") == {
        "forge_metrics_app": {"forge_conn_id": "forge_other", "app_id": ari}
    }


@pytest.mark.parametrize(
    "names", [("App", "APP!"), ("時計", "時計"), ("", ""), ('"]: evil', "]: evil"), ("x" * 300, "x" * 301)]
)
def test_ids_of_dags_are_valid_and_differ(names):
    found = dags(*(app(name, f"{index}{UUID[1:]}") for index, name in enumerate(names)))
    assert len(found) == len(names)
    assert all(dag_id.isidentifier() and len(dag_id) < 110 for dag_id in found)
