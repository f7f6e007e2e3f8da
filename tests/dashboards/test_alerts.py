"""The alert rules: promtool's own tests, and each expression against the data that the sandbox has served."""

from __future__ import annotations

import math
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.dashboards.asking import ask
from tests.dashboards.day import CONFIGURATION
from tests.dashboards.truth import Frame, Table, Truth, highest, latest_by_series, quantile, total
from tests.dashboards.truths import (
    API_LATENCY,
    DAG,
    DESTINATION,
    ENVIRONMENT,
    ERRORS,
    HOUR,
    INVOCATION_LATENCY,
    INVOCATIONS,
    REQUESTS,
    SITE,
    WEEK,
)
from tests.receivers.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.dashboards.day import Day

pytestmark = pytest.mark.timeout(600)

ROOT = CONFIGURATION.parents[2]
FILES = sorted(CONFIGURATION.parent.glob("rules/*.yaml"))
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for path in FILES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
}
DAY, HALF_HOUR = 24 * HOUR, 1800
CRITICAL_IN_PRODUCTION = (
    '{{ if eq $labels.deployment_environment_name "production" }}critical{{ else }}warning{{ end }}'
)
OF_APP = ("atlassian_forge_app_id",)
RESOURCE = "forge_usage_resource"
OF_ENVIRONMENT, OF_DAG = (*OF_APP, ENVIRONMENT), (*OF_APP, DAG)
OF_DESTINATION = (*OF_DAG, DESTINATION)


class Moments:
    """The ground truth at each half hour of a period."""

    def __init__(self, truth: Truth, frame: Frame) -> None:
        self.truth = truth
        self.frame = frame

    def hour(self, name: str, by: tuple[str, ...], reduce: Callable = total, **more: Any) -> Table:
        return self.truth.reduced(name, by, self.frame, reduce, reach=HOUR, **more)

    def day_before(self, name: str, by: tuple[str, ...], reduce: Callable = total) -> Table:
        return self.truth.reduced(name, by, self.frame, reduce, reach=DAY, offset=HOUR)

    def latest(self, name: str, by: tuple[str, ...]) -> Table:
        return self.truth.reduced(
            name, by, self.frame, lambda samples: min(latest_by_series(samples)), reach=2 * HOUR
        )

    def usage(
        self, name: str, by: tuple[str, ...], reduce: Callable[[list[float]], float], *, reach: int = 2 * DAY
    ) -> Table:
        return self.truth.reduced(
            f"forge_usage_{name}",
            by,
            self.frame,
            lambda samples: reduce(latest_by_series(samples)),
            reach=reach,
        )

    def series(self, name: str, reach: int) -> Table:
        return self.truth.reduced(
            name, OF_DAG, self.frame, lambda samples: len(latest_by_series(samples)), reach=reach
        )


def above(threshold: float) -> Callable[[int, float], float | None]:
    return lambda _, value: value if value > threshold else None


def between(low: float, high: float) -> Callable[[int, float], float | None]:
    return lambda _, value: value if low < value < high else None


def share(part: Table, whole: Table, least: int) -> Table:
    """Return the ratio of a part to the whole, if the whole has a minimum size."""
    return part.joined(whole, lambda some, all_of_it: some / all_of_it if all_of_it >= least else None)


def error_rate(moments: Moments, by: tuple[str, ...], least: int) -> Table:
    return share(moments.hour(ERRORS, by), moments.hour(INVOCATIONS, by), least)


def api_error_rate(moments: Moments) -> Table:
    by = (*OF_ENVIRONMENT, "remote")
    failed = moments.hour(REQUESTS, by, where=lambda labels: labels["status"] == "5xx")
    return share(failed, moments.hour(REQUESTS, by), 50).map(above(0.1))


def risen(moments: Moments, by_at_least: float = 0.03) -> Table:
    now = error_rate(moments, OF_ENVIRONMENT, 300)
    whole, part = (moments.day_before(name, OF_ENVIRONMENT) for name in (INVOCATIONS, ERRORS))
    enough = whole.map(lambda _, count: count if count >= 1000 else None)
    before = enough.joined(part, lambda all_of_it, some: (some or 0) / all_of_it)
    return now.joined(before, lambda new, old: None if old is None else new - old).map(above(by_at_least))


