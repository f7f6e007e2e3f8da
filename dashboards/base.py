"""The parts that all dashboards share: name, time range, variables, and links to each other."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.panels import DATASOURCE
from dashboards.promql import APP, ENVIRONMENT, GAUGE, HISTOGRAM, INVOCATIONS, SITE, SUMMARY, VERSION

__all__ = [
    "KEPT",
    "LATENCY",
    "base",
    "exporter_variable",
    "label_variable",
    "variables_for",
    "with_all",
]

TAG = "forge"
NAMES = {ENVIRONMENT: "environment", SITE: "site", VERSION: "version"}
# Prometheus' default retention.
KEPT = "15d"


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def label_variable(name: str, metrics: str, label: str, *matchers: str) -> dashboard.QueryVariable:
    """Return a single-value variable with the values of a label.

    Args:
        name: Name of the variable.
        metrics: Regular expression for the names of the metrics that have the label.
        label: The label.
        matchers: Matchers with the variables before it.
    """
    selector = ", ".join((f'__name__=~"{metrics}"', *matchers))
    return _variable(name, f"label_values({{{selector}}}, {label})")


def variables_for(metrics: str, *labels: str) -> list[dashboard.QueryVariable]:
    """Return a single-value variable for the app, and multi-value variables for labels, all values selected.

    Each variable offers the values that match the selection in those before it.

    Args:
        metrics: Regular expression for the names of the dashboard's own metrics: others may not be exported.
        labels: `ENVIRONMENT`, `SITE` and `VERSION`, or the first ones of them.
    """
    variables = [label_variable("app", metrics, APP)]
    for number, label in enumerate(labels, start=1):
        variables.append(
            with_all(label_variable(NAMES[label], metrics, label, *INVOCATIONS.matchers[:number]))
        )
    return variables


def with_all(variable: dashboard.QueryVariable) -> dashboard.QueryVariable:
    """Return the variable for several values, with all of them selected."""
    every = VariableOption(selected=True, text=["All"], value=["$__all"])
    # All includes series without the label.
    return variable.multi(True).include_all(True).all_value(".*").current(every)


LATENCY = (
    dashboard.CustomVariable("latency")
    .label("Latency is a")
    .description("The OTLP type of the latency metrics, which Atlassian does not publish")
    .values(f"Histogram : {HISTOGRAM}, Summary : {SUMMARY}, Gauge : {GAUGE}")
    .current(VariableOption(selected=True, text="Histogram", value=str(HISTOGRAM)))
)


def exporter_variable(metric: str) -> dashboard.QueryVariable:
    """Return the variable for the app, from a metric that every exporter has.

    `label_values` would only offer apps whose exporter was alive in the selected time range, and no dead
    ones.
    """
    query = f"query_result(count by ({APP}) (last_over_time({metric}[{KEPT}])))"
    return _variable("app", query).regex(f'/{APP}="([^"]+)"/')


def base(name: str, title: str, description: str, *variables: object) -> dashboard.Dashboard:
    """Return a dashboard without panels.

    Args:
        name: Suffix of its uid and file name, after `forge-`.
        title: The title without the prefix "Forge:".
        description: Description, in one sentence.
        variables: Builders of its variables, except for the data source.
    """
    others = dashboard.DashboardLink("Forge").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    built = (
        dashboard.Dashboard(f"Forge: {title}")
        .uid(f"forge-{name}")
        .description(description)
        .tags([TAG])
        .time("now-24h", "now")
        .timezone("browser")
        .refresh("5m")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(others.include_vars(True).keep_time(True).as_dropdown(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in variables:
        built.with_variable(variable)
    return built
