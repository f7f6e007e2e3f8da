"""Every query of every dashboard returns the result computed from the data that the sandbox has served."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.dashboards.asking import ALL, DASHBOARDS, LATENCY, Query, ask, escaped, queries, substituted
from tests.dashboards.exporter import DESTINATIONS
from tests.dashboards.truth import Frame
from tests.dashboards.truths import DESTINATION, ENVIRONMENT, INVOCATIONS, SITE, VERSION, Asked
from tests.dashboards.truths import TRUTHS as TRUTHS_OF_METRICS
from tests.dashboards.usage_truths import TRUTHS as TRUTHS_OF_USAGE

if TYPE_CHECKING:
    from tests.dashboards.day import App, Day
    from tests.dashboards.truth import Truth

pytestmark = pytest.mark.timeout(600)

TRUTHS = TRUTHS_OF_METRICS | TRUTHS_OF_USAGE
QUARTER_HOUR = 900
QUERIES = [query for text in DASHBOARDS.values() for query in queries(json.loads(text))]
OF_EXPORTER = [query for query in QUERIES if query.dashboard == "forge-exporter"]
OF_LATENCY = [query for query in QUERIES if "$latency" in query.expression]


def frames_of(app: App, query: Query) -> list[Frame]:
    """Return steps of 15 minutes for a graph; for a single number, the whole period and half of it."""
    start, seconds = int(app.start.timestamp()), int((app.end - app.start).total_seconds())
    if query.is_instant:
        return [Frame(start, seconds, 1), Frame(start, seconds // 2, 1)]
    if "offset 1d" in query.expression:
        start += seconds  # there are data of one day only
    return [Frame(start, QUARTER_HOUR, seconds // QUARTER_HOUR)]


def check(query: Query, of_day: Day, truth: Truth, shape: str, chosen: dict[str, str]) -> bool:
    """Send a query as Grafana does, compare the complete result, and return whether there was any."""
    frames = frames_of(of_day.apps[shape], query)
    return any(check_frame(query, frame, of_day, truth, shape, chosen) for frame in frames)


def check_frame(
    query: Query, frame: Frame, of_day: Day, truth: Truth, shape: str, chosen: dict[str, str]
) -> bool:
    app = of_day.apps[shape]
    expected = TRUTHS[query.key](Asked(truth, frame, shape, chosen))
    names = {
        "environment": ENVIRONMENT,
        "site": SITE,
        "version": VERSION,
        "destination": DESTINATION,
    }
    values = {name: escaped(chosen[label]) for name, label in names.items() if label in chosen}
    variables = {"app": app.id, "latency": LATENCY[shape], **ALL, **values}
    found = ask(of_day.prometheus, substituted(query.expression, frame, variables), frame, expected.by)
    assert expected.keys() - expected.optional <= found.keys() <= expected.keys()
    for key, values_found in found.items():
        assert values_found.keys() == expected[key].keys(), key
        for number, value in values_found.items():
            right = expected[key][number]
            assert math.isclose(value, right, rel_tol=1e-9, abs_tol=1e-9), (key, number, value, right)
    return bool(found)


def test_every_query_has_an_expected_response():
    assert {query.key for query in QUERIES} == TRUTHS.keys()
    assert len(QUERIES) == len(TRUTHS)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: "/".join(query.key))
def test_the_query_returns_the_served_points(query, of_day, truths):
    answered = check(query, of_day, truths["histogram"], "histogram", {})
    is_of_another_type = "vector($latency) == 1" not in query.expression and query in OF_LATENCY
    assert answered is not is_of_another_type


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: "/".join(query.key))
def test_the_query_respects_the_variables(query, of_day, truths):
    """One environment, and one of the versions that its busiest site has had."""
    truth = truths["histogram"]
    served = [sample.labels for sample in truth.samples[INVOCATIONS]]
    production = [labels for labels in served if labels[ENVIRONMENT] == "production"]
    [(site, _)] = Counter(labels[SITE] for labels in production).most_common(1)
    version, other, *_ = sorted({labels[VERSION] for labels in production if labels[SITE] == site})
    for chosen in ({}, {SITE: site, VERSION: version}, {SITE: site, VERSION: other}):
        check(query, of_day, truth, "histogram", {ENVIRONMENT: "production", **chosen})


@pytest.mark.parametrize("query", OF_EXPORTER, ids=lambda query: "/".join(query.key))
def test_one_destination_can_be_chosen(query, of_day, truths):
    for destination in DESTINATIONS:
        assert check(query, of_day, truths["histogram"], "histogram", {DESTINATION: destination})


@pytest.mark.parametrize("shape", ["exponential_histogram", "summary", "gauge"])
@pytest.mark.parametrize("query", OF_LATENCY, ids=lambda query: "/".join(query.key))
def test_a_latency_of_another_type(query, shape, of_day, truths):
    switch = f"vector($latency) == {LATENCY[shape]}"
    assert check(query, of_day, truths[shape], shape, {}) is (switch in query.expression)
