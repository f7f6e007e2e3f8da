"""Containers: CPU, memory, restarts, uptime and instances of the services that a Forge app runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import base, choices
from dashboards.panels import bar_chart, legend, stat, time_series
from dashboards.promql import CPU, ENVIRONMENT, INSTANCES, INTERVAL, MEMORY, RANGE, RESTARTS, UPTIME

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]

POD = "by (serviceKey, pod)"
LEGEND = legend("pod")
# The newest points are up to 20 minutes old when they come.
LATEST = "30m"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    about = "The containers of a Forge app."
    # Others' containers may have metrics by such names in the same place, and many of them.
    names = "|".join(metric.name for metric in (CPU, MEMORY, RESTARTS, UPTIME, INSTANCES))
    built = base("containers", "Containers", about, *choices(names, ENVIRONMENT))
    unsaid = "Atlassian's points of it may not say their environment: they are shown for all."
    instances = f"sum by (serviceKey) (last_over_time({INSTANCES.where()}[{INTERVAL}]))"
    return (
        built.with_panel(stat("Instances", "short", _instances(), about=unsaid, span=8))
        .with_panel(stat("Restarts", "short", f"sum({_restarts(RANGE)})", span=8))
        .with_panel(stat("Shortest uptime", "s", _shortest_uptime(), about=unsaid, span=8))
        .with_panel(
            time_series("CPU", "percent", {LEGEND: f"avg {POD} (avg_over_time({CPU.where()}[{INTERVAL}]))"})
        )
        .with_panel(
            time_series(
                "Memory", "percent", {LEGEND: f"avg {POD} (avg_over_time({MEMORY.where()}[{INTERVAL}]))"}
            )
        )
        .with_panel(bar_chart("Restarts by pod", "short", {LEGEND: f"sum {POD} ({_restarts(INTERVAL)})"}))
        .with_panel(
            time_series(
                "Uptime",
                "s",
                {LEGEND: f"max {POD} (last_over_time({UPTIME.where()}[{INTERVAL}]))"},
                about=unsaid,
            )
        )
        .with_panel(
            time_series("Instances by service", "short", {"{{serviceKey}}": instances}, about=unsaid, span=24)
        )
    )


def _restarts(window: str) -> str:
    """Return the restarts of each series: from minute to minute, what a cumulative count has grown by.

    `increase()` would extrapolate, and so tell of fractions of a restart.
    """
    count = RESTARTS.where()
    return f"sum_over_time(clamp_min({count} - {count} offset 1m, 0)[{window}:1m])"


def _instances() -> str:
    return f"sum(last_over_time({INSTANCES.where()}[{LATEST}]))"


def _shortest_uptime() -> str:
    return f"min(last_over_time({UPTIME.where()}[{LATEST}]))"
