"""How the panels look, and what they ask: thin covers over Grafana's own builders."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common, prometheus, timeseries
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
    means,
    quantile,
    shown_as,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dashboards.promql import Metric

__all__ = [
    "ABOUT_LATENCY",
    "DATASOURCE",
    "QUARTER_HOUR",
    "bar_chart",
    "latencies",
    "legend",
    "stat",
    "table",
    "time_series",
]

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Forge's points are a minute apart: between them is nothing to be seen.
MINUTE, QUARTER_HOUR = "1m", "15m"
HEIGHT = 8

ABOUT_LATENCY = "The 95th percentile of histograms; the mean of summaries and gauges."


def legend(*labels: str) -> str:
    """Return the legend that shows the values of labels."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def _queries(queries: Mapping[str, str]) -> Iterable[prometheus.Dataquery]:
    """Return graphs' queries, given as PromQL by legend."""
    for letter, (text, expression) in zip(ascii_uppercase, queries.items(), strict=False):
        yield prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(text).range()


def time_series(
    title: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    about: str = "",
    span: int = 12,
    step: str = MINUTE,
    least: float | None = 0,
) -> timeseries.Panel:
    """Return a graph.

    Args:
        title: Its title.
        unit: Grafana's id of a unit.
        queries: PromQL by legend.
        about: Its description.
        span: Its width, of 24.
        step: The shortest distance of its points.
        least: Where its vertical axis begins; None for near the lowest value.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
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
    if least is not None:
        panel.min(least)
    for query in _queries(queries):
        panel.with_target(query)
    return panel


def bar_chart(
    title: str, unit: str, queries: Mapping[str, str], *, about: str = "", span: int = 12, step: str = MINUTE
) -> timeseries.Panel:
    """Return a graph of totals, as stacked bars; arguments as for `time_series`."""
    return (
        time_series(title, unit, queries, about=about, span=span, step=step)
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
    about: str = "",
    span: int = 4,
    text: str = "",
    words: Mapping[str, str] | None = None,
) -> StatPanel:
    """Return one number, of the whole time shown, or one for each of a label's values.

    Args:
        title: As for `time_series`, like those not named here.
        unit: Grafana's id of a unit.
        expression: PromQL.
        about: Its description.
        span: Its width, of 24.
        text: What to write at each number where there are several.
        words: What to show in place of some values.
    """
    query = prometheus.Dataquery().ref_id("A").expr(expression).legend_format(text).instant()
    panel = (
        StatPanel()
        .title(title)
        .description(about)
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
    if words:
        shown = {value: ValueMappingResult(text=word) for value, word in words.items()}
        panel.mappings([ValueMap(options=shown)])
    return panel


def table(
    title: str, label: str, columns: Mapping[str, tuple[str, str]], *, about: str = "", span: int = 24
) -> TablePanel:
    """Return a table with a row for each value of a label.

    Args:
        title: Its title.
        label: The label; the first column.
        columns: For each, by its name, Grafana's id of a unit, and PromQL by that label.
        about: Its description.
        span: Its width, of 24.
    """
    panel = TablePanel().title(title).description(about).datasource(DATASOURCE).span(span).height(HEIGHT + 2)
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


def latencies(title: str, metric: Metric) -> timeseries.Panel:
    """Return a graph of a latency, whichever of its types Atlassian gives it: see the variable `latency`."""
    queries = {
        f"p{share * 100:.0f}": shown_as(HISTOGRAM, quantile(share, metric, INTERVAL))
        for share in (0.5, 0.9, 0.99)
    }
    summaries, gauges = means(metric, INTERVAL)
    slowest = f"max by (quantile) (max_over_time({metric.where(QUANTILE)}[{INTERVAL}]))"
    highest = f"max(max_over_time({metric.where(NO_QUANTILE)}[{INTERVAL}]))"
    queries["mean"] = shown_as(SUMMARY, summaries)
    queries["quantile {{quantile}} of the slowest series"] = shown_as(SUMMARY, slowest)
    queries["mean of the series"] = shown_as(GAUGE, gauges)
    queries["slowest series"] = shown_as(GAUGE, highest)
    return time_series(
        title, "ms", queries, about="Quantiles of a summary can't be put together: the highest is shown."
    )
