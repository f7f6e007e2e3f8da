"""App overview: usage of the app, its errors and its latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.common import PercentChangeColorMode

from dashboards.base import LATENCY, LATENCY_TITLE, Deployments, add, base, variables_for
from dashboards.colors import ENVIRONMENTS, ERROR_RATE, TODAY, VERSIONS
from dashboards.grids import grid
from dashboards.panels import LATENCY_NOTE, latencies, legend, stat, time_series, totals
from dashboards.promql import (
    API_REQUESTS,
    CUSTOM,
    DAY_BEFORE,
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
    total,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

    from dashboards.promql import Metric

__all__ = ["dashboard"]

WORSE = PercentChangeColorMode.INVERTED
FUNCTION = "functionKey"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "Invocations of a Forge app, their errors and their latency, by environment and version."
    variables = variables_for(OF_INVOCATIONS_AND_CALLS, ENVIRONMENT, SITE, VERSION)
    built = base("app-overview", "App overview", description, *variables, LATENCY)
    return _details(_by_environment_and_version(_stats(built.annotation(Deployments()))))


def _stats(built: Dashboard) -> Dashboard:
    rate = ratio(total(ERRORS, RANGE), total(INVOCATIONS, RANGE))
    counted = f"{total(ERRORS, RANGE)} or 0 * {total(INVOCATIONS, RANGE)}"
    return add(
        built,
        stat(
            "Invocations",
            "short",
            total(INVOCATIONS, RANGE),
            "Invocations of functions, and the change since the time range before.",
            more_is=PercentChangeColorMode.SAME_AS_VALUE,
        ),
        stat(
            "Errors",
            "short",
            counted,
            "Invocations that failed. Whether that is much depends on the invocations: see the error rate.",
            more_is=WORSE,
        ),
        stat(
            "Error rate",
            "percentunit",
            rate,
            "Share of invocations that failed: yellow from 1 %, red from 5 %.",
            levels=ERROR_RATE,
            more_is=WORSE,
        ),
        stat(LATENCY_TITLE, "ms", latency(INVOCATION_LATENCY, RANGE), LATENCY_NOTE, more_is=WORSE),
        stat(
            "API requests",
            "short",
            total(API_REQUESTS, RANGE),
            "Requests of the app to Atlassian's products and others. *API calls* has their responses.",
            more_is=PercentChangeColorMode.SAME_AS_VALUE,
        ),
        stat(
            "Sites",
            "short",
            f"count({total(INVOCATIONS, RANGE, SITE)})",
            "Number of sites that used the app. *Sites* has each of them.",
            more_is=PercentChangeColorMode.SAME_AS_VALUE,
        ),
    )


def _by_environment_and_version(built: Dashboard) -> Dashboard:
    of_environments, of_versions = (
        {legend(label): ratio(total(ERRORS, INTERVAL, label), total(INVOCATIONS, INTERVAL, label))}
        for label in (ENVIRONMENT, VERSION)
    )
    failed = "Share of invocations that failed. The dashed lines are 1 % and 5 %."
    return add(
        built,
        totals(
            "Invocations by environment",
            INVOCATIONS,
            ENVIRONMENT,
            "Invocations of functions in each interval.",
            colors=ENVIRONMENTS,
        ),
        totals(
            "Invocations by version",
            INVOCATIONS,
            VERSION,
            "Invocations of functions in each interval. *Versions* compares the versions.",
            colors=VERSIONS,
        ),
        time_series(
            "Invocations, and the day before",
            "short",
            _and_the_day_before(INVOCATIONS),
            "Invocations in each interval, and in the same interval of the day before.",
            colors=TODAY,
        ),
        time_series(
            "Errors, and the day before",
            "short",
            _and_the_day_before(ERRORS),
            "Failed invocations in each interval, and in the same interval of the day before.",
            colors=TODAY,
        ),
        time_series(
            "Error rate by environment",
            "percentunit",
            of_environments,
            failed,
            colors=ENVIRONMENTS,
            levels=ERROR_RATE,
        ),
        time_series(
            "Error rate by version",
            "percentunit",
            of_versions,
            failed,
            colors=VERSIONS,
            levels=ERROR_RATE,
        ),
    )


def _and_the_day_before(metric: Metric) -> dict[str, str]:
    return {"now": total(metric, INTERVAL), "the day before": total(metric, INTERVAL, at=DAY_BEFORE)}


def _details(built: Dashboard) -> Dashboard:
    return add(
        built,
        grid(
            "Top 10 functions by errors",
            "short",
            legend(FUNCTION),
            only_top(total(ERRORS, INTERVAL, FUNCTION), ERRORS, FUNCTION),
            "Failed invocations of the ten functions with the most of them.",
        ),
        totals(
            "Top 10 functions by invocations",
            INVOCATIONS,
            FUNCTION,
            "Invocations of the ten functions with the most of them.",
            top=True,
        ),
        grid(
            "Errors by type",
            "short",
            legend("errorType"),
            total(ERRORS, INTERVAL, "errorType"),
            "Failed invocations by the type of error that Atlassian reports.",
        ),
        latencies("Invocation latency", INVOCATION_LATENCY),
        totals(
            "Custom metrics", CUSTOM, "metricName", "Counts of the app's own metrics. No data: it has none."
        ),
        time_series(
            "Sites with invocations",
            "short",
            {"sites": f"count({total(INVOCATIONS, INTERVAL, SITE)})"},
            "Number of sites that used the app in each interval.",
            colors={"sites": "blue"},
        ),
    )
