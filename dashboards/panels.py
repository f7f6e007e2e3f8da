"""The kinds of panels: thin wrappers of Grafana's own builders."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.builders.barchart import Panel as BarChartPanel
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.table import Panel as TablePanel
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    PercentChangeColorMode,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    ValueMap,
    ValueMappingResult,
)

from dashboards.colors import NEUTRAL, QUANTILES, Levels, thresholds
from dashboards.promql import (
    GAUGE,
    HISTOGRAM,
    INTERVAL,
    NO_QUANTILE,
    QUANTILE,
    SUMMARY,
    if_latency_is,
    means,
    only_top,
    quantile,
    total,
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
    "totals",
]

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Forge's points are one minute apart, so a shorter step shows nothing more.
MINUTE, QUARTER_HOUR = "1m", "15m"
HEIGHT = 8
# Enough for a sparkline: each point of a stat is computed over the whole time range.
SPARKLINE_POINTS = 25

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
    description: str,
    *,
    span: int = 12,
    step: str = MINUTE,
    minimum: float | None = 0,
    colors: Mapping[str, str] | None = None,
    levels: Levels | None = None,
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
        colors: Colors by the name of the series, or by a regular expression between slashes; others have one
            by their order.
        levels: Levels to mark by dashed lines.
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
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
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
    for name, color in (colors or {}).items():
        override = panel.override_by_regexp if name.startswith("/") else panel.override_by_name
        override(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})])
    if levels:
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        panel.thresholds(thresholds(levels)).thresholds_style(style)
    for query in _queries(queries):
        panel.with_target(query)
    return panel


def bar_chart(
    title: str,
    unit: str,
    queries: Mapping[str, str],
    description: str,
    *,
    span: int = 12,
    step: str = MINUTE,
    colors: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Return a graph of totals as stacked bars. The arguments are those of `time_series`."""
    return (
        time_series(title, unit, queries, description, span=span, step=step, colors=colors)
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(80)
        .line_width(0)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    )


def totals(
    title: str,
    metric: Metric,
    label: str,
    description: str,
    *,
    where: tuple[str, ...] = (),
    top: bool = False,
    span: int = 12,
    step: str = MINUTE,
    colors: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Return a graph of a delta sum by the values of a label, as stacked bars.

    Args:
        title: Title.
        metric: The sum.
        label: The label.
        description: Description.
        where: Additional matchers.
        top: Whether to show only the values of `only_top`.
        span: As for `time_series`.
        step: Likewise.
        colors: Likewise.
    """
    expression = total(metric, INTERVAL, label, where=where)
    if top:
        expression = only_top(expression, metric, label, where=where)
    return bar_chart(
        title, "short", {legend(label): expression}, description, span=span, step=step, colors=colors
    )


def stat(
    title: str,
    unit: str,
    expression: str,
    description: str,
    *,
    span: int = 4,
    legend_format: str = "",
    levels: Levels = NEUTRAL,
    more_is: PercentChangeColorMode | None = None,
    mappings: Mapping[str, str] | None = None,
) -> StatPanel:
    """Return one number for the whole time range, or one for each value of a label, with its history.

    The query is evaluated throughout the time range, each time over a range of the same length. The last
    value is the number; the first one is that of the time range before, which is yesterday's for a day.

    Args:
        title: Title.
        unit: Grafana's id of the unit.
        expression: PromQL.
        description: Description.
        span: Width in columns of Grafana's grid, 1 to 24.
        legend_format: Label of each number, if there are several.
        levels: Colors of the number.
        more_is: Colors of the change since the time range before; None if it is not shown.
        mappings: Texts to show in place of certain values.
    """
    query = prometheus.Dataquery().ref_id("A").expr(expression).legend_format(legend_format).range()
    panel = (
        StatPanel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .span(span)
        .height(4)
        .max_data_points(SPARKLINE_POINTS)
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
        .thresholds(thresholds(levels))
        .no_value("no data")
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query)
    )
    if more_is:
        panel.show_percent_change(True).percent_change_color_mode(more_is)
    if mappings:
        options = {value: ValueMappingResult(text=text) for value, text in mappings.items()}
        panel.mappings([ValueMap(options=options)])
    return panel


def table(
    title: str,
    label: str,
    columns: Mapping[str, tuple[str, str]],
    description: str,
    *,
    header: str = "",
    span: int = 24,
    levels: Mapping[str, Levels] | None = None,
    links: Mapping[str, str] | None = None,
) -> TablePanel:
    """Return a table with a row for each value of a label, from the highest number in the first column down.

    Args:
        title: Title.
        label: The label, shown in the first column.
        columns: Grafana's id of the unit, and PromQL that aggregates by the label, by column name.
        description: Description.
        header: Name of the first column; default is the label.
        span: Width in columns of Grafana's grid, 1 to 24.
        levels: Colors of the numbers of columns, by column name.
        links: URLs that a row's label links to, by their titles.
    """
    panel = TablePanel().title(title).description(description).datasource(DATASOURCE).span(span)
    panel.height(HEIGHT + 2)
    names = {label: header or label}
    for letter, (name, (unit, expression)) in zip(ascii_uppercase, columns.items(), strict=False):
        names[f"Value #{letter}"] = name
        query = prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(name)
        panel.with_target(query.instant().format("table"))
        panel.override_by_name(name, [DynamicConfigValue("unit", unit), *_colored((levels or {}).get(name))])
    if links:
        data_links = [{"title": text, "url": url} for text, url in links.items()]
        panel.override_by_name(names[label], [DynamicConfigValue("links", data_links)])
    order = {name: position for position, name in enumerate(names)}
    organize = {"excludeByName": {"Time": True}, "renameByName": names, "indexByName": order}
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=organize))
    sort = {"fields": {}, "sort": [{"field": next(iter(columns)), "desc": True}]}
    panel.with_transformation(DataTransformerConfig(id_val="sortBy", options=sort))
    return panel


def _colored(levels: Levels | None) -> list[DynamicConfigValue]:
    """Return the configuration of a column whose numbers are colored."""
    if not levels:
        return []
    return [
        DynamicConfigValue("thresholds", thresholds(levels).build()),
        DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
    ]


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
        for share in (0.5, 0.95, 0.99)
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
        "Half of the calls are faster than p50, 95 of 100 faster than p95. Quantiles of several summaries"
        " cannot be aggregated: the highest is shown.",
        colors=QUANTILES,
    )
