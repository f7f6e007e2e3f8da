"""Versions: a new version of the app compared with the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import LATENCY, base, variables_for
from dashboards.panels import LATENCY_NOTE, bar_chart, legend, table, time_series
from dashboards.promql import (
    ENVIRONMENT,
    ERRORS,
    INTERVAL,
    INVOCATION_LATENCY,
    INVOCATIONS,
    OF_INVOCATIONS,
    RANGE,
    SITE,
    VERSION,
    latency,
    ratio,
    total,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]

LEGEND = legend(VERSION)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "Versions of a Forge app side by side: the progress and the effect of a rollout."
    variables = variables_for(OF_INVOCATIONS, ENVIRONMENT, SITE, VERSION)
    built = base("versions", "Versions", description, *variables, LATENCY)
    invocations = total(INVOCATIONS, INTERVAL, VERSION)
    all_of_environment = total(INVOCATIONS, INTERVAL, ENVIRONMENT)
    in_environment = total(INVOCATIONS, INTERVAL, VERSION, ENVIRONMENT)
    share = f"{in_environment} / on ({ENVIRONMENT}) group_left () {all_of_environment}"
    running = f"count by ({VERSION}) ({total(INVOCATIONS, INTERVAL, VERSION, SITE)})"
    return (
        built.with_panel(bar_chart("Invocations", "short", {LEGEND: invocations}))
        .with_panel(
            time_series(
                "Share of its environment's invocations",
                "percentunit",
                {legend(VERSION, ENVIRONMENT): share},
            )
        )
        .with_panel(
            time_series(
                "Error rate", "percentunit", {LEGEND: ratio(total(ERRORS, INTERVAL, VERSION), invocations)}
            )
        )
        .with_panel(
            time_series(
                "Latency",
                "ms",
                {LEGEND: latency(INVOCATION_LATENCY, INTERVAL, VERSION)},
                description=LATENCY_NOTE,
            )
        )
        .with_panel(bar_chart("Errors", "short", {LEGEND: total(ERRORS, INTERVAL, VERSION)}))
        .with_panel(time_series("Sites", "short", {LEGEND: running}))
        .with_panel(table("Versions", VERSION, _columns()))
    )


def _columns() -> dict[str, tuple[str, str]]:
    invocations = total(INVOCATIONS, RANGE, VERSION)
    return {
        "Invocations": ("short", invocations),
        "Errors": ("short", f"{total(ERRORS, RANGE, VERSION)} or 0 * {invocations}"),
        "Error rate": ("percentunit", ratio(total(ERRORS, RANGE, VERSION), invocations)),
        "Latency": ("ms", latency(INVOCATION_LATENCY, RANGE, VERSION)),
        "Sites": ("short", f"count by ({VERSION}) ({total(INVOCATIONS, RANGE, VERSION, SITE)})"),
    }
