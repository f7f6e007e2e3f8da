"""What all dashboards have in common: name, time, variables, and links to each other."""

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

__all__ = ["KEPT", "LATENCY", "base", "choices", "of_exporter"]

TAG = "forge"
NAMES = {ENVIRONMENT: "environment", SITE: "site", VERSION: "version"}
# As long as a Prometheus keeps samples by default.
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


def choices(metrics: str, *labels: str) -> list[dashboard.QueryVariable]:
    """Return the variables of the app, of which one is chosen, and of labels, of which all are at first.

    Each offers what those before it leave.

    Args:
        metrics: Regular expression of the names of the dashboard's own metrics: others may not be exported.
        labels: The first of `ENVIRONMENT`, `SITE` and `VERSION`.
    """
    names = f'__name__=~"{metrics}"'
    every = VariableOption(selected=True, text=["All"], value=["$__all"])
    variables = [_variable("app", f"label_values({{{names}}}, {APP})")]
    for number, label in enumerate(labels, start=1):
        selector = ", ".join((names, *INVOCATIONS.matchers[:number]))
        variable = _variable(NAMES[label], f"label_values({{{selector}}}, {label})")
        # All is also what lacks the label.
        variables.append(variable.multi(True).include_all(True).all_value(".*").current(every))
    return variables


LATENCY = (
    dashboard.CustomVariable("latency")
    .label("Latency is a")
    .description("The type that Atlassian's latency metrics turn out to have, which is not published")
    .values(f"Histogram : {HISTOGRAM}, Summary : {SUMMARY}, Gauge : {GAUGE}")
    .current(VariableOption(selected=True, text="Histogram", value=str(HISTOGRAM)))
)


def of_exporter(metric: str) -> dashboard.QueryVariable:
    """Return the variable of the app, by a metric that every exporter has.

    `label_values` would offer only apps whose exporter has lived in the time shown, and so none that is dead.
    """
    query = f"query_result(count by ({APP}) (last_over_time({metric}[{KEPT}])))"
    return _variable("app", query).regex(f'/{APP}="([^"]+)"/')


def base(name: str, title: str, description: str, *variables: object) -> dashboard.Dashboard:
    """Return a dashboard without panels.

    Args:
        name: What follows `forge-` in its uid and in the name of its file.
        title: Without "Forge".
        description: One sentence.
        variables: Builders of its variables, besides the data source.
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
