"""Exporter: whether the exporter itself is alive, on time and complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import KEPT, base, exporter_variable
from dashboards.panels import QUARTER_HOUR, bar_chart, legend, stat, time_series
from dashboards.promql import INTERVAL, RANGE, exporter, total

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]

OUTCOME = "forge_exporter_outcome"
DAG = "forge_exporter_dag_id"
LEGEND = legend(OUTCOME)
HEARTBEAT, WINDOW_END, LAG = (
    exporter("heartbeat"),
    exporter("window_end_seconds"),
    exporter("lag_seconds"),
)
WINDOWS, POINTS = exporter("windows_total"), exporter("points_total")
CALLS, THROTTLES = exporter("calls_total"), exporter("throttles_total")
WAIT, FAILURES = exporter("wait_seconds_total"), exporter("failures_total")
COVERAGE = exporter("coverage")
GAP_EXPIRY, TOKEN_EXPIRY = exporter("gap_expiry_seconds"), exporter("token_expiry_seconds")
# Coverage is checked every hour.
LATEST = "2h"
# No gap has this value: an expired gap is no longer one.
NO_GAP = "-1"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "The exporter's own metrics. They tell an idle app from a dead exporter."
    built = base("exporter", "Exporter", description, exporter_variable(HEARTBEAT.name))
    return _graphs(_stats(built))


def _latest(aggregation: str, gauge: str) -> str:
    return f"{aggregation} (last_over_time({gauge}[{LATEST}]))"


def _stats(built: Dashboard) -> Dashboard:
    missing = COVERAGE.where(f'{OUTCOME}=~"missing|failed"')
    delivered = total(WINDOWS, RANGE, where=(f'{OUTCOME}=~"delivered|empty"',))
    return (
        built.with_panel(
            stat(
                "Behind by",
                "s",
                _behind(),
                legend_format=legend(DAG),
                description="Time since the end of the newest delivered window. Up to 20 minutes is normal.",
            )
        )
        .with_panel(
            stat(
                "Windows delivered",
                "short",
                f"{delivered} or vector(0)",
                description="Including empty windows.",
            )
        )
        .with_panel(stat("Failed attempts", "short", f"{total(FAILURES, RANGE)} or vector(0)"))
        .with_panel(
            stat(
                "Missing windows",
                "short",
                _latest("sum", missing),
                description="Of the last 14 days, including failed windows, at the coverage DAG's last check."
                " No data: it has not run.",
            )
        )
        .with_panel(
            stat(
                "First gap expires in",
                "s",
                _first_gap(),
                mappings={NO_GAP: "no gap"},
                description="Atlassian then deletes it. No data: the coverage DAG has not run.",
            )
        )
        .with_panel(
            stat(
                "Token expires in",
                "s",
                _latest("min", TOKEN_EXPIRY.where()),
                description="No data: token_expires_on is not set, or the coverage DAG has not run.",
            )
        )
    )


def _behind() -> str:
    # By DAG: one that is on time would hide another. A shorter range would make a stopped exporter look like
    # one that never existed.
    return f"time() - max by ({DAG}) (max_over_time({WINDOW_END.where()}[{KEPT}]))"


def _first_gap() -> str:
    checked = _latest("count", COVERAGE.where())
    return f"{_latest('min', GAP_EXPIRY.where())} or 0 * {checked} {NO_GAP}"


def _graphs(built: Dashboard) -> Dashboard:
    heartbeats = f"sum by ({DAG}) (count_over_time({HEARTBEAT.where()}[{INTERVAL}]))"
    lag = f"max by ({DAG}) (max_over_time({LAG.where()}[{INTERVAL}]))"
    calls = {"calls": total(CALLS, INTERVAL), "rejected: over the limit": total(THROTTLES, INTERVAL)}
    coverage = _latest(f"sum by ({OUTCOME})", COVERAGE.where(f'{OUTCOME}!="delivered"'))
    outcomes = {"windows": total(WINDOWS, INTERVAL, OUTCOME), "points": total(POINTS, INTERVAL, OUTCOME)}
    failures = total(FAILURES, INTERVAL, "error_type")
    step = {"step": QUARTER_HOUR}
    return (
        built.with_panel(bar_chart("Heartbeat: tasks ended", "short", {legend(DAG): heartbeats}, **step))
        .with_panel(time_series("Behind by, over time", "s", {legend(DAG): _behind()}, **step))
        .with_panel(time_series("Lag of each window", "s", {legend(DAG): lag}, **step))
        .with_panel(bar_chart("Windows", "short", {LEGEND: outcomes["windows"]}, **step))
        .with_panel(bar_chart("Points", "short", {LEGEND: outcomes["points"]}, **step))
        .with_panel(time_series("Waiting for the rate limit", "s", {"waited": total(WAIT, INTERVAL)}, **step))
        .with_panel(time_series("Gateway calls", "short", calls, **step))
        .with_panel(bar_chart("Failed attempts by error", "short", {"{{error_type}}": failures}, **step))
        .with_panel(
            bar_chart(
                "Undelivered windows of the last 14 days",
                "short",
                {LEGEND: coverage},
                span=24,
                **step,
            )
        )
    )
