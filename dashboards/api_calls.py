"""API calls: the app's requests to Atlassian's products and to others, and their responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.common import PercentChangeColorMode

from dashboards.base import LATENCY, LATENCY_TITLE, Deployments, add, base, link_to, variables_for
from dashboards.colors import ERROR_RATE, REMOTES, STATUSES
from dashboards.grids import grid
from dashboards.panels import LATENCY_NOTE, latencies, legend, stat, table, time_series, totals
from dashboards.promql import (
    CALL_LATENCY,
    CALLS,
    CLIENT_ERRORS,
    ENVIRONMENT,
    INTERVAL,
    OF_CALLS,
    RANGE,
    REMOTE,
    SERVER_ERRORS,
    SITE,
    URL,
    latency,
    only_top,
    ratio,
    total,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard
    from grafana_foundation_sdk.builders.stat import Panel as StatPanel
    from grafana_foundation_sdk.builders.table import Panel as TablePanel
    from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeriesPanel

__all__ = ["dashboard"]

NAME = "api-calls"
WORSE = PercentChangeColorMode.INVERTED
ERRORS = {"5xx": SERVER_ERRORS, "4xx": CLIENT_ERRORS}
FAILED, REFUSED = "failed at the other end", "were refused"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "Requests that a Forge app sends, by status, remote and URL, and their latency."
    variables = variables_for(OF_CALLS, ENVIRONMENT, SITE, REMOTE, URL)
    built = base(NAME, "API calls", description, *variables, LATENCY).annotation(Deployments())
    return _tables(_by_url(_by_remote(_stats(built))))


def _share(of: tuple[str, ...], window: str, *by: str) -> str:
    return ratio(total(CALLS, window, *by, where=of), total(CALLS, window, *by))


def _stats(built: Dashboard) -> Dashboard:
    return add(
        built,
        stat(
            "Requests",
            "short",
            total(CALLS, RANGE),
            "Requests of the app, and the change since the time range before.",
            span=6,
            more_is=PercentChangeColorMode.SAME_AS_VALUE,
        ),
        _failures("5xx", f"Share of requests that {FAILED}: yellow from 1 %, red from 5 %."),
        _failures("4xx", f"Share of requests that {REFUSED}, also for too many of them (429)."),
        stat(LATENCY_TITLE, "ms", latency(CALL_LATENCY, RANGE), LATENCY_NOTE, span=6, more_is=WORSE),
    )


def _failures(status: str, description: str) -> StatPanel:
    share = _share(ERRORS[status], RANGE)
    return stat(
        f"{status} responses", "percentunit", share, description, span=6, levels=ERROR_RATE, more_is=WORSE
    )


def _by_remote(built: Dashboard) -> Dashboard:
    return add(
        built,
        totals(
            "Requests by status",
            CALLS,
            "status",
            "Requests in each interval, by the class of their response.",
            colors=STATUSES,
        ),
        totals(
            "Requests by remote",
            CALLS,
            REMOTE,
            "Requests in each interval, by product or other host. Choose one above for its history alone.",
            colors=REMOTES,
        ),
        _failures_by_remote("5xx", FAILED),
        _failures_by_remote("4xx", REFUSED),
        latencies("Request latency", CALL_LATENCY),
        time_series(
            "Latency by remote",
            "ms",
            {legend(REMOTE): latency(CALL_LATENCY, INTERVAL, REMOTE)},
            LATENCY_NOTE,
            colors=REMOTES,
        ),
    )


def _failures_by_remote(status: str, failed: str) -> TimeSeriesPanel:
    return time_series(
        f"{status} by remote",
        "percentunit",
        {legend(REMOTE): _share(ERRORS[status], INTERVAL, REMOTE)},
        f"Share of requests that {failed}. The dashed lines are 1 % and 5 %.",
        colors=REMOTES,
        levels=ERROR_RATE,
    )


def _by_url(built: Dashboard) -> Dashboard:
    return add(
        built,
        totals(
            "Top 10 URLs by requests", CALLS, URL, "Requests to the ten URLs with the most of them.", top=True
        ),
        grid(
            "Top 10 URLs by 5xx",
            "short",
            legend(URL),
            only_top(total(CALLS, INTERVAL, URL, where=SERVER_ERRORS), CALLS, URL, where=SERVER_ERRORS),
            "5xx responses of the ten URLs with the most of them.",
        ),
        grid(
            "Latency of the top 10 URLs by requests",
            "ms",
            legend(URL),
            only_top(latency(CALL_LATENCY, INTERVAL, URL), CALLS, URL),
            LATENCY_NOTE,
            span=24,
        ),
    )


def _tables(built: Dashboard) -> Dashboard:
    return add(built, _table("Remotes", REMOTE, "Remote"), _table("URLs", URL, "URL"))


def _table(title: str, label: str, header: str) -> TablePanel:
    note = f"Click a row for its history alone. Latency: {LATENCY_NOTE}"
    links = {f"Only this {header if label == URL else label}": link_to(NAME, label)}
    levels = {"5xx": ERROR_RATE, "4xx": ERROR_RATE}
    return table(title, label, _columns(label), note, header=header, levels=levels, links=links)


def _columns(label: str) -> dict[str, tuple[str, str]]:
    return {
        "Requests": ("short", total(CALLS, RANGE, label)),
        "5xx": ("percentunit", _share(SERVER_ERRORS, RANGE, label)),
        "4xx": ("percentunit", _share(CLIENT_ERRORS, RANGE, label)),
        "Latency": ("ms", latency(CALL_LATENCY, RANGE, label)),
    }
