"""App overview: usage of the app, its errors and its latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import LATENCY, base, variables_for
from dashboards.panels import LATENCY_NOTE, bar_chart, latencies, legend, stat, time_series
from dashboards.promql import (
    API_REQUESTS,
    CUSTOM,
    ENVIRONMENT,
    ERRORS,
    INTERVAL,
    INVOCATION_LATENCY,
    INVOCATIONS,
    OF_INVOCATIONS_AND_CALLS,
    RANGE,
    SITE,
    VERSION,
    latency,
    only_top,
    ratio,
    success_rate,
    total,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "Invocations of a Forge app, their errors and their latency, by environment and version."
    variables = variables_for(OF_INVOCATIONS_AND_CALLS, ENVIRONMENT, SITE, VERSION)
    built = base("app-overview", "App overview", description, *variables, LATENCY)
    return _graphs(_stats(built))


def _stats(built: Dashboard) -> Dashboard:
    errors = ratio(total(ERRORS, RANGE), total(INVOCATIONS, RANGE))
    return (
        built.with_panel(stat("Invocations", "short", total(INVOCATIONS, RANGE)))
        .with_panel(stat("Errors", "short", f"{total(ERRORS, RANGE)} or 0 * {total(INVOCATIONS, RANGE)}"))
        .with_panel(stat("Error rate", "percentunit", errors))
        .with_panel(stat("Success rate", "percentunit", success_rate(RANGE)))
        .with_panel(
            stat(
                "Latency",
                "ms",
                latency(INVOCATION_LATENCY, RANGE),
                description=LATENCY_NOTE,
            )
        )
        .with_panel(stat("API requests", "short", total(API_REQUESTS, RANGE)))
    )


def _graphs(built: Dashboard) -> Dashboard:
    by_environment = ratio(total(ERRORS, INTERVAL, ENVIRONMENT), total(INVOCATIONS, INTERVAL, ENVIRONMENT))
    by_version = ratio(total(ERRORS, INTERVAL, VERSION), total(INVOCATIONS, INTERVAL, VERSION))
    by_function = only_top(total(INVOCATIONS, INTERVAL, "functionKey"), INVOCATIONS, "functionKey")
    environment, version = legend(ENVIRONMENT), legend(VERSION)
    return (
        built.with_panel(
            bar_chart(
                "Invocations by environment",
                "short",
                {environment: total(INVOCATIONS, INTERVAL, ENVIRONMENT)},
            )
        )
        .with_panel(
            bar_chart("Invocations by version", "short", {version: total(INVOCATIONS, INTERVAL, VERSION)})
        )
        .with_panel(time_series("Error rate by environment", "percentunit", {environment: by_environment}))
        .with_panel(time_series("Error rate by version", "percentunit", {version: by_version}))
        .with_panel(
            time_series(
                "Success rate by environment",
                "percentunit",
                {environment: success_rate(INTERVAL, ENVIRONMENT)},
                minimum=None,
            )
        )
        .with_panel(latencies("Invocation latency", INVOCATION_LATENCY))
        .with_panel(
            bar_chart("Errors by type", "short", {"{{errorType}}": total(ERRORS, INTERVAL, "errorType")})
        )
        .with_panel(bar_chart("Top 10 functions by invocations", "short", {"{{functionKey}}": by_function}))
        .with_panel(
            bar_chart("Custom metrics", "short", {"{{metricName}}": total(CUSTOM, INTERVAL, "metricName")})
        )
        .with_panel(
            time_series(
                "Sites with invocations",
                "short",
                {"sites": f"count({total(INVOCATIONS, INTERVAL, SITE)})"},
                description="Number of sites that used the app in each interval.",
            )
        )
    )
