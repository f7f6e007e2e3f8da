"""Containers: CPU, memory, restarts, uptime and instances of the services that a Forge app runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import base, variables_for
from dashboards.panels import bar_chart, legend, stat, time_series
from dashboards.promql import CPU, ENVIRONMENT, INSTANCES, INTERVAL, MEMORY, RANGE, RESTARTS, UPTIME

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]

POD = "by (serviceKey, pod)"
LEGEND = legend("pod")
# The newest points are up to 20 minutes old when they arrive.
LATEST = "30m"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "The containers of a Forge app."
    # Other containers in the same Prometheus may have many metrics with similar names.
    names = "|".join(metric.name for metric in (CPU, MEMORY, RESTARTS, UPTIME, INSTANCES))
    built = base("containers", "Containers", description, *variables_for(names, ENVIRONMENT))
    no_environment = "Atlassian's points may lack the environment. They are shown for every environment."
    instances = f"sum by (serviceKey) (last_over_time({INSTANCES.where()}[{INTERVAL}]))"
    return (
        built.with_panel(stat("Instances", "short", _instances(), description=no_environment, span=8))
        .with_panel(stat("Restarts", "short", f"sum({_restarts(RANGE)})", span=8))
        .with_panel(stat("Shortest uptime", "s", _shortest_uptime(), description=no_environment, span=8))
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
                description=no_environment,
            )
        )
        .with_panel(
            time_series(
                "Instances by service",
                "short",
                {"{{serviceKey}}": instances},
                description=no_environment,
                span=24,
            )
        )
    )


def _restarts(window: str) -> str:
    """Return the restarts of each series: the sum of a cumulative count's increases from minute to minute.

    `increase()` would extrapolate, and return fractions of a restart.
    """
    count = RESTARTS.where()
    return f"sum_over_time(clamp_min({count} - {count} offset 1m, 0)[{window}:1m])"


def _instances() -> str:
    return f"sum(last_over_time({INSTANCES.where()}[{LATEST}]))"


def _shortest_uptime() -> str:
    return f"min(last_over_time({UPTIME.where()}[{LATEST}]))"
