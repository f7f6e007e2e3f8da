"""The API token and the OTLP secret are nowhere to be read, whatever has failed."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from airflow_provider_forge.sandbox.server import LocalServer, Reply, Request
from demo.dagfile import DAG_ID, TASK_ID
from demo.waiting import wait_for
from tests.e2e.deployment import API_TOKEN, EMAIL, OTLP_SECRET, RATE_CALLS, RATE_SECONDS, Deployment
from tests.e2e.failing_dag import FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

# Without the last characters, so that it is found also where more follows the token.
BASIC = base64.b64encode(f"{EMAIL}:{API_TOKEN}".encode())[:-4]
CANARIES = (API_TOKEN.encode(), OTLP_SECRET.encode(), BASIC)

REST = (
    "connections",
    "connections/forge_default",
    "connections/forge_expired",
    "connections/otlp_default",
    "variables",
    "eventLogs",
    "importErrors",
    f"dagSources/{DAG_ID}",
    f"dags/{DAG_ID}/details",
    "dags/~/dagRuns",
    "dags/~/dagRuns/~/taskInstances",
    f"dags/{DAG_ID}/dagRuns/~/taskInstances/~/xcomEntries",
)
PAGES = ("/", "/connections", f"/dags/{DAG_ID}", "/ui/config", "/ui/dags", f"/ui/grid/runs/{DAG_ID}")


class Echo(LocalServer):
    """Refuses every request and repeats all its headers, as careless gateways and receivers do."""

    def respond(self, request: Request) -> Reply:
        headers = dict(request.headers.items())
        if "graphql" in request.path:
            return Reply.of_json({"errors": [{"message": f"no: {headers}"}], "data": None}, 500)
        return Reply.of_json({"code": 3, "message": f"no: {headers}"}, 400)


@pytest.fixture(scope="module")
def failed(deployment: Deployment) -> Iterator[Deployment]:
    """Tasks have succeeded, and others have failed in every way in which a secret could be repeated."""
    api = deployment.airflow.api
    limit = {"rate_limit_calls": RATE_CALLS, "rate_limit_seconds": RATE_SECONDS}
    extra = json.dumps({"app_id": deployment.gateway.app_id, **limit})
    with Echo() as echo:
        account = {"login": EMAIL, "extra": extra}
        api.create_connection(
            "forge_expired", "forge", host=deployment.gateway.url, password=f"{API_TOKEN}-expired", **account
        )
        api.create_connection(
            "forge_echo", "forge", host=f"{echo.address}/graphql", password=API_TOKEN, **account
        )
        api.create_connection("otlp_echo", "otlp", host=echo.address, password=OTLP_SECRET)
        deployment.airflow.wait_for_dag("failing")
        api.pause("failing", paused=False)
        run = deployment.finished(api.trigger("failing"), dag_id="failing")
        wait_for(deployment.successes, timeout=120, what="a window of the shipped DAG")
    assert run["state"] == "failed"
    return deployment


def test_the_failures_are_those_that_were_meant(failed: Deployment) -> None:
    api = failed.airflow.api
    instances = {ti["task_id"]: ti for ti in api.task_instances("failing")}
    assert {task_id: ti["state"] for task_id, ti in instances.items()} == dict.fromkeys(FAILURES, "failed")

    errors = {
        "expired_token": "Atlassian refused the credentials",
        "echoing_gateway": "GatewayUnavailable",
        "echoing_receiver": "a status that OTLP forbids retrying",
        "unknown_environment": "there is no 'nowhere'",
    }
    logs = {task_id: api.task_log(ti) for task_id, ti in instances.items()}
    assert {task_id: error in logs[task_id] for task_id, error in errors.items()} == dict.fromkeys(
        errors, True
    )


def test_the_secrets_are_used(failed: Deployment) -> None:
    """Otherwise their absence elsewhere would prove nothing."""
    assert {request.headers["authorization"] for request in failed.sink.requests} == {f"Bearer {OTLP_SECRET}"}
    assert {call.outcome for call in failed.gateway.calls} >= {"ok", "unauthorized"}


def test_no_file_holds_a_secret(failed: Deployment) -> None:
    files = [file for file in failed.airflow.home.rglob("*") if file.is_file()]

    assert {"standalone.log", "attempt=1.log"} <= {file.name for file in files}
    assert [file for file in files if holds_secret(read(file))] == []


def test_no_table_holds_a_secret(failed: Deployment) -> None:
    """XComs, rendered fields, Variables, state, the audit log: whatever Airflow remembers."""
    tables = dump(failed.database)

    assert {"xcom", "rendered_task_instance_fields", "log", "connection", "variable"} <= tables.keys()
    assert all(tables[name] for name in ("xcom", "rendered_task_instance_fields", "log"))
    assert EMAIL.encode() in tables["connection"]
    assert [name for name, rows in tables.items() if holds_secret(rows)] == []


def test_no_rest_answer_holds_a_secret(failed: Deployment) -> None:
    api = failed.airflow.api
    answers = {path: json.dumps(api.get(path)) for path in REST}
    delivered = api.runs(DAG_ID, state="success")[-1]
    answers["xcom"] = json.dumps(api.xcom(DAG_ID, delivered["dag_run_id"], TASK_ID))
    answers |= {f"log of {ti['task_id']}": api.task_log(ti) for ti in api.task_instances("failing")}

    assert [path for path, text in answers.items() if holds_secret(text.encode())] == []


def test_no_page_holds_a_secret(failed: Deployment) -> None:
    # A browser has the token in a cookie.
    client = failed.airflow.api.client
    client.cookies.set("_token", failed.airflow.api.token)
    pages = {path: client.get(path) for path in PAGES}

    assert {path: page.status_code for path, page in pages.items()} == dict.fromkeys(PAGES, 200)
    assert [path for path, page in pages.items() if holds_secret(page.content)] == []


def holds_secret(content: bytes) -> bool:
    return any(canary in content for canary in CANARIES)


def dump(database: str) -> dict[str, bytes]:
    """Return the rows of each table, as text."""
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        names = sqlalchemy.inspect(engine).get_table_names()
        tables = {
            name: connection.execute(sqlalchemy.text(f'SELECT * FROM "{name}"')).all() for name in names
        }
    engine.dispose()
    return {name: b"".join(map(as_bytes, rows)) for name, rows in tables.items()}


def as_bytes(row: Sequence[object]) -> bytes:
    values = (bytes(value) if isinstance(value, memoryview) else repr(value).encode() for value in row)
    return b"\n".join(values)


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        # Temporary files come and go while Airflow runs.
        return b""
