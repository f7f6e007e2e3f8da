"""The files that Grafana reads: identical to their source, and complete."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from airflow_provider_forge.delivery import telemetry as own
from airflow_provider_forge.usage.metrics import INSTRUMENTS
from airflow_provider_forge.usage.prices import load_prices
from dashboards.colors import ENVIRONMENTS, QUANTILES, REMOTES, RESOURCES, VERSIONS
from dashboards.generate import DIRECTORY
from demo.waiting import wait_for
from tests.dashboards import usage
from tests.dashboards.asking import ALL, DASHBOARDS, LATENCY, ask, escaped, queries, replaced, substituted
from tests.dashboards.exporter import DESTINATIONS
from tests.dashboards.grafana_colors import color, color_of_series
from tests.dashboards.truth import Frame, own_name
from tests.dashboards.truths import ENVIRONMENT, HOUR, INVOCATIONS, SITE, VERSION

PROVISIONING = DIRECTORY.parent / "provisioning"
DECODED = [json.loads(text) for text in DASHBOARDS.values()]
*OF_FORGE, EXPORTER, USAGE = DECODED
MEANING = ("green", "dark-green", "super-light-green", "red", "dark-red", "super-light-red")


def of_type(dashboard, kind):
    """Return the panels of a type."""
    return [panel for panel in dashboard["panels"] if panel["type"] == kind]


def fixed_colors(panel):
    """Return the colours of series, by their name."""
    return {
        each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"]
        for each in panel["fieldConfig"]["overrides"]
        if each["properties"][0]["id"] == "color"
    }


def series_of(panel, of_day, frame):
    """Return the names of a panel's series."""
    variables = {"app": of_day.app.id, "latency": LATENCY["histogram"], **ALL}
    span = {"start": frame.moment(1), "end": frame.moment(frame.count), "step": frame.step}
    return [
        re.sub(r"{{(\w+)}}", lambda match: series["metric"].get(match[1], ""), target["legendFormat"])  # noqa: B023
        for target in panel["targets"]
        for series in of_day.prometheus.ask(
            "query_range", query=substituted(target["expr"], frame, variables), **span
        )["result"]
    ]


def test_the_files_match_the_source():
    assert {path.name: path.read_text() for path in DIRECTORY.glob("*.json")} == DASHBOARDS


@pytest.mark.parametrize("dashboard", DECODED, ids=lambda dashboard: dashboard["uid"])
class TestDashboard:
    def test_it_has_all_variables_that_its_queries_use(self, dashboard):
        known = {variable["name"] for variable in dashboard["templating"]["list"]}
        expressions = [query.expression for query in queries(dashboard)]
        expressions += [each["expr"] for each in dashboard["annotations"].get("list", ())]
        used = {name for text in expressions for name in re.findall(r"\$(\w+)", text)}
        assert (
            used - {"__interval", "__range"} == known - {"datasource"} or dashboard["uid"] == "forge-exporter"
        )
        assert used - {"__interval", "__range"} <= known

    def test_every_panel_queries_the_chosen_data_source(self, dashboard):
        for panel in dashboard["panels"]:
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            # Each delta point is counted once only if windows do not overlap.
            assert not re.search(r"rate\(|__rate_interval|increase\(", json.dumps(panel["targets"]))

    def test_every_panel_has_a_description(self, dashboard):
        for panel in dashboard["panels"]:
            assert panel["description"].endswith("."), panel["title"]

    def test_every_number_has_colours_and_a_history(self, dashboard):
        for panel in of_type(dashboard, "stat"):
            (target,) = panel["targets"]
            assert (target["range"], panel["maxDataPoints"]) == (True, 25), panel["title"]
            assert panel["options"]["graphMode"] == "area"
            assert panel["options"]["colorMode"] == "value"
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]

    def test_what_is_known_has_its_own_colour_everywhere(self, dashboard):
        for panel in of_type(dashboard, "timeseries"):
            assert panel["fieldConfig"]["defaults"]["color"]["mode"] == "palette-classic"
            colors = fixed_colors(panel)
            for each in (ENVIRONMENTS, VERSIONS, REMOTES, RESOURCES, QUANTILES):
                assert not colors.keys() & each.keys() or colors.items() >= each.items()
            if "outcome" in panel["targets"][0]["legendFormat"]:
                assert colors.items() >= {"delivered": "green", "missing": "red", "pending": "yellow"}.items()
            if "status" in panel["targets"][0]["legendFormat"]:
                assert colors["5xx"] == "red"

    def test_series_have_different_colours_without_a_false_meaning(self, dashboard, of_day):
        """A series that looks like another, or errors that look good."""
        app = of_day.app
        frame = Frame(int(app.start.timestamp()), 6 * HOUR, 4)
        for panel in of_type(dashboard, "timeseries"):
            names = series_of(panel, of_day, frame)
            colors = [color_of_series(name, position, panel) for position, name in enumerate(names)]
            # All outcomes that are losses are red.
            if "outcome" not in panel["targets"][0]["legendFormat"]:
                assert len(set(colors)) == len(set(names)), (panel["title"], names, colors)
            if re.search("error|5xx|4xx", panel["title"], re.IGNORECASE):
                assert not {color(each) for each in MEANING} & set(colors), (panel["title"], names, colors)

    def test_rates_are_compared_with_levels(self, dashboard):
        for panel in of_type(dashboard, "timeseries"):
            if re.search("rate|xx by remote", panel["title"]) and "limit" not in panel["title"]:
                defaults = panel["fieldConfig"]["defaults"]
                assert defaults["custom"]["thresholdsStyle"]["mode"] == "dashed"
                assert len(defaults["thresholds"]["steps"]) == 3

    def test_a_row_links_to_the_dashboards_that_can_be_filtered_by_it(self, dashboard):
        # Usage has no variable for what its tables list.
        for panel in of_type(dashboard, "table") if dashboard is not USAGE else ():
            options = panel["transformations"][1]["options"]
            header = options["renameByName"][min(options["indexByName"], key=options["indexByName"].get)]
            (links,) = [
                each["properties"][0]["value"]
                for each in panel["fieldConfig"]["overrides"]
                if each["matcher"]["options"] == header
            ]
            assert links[0]["title"] == f"Only this {header if header == 'URL' else header.lower()}"
            for link in links:
                uid, variable = re.fullmatch(
                    r"/d/([\w-]+)\?\$\{__url_time_range\}&.*&var-(\w+)=\$\{__value\.raw\}", link["url"]
                ).groups()
                (target,) = [each for each in DECODED if each["uid"] == uid]
                assert variable in {each["name"] for each in target["templating"]["list"]}

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


