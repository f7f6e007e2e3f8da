"""The kinds of panels: thin wrappers of Grafana's own builders."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common, prometheus, timeseries
from grafana_foundation_sdk.builders.barchart import Panel as BarChartPanel
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.table import Panel as TablePanel
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    ValueMap,
    ValueMappingResult,
)

from dashboards.promql import (
    GAUGE,
    HISTOGRAM,
    INTERVAL,
    NO_QUANTILE,
    QUANTILE,
    SUMMARY,
    if_latency_is,
    means,
    quantile,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dashboards.promql import Metric

__all__ = [
    "DATASOURCE",
    "LATENCY_NOTE",
    "QUARTER_HOUR",
    "bar_chart",
    "category_chart",
    "latencies",
    "legend",
    "stat",
    "table",
    "time_series",
]

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Forge's points are one minute apart, so a shorter step shows nothing more.
MINUTE, QUARTER_HOUR = "1m", "15m"
HEIGHT = 8

LATENCY_NOTE = "The 95th percentile of histograms; the mean of summaries and gauges."


def legend(*labels: str) -> str:
    """Return a legend format with the values of labels."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def _queries(queries: Mapping[str, str]) -> Iterable[prometheus.Dataquery]:
    """Return range queries, given as PromQL by legend format."""
    for letter, (text, expression) in zip(ascii_uppercase, queries.items(), strict=False):
        yield prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(text).range()


def time_series(
    title: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    description: str = "",
    span: int = 12,
    step: str = MINUTE,
    minimum: float | None = 0,
) -> timeseries.Panel:
    """Return a graph of lines.

    Args:
        title: Title.
        unit: Grafana's id of the unit.
        queries: PromQL by legend format.
        description: Description.
        span: Width in columns of Grafana's grid, 1 to 24.
        step: Minimum interval between its points, such as "1m".
        minimum: Start of the vertical axis; None for automatic.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .interval(step)
        .span(span)
        .height(HEIGHT)
        .line_width(1)
        .fill_opacity(5)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if minimum is not None:
        panel.min(minimum)
    for query in _queries(queries):
        panel.with_target(query)
    return panel


def bar_chart(
    title: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    description: str = "",
    span: int = 12,
    step: str = MINUTE,
) -> timeseries.Panel:
    """Return a graph of totals as stacked bars. The arguments are those of `time_series`."""
    return (
        time_series(title, unit, queries, description=description, span=span, step=step)
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(80)
        .line_width(0)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    )


def stat(
    title: str,
    unit: str,
    expression: str,
    *,
    description: str = "",
    span: int = 4,
    legend_format: str = "",
    mappings: Mapping[str, str] | None = None,
) -> StatPanel:
    """Return one number for the whole time range, or one for each value of a label.

    Args:
        title: Title.
        unit: Grafana's id of the unit.
        expression: PromQL.
        description: Description.
        span: Width in columns of Grafana's grid, 1 to 24.
        legend_format: Label of each number, if there are several.
        mappings: Texts to show in place of certain values.
    """
    query = prometheus.Dataquery().ref_id("A").expr(expression).legend_format(legend_format).instant()
    panel = (
        StatPanel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .span(span)
        .height(4)
        .color_mode(BigValueColorMode.NONE)
        .graph_mode(BigValueGraphMode.NONE)
        .no_value("no data")
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query)
    )
    if mappings:
        options = {value: ValueMappingResult(text=text) for value, text in mappings.items()}
        panel.mappings([ValueMap(options=options)])
    return panel


def table(
    title: str, label: str, columns: Mapping[str, tuple[str, str]], *, description: str = "", span: int = 24
) -> TablePanel:
    """Return a table with a row for each value of a label.

    Args:
        title: Title.
        label: The label, shown in the first column.
        columns: Grafana's id of the unit, and PromQL that aggregates by the label, by column name.
        description: Description.
        span: Width in columns of Grafana's grid, 1 to 24.
    """
    panel = (
        TablePanel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(span)
        .height(HEIGHT + 2)
    )
    names = {}
    for letter, (name, (unit, expression)) in zip(ascii_uppercase, columns.items(), strict=False):
        names[f"Value #{letter}"] = name
        panel.with_target(
            prometheus.Dataquery()
            .ref_id(letter)
            .expr(expression)
            .legend_format(name)
            .instant()
            .format("table")
        )
        panel.override_by_name(name, [DynamicConfigValue("unit", unit)])
    order = {name: position for position, name in enumerate((label, *names))}
    organize = {"excludeByName": {"Time": True}, "renameByName": names, "indexByName": order}
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=organize))
    return panel


def category_chart(
    title: str, unit: str, label: str, expression: str, *, description: str = "", span: int = 12
) -> BarChartPanel:
    """Return a graph with a bar for each value of a label, such as a date, in alphabetical order.

    Args:
        title: Title.
        unit: Grafana's id of the unit.
        label: The label.
        expression: PromQL that aggregates by the label.
        description: Description.
        span: Width in columns of Grafana's grid, 1 to 24.
    """
    query = prometheus.Dataquery().ref_id("A").expr(expression).instant().format("table")
    sort = {"fields": {}, "sort": [{"field": label}]}
    organize = {"excludeByName": {"Time": True}, "renameByName": {"Value": title}}
    return (
        BarChartPanel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .span(span)
        .height(HEIGHT)
        .x_field(label)
        .with_target(query)
        .with_transformation(DataTransformerConfig(id_val="sortBy", options=sort))
        .with_transformation(DataTransformerConfig(id_val="organize", options=organize))
    )


def latencies(title: str, metric: Metric) -> timeseries.Panel:
    """Return a graph of a latency for each of its possible types; the variable `latency` selects one."""
    queries = {
        f"p{share * 100:.0f}": if_latency_is(HISTOGRAM, quantile(share, metric, INTERVAL))
        for share in (0.5, 0.9, 0.99)
    }
    summaries, gauges = means(metric, INTERVAL)
    slowest = f"max by (quantile) (max_over_time({metric.where(QUANTILE)}[{INTERVAL}]))"
    highest = f"max(max_over_time({metric.where(NO_QUANTILE)}[{INTERVAL}]))"
    queries["mean"] = if_latency_is(SUMMARY, summaries)
    queries["quantile {{quantile}} of the slowest series"] = if_latency_is(SUMMARY, slowest)
    queries["mean of the series"] = if_latency_is(GAUGE, gauges)
    queries["slowest series"] = if_latency_is(GAUGE, highest)
    return time_series(
        title,
        "ms",
        queries,
        description="Quantiles of several summaries cannot be aggregated: the highest is shown.",
    )
