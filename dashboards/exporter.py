"""Exporter: whether the exporter itself lives, is on time, and has left nothing out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import KEPT, base, of_exporter
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
# The coverage is looked at every hour.
LATEST = "2h"
# No gap expires that soon: what has expired is none.
NO_GAP = "-1"


def dashboard() -> Dashboard:
    """Return the dashboard."""
    about = "The exporter's own metrics: a quiet app and a dead exporter look different here."
    built = base("exporter", "Exporter", about, of_exporter(HEARTBEAT.name))
    return _graphs(_numbers(built))


def _latest(aggregation: str, gauge: str) -> str:
    return f"{aggregation} (last_over_time({gauge}[{LATEST}]))"


def _numbers(built: Dashboard) -> Dashboard:
    missing = COVERAGE.where(f'{OUTCOME}=~"missing|failed"')
    delivered = total(WINDOWS, RANGE, where=(f'{OUTCOME}=~"delivered|empty"',))
    return (
        built.with_panel(
            stat(
                "Behind by",
                "s",
                _behind(),
                text=legend(DAG),
                about="Since the end of the newest window delivered. Up to 20 minutes is as it should be.",
            )
        )
        .with_panel(
            stat("Windows delivered", "short", f"{delivered} or vector(0)", about="Empty ones included.")
        )
        .with_panel(stat("Failed tries", "short", f"{total(FAILURES, RANGE)} or vector(0)"))
        .with_panel(
            stat(
                "Quarter hours missing",
                "short",
                _latest("sum", missing),
                about="Of the last 14 days, as the coverage DAG has last seen them; failed ones included."
                " No data: it has not looked.",
            )
        )
        .with_panel(
            stat(
                "First gap expires in",
                "s",
                _first_gap(),
                words={NO_GAP: "no gap"},
                about="After that, Atlassian no longer has it. No data: the coverage DAG has not looked.",
            )
        )
        .with_panel(
            stat(
                "Token expires in",
                "s",
                _latest("min", TOKEN_EXPIRY.where()),
                about="No data: the Connection has no token_expires_on, or the coverage DAG has not looked.",
            )
        )
    )


def _behind() -> str:
    # By DAG: one that is on time would hide another. Longer ago than this, an exporter that has stopped would
    # look like one that never was.
    return f"time() - max by ({DAG}) (max_over_time({WINDOW_END.where()}[{KEPT}]))"


def _first_gap() -> str:
    looked_for = _latest("count", COVERAGE.where())
    return f"{_latest('min', GAP_EXPIRY.where())} or 0 * {looked_for} {NO_GAP}"


def _graphs(built: Dashboard) -> Dashboard:
    heartbeats = f"sum by ({DAG}) (count_over_time({HEARTBEAT.where()}[{INTERVAL}]))"
    lag = f"max by ({DAG}) (max_over_time({LAG.where()}[{INTERVAL}]))"
    calls = {"calls": total(CALLS, INTERVAL), "refused: over the limit": total(THROTTLES, INTERVAL)}
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
        .with_panel(bar_chart("Failed tries by error", "short", {"{{error_type}}": failures}, **step))
        .with_panel(
            bar_chart(
                "Quarter hours of the last 14 days that are not delivered",
                "short",
                {LEGEND: coverage},
                span=24,
                **step,
            )
        )
    )
