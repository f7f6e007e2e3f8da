"""The parts that all dashboards share: name, time range, variables, and links to each other."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.panels import DATASOURCE, QUARTER_HOUR, legend
from dashboards.promql import (
    APP,
    CALLS,
    DEPLOYED,
    DESTINATION,
    ENVIRONMENT,
    GAUGE,
    HISTOGRAM,
    INVOCATIONS,
    REMOTE,
    SITE,
    SUMMARY,
    URL,
    VERSION,
    new_values,
)

__all__ = [
    "KEPT",
    "LATENCY",
    "LATENCY_TITLE",
    "Deployments",
    "add",
    "base",
    "destination_variable",
    "exporter_variable",
    "label_variable",
    "link_to",
    "variables_for",
    "with_all",
]

TAG = "forge"
NAMES = {ENVIRONMENT: "environment", SITE: "site", VERSION: "version", REMOTE: "remote", URL: "url"}
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
        labels: `ENVIRONMENT`, `SITE` and either `VERSION`, or `REMOTE` and `URL`; or the first ones of them.
    """
    variables = [label_variable("app", metrics, APP)]
    matchers = (CALLS if REMOTE in labels else INVOCATIONS).matchers
    for number, label in enumerate(labels, start=1):
        variables.append(with_all(label_variable(NAMES[label], metrics, label, *matchers[:number])))
    return variables


def with_all(variable: dashboard.QueryVariable) -> dashboard.QueryVariable:
    """Return the variable for several values, with all of them selected."""
    every = VariableOption(selected=True, text=["All"], value=["$__all"])
    # All includes series without the label.
    return variable.multi(True).include_all(True).all_value(".*").current(every)


LATENCY = (
    dashboard.CustomVariable("latency")
    .label("Latency")
    .description("By the OTLP type of the latency metrics, which Atlassian does not publish")
    .values(f"p95 (histogram) : {HISTOGRAM}, mean (summary) : {SUMMARY}, mean (gauge) : {GAUGE}")
    .current(VariableOption(selected=True, text="p95 (histogram)", value=str(HISTOGRAM)))
)
LATENCY_TITLE = "Latency: ${latency:text}"


class Deployments:
    """Marks the first invocations of each version in all graphs of a dashboard."""

    def build(self) -> AnnotationQuery:
        """Return Grafana's annotation."""
        return _PrometheusAnnotation(
            name="New versions",
            datasource=DATASOURCE,
            icon_color="purple",
            expr=new_values(DEPLOYED, VERSION),
        )


class _PrometheusAnnotation(AnnotationQuery):
    """An annotation with the fields that only Prometheus' annotations have."""

    def to_json(self) -> dict[str, object]:
        texts = {"titleFormat": legend(VERSION), "textFormat": "first invocations of this version"}
        return {**super().to_json(), **texts, "step": QUARTER_HOUR}


def destination_variable() -> dashboard.QueryVariable:
    """Return the variable for the destinations; an exporter with one destination does not name it."""
    return with_all(label_variable("destination", "forge_exporter_.+", DESTINATION, f'{APP}="$app"'))


def link_to(name: str, variable: str) -> str:
    """Return the URL of a dashboard for the clicked value of a variable, and for what is selected now.

    Args:
        name: Suffix of the dashboard's uid, after `forge-`.
        variable: Variable that gets the value.
    """
    kept = "&".join(f"${{{each}:queryparam}}" for each in ("datasource", "app", "environment"))
    return f"/d/forge-{name}?${{__url_time_range}}&{kept}&var-{variable}=${{__value.raw}}"


def add(built: dashboard.Dashboard, *panels: object) -> dashboard.Dashboard:
    """Return the dashboard with more panels, which are builders."""
    for panel in panels:
        built.with_panel(panel)
    return built


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
