"""Exporter: whether the exporter itself is alive, on time and complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.base import KEPT, add, base, destination_variable, exporter_variable
from dashboards.colors import OUTCOMES
from dashboards.grids import grid
from dashboards.panels import QUARTER_HOUR, bar_chart, legend, stat, time_series, totals
from dashboards.promql import DAG, DESTINATION, INTERVAL, RANGE, exporter, total, total_of_tasks

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

__all__ = ["dashboard"]

OUTCOME = "forge_exporter_outcome"
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
LATE = exporter("late_ratio")
# Coverage is checked every hour.
LATEST = "2h"
# No gap has this value: an expired gap is no longer one.
NO_GAP = "-1"
HOUR, DAY = 3600, 24 * 3600
REJECTED = "rejected: over the limit"
TOGETHER = " Those of all selected destinations together."
WINDOWS_NOTE = (
    "Windows by outcome. An empty one had no points; an expired one was too old to be delivered." + TOGETHER
)
POINTS_NOTE = (
    "Points by outcome. Unchanged ones had been delivered before; ambiguous ones were sent again, because"
    " it is not known whether they had arrived." + TOGETHER
)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "The exporter's own metrics. They tell an idle app from a dead exporter."
    variables = (exporter_variable(HEARTBEAT.name), destination_variable())
    built = base("exporter", "Exporter", description, *variables)
    return _graphs(_stats(built))


def _latest(aggregation: str, gauge: str) -> str:
    return f"{aggregation} (last_over_time({gauge}[{LATEST}]))"


def _stats(built: Dashboard) -> Dashboard:
    missing = COVERAGE.where(f'{OUTCOME}=~"missing|failed"')
    delivered = total(WINDOWS, RANGE, DESTINATION, where=(f'{OUTCOME}=~"delivered|empty"',))
    by_destination = {"legend_format": legend(DESTINATION)}
    return add(
        built,
        stat(
            "Behind by",
            "s",
            _behind(),
            "Time since the end of the newest delivered window. Up to 20 minutes is normal.",
            legend_format=legend(DAG, DESTINATION),
            levels={None: "green", HOUR / 2: "yellow", 2 * HOUR: "red"},
        ),
        stat("Windows delivered", "short", _or_zero(delivered), "Including empty windows.", **by_destination),
        stat(
            "Failed attempts",
            "short",
            _or_zero(total(FAILURES, RANGE, DESTINATION)),
            "Attempts to deliver a window, most of which are repeated with success.",
            levels={None: "green", 1: "yellow"},
            **by_destination,
        ),
        stat(
            "Missing windows",
            "short",
            _latest(f"sum by ({DESTINATION})", missing),
            "Of the last 14 days, including failed windows, at the coverage DAG's last check. No data: it has"
            " not run.",
            levels={None: "green", 1: "red"},
            **by_destination,
        ),
        stat(
            "First gap expires in",
            "s",
            _first_gap(),
            "Atlassian then deletes it. No data: the coverage DAG has not run.",
            levels={None: "green", 0: "red", 2 * DAY: "yellow"},
            mappings={NO_GAP: "no gap"},
            **by_destination,
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
    # One that is on time would hide another. A shorter range would make a stopped exporter look like one that
    # never existed.
    return f"time() - max by ({DAG}, {DESTINATION}) (max_over_time({WINDOW_END.where()}[{KEPT}]))"


def _first_gap() -> str:
    checked = _latest(f"count by ({DESTINATION})", COVERAGE.where())
    return f"{_latest(f'min by ({DESTINATION})', GAP_EXPIRY.where())} or 0 * {checked} {NO_GAP}"


def _or_zero(expression: str) -> str:
    """Return the expression, or 0 if it has no result for any destination."""
    return f"{expression} or on () vector(0)"


def _graphs(built: Dashboard) -> Dashboard:
    # Each destination gets the heartbeat of each task.
    heartbeats = f"max by ({DAG}) (count_over_time({HEARTBEAT.where()}[{INTERVAL}]))"
    lag = f"max by ({DAG}, {DESTINATION}) (max_over_time({LAG.where()}[{INTERVAL}]))"
    calls = {"calls": total_of_tasks(CALLS, INTERVAL), REJECTED: total_of_tasks(THROTTLES, INTERVAL)}
    coverage = _latest(f"sum by ({OUTCOME})", COVERAGE.where(f'{OUTCOME}!="delivered"'))
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
            {legend(DAG, DESTINATION): _behind()},
            "Time since the end of the newest delivered window. The dashed lines are half an hour and two.",
            levels={None: "green", HOUR / 2: "yellow", 2 * HOUR: "red"},
            **step,
        ),
        time_series(
            "Lag of each window",
            "s",
            {legend(DAG, DESTINATION): lag},
            "Time from the end of a window to its delivery. That of a backfill is days.",
            **step,
        ),
        totals("Windows", WINDOWS, OUTCOME, WINDOWS_NOTE, colors=OUTCOMES, **step),
        totals("Points", POINTS, OUTCOME, POINTS_NOTE, colors=OUTCOMES, **step),
        time_series(
            "Waiting for the rate limit",
            "s",
            {"waited": total_of_tasks(WAIT, INTERVAL)},
            "Time that tasks waited for a call. Much of it is normal during a catchup.",
            colors={"waited": "blue"},
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
        grid(
            "Failed attempts by error",
            "short",
            legend("error_type", DESTINATION),
            total(FAILURES, INTERVAL, "error_type", DESTINATION),
            "The troubleshooting page of the documentation explains each type of error.",
            **step,
        ),
        bar_chart(
            "Undelivered windows of the last 14 days",
            "short",
            {LEGEND: coverage},
            f"By status, at each check of the coverage DAG. Pending ones are not due yet.{TOGETHER}",
            colors=OUTCOMES,
            **step,
        ),
        time_series(
            "Windows with late points",
            "percentunit",
            {legend(DAG, DESTINATION): _latest(f"max by ({DAG}, {DESTINATION})", LATE.where())},
            "Share of the live windows of the last 14 days that got points after they had been delivered."
            " Above 5 %, increase the timetable's settle.",
            levels={None: "green", 0.05: "yellow"},
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