def slow(moments: Moments, name: str, count: str, by: tuple[str, ...], *, times: float = 2) -> Table:
    now, before = moments.hour(name, by, quantile(0.95)), moments.day_before(name, by, quantile(0.95))
    slower = now.joined(before, lambda new, old: new if old is not None and new > times * old else None)
    return slower.map(above(500)).joined(
        moments.hour(count, by), lambda slowest, calls: slowest if calls and calls >= 50 else None
    )


def missing(moments: Moments) -> Table:
    def two_hours(offset: int) -> Table:
        return moments.truth.reduced(
            INVOCATIONS, OF_ENVIRONMENT, moments.frame, total, reach=2 * HOUR, offset=offset
        )

    return two_hours(WEEK).joined(
        two_hours(0), lambda before, now: before if before >= 20 and now is None else None
    )


def silent(moments: Moments, name: str, reach: int) -> Table:
    return moments.series(name, WEEK).joined(
        moments.series(name, reach), lambda before, now: before if now is None else None
    )


def late(moments: Moments) -> Table:
    newest = moments.truth.reduced(
        "forge_exporter_window_end_seconds", OF_DESTINATION, moments.frame, highest, reach=WEEK
    )
    return newest.map(lambda number, end: moments.frame.moment(number) - end).map(above(HOUR))


def failing(moments: Moments) -> Table:
    failures = moments.hour("forge_exporter_failures_total", (*OF_DESTINATION, "error_type"))
    return failures.map(above(1.5))


def rejected(moments: Moments) -> Table:
    def where(labels: dict[str, str]) -> bool:
        return labels["forge_exporter_outcome"] == "rejected"

    return moments.hour("forge_exporter_points_total", OF_DESTINATION, where=where).map(above(0))


def utilization(moments: Moments, low: float, high: float) -> Table:
    table = moments.usage("allowance_utilization_ratio", (*OF_APP, RESOURCE), max)
    return table.map(lambda _, value: value if low <= value < high else None)


def above_budget(moments: Moments) -> Table:
    forecast, budget = (
        moments.usage(name, OF_APP, reduce) for name, reduce in (("cost_forecast", sum), ("budget", max))
    )
    return forecast.joined(budget, lambda cost, most: cost if most is not None and cost > most else None)


def not_refreshed(moments: Moments) -> Table:
    stale = Table((*OF_APP, RESOURCE))
    for name in ("refresh_seconds", "data_end_seconds"):
        newest = moments.usage(name, (*OF_APP, RESOURCE), max, reach=WEEK)
        ages = newest.map(lambda number, time: moments.frame.moment(number) - time)
        stale.update(ages.map(above(2 * DAY)))
    return stale


TRUTHS: dict[str, Callable[[Moments], Table]] = {
    "ForgeAllowanceNearlyUsed": lambda moments: utilization(moments, 0.8, 1),
    "ForgeAllowanceUsedUp": lambda moments: utilization(moments, 1, math.inf),
    "ForgeCostAboveBudget": above_budget,
    "ForgeUsageNotRefreshed": not_refreshed,
    "ForgeErrorRateHigh": lambda moments: error_rate(moments, OF_ENVIRONMENT, 50).map(above(0.1)),
    "ForgeSiteErrorRateHigh": lambda moments: error_rate(moments, (*OF_ENVIRONMENT, SITE), 10).map(
        above(0.5)
    ),
    "ForgeSuccessRateDropped": risen,
    "ForgeApiErrorRateHigh": api_error_rate,
    "ForgeLatencyHigh": lambda moments: slow(moments, INVOCATION_LATENCY, INVOCATIONS, OF_ENVIRONMENT),
    "ForgeApiLatencyHigh": lambda moments: slow(moments, API_LATENCY, REQUESTS, (*OF_ENVIRONMENT, "remote")),
    "ForgeMetricsMissing": missing,
    "ForgeExporterSilent": lambda moments: silent(moments, "forge_exporter_heartbeat", HOUR),
    "ForgeCoverageSilent": lambda moments: silent(moments, "forge_exporter_coverage", 3 * HOUR),
    "ForgeExporterLate": late,
    "ForgeExporterFailing": failing,
    "ForgePointsRejected": rejected,
    "ForgeGapExpiring": lambda moments: moments.latest(
        "forge_exporter_gap_expiry_seconds", OF_DESTINATION
    ).map(between(1800, 48 * HOUR)),
    "ForgePointsLate": lambda moments: moments.latest("forge_exporter_late_ratio", OF_DESTINATION).map(
        above(0.05)
    ),
    "ForgeTokenExpiring": lambda moments: moments.latest("forge_exporter_token_expiry_seconds", OF_DAG).map(
        between(-math.inf, 14 * DAY)
    ),
}
# Alerts that the sandbox's day does not trigger, with thresholds that it does reach: the text to replace in
# the expression, its replacement, and the expected times.
LOWERED: dict[str, tuple[str, str, Callable[[Moments], Table]]] = {
    "ForgeErrorRateHigh": (
        "> 0.1",
        "> 0.005",
        lambda moments: error_rate(moments, OF_ENVIRONMENT, 50).map(above(0.005)),
    ),
    "ForgeSuccessRateDropped": ("> 0.03", "> 0.001", lambda moments: risen(moments, 0.001)),
    "ForgeLatencyHigh": (
        "2 * histogram",
        "0.9 * histogram",
        lambda moments: slow(moments, INVOCATION_LATENCY, INVOCATIONS, OF_ENVIRONMENT, times=0.9),
    ),
}
# Only the next week has data from the week before.
IN_THE_NEXT_WEEK = {"ForgeMetricsMissing", "ForgeUsageNotRefreshed"}