@pytest.mark.parametrize("dashboard", OF_FORGE, ids=lambda dashboard: dashboard["uid"])
def test_variables_offer_the_existing_values(dashboard, of_day, truths):
    """Each variable depends on those before it, and on the metrics of the dashboard."""
    app = of_day.app
    variables = {
        each["name"]: re.fullmatch(r"label_values\((.*), (\w+)\)", each["query"]).groups()
        for each in dashboard["templating"]["list"]
        if each["type"] == "query"
    }
    names = re.search(r'__name__=~"([^"]+)"', variables["app"][0])[1]
    shown = {name for query in queries(dashboard) for name in re.findall(r"\w+(?={)", query.expression)}
    assert [name for name in shown if not re.fullmatch(names, name)] == []
    labels = [
        sample.labels
        for name, samples in truths["histogram"].samples.items()
        if re.fullmatch(names, name)
        for sample in samples
    ]
    chosen = {"app": app.id, **ALL, "environment": escaped("staging")}
    expected = {"app": {each.id for each in of_day.apps.values()}, "environment": {"production", "staging"}}
    for name, label in {"site": SITE, "version": VERSION, "remote": "remote", "url": "url"}.items():
        values = {each.get(label) for each in labels if each.get(ENVIRONMENT) == "staging"}
        expected[name] = values - {None}
    for name, (selector, label) in variables.items():
        values = expected[name]
        times = {"start": app.start.timestamp(), "end": app.end.timestamp()}
        parameters = {"match[]": replaced(selector, chosen), **times}

        def is_offered(label=label, values=values, parameters=parameters) -> bool:
            return set(of_day.prometheus.ask(f"label/{label}/values", **parameters)) == values

        # While Prometheus compacts, it omits values of out-of-order samples for seconds.
        wait_for(is_offered, timeout=60, what=f"the values of {name}")


