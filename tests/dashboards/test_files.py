"""The files that Grafana reads: as their source makes them, and with all that they need."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from dashboards.generate import DIRECTORY
from demo.waiting import wait_for
from tests.dashboards.asking import ALL, DASHBOARDS, escaped, queries, replaced
from tests.dashboards.truths import ENVIRONMENT, INVOCATIONS, SITE, VERSION

PROVISIONING = DIRECTORY.parent / "provisioning"
DECODED = [json.loads(text) for text in DASHBOARDS.values()]


def test_they_are_what_the_source_makes():
    assert {path.name: path.read_text() for path in DIRECTORY.glob("*.json")} == DASHBOARDS


@pytest.mark.parametrize("dashboard", DECODED, ids=lambda dashboard: dashboard["uid"])
class TestDashboard:
    def test_it_has_all_variables_that_its_queries_use(self, dashboard):
        known = {variable["name"] for variable in dashboard["templating"]["list"]}
        used = {name for query in queries(dashboard) for name in re.findall(r"\$(\w+)", query.expression)}
        assert (
            used - {"__interval", "__range"} == known - {"datasource"} or dashboard["uid"] == "forge-exporter"
        )
        assert used - {"__interval", "__range"} <= known

    def test_every_panel_asks_the_data_source_that_is_chosen(self, dashboard):
        for panel in dashboard["panels"]:
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            # Delta points are counted once each only where windows do not overlap.
            assert not re.search(r"rate\(|__rate_interval|increase\(", json.dumps(panel["targets"]))

    def test_panels_do_not_overlap(self, dashboard):
        places = [
            (x, y)
            for panel in dashboard["panels"]
            for place in [panel["gridPos"]]
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(places) == len(set(places))
        assert max(x for x, _ in places) < 24


def test_variables_offer_what_there_is(of_day, truths):
    """Each by the ones before it."""
    app = of_day.app
    labels = [sample.labels for sample in truths["histogram"].samples[INVOCATIONS]]
    variables = {
        each["name"]: each["query"] for each in DECODED[0]["templating"]["list"] if each.get("query")
    }
    chosen = {"app": app.id, **ALL, "environment": escaped("staging")}
    expected = {
        "app": {each.id for each in of_day.apps.values()},
        "environment": {"production", "staging"},
        "site": {each[SITE] for each in labels if each[ENVIRONMENT] == "staging"},
        "version": {each[VERSION] for each in labels if each[ENVIRONMENT] == "staging"},
    }
    for name, values in expected.items():
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variables[name]).groups()
        times = {"start": app.start.timestamp(), "end": app.end.timestamp()}
        parameters = {"match[]": replaced(selector, chosen), **times}

        def is_offered(label=label, values=values, parameters=parameters) -> bool:
            return set(of_day.prometheus.ask(f"label/{label}/values", **parameters)) == values

        # While Prometheus compacts, it leaves out values of what came out of order, for seconds.
        wait_for(is_offered, timeout=60, what=f"the values of {name}")


def test_grafana_is_told_where_they_are():
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    # A point a minute, so no graph may ask for shorter intervals.
    assert source["jsonData"]["timeInterval"] == "1m"
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "forge.yaml").read_text())["providers"]
    assert provider["type"] == "file"