@pytest.fixture(scope="module")
def truth(truths: dict[str, Truth]) -> Truth:
    """The ground truth of all apps together."""
    every = defaultdict(list)
    for each in truths.values():
        for name, samples in each.samples.items():
            every[name] += samples
    return Truth(every)


def test_every_alert_has_an_expectation():
    assert RULES.keys() == TRUTHS.keys()


@pytest.mark.parametrize("weeks", [0, 1], ids=["that day", "a week later"])
@pytest.mark.parametrize("alert", RULES)
def test_it_fires_for_the_served_data(alert, weeks, of_day, truth):
    found = compare(of_day, truth, RULES[alert]["expr"], TRUTHS[alert], weeks)
    assert found or weeks != (alert in IN_THE_NEXT_WEEK) or alert in LOWERED


@pytest.mark.parametrize("alert", LOWERED)
def test_it_fires_with_a_threshold_that_is_reached(alert, of_day, truth):
    old, new, when = LOWERED[alert]
    assert old in RULES[alert]["expr"]
    assert compare(of_day, truth, RULES[alert]["expr"].replace(old, new), when)


def compare(
    of_day: Day, truth: Truth, expression: str, when: Callable[[Moments], Table], weeks: int = 0
) -> Table:
    """Compare the times when an expression fires with the expected ones, and return them.

    Args:
        of_day: The Prometheus to query.
        truth: The ground truth.
        expression: PromQL.
        when: Returns the expected times.
        weeks: Time between that day and the evaluation, in weeks.
    """
    start = int(of_day.app.start.timestamp()) + weeks * WEEK
    # Until long after its end.
    frame = Frame(start, HALF_HOUR, 30 * 2)
    expected = when(Moments(truth, frame))
    found = ask(of_day.prometheus, expression, frame, expected.by)
    assert {key: values.keys() for key, values in found.items()} == {
        key: values.keys() for key, values in expected.items()
    }
    for key, values in found.items():
        for number, value in values.items():
            assert math.isclose(value, expected[key][number], rel_tol=1e-9), (key, number)
    return found


def test_prometheus_has_them_all(of_day):
    groups = of_day.prometheus.ask("rules")["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == RULES.keys()


@pytest.mark.parametrize("alert", RULES)
def test_it_describes_the_problem_and_links_the_runbook(alert):
    rule = RULES[alert]
    assert rule["labels"]["severity"] in {"warning", "critical", CRITICAL_IN_PRODUCTION}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert anchor == alert.lower()
    assert alert in headings


@pytest.mark.parametrize(
    "arguments", [("check", "rules", *map(str, FILES)), ("check", "config", str(CONFIGURATION))]
)
def test_promtool_finds_nothing_wrong(arguments):
    promtool(*arguments)


def test_promtool_tests_the_rules():
    cases = sorted(Path(__file__).parent.glob("alert_rules_*.yaml"))
    tested = {
        test["alertname"]
        for path in cases
        for group in yaml.safe_load(path.read_text())["tests"]
        for test in group["alert_rule_test"]
        if test["exp_alerts"]
    }
    assert tested == RULES.keys()
    promtool("test", "rules", *map(str, cases))


def promtool(*arguments: str) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
