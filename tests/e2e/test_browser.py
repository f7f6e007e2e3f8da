"""All that is done in Airflow's UI, done there: Connections, Test, switch, backfill, grid, log, link, form.

The tests go on from one another, in their order, in one Airflow. `make screenshots` also takes the pictures
of the documentation.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from airflow_provider_forge.connection_forms import FORGE, OTLP
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import format_time
from demo.airflow import StandaloneAirflow
from demo.api import parse_time
from demo.dagfile import DAG_ID, TASK_ID, install_dag
from demo.processes import free_ports
from demo.waiting import wait_for
from tests.certificates import make_certificate
from tests.e2e import airflow_ui as ui
from tests.e2e.browser import browser_page, find_chromium, take_picture
from tests.e2e.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

QUARTER = timedelta(minutes=15)
METRICS = ["FORGE_API_REQUEST_COUNT", "FORGE_BACKEND_INVOCATION_COUNT"]
ENVIRONMENTS = ["production", "staging"]
EMAIL, API_TOKEN, OTLP_SECRET = "dev@example.com", "a-token-for-the-form", "a-secret-for-the-form"
# What Airflow's form shows instead of a value that it takes for a secret.
MASKED = {"password", "auth_header", "token_expires_on"}
TITLES = {"forge_default": "Atlassian Forge", "otlp_default": "OpenTelemetry Protocol (OTLP)"}
FORMS = {"forge_default": FORGE, "otlp_default": OTLP}
# Filled in first, for the pictures: fields of both sections, by their labels.
EXAMPLES = {
    "forge_default": (
        {"Atlassian account email": "you@example.com", "API token": "x" * 24},
        {
            "App ID": "ari:cloud:ecosystem::app/7c1f0b0e-5a51-4a0e-9d0c-2f6d0e8a1b35",
            "Environments": "production, staging",
        },
    ),
    "otlp_default": (
        {"Endpoint": "https://collector.example.com:4318", "Secret": "x" * 24},
        {"Ledger URL": "s3://aws_default@our-bucket/forge"},
    ),
}


@dataclass(frozen=True)
class Stack:
    """What takes part, and what is typed into the forms, by the names of the fields."""

    page: Page
    airflow: StandaloneAirflow
    gateway: SandboxGateway
    sink: OtlpSink
    values: dict[str, dict[str, Any]]

    def typed(self, conn_id: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return the standard values and the extras, as text, by the labels of all the form's fields."""
        form, values = FORMS[conn_id], self.values[conn_id]
        standard = {field.label: str(values[field.name]) for field in form.standard}
        description = {"Description": values["description"]}
        return {**description, **standard}, {field.label: str(values[field.name]) for field in form.extras}


