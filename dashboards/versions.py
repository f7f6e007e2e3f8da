"""Versions: a new version of the app compared with the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import LATENCY, LATENCY_TITLE, Deployments, add, base, link_to, variables_for
from dashboards.colors import ERROR_RATE, VERSIONS
from dashboards.panels import LATENCY_NOTE, legend, table, time_series, totals
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
    from grafana_foundation_sdk.builders.table import Panel as TablePanel

__all__ = ["dashboard"]

LEGEND = legend(VERSION)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "Versions of a Forge app side by side: the progress and the effect of a rollout."
    variables = variables_for(OF_INVOCATIONS, ENVIRONMENT, SITE, VERSION)
    built = base("versions", "Versions", description, *variables, LATENCY).annotation(Deployments())
    return add(_effect(_progress(built)), _table())


def _progress(built: Dashboard) -> Dashboard:
    all_of_environment = total(INVOCATIONS, INTERVAL, ENVIRONMENT)
    in_environment = total(INVOCATIONS, INTERVAL, VERSION, ENVIRONMENT)
    share = f"{in_environment} / on ({ENVIRONMENT}) group_left () {all_of_environment}"
    running = f"count by ({VERSION}) ({total(INVOCATIONS, INTERVAL, VERSION, SITE)})"
    return add(
        built,
        totals(
            "Invocations", INVOCATIONS, VERSION, "Invocations in each interval, by version.", colors=VERSIONS
        ),
        time_series(
            "Share of its environment's invocations",
            "percentunit",
            {legend(VERSION, ENVIRONMENT): share},
            "How far each version is rolled out in its environment.",
        ),
        time_series(
            "Sites", "short", {LEGEND: running}, "Number of sites that used each version.", colors=VERSIONS
        ),
    )


def _effect(built: Dashboard) -> Dashboard:
    rate = ratio(total(ERRORS, INTERVAL, VERSION), total(INVOCATIONS, INTERVAL, VERSION))
    return add(
        built,
        time_series(
            "Error rate",
            "percentunit",
            {LEGEND: rate},
            "Share of a version's invocations that failed. The dashed lines are 1 % and 5 %.",
            colors=VERSIONS,
            levels=ERROR_RATE,
        ),
        time_series(
            LATENCY_TITLE,
            "ms",
            {LEGEND: latency(INVOCATION_LATENCY, INTERVAL, VERSION)},
            LATENCY_NOTE,
            colors=VERSIONS,
        ),
        totals(
            "Errors", ERRORS, VERSION, "Failed invocations in each interval, by version.", colors=VERSIONS
        ),
    )


def _table() -> TablePanel:
    links = {
        "Only this version": link_to("versions", "version"),
        "App overview of this version": link_to("app-overview", "version"),
    }
    note = f"Click a version for its history alone. Latency: {LATENCY_NOTE}"
    levels = {"Error rate": ERROR_RATE}
    return table("Versions", VERSION, _columns(), note, header="Version", levels=levels, links=links)


def _columns() -> dict[str, tuple[str, str]]:
    invocations = total(INVOCATIONS, RANGE, VERSION)
    return {
        "Invocations": ("short", invocations),
        "Errors": ("short", f"{total(ERRORS, RANGE, VERSION)} or 0 * {invocations}"),
        "Error rate": ("percentunit", ratio(total(ERRORS, RANGE, VERSION), invocations)),
        "Latency": ("ms", latency(INVOCATION_LATENCY, RANGE, VERSION)),
        "Sites": ("short", f"count by ({VERSION}) ({total(INVOCATIONS, RANGE, VERSION, SITE)})"),
    }
