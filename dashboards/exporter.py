"""Exporter: whether the exporter itself is alive, on time and complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import KEPT, add, base, exporter_variable
from dashboards.colors import OUTCOMES
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
COVERAGE, UNARCHIVED = exporter("coverage"), exporter("unarchived_total")
GAP_EXPIRY, TOKEN_EXPIRY = exporter("gap_expiry_seconds"), exporter("token_expiry_seconds")
# Coverage is checked every hour.
LATEST = "2h"
# No gap has this value: an expired gap is no longer one.
NO_GAP = "-1"
HOUR, DAY = 3600, 24 * 3600
REJECTED = "rejected: over the limit"
WINDOWS_NOTE = "Windows by outcome. An empty one had no points; an expired one was too old to be delivered."
POINTS_NOTE = (
    "Points by outcome. Unchanged ones had been delivered before; ambiguous ones were sent again, because"
    " it is not known whether they had arrived."
)


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
    return add(
        built,
        stat(
            "Behind by",
            "s",
            _behind(),
            "Time since the end of the newest delivered window. Up to 20 minutes is normal.",
            legend_format=legend(DAG),
            levels={None: "green", HOUR / 2: "yellow", 2 * HOUR: "red"},
        ),
        stat("Windows delivered", "short", f"{delivered} or vector(0)", "Including empty windows."),
        stat(
            "Failed attempts",
            "short",
            f"{total(FAILURES, RANGE)} or vector(0)",
            "Attempts to deliver a window, most of which are repeated with success.",
            levels={None: "green", 1: "yellow"},
        ),
        stat(
            "Missing windows",
            "short",
            _latest("sum", missing),
            "Of the last 14 days, including failed windows, at the coverage DAG's last check. No data: it has"
            " not run.",
            levels={None: "green", 1: "red"},
        ),
        stat(
            "First gap expires in",
            "s",
            _first_gap(),
            "Atlassian then deletes it. No data: the coverage DAG has not run.",
            levels={None: "green", 0: "red", 2 * DAY: "yellow"},
            mappings={NO_GAP: "no gap"},
        ),
        stat(
            "Token expires in",
            "s",
            _latest("min", TOKEN_EXPIRY.where()),
            "No data: token_expires_on is not set, or the coverage DAG has not run.",
            levels={None: "red", 7 * DAY: "yellow", 30 * DAY: "green"},
        ),
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
    calls = {"calls": total(CALLS, INTERVAL), REJECTED: total(THROTTLES, INTERVAL)}
    coverage = _latest(f"sum by ({OUTCOME})", COVERAGE.where(f'{OUTCOME}!="delivered"'))
    outcomes = {"windows": total(WINDOWS, INTERVAL, OUTCOME), "points": total(POINTS, INTERVAL, OUTCOME)}
    failures = total(FAILURES, INTERVAL, "error_type")
    step = {"step": QUARTER_HOUR}
    return add(
        built,
        bar_chart(
            "Heartbeat: tasks ended",
            "short",
            {legend(DAG): heartbeats},
            "Tasks of the exporter that ended, with success or not. None: it is not running.",
            **step,
        ),
        time_series(
            "Behind by, over time",
            "s",
            {legend(DAG): _behind()},
            "Time since the end of the newest delivered window. The dashed lines are half an hour and two.",
            levels={None: "green", HOUR / 2: "yellow", 2 * HOUR: "red"},
            **step,
        ),
        time_series(
            "Lag of each window",
            "s",
            {legend(DAG): lag},
            "Time from the end of a window to its delivery. That of a backfill is days.",
            **step,
        ),
        bar_chart("Windows", "short", {LEGEND: outcomes["windows"]}, WINDOWS_NOTE, colors=OUTCOMES, **step),
        bar_chart("Points", "short", {LEGEND: outcomes["points"]}, POINTS_NOTE, colors=OUTCOMES, **step),
        time_series(
            "Waiting for the rate limit",
            "s",
            {"waited": total(WAIT, INTERVAL)},
            "Time that tasks waited for a call. Much of it is normal during a catchup.",
            **step,
        ),
        time_series(
            "Gateway calls",
            "short",
            calls,
            "Calls to Atlassian's gateway, and those that it rejected.",
            colors={"calls": "blue", REJECTED: "red"},
            **step,
        ),
        bar_chart(
            "Failed attempts by error",
            "short",
            {"{{error_type}}": failures},
            "The troubleshooting page of the documentation explains each type of error.",
            **step,
        ),
        bar_chart(
            "Undelivered windows of the last 14 days",
            "short",
            {LEGEND: coverage},
            "By status, at each check of the coverage DAG. Pending ones are not due yet.",
            colors=OUTCOMES,
            **step,
        ),
        bar_chart(
            "Windows not archived",
            "short",
            {"not archived": total(UNARCHIVED, INTERVAL)},
            "Windows that were delivered but could not be archived. No data: no archive is kept.",
            colors={"not archived": "red"},
            **step,
        ),
    )
