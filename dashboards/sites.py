"""Sites: the sites that use the app, and those that an incident affects, which totals hide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import LATENCY, base, variables_for
from dashboards.panels import bar_chart, legend, stat, table, time_series
from dashboards.promql import (
    API_REQUESTS,
    ENVIRONMENT,
    ERRORS,
    INTERVAL,
    INVOCATION_LATENCY,
    INVOCATIONS,
    OF_INVOCATIONS_AND_CALLS,
    RANGE,
    SERVER_ERRORS,
    SITE,
    VERSION,
    latency,
    only_top,
    ratio,
    total,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]

LEGEND = legend(SITE)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "The sites that use a Forge app, and those affected by its errors."
    variables = variables_for(OF_INVOCATIONS_AND_CALLS, ENVIRONMENT, SITE, VERSION)
    built = base("sites", "Sites", description, *variables, LATENCY)
    rate = ratio(total(ERRORS, INTERVAL, SITE), total(INVOCATIONS, INTERVAL, SITE))
    affected = f"count({total(ERRORS, RANGE, SITE)} > 0) or vector(0)"
    most = only_top(total(INVOCATIONS, INTERVAL, SITE), INVOCATIONS, SITE)
    return (
        built.with_panel(
            stat("Sites with invocations", "short", f"count({total(INVOCATIONS, RANGE, SITE)})", span=8)
        )
        .with_panel(stat("Sites with errors", "short", affected, span=8))
        .with_panel(stat("Sites with 5xx from an API", "short", _with_server_errors(), span=8))
        .with_panel(
            bar_chart(
                "Top 10 sites by errors",
                "short",
                {LEGEND: only_top(total(ERRORS, INTERVAL, SITE), ERRORS, SITE)},
            )
        )
        .with_panel(
            time_series(
                "Error rate of the top 10 sites by errors",
                "percentunit",
                {LEGEND: only_top(rate, ERRORS, SITE)},
            )
        )
        .with_panel(bar_chart("Top 10 sites by invocations", "short", {LEGEND: most}, span=24))
        .with_panel(table("Sites", SITE, _columns()))
    )


def _with_server_errors() -> str:
    return f"count({total(API_REQUESTS, RANGE, SITE, where=SERVER_ERRORS)} > 0) or vector(0)"


def _columns() -> dict[str, tuple[str, str]]:
    invocations, requests = total(INVOCATIONS, RANGE, SITE), total(API_REQUESTS, RANGE, SITE)
    return {
        "Invocations": ("short", invocations),
        "Errors": ("short", f"{total(ERRORS, RANGE, SITE)} or 0 * {invocations}"),
        "Error rate": ("percentunit", ratio(total(ERRORS, RANGE, SITE), invocations)),
        "Latency": ("ms", latency(INVOCATION_LATENCY, RANGE, SITE)),
        "API requests": ("short", requests),
        "5xx": ("percentunit", ratio(total(API_REQUESTS, RANGE, SITE, where=SERVER_ERRORS), requests)),
    }
