"""Sites: the sites that use the app, and those affected by errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.common import PercentChangeColorMode
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig

from dashboards.base import LATENCY, Deployments, add, base, link_to, variables_for
from dashboards.colors import ERROR_RATE, Levels
from dashboards.grids import grid
from dashboards.panels import LATENCY_NOTE, legend, stat, table, totals
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
    from grafana_foundation_sdk.builders.table import Panel as TablePanel

__all__ = ["dashboard"]

# Of a site with fewer, a single error makes a rate that says nothing.
LEAST = 5
HOUR = "1h"
SHORT_NAMES = DataTransformerConfig(
    id_val="renameByRegex",
    options={"regex": r"ari:cloud:(\w+)::site/(\w{8}).*", "renamePattern": "$1 $2"},
)
"""An ARI would take half of a graph. The table has all of it."""

AFFECTED: Levels = {None: "green", 1: "yellow"}


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "The sites that use a Forge app, and those affected by its errors."
    variables = variables_for(OF_INVOCATIONS_AND_CALLS, ENVIRONMENT, SITE, VERSION)
    built = base("sites", "Sites", description, *variables, LATENCY).annotation(Deployments())
    return add(_graphs(_stats(built)), _table())


def _stats(built: Dashboard) -> Dashboard:
    affected = f"count({total(ERRORS, RANGE, SITE)} > 0) or vector(0)"
    return add(
        built,
        stat(
            "Sites with invocations",
            "short",
            f"count({total(INVOCATIONS, RANGE, SITE)})",
            "Number of sites that used the app, and the change since the time range before.",
            span=8,
            more_is=PercentChangeColorMode.STANDARD,
        ),
        stat(
            "Sites with errors",
            "short",
            affected,
            "Number of sites with failed invocations.",
            span=8,
            levels=AFFECTED,
            more_is=PercentChangeColorMode.INVERTED,
        ),
        stat(
            "Sites with 5xx from an API",
            "short",
            _with_server_errors(),
            "Number of sites for which a request of the app failed at the other end.",
            span=8,
            levels=AFFECTED,
            more_is=PercentChangeColorMode.INVERTED,
        ),
    )


def _graphs(built: Dashboard) -> Dashboard:
    invocations = total(INVOCATIONS, INTERVAL, SITE)
    enough = f"({ratio(total(ERRORS, INTERVAL, SITE), invocations)}) and {invocations} >= {LEAST}"
    return add(
        built,
        grid(
            "Top 10 sites by errors",
            "short",
            legend(SITE),
            only_top(total(ERRORS, INTERVAL, SITE), ERRORS, SITE),
            "Failed invocations of the ten sites with the most of them.",
        ).with_transformation(SHORT_NAMES),
        grid(
            "Error rate of the top 10 sites by errors",
            "percentunit",
            legend(SITE),
            only_top(enough, ERRORS, SITE),
            f"Share of invocations that failed, in hours with at least {LEAST} invocations of the site.",
            step=HOUR,
        ).with_transformation(SHORT_NAMES),
        totals(
            "Top 10 sites by invocations",
            INVOCATIONS,
            SITE,
            "Invocations of the ten sites with the most of them.",
            top=True,
            span=24,
        ).with_transformation(SHORT_NAMES),
    )


def _table() -> TablePanel:
    links = {
        "Only this site": link_to("sites", "site"),
        "App overview of this site": link_to("app-overview", "site"),
        "API calls of this site": link_to("api-calls", "site"),
    }
    note = f"Click a site for what happened there. Latency: {LATENCY_NOTE}"
    levels = {"Error rate": ERROR_RATE, "5xx": ERROR_RATE}
    return table("Sites", SITE, _columns(), note, header="Site", levels=levels, links=links)


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
