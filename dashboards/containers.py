"""Containers: CPU, memory, restarts, uptime and instances of the services that a Forge app runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.common import PercentChangeColorMode

from dashboards.base import add, base, variables_for
from dashboards.panels import bar_chart, legend, stat, time_series
from dashboards.promql import CPU, ENVIRONMENT, INSTANCES, INTERVAL, MEMORY, RANGE, RESTARTS, UPTIME

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]

POD = "by (serviceKey, pod)"
LEGEND = legend("pod")
# The newest points are up to 20 minutes old when they arrive.
LATEST = "30m"
NO_ENVIRONMENT = "Atlassian's points may lack the environment. They are shown for every environment."
USAGE = {None: "green", 70: "yellow", 90: "red"}


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "The containers of a Forge app."
    # Other containers in the same Prometheus may have many metrics with similar names.
    names = "|".join(metric.name for metric in (CPU, MEMORY, RESTARTS, UPTIME, INSTANCES))
    built = base("containers", "Containers", description, *variables_for(names, ENVIRONMENT))
    return _graphs(_stats(built))


def _stats(built: Dashboard) -> Dashboard:
    return add(
        built,
        stat("Instances", "short", _instances(), f"Instances of all services. {NO_ENVIRONMENT}", span=8),
        stat(
            "Restarts",
            "short",
            f"sum({_restarts(RANGE)})",
            "Restarts of all containers.",
            span=8,
            levels={None: "green", 1: "yellow", 10: "red"},
            more_is=PercentChangeColorMode.INVERTED,
        ),
        stat(
            "Shortest uptime",
            "s",
            _shortest_uptime(),
            f"Time since the latest start of a container. {NO_ENVIRONMENT}",
            span=8,
        ),
    )


def _graphs(built: Dashboard) -> Dashboard:
    instances = f"sum by (serviceKey) (last_over_time({INSTANCES.where()}[{INTERVAL}]))"
    used = "by pod. The dashed lines are 70 % and 90 %."
    return add(
        built,
        time_series(
            "CPU",
            "percent",
            {LEGEND: f"avg {POD} (avg_over_time({CPU.where()}[{INTERVAL}]))"},
            f"CPU {used}",
            levels=USAGE,
        ),
        time_series(
            "Memory",
            "percent",
            {LEGEND: f"avg {POD} (avg_over_time({MEMORY.where()}[{INTERVAL}]))"},
            f"Memory {used}",
            levels=USAGE,
        ),
        bar_chart(
            "Restarts by pod",
            "short",
            {LEGEND: f"sum {POD} ({_restarts(INTERVAL)})"},
            "Restarts of containers in each interval.",
        ),
        time_series(
            "Uptime",
            "s",
            {LEGEND: f"max {POD} (last_over_time({UPTIME.where()}[{INTERVAL}]))"},
            f"Time since each pod's start. {NO_ENVIRONMENT}",
        ),
        time_series(
            "Instances by service",
            "short",
            {"{{serviceKey}}": instances},
            f"Running instances. {NO_ENVIRONMENT}",
            span=24,
        ),
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
