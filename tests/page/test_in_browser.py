"""The page in a browser, with a stand-in for Airflow that has each state; tests/e2e has a real Airflow."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.fake_airflow import COVERAGE_DAG, FakeAirflow, coverage, dag, document

# Other releases of Airflow are tested without a browser.
pytest.importorskip("playwright")

from playwright.sync_api import Page, Route, expect

from airflow_provider_forge.coverage.coverage import QUARTER
from airflow_provider_forge.windows import floor
from tests.e2e.browser import HEIGHT, WIDTH, browser_page, find_chromium, take_picture

if TYPE_CHECKING:
    from collections.abc import Iterator

NARROW = 390
NOW = dt.datetime.now(dt.timezone.utc)
STATES = {
    "late": (3, 1),
    "empty": (6, 3),
    "rejected": (9, 2),
    "failed": (30, 2),
    "missing": (75, 6),
}
SOON = {**STATES, "missing": (330, 3)}
"""The missing windows are lost within two days."""

GOOD = document(NOW, coverage(NOW))
BAD = document(NOW, coverage(NOW, **STATES))


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with browser_page(find_chromium(), "http://127.0.0.1") as page:
        yield page


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    dags = [dag("forge_metrics", NOW), dag(COVERAGE_DAG, NOW)]
    with FakeAirflow({"forge_metrics": BAD}, dags) as airflow:
        yield airflow


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A page of the browser that fails the test for errors, such as what its own policy has blocked."""
    page = browser.context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if "Security Policy" in said.text else None)
    yield page
    page.close()
    assert not problems


def open_page(page: Page, airflow: FakeAirflow) -> None:
    page.goto(f"{airflow.url}/forge/")
    expect(page.locator("#export:not(.loading)")).to_be_visible()
    expect(page.locator("#message")).to_be_empty()


def squares(page: Page, letter: str) -> int:
    return page.locator(f".grid .is-{letter}").count()


def test_each_status_is_a_colour_and_its_tooltip_has_the_figures(page: Page, airflow: FakeAirflow) -> None:
    open_page(page, airflow)
    assert {letter: squares(page, letter) for letter in "lerfm"} == {"l": 1, "e": 3, "r": 2, "f": 2, "m": 6}
    assert squares(page, "p") >= 1
    page.locator(".grid .is-l").hover()
    tip = page.locator("#tip")
    expect(tip).to_contain_text("Delivered, with late points")
    expect(tip).to_contain_text("Last points 66 min after its end")
    expect(tip).to_contain_text("2 attempts")
    page.locator(".grid .is-e").first.hover()
    expect(tip).to_contain_text("Fetched 7 min after its end")
    airflow.documents["forge_metrics"] = document(NOW, coverage(NOW, **SOON))
    open_page(page, airflow)
    assert (squares(page, "m"), squares(page, "mm")) == (0, 3)


def test_a_check_that_cannot_be_read_does_not_hide_the_others(page: Page, airflow: FakeAirflow) -> None:
    airflow.documents["other"] = document(NOW, coverage(NOW), "other")
    airflow.elsewhere = {"other"}
    page.goto(f"{airflow.url}/forge/")
    expect(page.locator("#exports button")).to_have_count(1)
    expect(page.locator("#message")).to_contain_text("task other: its result is not in Airflow's database")
    airflow.elsewhere = {"other", "forge_metrics"}
    page.reload()
    expect(page.locator("#message")).to_contain_text("where an XCom backend stores it")


DRAWN = """
new MutationObserver(() => {
  if (!window.drawn && document.querySelector("#export:not([hidden]):not(.loading)")) {
    window.drawn = new Promise(done => requestAnimationFrame(() => done(performance.now())));
  }
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
"""Notes when the figures are on the screen, in milliseconds since the page was opened."""

ANSWERED = """
drawn => Math.max(...performance.getEntriesByType("resource")
  .filter(each => each.name.includes("/api/v2/") && each.responseEnd < drawn)
  .map(each => each.responseEnd))
