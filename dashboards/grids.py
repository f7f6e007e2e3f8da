"""Grids: a row for each value of a label, and a cell for each interval, whose color is its amount.

For errors by names that nobody knows in advance. The name is beside its row, so that the color is free to
mean how bad it is.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard, prometheus
from grafana_foundation_sdk.builders.statushistory import Panel as GridPanel
from grafana_foundation_sdk.models.common import TooltipDisplayMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import FieldColorModeId

from dashboards.panels import DATASOURCE, HEIGHT, MINUTE

__all__ = ["grid"]

# Grafana refuses to draw cells narrower than two pixels. A day has one for each quarter of an hour.
COLUMNS = 96


def grid(
    title: str,
    unit: str,
    row: str,
    expression: str,
    description: str,
    *,
    span: int = 12,
    step: str = MINUTE,
) -> GridPanel:
    """Return a grid.

    Args:
        title: Title.
        unit: Grafana's id of the unit.
        row: Legend format of the rows.
        expression: PromQL.
        description: Description, to which the meaning of the color is added.
        span: Width in columns of Grafana's grid, 1 to 24.
        step: Minimum interval of a cell, such as "1m".
    """
    query = prometheus.Dataquery().ref_id("A").expr(expression).legend_format(row).range()
    return (
        GridPanel()
        .title(title)
        .description(f"{description} The redder a cell, the more.")
        .unit(unit)
        .datasource(DATASOURCE)
        .interval(step)
        .max_data_points(COLUMNS)
        .span(span)
        .height(HEIGHT)
        .min(0)
        .line_width(0)
        .fill_opacity(90)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_YL_RD))
        .show_value(VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.SINGLE))
        .legend(common.VizLegendOptions().show_legend(False))
        .with_target(query)
    )
