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
from dashboards.promql import ENVIRONMENT, GAUGE, HISTOGRAM, INVOCATIONS, SITE, SUMMARY, VERSION

__all__ = ["APP", "ENVIRONMENTS", "LATENCY", "SITES", "VERSIONS", "frame", "of_exporter"]

TAG = "forge"


def _of_metric(name: str, label: str, text: str, selector: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(text)
        .datasource(DATASOURCE)
        .query(f"label_values({selector}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def _several(name: str, label: str, text: str, matchers: int) -> dashboard.QueryVariable:
    """Return a variable with values to choose from, by those before it; all are chosen at first."""
    selector = f"{INVOCATIONS.name}{{{', '.join(INVOCATIONS.matchers[:matchers])}}}"
    every = VariableOption(selected=True, text=["All"], value=["$__all"])
    # Also what lacks the label.
    return (
        _of_metric(name, label, text, selector).multi(True).include_all(True).all_value(".*").current(every)
    )


APP = _of_metric("app", "atlassian_forge_app_id", "App", INVOCATIONS.name)
ENVIRONMENTS = _several("environment", ENVIRONMENT, "Environment", 1)
SITES = _several("site", SITE, "Site", 2)
VERSIONS = _several("version", VERSION, "Version", 3)
LATENCY = (
    dashboard.CustomVariable("latency")
    .label("Latency is a")
    .description("The type that Atlassian's latency metrics turn out to have, which is not published")
    .values(f"Histogram : {HISTOGRAM}, Summary : {SUMMARY}, Gauge : {GAUGE}")
    .current(VariableOption(selected=True, text="Histogram", value=str(HISTOGRAM)))
)


def of_exporter(metric: str) -> dashboard.QueryVariable:
    """Return the variable of the app, by a metric that every exporter has."""
    return _of_metric("app", "atlassian_forge_app_id", "App", metric)


def frame(name: str, title: str, description: str, *variables: object) -> dashboard.Dashboard:
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
