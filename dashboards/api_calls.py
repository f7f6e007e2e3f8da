"""API calls: the app's requests to Atlassian's products and to others, and their responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.common import PercentChangeColorMode

from dashboards.base import LATENCY, Deployments, add, base, link_to, variables_for
from dashboards.colors import ERROR_RATE, STATUSES
from dashboards.panels import LATENCY_NOTE, bar_chart, latencies, legend, stat, table, time_series
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
    from grafana_foundation_sdk.builders.table import Panel as TablePanel

__all__ = ["dashboard"]

NAME = "api-calls"
WORSE = PercentChangeColorMode.INVERTED


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
        stat(
            "5xx responses",
            "percentunit",
            _share(SERVER_ERRORS, RANGE),
            "Share of requests that failed at the other end: yellow from 1 %, red from 5 %.",
            span=6,
            levels=ERROR_RATE,
            more_is=WORSE,
        ),
        stat(
            "4xx responses",
            "percentunit",
            _share(CLIENT_ERRORS, RANGE),
            "Share of requests that were refused, also for too many of them (429).",
            span=6,
            levels=ERROR_RATE,
            more_is=WORSE,
        ),
        stat("Latency", "ms", latency(CALL_LATENCY, RANGE), LATENCY_NOTE, span=6, more_is=WORSE),
    )


def _by_remote(built: Dashboard) -> Dashboard:
    remote = legend(REMOTE)
    return add(
        built,
        bar_chart(
            "Requests by status",
            "short",
            {"{{status}}": total(CALLS, INTERVAL, "status")},
            "Requests in each interval, by the class of their response.",
            colors=STATUSES,
        ),
        bar_chart(
            "Requests by remote",
            "short",
            {remote: total(CALLS, INTERVAL, REMOTE)},
            "Requests in each interval, by product or other host. Choose one above for its history alone.",
        ),
        time_series(
            "5xx by remote",
            "percentunit",
            {remote: _share(SERVER_ERRORS, INTERVAL, REMOTE)},
            "Share of requests that failed at the other end. The dashed lines are 1 % and 5 %.",
            levels=ERROR_RATE,
        ),
        time_series(
            "4xx by remote",
            "percentunit",
            {remote: _share(CLIENT_ERRORS, INTERVAL, REMOTE)},
            "Share of requests that were refused. The dashed lines are 1 % and 5 %.",
            levels=ERROR_RATE,
        ),
        latencies("Request latency", CALL_LATENCY),
        time_series(
            "Latency by remote", "ms", {remote: latency(CALL_LATENCY, INTERVAL, REMOTE)}, LATENCY_NOTE
        ),
    )


def _by_url(built: Dashboard) -> Dashboard:
    url = legend(URL)
    failures = total(CALLS, INTERVAL, URL, where=SERVER_ERRORS)
    return add(
        built,
        bar_chart(
            "Top 10 URLs by requests",
            "short",
            {url: only_top(total(CALLS, INTERVAL, URL), CALLS, URL)},
            "Requests to the ten URLs with the most of them.",
        ),
        bar_chart(
            "Top 10 URLs by 5xx",
            "short",
            {url: only_top(failures, CALLS, URL, where=SERVER_ERRORS)},
            "5xx responses of the ten URLs with the most of them.",
        ),
        time_series(
            "Latency of the top 10 URLs by requests",
            "ms",
            {url: only_top(latency(CALL_LATENCY, INTERVAL, URL), CALLS, URL)},
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