def values_of_fields(gateway: SandboxGateway, sink: OtlpSink, home: Path) -> dict[str, dict[str, Any]]:
    certificate = make_certificate(home, "collector")
    forge = {
        "description": "our app",
        "host": gateway.url,
        "port": 0,
        "login": EMAIL,
        "password": API_TOKEN,
        "app_id": gateway.app_id,
        "environments": ", ".join(ENVIRONMENTS),
        "metrics": ",".join(METRICS),
        "service_name": "our-app",
        "timeout": 45.5,
        "rate_limit_calls": 5,
        "rate_limit_seconds": 3,
        "rate_limit_store": "file",
        "archive_url": f"file://{home}/archive",
        "usage_prices": '{"LLM_INPUT": {"price": "0.10"}}',
        "token_expires_on": "2099-01-31",
        "allow_cleartext": "false",
    }
    otlp = {
        "description": "our collector",
        "host": sink.url,
        "port": 0,
        "password": OTLP_SECRET,
        "auth_header": "X-Api-Key",
        "headers": '{"X-Scope-OrgID": "our-team"}',
        "protocol": "http/json",
        "compression": "none",
        "timeout": 20,
        "ca_file": certificate,
        "cert_file": certificate,
        "key_file": certificate,
        "max_body_bytes": 1048576,
        "max_compressed_bytes": 262144,
        "max_age": "14d",
        "tenant": "our-team",
        "ledger_url": f"file://{home}/ledger",
        "allow_cleartext": "false",
    }
    return {"forge_default": forge, "otlp_default": otlp}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An Airflow that knows the DAG and no Connection, with somebody logged in."""
    chromium, home = find_chromium(), tmp_path_factory.mktemp("browser")
    # Nothing but what the tests ask for, and one live window when the DAG is switched on.
    retry = timedelta(seconds=5)
    install_dag(home / "dags", retry_delay=retry, operator={"catchup": False, "revisit_after": None})
    with (
        SandboxGateway(email=EMAIL, api_token=API_TOKEN, rate_limit_calls=5, rate_limit_seconds=3) as gateway,
        OtlpSink() as sink,
        postgres() as database,
        StandaloneAirflow(
            home, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database, AIRFLOW__CORE__TEST_CONNECTION="Enabled"
        ) as airflow,
        browser_page(chromium, airflow.url) as page,
    ):
        airflow.wait_for_dag(DAG_ID)
        ui.log_in(page, airflow.username, airflow.password)
        yield Stack(page, airflow, gateway, sink, values_of_fields(gateway, sink, home))


@pytest.fixture(scope="module")
def connected(stack: Stack) -> Stack:
    """Add both Connections through their forms, with a value in every field."""
    for conn_id, title in TITLES.items():
        form = ui.ConnectionForm.add(stack.page, conn_id, title)
        show_as_in_the_documentation(form, conn_id)
        form.fill_in(*stack.typed(conn_id))
        form.submit("Save")
        expect(ui.connection_row(stack.page, conn_id)).to_be_visible()
        # Without a port, Airflow 3.3.1 and 3.3.2 answer Test with "Bad Request" (apache/airflow#73298).
        body = {"connection_id": conn_id, "conn_type": conn_id.partition("_")[0], "port": 0}
        stack.airflow.api.send("PATCH", f"connections/{conn_id}?update_mask=port", body)
    return stack


def show_as_in_the_documentation(form: ui.ConnectionForm, conn_id: str) -> None:
    name = conn_id.partition("_")[0]
    standard, extras = EXAMPLES[conn_id]
    form.fill_in(standard, {})
    form.open_section("Standard Fields")
    take_picture(f"connection-{name}", form.box)
    form.fill_in({}, extras)
    take_picture(f"connection-{name}-extra", form.box, height=2400)


@pytest.fixture(scope="module")
def switched_on(connected: Stack) -> Stack:
    """Switch the DAG on in the list of DAGs, and wait for the live window."""
    page, api = connected.page, connected.airflow.api
    page.goto("/dags")
    expect(page.get_by_test_id("toggle-pause")).to_be_visible()
    take_picture("switch", page, crop=430)
    ui.switch(page, on=True)
    wait_for(lambda: api.count_runs(DAG_ID, state="success"), timeout=300, what="the live window")
    return connected


@pytest.fixture(scope="module")
def gap() -> tuple[datetime, datetime]:
    """Two hours that nothing but the backfill delivers."""
    start = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    return start, start + timedelta(hours=2)


@pytest.fixture(scope="module")
def backfilled(switched_on: Stack, gap: tuple[datetime, datetime]) -> Stack:
    """Fill the gap from the dialog, with the DAG off meanwhile, and wait until all its runs have ended."""
    page, api, (start, end) = switched_on.page, switched_on.airflow.api, gap
    page.goto(f"/dags/{DAG_ID}")
    ui.switch(page, on=False)
    dialog = ui.open_run_dialog(page)
    dialog.box.get_by_text("Run this Dag for a range of dates").click()
    expect(dialog.box.get_by_role("heading", name="Run Backfill")).to_be_visible()
    times = dialog.box.get_by_test_id("datetime-input")
    dialog.choose_time(times.nth(0), start)
    # The last logical date, which is the beginning of the last window.
    dialog.choose_time(times.nth(1), end - QUARTER)
    dialog.box.get_by_role("spinbutton").fill("8")
    # Ticked, it switches the DAG on while the runs are made.
    dialog.box.get_by_text(f"Unpause {DAG_ID} on trigger").click()
    take_picture("backfill", dialog.box, height=2000)
    # The trigger form is there, too, and anyone may take it for the range of dates. With this it counts.
    dialog.box.get_by_text("Override parameters on existing runs").click()
    dialog.choose_time(ui.form_time(dialog, "Deliver from"), start)
    dialog.choose_time(ui.form_time(dialog, "Deliver until"), end)
    dialog.submit("Run Backfill")
    ui.switch(page, on=True)

    def ended() -> list[dict[str, Any]]:
        runs = api.runs(DAG_ID, run_type="backfill")
        return runs if runs and all(run["state"] in {"success", "failed"} for run in runs) else []

    wait_for(ended, timeout=300, what="the backfill")
    return switched_on


@pytest.mark.parametrize("conn_id", TITLES)
def test_a_form_shows_the_saved_value_of_each_field(connected: Stack, conn_id: str) -> None:
    form = ui.ConnectionForm.edit(connected.page, conn_id)

    form.expect_values(*masked(connected, conn_id))


@pytest.mark.parametrize(
    ("conn_id", "label", "wrong", "remedy"),
    [
        (
            "forge_default",
            "API token",
            "expired",
            r"refused the credentials.*create a new one at https://id\.",
        ),
        (
            "otlp_default",
            "Endpoint",
            "http://127.0.0.1:{port}",
            "nothing listens on that port. Check",
        ),
    ],
)
def test_the_test_button_shows_the_remedy(
    connected: Stack, conn_id: str, label: str, wrong: str, remedy: str
) -> None:
    [port] = free_ports(1)
    with changed(connected, conn_id, label, wrong.format(port=port)):
        message = ui.press_test(connected.page, conn_id)

        expect(message).to_contain_text("Test Connection Failed")
        expect(message).to_contain_text(re.compile(remedy))
        take_picture(f"test-{conn_id.partition('_')[0]}-fails", connected.page, height=560)


@pytest.mark.parametrize(
    ("conn_id", "told"),
    [
        ("forge_default", "environments: development, staging, production.*may read its metrics"),
        ("otlp_default", "answered 200 to an empty request"),
    ],
)
def test_the_test_button_shows_its_findings(connected: Stack, conn_id: str, told: str) -> None:
    message = ui.press_test(connected.page, conn_id)

    expect(message).to_contain_text("Test Connection Successful")
    expect(message).to_contain_text(re.compile(told))
    take_picture(f"test-{conn_id.partition('_')[0]}", connected.page, height=560)


def test_a_task_gets_the_values_of_the_form(connected: Stack, tmp_path: Path) -> None:
    """After all that was changed in the forms, where Airflow shows some values as stars only."""
    file = tmp_path / "connections.json"
    command = [sys.executable, "-m", "airflow", "connections", "export", str(file)]
    subprocess.run(command, env=connected.airflow.env, check=True, capture_output=True)
    exported = json.loads(file.read_text())

    for conn_id, values in connected.values.items():
        saved = exported[conn_id]
        extra = json.loads(saved["extra"])
        standard = ["description", *(field.name for field in FORMS[conn_id].standard)]
        assert extra == {field.name: values[field.name] for field in FORMS[conn_id].extras}
        assert {name: saved[name] for name in standard} == {name: values[name] for name in standard}


def test_a_backfill_turns_the_grid_green(backfilled: Stack) -> None:
    page = backfilled.page
    page.goto(f"/dags/{DAG_ID}")
    squares = ui.grid_cells(page, "backfill")
    expect(squares).to_have_count(8)

    assert [ui.is_green(square) for square in squares.all()] == [True] * 8
    ui.drag_border(page, to=560)
    take_picture("grid", page, crop=340)
    ui.drag_border(page, to=260)


def test_a_backfill_delivers_the_gap_with_the_connections_settings(
    backfilled: Stack, gap: tuple[datetime, datetime]
) -> None:
    start, end = gap
    windows = [(start + n * QUARTER, start + (n + 1) * QUARTER) for n in range(8)]
    asked = [(call.start, call.end) for call in backfilled.gateway.calls if call.operation == "appMetrics"]
    wanted = backfilled.gateway.generated(start, end, environments=ENVIRONMENTS, metrics=METRICS)
    received = Counter(backfilled.sink.points)

    assert sorted(window for window in asked if start <= window[0] < end) == windows
    assert {point: received[point] for point in wanted} == Counter(wanted)
    [*_, request] = backfilled.sink.requests
    assert request.headers["x-api-key"] == OTLP_SECRET
    assert request.headers["x-scope-orgid"] == "our-team"
    assert (request.content_type, request.content_encoding) == ("application/json", "")


def test_a_tasks_log_has_its_results_and_its_details_link_to_the_console(backfilled: Stack) -> None:
    page = backfilled.page
    page.goto(f"/dags/{DAG_ID}")
    ui.grid_cells(page, "scheduled").first.click()

    expect(page.get_by_text(re.compile(r"\d points, [\d,]+ sent")).first).to_be_visible()
    page.get_by_role("heading", name=TASK_ID).hover()
    # Wraps long lines.
    page.keyboard.press("w")
    take_picture("log", page, crop=560)
    page.get_by_role("link", name="Details", exact=True).click()
    link = page.get_by_role("link", name="Atlassian developer console")
    app = backfilled.gateway.app_id.rpartition("/")[2]
    url = f"https://developer.atlassian.com/console/myapps/{app}/overview"
    expect(link).to_have_attribute("href", url)
    take_picture("link", page, crop=520)


def test_a_run_from_the_form_delivers_its_interval(backfilled: Stack, gap: tuple[datetime, datetime]) -> None:
    start, end = gap[0] - 3 * QUARTER, gap[0] - QUARTER
    dialog = ui.open_run_dialog(backfilled.page)
    dialog.choose_time(ui.form_time(dialog, "Deliver from"), start)
    dialog.choose_time(ui.form_time(dialog, "Deliver until"), end)
    dialog.fill("Environments", "production")
    dialog.fill("Metrics", METRICS[0])
    take_picture("trigger", dialog.box, height=1500)
    run_id = trigger(backfilled, dialog)

    expect(backfilled.page.get_by_test_id("state-badge").first).to_contain_text("Success")
    summary = backfilled.airflow.api.xcom(DAG_ID, run_id, TASK_ID)
    assert [parse_time(time) for time in summary["window"].split("/")] == [start, end]
    assert summary["calls"] == 2
    assert summary["sent"] == len(
        backfilled.gateway.generated(start, end, environments=["production"], metrics=METRICS[:1])
    )


def test_a_run_from_the_form_fails_for_an_invalid_field_and_names_it(
    backfilled: Stack, gap: tuple[datetime, datetime]
) -> None:
    page, calls = backfilled.page, len(backfilled.gateway.calls)
    start, end = gap
    dialog = ui.open_run_dialog(page)
    dialog.choose_time(ui.form_time(dialog, "Deliver from"), end)
    dialog.choose_time(ui.form_time(dialog, "Deliver until"), start)
    run_id = trigger(backfilled, dialog)

    expect(page.get_by_test_id("state-badge").first).to_contain_text("Failed")
    page.goto(f"/dags/{DAG_ID}/runs/{run_id}/tasks/{TASK_ID}")
    # The log has it in a line of its own, and in the exception.
    expect(
        page.get_by_text(f"to: {format_time(start)} is not after from, {format_time(end)}").first
    ).to_be_visible()
    assert len(backfilled.gateway.calls) == calls


def masked(stack: Stack, conn_id: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return what a form shows of what was typed."""
    form = FORMS[conn_id]
    labels = {field.label for field in (*form.standard, *form.extras) if field.name in MASKED}
    standard, extras = (
        {label: "***" if label in labels else text for label, text in section.items()}
        for section in stack.typed(conn_id)
    )
    return standard, extras


@contextmanager
def changed(stack: Stack, conn_id: str, label: str, text: str) -> Iterator[None]:
    """Have something else in one of the standard fields for a while."""
    try:
        _change(stack.page, conn_id, label, text)
        yield
    finally:
        _change(stack.page, conn_id, label, stack.typed(conn_id)[0][label])


def _change(page: Page, conn_id: str, label: str, text: str) -> None:
    form = ui.ConnectionForm.edit(page, conn_id)
    form.open_section("Standard Fields")
    form.fill(label, text)
    form.submit("Save")


def trigger(stack: Stack, dialog: ui.Dialog) -> str:
    """Press Trigger and return the id of the run that Airflow then shows."""
    dialog.submit("Trigger")
    stack.page.wait_for_url("**/runs/manual__*")
    return stack.page.url.rpartition("/")[2]
