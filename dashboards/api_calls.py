"""API calls: the app's requests to Atlassian's products and to others, and their responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import LATENCY, base, variables_for
from dashboards.panels import LATENCY_NOTE, bar_chart, latencies, stat, table, time_series
from dashboards.promql import (
    API_LATENCY,
    API_REQUESTS,
    CLIENT_ERRORS,
    ENVIRONMENT,
    INTERVAL,
    OF_CALLS,
    RANGE,
    SERVER_ERRORS,
    SITE,
    latency,
    only_top,
    ratio,
    total,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "Requests that a Forge app sends, by status, remote and URL, and their latency."
    built = base("api-calls", "API calls", description, *variables_for(OF_CALLS, ENVIRONMENT, SITE), LATENCY)
    return _table(_graphs(_stats(built)))


def _share(of: tuple[str, ...], window: str, *by: str) -> str:
    return ratio(total(API_REQUESTS, window, *by, where=of), total(API_REQUESTS, window, *by))


def _stats(built: Dashboard) -> Dashboard:
    quantile = stat("Latency", "ms", latency(API_LATENCY, RANGE), description=LATENCY_NOTE, span=6)
    return (
        built.with_panel(stat("Requests", "short", total(API_REQUESTS, RANGE), span=6))
        .with_panel(stat("5xx responses", "percentunit", _share(SERVER_ERRORS, RANGE), span=6))
        .with_panel(stat("4xx responses", "percentunit", _share(CLIENT_ERRORS, RANGE), span=6))
        .with_panel(quantile)
    )


def _graphs(built: Dashboard) -> Dashboard:
    by_url = only_top(total(API_REQUESTS, INTERVAL, "url"), API_REQUESTS, "url")
    return (
        built.with_panel(
            bar_chart("Requests by status", "short", {"{{status}}": total(API_REQUESTS, INTERVAL, "status")})
        )
        .with_panel(
            bar_chart("Requests by remote", "short", {"{{remote}}": total(API_REQUESTS, INTERVAL, "remote")})
        )
        .with_panel(
            time_series(
                "5xx by remote", "percentunit", {"{{remote}}": _share(SERVER_ERRORS, INTERVAL, "remote")}
            )
        )
        .with_panel(
            time_series(
                "4xx by remote", "percentunit", {"{{remote}}": _share(CLIENT_ERRORS, INTERVAL, "remote")}
            )
        )
        .with_panel(latencies("Request latency", API_LATENCY))
        .with_panel(
            time_series(
                "Latency by remote",
                "ms",
                {"{{remote}}": latency(API_LATENCY, INTERVAL, "remote")},
                description=LATENCY_NOTE,
            )
        )
        .with_panel(bar_chart("Top 10 URLs by requests", "short", {"{{url}}": by_url}, span=24))
    )


def _table(built: Dashboard) -> Dashboard:
    columns = {
        "Requests": ("short", total(API_REQUESTS, RANGE, "url")),
        "5xx": ("percentunit", _share(SERVER_ERRORS, RANGE, "url")),
        "4xx": ("percentunit", _share(CLIENT_ERRORS, RANGE, "url")),
        "Latency": ("ms", latency(API_LATENCY, RANGE, "url")),
    }
    return built.with_panel(table("URLs", "url", columns, description=f"Latency: {LATENCY_NOTE}"))
