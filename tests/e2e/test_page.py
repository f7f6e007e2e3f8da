"""The page *Forge* in a real Airflow: its entry, each state of a cell, a gap that heals, who sees what."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import FrameLocator, Page, expect

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MINUTE
from demo.airflow import PASSWORDS, StandaloneAirflow
from demo.api import AirflowApi
from demo.dagfile import DAG_ID
from demo.waiting import wait_for
from tests.airflow_version import AIRFLOW
from tests.e2e.browser import browser_page, find_chromium
from tests.e2e.dag_runs import connections
from tests.e2e.page_states import CELLS, GAP, KEEP, Cell, States, install_dags
from tests.e2e.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PATIENCE_MS = 180_000

# The map is drawn anew while the page is open, so one step finds a cell and its color.
IN_LEGEND = """(body, cell) => {
    const color = element => getComputedStyle(element).background;
    return [...body.querySelectorAll("#legend li")]
        .filter(item => color(item.querySelector(".square")) === color(body.querySelector(cell)))
        .map(item => item.innerText.trim());
}"""

HAS_PAGES = AIRFLOW >= (3, 1)
needs_pages = pytest.mark.skipif(not HAS_PAGES, reason="Airflow has pages of plugins as of 3.1")


@dataclass
class Paged:
    """An Airflow whose catchup has left a gap and a window of each state, and a browser."""

    airflow: StandaloneAirflow
    page: Page
    states: States

    def log_in(self, user: str) -> None:
        passwords = json.loads((self.airflow.home / PASSWORDS).read_text())
        api = AirflowApi(self.airflow.url, user, passwords[user])
        self.page.context.clear_cookies()
        self.page.context.add_cookies([{"name": "_token", "value": api.token, "url": self.airflow.url}])
        api.close()

    def open(self) -> FrameLocator:
        """Open the page by its entry in Airflow's navigation."""
        self.page.goto("/")
        self.page.get_by_role("link", name="Forge", exact=True).click()
        frame = self.page.frame_locator("iframe")
        expect(frame.locator("#export:not(.loading)")).to_be_visible(timeout=PATIENCE_MS)
        return frame


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paged]:
    chromium, home = find_chromium(), tmp_path_factory.mktemp("page")
    install_dags(home / "dags")
    with SandboxGateway(rate_limit_calls=None) as gateway, OtlpSink() as sink, postgres() as database:
        limit = {"rate_limit_calls": 1000, "rate_limit_seconds": 1}
        # Every Airflow has this store.
        ledger = f"file://{home}/ledger"
        env = connections(gateway, sink.url, forge=limit, max_age=KEEP, ledger_url=ledger)
        env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = "admin:admin,viewer:viewer"
        states = States(gateway, sink)
        states.prepare()
        with (
            StandaloneAirflow(home, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database, **env) as airflow,
            browser_page(chromium, airflow.url) as page,
        ):
            states.produce(airflow)
            yield Paged(airflow, page, states)


def test_the_entry_is_there_where_airflow_has_pages(paged: Paged) -> None:
    paged.log_in("admin")
    paged.page.goto("/")
    # A link, and as of 3.4 a button.
    expect(paged.page.get_by_text("Dags", exact=True).first).to_be_visible()
    expect(paged.page.get_by_role("link", name="Forge", exact=True)).to_have_count(int(HAS_PAGES))
    api = paged.airflow.api
    assert [each["name"] for each in api.get("plugins")["plugins"] if each["name"] == "forge"] == ["forge"]
    assert "Failed to import plugin" not in paged.airflow.processes["standalone"].log()


@needs_pages
def test_a_stranger_sees_nothing(paged: Paged) -> None:
    paged.page.context.clear_cookies()
    paged.page.goto("/forge/")
    expect(paged.page.get_by_role("heading", name="You are not signed in")).to_be_visible()
    for path in ("dags?tags=forge", "dags/~/dagRuns/~/taskInstances/~/xcomEntries"):
        assert httpx.get(f"{paged.airflow.url}/api/v2/{path}", trust_env=False).status_code == 401


@needs_pages
def test_a_viewer_sees_the_gap_and_no_button(paged: Paged) -> None:
    paged.log_in("viewer")
    with paged.page.expect_response("**/backfills/dry_run") as asked:
        frame = paged.open()
    assert asked.value.status == 403
    expect(frame.locator("#gaps li", has_text=f"{GAP} windows")).to_have_count(1)
    expect(frame.locator("#gaps button")).to_have_count(0)


@needs_pages
def test_each_state_is_seen_with_its_figures(paged: Paged) -> None:
    paged.log_in("admin")
    frame = paged.open()
    for cell in CELLS:
        at = f"[data-at='{int(paged.states.window(cell).start.timestamp() * 1000)}']"
        expect(frame.locator(at)).to_have_class(f"square {cell.in_class}")
        assert frame.locator("body").evaluate(IN_LEGEND, at) == [cell.in_legend]
        frame.locator(at).hover()
        expect(frame.locator("#tip")).to_contain_text(cell.state)
        check_tip(frame.locator("#tip p").all_inner_texts(), cell, paged.states)


def check_tip(lines: list[str], cell: Cell, states: States) -> None:
    """Check a tooltip: window, state, points, time of its delivery, deliveries."""
    window = states.window(cell)
    expected = [f"{window.start:%Y-%m-%d %H:%M} UTC to {window.end:%H:%M}", cell.state]
    if cell.has_points:
        expected.append(f"{states.points(cell):,} points")
    if cell.time:
        [minutes] = re.findall(f"^{cell.time} ([0-9,]+) min after its end$", lines[-2])
        moment = window.end + int(minutes.replace(",", "")) * MINUTE
        assert states.began - MINUTE < moment < datetime.now(timezone.utc) + MINUTE
        expected.append(lines[-2])
    if cell.deliveries:
        expected.append("1 attempt" if cell.deliveries == 1 else f"{cell.deliveries} attempts")
    assert lines == expected


@needs_pages
def test_the_button_heals_the_gap_and_the_map_turns_green(paged: Paged) -> None:
    paged.log_in("admin")
    frame = paged.open()
    green = frame.locator(".grid .is-d")
    before = green.count()
    frame.get_by_role("button", name=f"Heal the gap of {GAP} windows").click()
    frame.get_by_role("button", name=f"Start {GAP} runs").click()
    for meanwhile in ("is-h", "is-s"):
        expect(frame.locator(f".grid .{meanwhile}")).not_to_have_count(0, timeout=PATIENCE_MS)
    expect(frame.get_by_role("heading", name="Done")).to_be_visible(timeout=PATIENCE_MS)
    frame.get_by_role("button", name="Close").click()
    expect(frame.locator("#gaps li", has_text=f"{GAP} windows")).to_have_count(0)
    wait_for(lambda: green.count() >= before + GAP, timeout=60, what="the map to turn green")


@needs_pages
def test_a_cell_opens_its_run_in_airflows_grid(paged: Paged) -> None:
    paged.log_in("admin")
    paged.open().locator(".grid .is-d").last.click()
    paged.page.wait_for_url(f"**/dags/{DAG_ID}/runs/**")
