"""The first hour as the README tells it, in a browser: Connections, Test, switch, square, log, history.

The destination keeps points for an hour, like Datadog. The tests go on from one another, in their order.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW, SETTLE_DELAY, Window, ceil
from demo.airflow import StandaloneAirflow
from demo.api import parse_time
from demo.dagfile import DAG_ID, TASK_ID, install_dag
from demo.waiting import wait_for
from tests.e2e import airflow_ui as ui
from tests.e2e.browser import browser_page, find_chromium
from tests.e2e.deployment import API_TOKEN, EMAIL
from tests.e2e.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.sandbox import Point

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

WINDOWS = 24
"""Windows of the history: six hours, in place of 14 days."""
MAX_AGE = timedelta(hours=1)
LIMIT = {"rate_limit_calls": 5, "rate_limit_seconds": 6}


@dataclass
class Newcomer:
    """Somebody who has installed everything and has logged in."""

    page: Page
    airflow: StandaloneAirflow
    gateway: SandboxGateway
    sink: OtlpSink

    def generated(self, start: datetime, end: datetime) -> Counter[Point]:
        """Return all points that an export without options has for [start, end)."""
        made = self.gateway.generated(start, end, environments=["production"], metrics=DEFAULT_METRICS)
        return Counter(made)

    def reached(self, window: Window) -> bool:
        """Return whether the catchup has a run for a window."""
        runs = self.airflow.api.runs(DAG_ID, run_type="scheduled")
        return any(parse_time(run["logical_date"]) >= window.start for run in runs)

    def received(self) -> Counter[Point]:
        """Return all points that the destination has, with how often it got each."""
        return Counter(self.sink.points)


@dataclass
class Started:
    """The moment at which the DAG was unpaused, and the newest window that had settled then."""

    at: datetime
    newest: Window

    @property
    def accepted_since(self) -> datetime:
        """Start of the windows that are accepted; older ones may be too old when their task starts."""
        return ceil(self.at + timedelta(minutes=3) - MAX_AGE, MAX_WINDOW)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    chromium, home = find_chromium(), tmp_path_factory.mktemp("first_hour")
    install_dag(home / "dags", retry_delay=timedelta(seconds=5), retention=WINDOWS * MAX_WINDOW)
    settings = {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    with (
        SandboxGateway(email=EMAIL, api_token=API_TOKEN, **LIMIT) as gateway,
        OtlpSink() as sink,
        postgres() as database,
        StandaloneAirflow(home, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database, **settings) as airflow,
        browser_page(chromium, airflow.url) as page,
    ):
        airflow.wait_for_dag(DAG_ID)
        ui.log_in(page, airflow.username, airflow.password)
        yield Newcomer(page, airflow, gateway, sink)


@pytest.fixture(scope="module")
def connected(newcomer: Newcomer) -> Newcomer:
    """Add both Connections through their forms, with 0 as the Port, as step 4 says."""
    limit = {"Rate limit: calls": "5", "Rate limit: seconds": "6"}
    account = {"Atlassian account email": EMAIL, "API token": API_TOKEN, "Gateway URL": newcomer.gateway.url}
    forms = {
        "forge_default": ("Atlassian Forge", account, {"App ID": newcomer.gateway.app_id, **limit}),
        "otlp_default": (
            "OpenTelemetry Protocol (OTLP)",
            {"Endpoint": newcomer.sink.url},
            {"Maximum age of points": "1h"},
        ),
    }
    for conn_id, (title, standard, extras) in forms.items():
        form = ui.ConnectionForm.add(newcomer.page, conn_id, title)
        form.fill_in({**standard, "Port": "0"}, extras)
        form.submit("Save")
        expect(ui.connection_row(newcomer.page, conn_id)).to_be_visible()
    return newcomer


@pytest.fixture(scope="module")
def started(connected: Newcomer) -> Started:
    """Switch the DAG on in the list of DAGs."""
    connected.page.goto("/dags")
    ui.switch(connected.page, on=True)
    now = datetime.now(timezone.utc)
    return Started(now, Window.last_settled(now))


@pytest.mark.parametrize("conn_id", ["forge_default", "otlp_default"])
def test_a_connection_made_by_the_form_passes_its_test(connected: Newcomer, conn_id: str) -> None:
    expect(ui.press_test(connected.page, conn_id)).to_contain_text("Test Connection Successful")


def test_the_newest_window_is_the_first_green_square(
    connected: Newcomer, started: Started, record_property: Any
) -> None:
    wanted = connected.generated(started.newest.start, started.newest.end)
    wait_for(lambda: wanted <= connected.received(), timeout=300, what="the newest window")
    seconds = (datetime.now(timezone.utc) - started.at).total_seconds()
    record_property("seconds_from_unpausing_to_newest_window", seconds)
    print(f"newest window at the destination {seconds:.0f} s after unpausing")

    page = connected.page
    page.goto(f"/dags/{DAG_ID}")
    square = ui.grid_cells(page, "live").first
    expect(square).to_be_visible()
    wait_for(lambda: ui.is_green(square), timeout=120, what="a green square")
    square.click()
    expect(page.get_by_text(re.compile(r"\d points, [\d,]+ sent")).first).to_be_visible()


def test_no_square_is_red_during_the_whole_history(connected: Newcomer, started: Started) -> None:
    page, api = connected.page, connected.airflow.api
    seen: list[list[int]] = []
    page.goto(f"/dags/{DAG_ID}")
    # Wide enough for ten runs.
    ui.drag_border(page, to=560)

    def ended() -> bool:
        # Airflow's page does not show new runs by itself.
        page.reload()
        expect(ui.grid_cells(page).first).to_be_visible()
        seen.extend(ui.colors(ui.grid_cells(page)))
        runs = api.runs(DAG_ID)
        return connected.reached(started.newest) and all(
            run["state"] in {"success", "failed"} for run in runs
        )

    wait_for(ended, timeout=900, what="the history", every=5.0)
    assert not [color for color in seen if ui.is_red(color)]
    assert len(set(map(tuple, seen))) > 1, "green and pink at least"
    assert api.count_runs(DAG_ID, state="failed") == 0
    assert {task["state"] for task in api.task_instances(DAG_ID)} == {"success", "skipped"}


def test_windows_that_are_too_old_are_skipped_and_the_first_log_says_how_many_and_the_remedy(
    connected: Newcomer,
) -> None:
    page, api = connected.page, connected.airflow.api
    tasks = sorted(api.task_instances(DAG_ID), key=lambda task: task["dag_run_id"])
    skipped = [task["dag_run_id"] for task in tasks if task["state"] == "skipped"]
    assert len(skipped) >= WINDOWS - 6
    first, second = skipped[:2]
    told = [task["dag_run_id"] for task in tasks if "windows of Atlassian" in api.task_log(task)]
    assert told == [first]
    for run_id, *lines in (
        (first, r"1,340 of the windows of .* are skipped", "raise the OTLP Connection's extra max_age"),
        (second, r"is skipped: the destination discards points older than 1 hour"),
    ):
        page.goto(f"/dags/{DAG_ID}/runs/{run_id}/tasks/{TASK_ID}")
        for line in lines:
            expect(page.get_by_text(re.compile(line)).first).to_be_visible()


def test_each_point_that_the_destination_accepts_arrives_once(connected: Newcomer, started: Started) -> None:
    received = connected.received()
    accepted = connected.generated(started.accepted_since, started.newest.end)
    assert {point: received[point] for point in accepted} == accepted
    assert set(received.values()) == {1}
    assert not [call for call in connected.gateway.calls if call.status == 429]


def test_they_do_not_wait_for_the_catchup(connected: Newcomer, started: Started) -> None:
    """Which would reach them too late if it skipped 14 days before."""
    [healing] = [run for run in connected.airflow.api.runs(DAG_ID) if run["dag_run_id"].startswith("heal__")]
    assert healing["state"] == "success"
    assert parse_time(healing["conf"]["from"]) <= started.accepted_since
    assert parse_time(healing["conf"]["to"]) <= started.newest.start


def test_the_page_says_when_the_next_window_comes(connected: Newcomer) -> None:
    runs = connected.airflow.api.runs(DAG_ID, run_type="scheduled")
    following = parse_time(runs[-1]["data_interval_end"]) + MAX_WINDOW + SETTLE_DELAY
    # The second one if the first has just come.
    times = "|".join(f"{moment:%Y-%m-%d %H:%M:00}" for moment in (following, following + MAX_WINDOW))
    connected.page.goto(f"/dags/{DAG_ID}")
    expect(connected.page.get_by_text("Next Run")).to_be_visible()
    expect(connected.page.get_by_text(re.compile(times)).first).to_be_visible()
