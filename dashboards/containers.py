"""Containers: CPU, memory, restarts, uptime and instances of the services that a Forge app runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.frame import choices, frame
from dashboards.panels import bars, legend, lines, number
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
    built = frame("containers", "Containers", about, *choices(names, ENVIRONMENT))
    unsaid = "Atlassian's points of it may not say their environment: they are shown for all."
    instances = f"sum by (serviceKey) (last_over_time({INSTANCES.where()}[{INTERVAL}]))"
    return (
        built.with_panel(number("Instances", "short", _instances(), about=unsaid, span=8))
        .with_panel(number("Restarts", "short", f"sum({_restarts(RANGE)})", span=8))
        .with_panel(number("Shortest uptime", "s", _shortest_uptime(), about=unsaid, span=8))
        .with_panel(
            lines("CPU", "percent", {LEGEND: f"avg {POD} (avg_over_time({CPU.where()}[{INTERVAL}]))"})
        )
        .with_panel(
            lines("Memory", "percent", {LEGEND: f"avg {POD} (avg_over_time({MEMORY.where()}[{INTERVAL}]))"})
        )
        .with_panel(bars("Restarts by pod", "short", {LEGEND: f"sum {POD} ({_restarts(INTERVAL)})"}))
        .with_panel(
            lines(
                "Uptime",
                "s",
                {LEGEND: f"max {POD} (last_over_time({UPTIME.where()}[{INTERVAL}]))"},
                about=unsaid,
            )
        )
        .with_panel(
            lines("Instances by service", "short", {"{{serviceKey}}": instances}, about=unsaid, span=24)
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