@pytest.mark.parametrize(
    "dashboard",
    [each for each in DECODED if each["annotations"].get("list")],
    ids=lambda dashboard: dashboard["uid"],
)
def test_a_new_version_is_marked_once(dashboard, of_day, truths):
    (marks,) = dashboard["annotations"]["list"]
    app = of_day.app
    frame = Frame(int(app.start.timestamp()), 900, int((app.end - app.start).total_seconds()) // 900)
    found = ask(
        of_day.prometheus, substituted(marks["expr"], frame, {"app": app.id, **ALL}), frame, (VERSION,)
    )
    first = {}
    for sample in truths["histogram"].samples[INVOCATIONS]:
        version = sample.labels[VERSION]
        first[version] = min(first.get(version, sample.time), sample.time)
    expected = {(version,): [frame.numbers(time, 900)[0]] for version, time in first.items()}
    assert {key: list(values) for key, values in found.items()} == expected
    assert (marks["step"], marks["titleFormat"]) == ("15m", "{{appVersion}}")


def test_a_dead_exporter_can_be_chosen(of_day):
    """Even if the time range starts long after its death."""
    _, app, _ = EXPORTER["templating"]["list"]
    query = re.fullmatch(r"query_result\((.*)\)", app["query"])[1]
    time = of_day.app.end.timestamp() + 10 * 24 * HOUR
    answer = of_day.prometheus.ask("query", query=query, time=time)["result"]
    # The format in which Grafana matches results with the variable's regular expression.
    labels = [",".join(f'{label}="{value}"' for label, value in each["metric"].items()) for each in answer]
    texts = [f"{{{text}}} 1 1" for text in labels]
    assert [re.search(app["regex"].strip("/"), text)[1] for text in texts] == [of_day.app.id]


def test_the_destinations_of_an_exporter_can_be_chosen(of_day):
    *_, variable = EXPORTER["templating"]["list"]
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
    matched = replaced(selector, {"app": of_day.app.id})
    times = {"start": of_day.app.start.timestamp(), "end": of_day.app.end.timestamp()}
    found = of_day.prometheus.ask(f"label/{label}/values", **{"match[]": matched}, **times)
    assert found == [*DESTINATIONS]
    assert (variable["multi"], variable["includeAll"]) == (True, True)


def test_the_exporter_sends_all_instruments_and_the_dashboard_shows_them(of_day):
    instruments = {each for each in vars(own).values() if isinstance(each, own.Instrument)}
    assert {each.instrument for told in of_day.own for each in told.measurements} == instruments
    expressions = " ".join(query.expression for query in queries(EXPORTER))
    assert {own_name(each) for each in instruments} <= set(re.findall(r"forge_exporter_\w+", expressions))


def test_the_operator_sends_all_instruments_of_usage_and_the_dashboard_shows_them(of_day):
    assert {point.instrument for point in of_day.usage} == set(INSTRUMENTS)
    expressions = " ".join(query.expression for query in queries(USAGE))
    shown = set(re.findall(r"forge_usage_\w+(?={)", expressions))
    # Usage by site and day is for queries of your own: a dashboard would show thousands of rows.
    assert shown == {usage.name_of(each) for each in INSTRUMENTS if each.name != "forge.usage.site.daily"}


def test_the_variables_of_usage_offer_the_existing_values(of_day):
    app = of_day.app
    chosen = {"app": app.id, **ALL}
    times = {"start": app.start.timestamp(), "end": app.end.timestamp()}
    months = {
        point.attributes["forge.usage.month"]
        for point in of_day.usage
        if "forge.usage.month" in point.attributes
    }
    expected = {
        "app": {app.id},
        "environment": {"production", "staging"},
        "month": months,
        "resource": set(usage.USED),
    }
    variables = [each for each in USAGE["templating"]["list"] if each["type"] == "query"]
    assert [each["name"] for each in variables] == list(expected)
    for variable in variables:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
        parameters = {"match[]": replaced(selector, chosen), **times}
        assert set(of_day.prometheus.ask(f"label/{label}/values", **parameters)) == expected[variable["name"]]


def test_known_names_have_different_colours():
    assert RESOURCES.keys() == load_prices().resources.keys()
    for known in (ENVIRONMENTS, VERSIONS, REMOTES, RESOURCES, QUANTILES):
        assert len(set(known.values())) == len(known)


def test_a_version_has_the_colour_of_its_minor_number():
    patterns = [each.strip("/") for each in VERSIONS]
    for minor in range(95, 105):
        matching = [number for number, each in enumerate(patterns) if re.search(each, f"3.{minor}.21")]
        assert matching == [minor % 10]


def test_a_grid_is_drawn_by_grafana():
    grids = [panel for dashboard in DECODED for panel in of_type(dashboard, "status-history")]
    assert grids
    for panel in grids:
        # Grafana refuses more cells than half of the pixels of a row, which is half of a narrow window.
        assert panel["maxDataPoints"] <= 100
        defaults = panel["fieldConfig"]["defaults"]
        assert (defaults["color"]["mode"], defaults["min"]) == ("continuous-YlRd", 0)


def test_a_table_begins_with_the_most():
    for panel in (each for dashboard in DECODED for each in of_type(dashboard, "table")):
        _, organize, sort = panel["transformations"]
        assert sort["options"]["sort"] == [
            {"field": organize["options"]["renameByName"]["Value #A"], "desc": True}
        ]


def test_no_gap_and_no_check_are_displayed_differently():
    panels = {panel["title"]: panel["fieldConfig"]["defaults"] for panel in EXPORTER["panels"]}
    for title in ("Missing windows", "First gap expires in", "Token expires in"):
        assert panels[title]["noValue"] == "no data"
    [mapping] = panels["First gap expires in"]["mappings"]
    assert mapping["options"]["-1"]["text"] == "no gap"


def test_grafana_is_provisioned_with_them():
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    # Points are one minute apart, so no graph may use a shorter interval.
    assert source["jsonData"]["timeInterval"] == "1m"
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "forge.yaml").read_text())["providers"]
    assert provider["type"] == "file"