"""


def test_three_exports_are_there_after_five_requests(page: Page, airflow: FakeAirflow) -> None:
    page.add_init_script(DRAWN)
    for number in range(2):
        dag_id = f"other_{number}"
        airflow.documents[dag_id] = document(NOW, coverage(NOW), dag_id)
    with page.expect_response(lambda answer: answer.url.endswith("api/v2/dags?tags=forge&limit=100")):
        page.goto(f"{airflow.url}/forge/")
    expect(page.locator("#exports button")).to_have_count(3)
    drawn = page.evaluate("window.drawn")
    print(f"Three exports were drawn {drawn - page.evaluate(ANSWERED, drawn):.0f} ms after Airflow's answer")
    # What follows is up to date by the second.
    drawn = [call for call in airflow.asked if not call.endswith(("/dagRuns", "/taskInstances"))]
    assert len([call for call in drawn if call.startswith("GET")]) == 5
    page.locator("#exports button", has_text="other_1").click()
    expect(page.locator("#gaps")).to_contain_text("None.")
    expect(page.locator("#exports [aria-current]")).to_contain_text("other_1")


def test_now_and_lateness_are_told(page: Page, airflow: FakeAirflow) -> None:
    open_page(page, airflow)
    now = page.locator("#now")
    for text in ("of 300", "expires in 212 days", "To collector.example.com", "0 running, 0 waiting"):
        expect(now).to_contain_text(text)
    expect(now).to_contain_text("At the check: 4 of 5 in 60 s; waiting: 1 live, 7 backfill")
    expect(page.locator("#lateness")).to_contain_text("7 min")
    expect(page.locator("#lateness")).to_contain_text("and revisit_after found them")


def test_tasks_that_wait_for_a_retry_are_shown_with_the_way_to_their_logs(
    page: Page, airflow: FakeAirflow
) -> None:
    airflow.retries = 8
    open_page(page, airflow)
    link = page.locator("#now").get_by_role("link", name="8 tasks to be retried")
    expect(link).to_have_attribute("href", f"{airflow.url}/dags/forge_metrics/tasks/?state=up_for_retry")


def test_nothing_is_said_of_runs_before_airflow_has_answered(page: Page, airflow: FakeAirflow) -> None:
    held: list[Route] = []
    page.route("**/dags/forge_metrics/dagRuns?*", lambda route: held.append(route))
    page.goto(f"{airflow.url}/forge/")
    expect(page.locator("#export:not(.loading)")).to_be_visible()
    now = page.locator("#now")
    expect(now).to_contain_text("… of 300")
    expect(now).not_to_contain_text("running")
    for route in held:
        route.continue_()
    expect(now).to_contain_text("0 running, 0 waiting")
    expect(now).to_contain_text("0 or more of 300")


def a_run(start: dt.datetime, end: dt.datetime, ended: dt.datetime, **conf: Any) -> dict[str, Any]:
    """Return a successful run for this interval; without a logical date if its conf has the interval."""
    is_form = "from" in conf
    return {
        "dag_run_id": f"manual__{start.isoformat()}",
        "run_type": "manual",
        "state": "success",
        "conf": conf,
        "logical_date": None if is_form else start.isoformat(),
        "data_interval_start": None if is_form else start.isoformat(),
        "data_interval_end": None if is_form else end.isoformat(),
        "end_date": ended.isoformat(),
    }


@pytest.mark.parametrize(
    ("conf", "left"),
    [
        ({}, 0),
        ({"from": "interval", "to": "interval"}, 0),
        ({"check_only": True}, 6),
        ({"environments": "staging"}, 6),
        ({"metrics": "FORGE_API_REQUEST_COUNT"}, 6),
    ],
)
def test_a_run_fills_the_windows_that_it_delivers_and_no_others(
    page: Page, airflow: FakeAirflow, conf: dict[str, Any], left: int
) -> None:
    start = floor(NOW - dt.timedelta(hours=75), QUARTER)
    end = start + 6 * QUARTER
    times = {name: (start if name == "from" else end).isoformat() for name in conf if name in ("from", "to")}
    airflow.runs = [a_run(start, end, NOW + dt.timedelta(minutes=1), **{**conf, **times})]
    open_page(page, airflow)
    expect(page.locator("#now")).to_contain_text("0 running")
    expect(page.locator(".grid .is-m")).to_have_count(left)


def test_calls_of_the_last_hour_are_those_of_runs_before_the_check_too(
    page: Page, airflow: FakeAirflow
) -> None:
    """Windows that are too old for the receiver cost none; nor does a failure while a token is refused."""
    start = floor(NOW - dt.timedelta(hours=2), QUARTER)
    ended = dt.datetime.now(dt.timezone.utc) - dt.timedelta(minutes=30)
    old = NOW - dt.timedelta(days=15)
    failed = {**a_run(start + QUARTER, start + 2 * QUARTER, ended), "state": "failed"}
    airflow.runs = [a_run(start, start + QUARTER, ended), a_run(old, old + QUARTER, ended), failed]
    open_page(page, airflow)
    expect(page.locator("#now")).to_contain_text("1 or more of 300")


def test_a_catchup_is_shown_with_where_it_is_and_leaves_no_gaps(page: Page, airflow: FakeAirflow) -> None:
    start = NOW - dt.timedelta(hours=100)
    found = coverage(NOW, missing=(90, 300)).with_catchup(start)
    airflow.documents["forge_metrics"] = document(NOW, found)
    open_page(page, airflow)
    gaps = page.locator("#gaps")
    expect(gaps).to_contain_text("None so far.")
    expect(gaps).to_contain_text(f"Catchup has come to {start:%Y-%m-%d %H:%M} UTC")
    assert squares(page, "m") == squares(page, "mm") == 0
    assert squares(page, "p") > 300


def test_a_catchup_that_skips_what_is_too_old_for_the_destination_says_so(
    page: Page, airflow: FakeAirflow
) -> None:
    found = coverage(NOW).with_catchup(NOW - dt.timedelta(days=10))
    airflow.documents["forge_metrics"] = {**document(NOW, found), "expire_after": 3600}
    open_page(page, airflow)
    expect(page.locator("#gaps")).to_contain_text("and skips the windows before ")
    expect(page.locator("#days-title")).to_have_text("Last 60 min")


def test_metrics_that_the_gateway_does_not_know_are_named(page: Page, airflow: FakeAirflow) -> None:
    airflow.documents["forge_metrics"] = {**GOOD, "left_out": ["FORGE_API_MADE_UP"]}
    open_page(page, airflow)
    expect(page.locator("#now")).to_contain_text("does not know FORGE_API_MADE_UP")
    airflow.documents["forge_metrics"] = GOOD
    open_page(page, airflow)
    expect(page.locator("#now")).not_to_contain_text("does not know")


def test_a_gap_is_healed_by_a_backfill_of_the_user(page: Page, airflow: FakeAirflow) -> None:
    airflow.healed = GOOD
    open_page(page, airflow)
    page.get_by_role("button", name="Heal the gap of 6 windows").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(
        "6 runs of forge_metrics, each with one call to Atlassian: 2 minutes or more"
    )
    assert "backfills" not in airflow.bodies, "nothing was started yet"
    dialog.get_by_role("button", name="Start 6 runs").click()
    expect(dialog.get_by_role("heading", name="Done")).to_be_visible()
    [body] = airflow.bodies["backfills"]
    start = floor(NOW - dt.timedelta(hours=75), QUARTER)
    assert body == {
        "dag_id": "forge_metrics",
        "from_date": f"{start:%Y-%m-%dT%H:%M:%S}.000Z",
        "to_date": f"{start + 5 * QUARTER:%Y-%m-%dT%H:%M:%S}.000Z",
        "reprocess_behavior": "completed",
        "max_active_runs": 8,
        "run_backwards": False,
    }
    assert f"POST dags/{COVERAGE_DAG}/dagRuns" in airflow.asked
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator("#gaps")).to_contain_text("None.")
    assert (squares(page, "m"), squares(page, "f")) == (0, 0)


def test_all_gaps_are_healed_by_one_backfill_that_leaves_out_what_succeeded(
    page: Page, airflow: FakeAirflow
) -> None:
    open_page(page, airflow)
    page.get_by_role("button", name="Heal all gaps").click()
    expect(page.get_by_role("dialog")).to_contain_text("Windows that were never run")
    assert airflow.bodies["backfills/dry_run"][-1]["reprocess_behavior"] == "failed"
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert "backfills" not in airflow.bodies


def test_who_may_not_start_a_backfill_has_no_button(page: Page, airflow: FakeAirflow) -> None:
    airflow.may_heal = False
    open_page(page, airflow)
    with page.expect_response("**/backfills/dry_run"):
        page.reload()
    expect(page.locator("#gaps li")).to_have_count(2)
    expect(page.locator("#gaps button")).to_have_count(0)


@pytest.mark.parametrize(
    ("status", "title"), [(401, "You are not signed in"), (403, "You may not read the DAGs")]
)
def test_who_may_not_read_sees_nothing(page: Page, airflow: FakeAirflow, status: int, title: str) -> None:
    airflow.refuses = status
    page.goto(f"{airflow.url}/forge/")
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.locator("#export")).to_be_hidden()


EXPORTING, CHECKING = dag("forge_metrics", NOW), dag(COVERAGE_DAG, NOW)
PAUSED = dag("forge_metrics", NOW, paused=True)


@pytest.mark.parametrize(
    ("connections", "dags", "title"),
    [
        ((), (), "There is no Connection yet"),
        (("forge_default",), (), "There is no export yet"),
        ((), (PAUSED, CHECKING), "forge_metrics is paused"),
        ((), (dag("another", NOW, paused=True), EXPORTING), "Nobody checks the deliveries yet"),
        ((), (EXPORTING,), "Nobody checks the deliveries yet"),
        ((), (EXPORTING, dag(COVERAGE_DAG, NOW, paused=True)), f"{COVERAGE_DAG} is paused"),
        ((), (EXPORTING, CHECKING), "No check has found a ledger"),
    ],
)
def test_without_figures_the_page_says_what_to_do(page, airflow, connections, dags, title) -> None:
    airflow.documents, airflow.dags, airflow.connections = {}, list(dags), set(connections)
    page.goto(f"{airflow.url}/forge/")
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    assert page.locator(".empty li").count() >= 1


def test_the_keyboard_reaches_each_window_and_opens_its_run(page: Page, airflow: FakeAirflow) -> None:
    open_page(page, airflow)
    focused = page.locator(".grid [tabindex='0']")
    expect(focused).to_have_count(1)
    focused.focus()
    before = int(focused.get_attribute("data-at") or 0)
    for key in ("ArrowUp", "ArrowUp", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    at = int(page.locator(".grid [tabindex='0']").get_attribute("data-at") or 0)
    assert before - at == (24 * 4 + 1) * 15 * 60_000
    expect(page.locator("#tip")).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/dags/forge_metrics")


def test_times_are_the_users_with_utc_beside(browser: Page, airflow: FakeAirflow) -> None:
    assert browser.context.browser
    context = browser.context.browser.new_context(timezone_id="Asia/Kolkata", locale="en-US")
    page = context.new_page()
    open_page(page, airflow)
    expect(page.locator("#zone")).to_have_text("Times in Asia/Calcutta, with UTC beside")
    expect(page.get_by_role("rowheader", name="02 h UTC, 07:30 h here")).to_have_count(1)
    context.close()


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_nothing_moves_while_it_loads(page: Page, airflow: FakeAirflow, width: int) -> None:
    airflow.delay = 0.2
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver(list => { for (const each of list.getEntries())"
        " window.shift += each.value }).observe({type: 'layout-shift', buffered: true})"
    )
    open_page(page, airflow)
    expect(page.get_by_role("button", name="Heal all gaps")).to_be_visible()
    # An hour each where it is narrow, else a quarter hour, below those of the days.
    expect(page.get_by_role("row")).to_have_count(1 + (24 if width == NARROW else 96))
    # Above 0.1, people notice (web.dev).
    assert page.evaluate("window.shift") < 0.1
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_it_is_accessible_in_each_look(page: Page, airflow: FakeAirflow, width: int, scheme) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.emulate_media(color_scheme=scheme)
    airflow.documents["forge_metrics"] = document(NOW, coverage(NOW, **{**STATES, "missing": (330, 3)}))
    open_page(page, airflow)
    expect(page.get_by_role("button", name="Heal all gaps")).to_be_visible()
    found = axe.run(page).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not serious, [(each["id"], each["nodes"][0]["html"][:200]) for each in serious]
    name = f"page-{'narrow-' if width == NARROW else ''}{scheme}"
    take_picture(name, page.locator("main"), width=width, height=2400 if width == NARROW else 1500)
