"""The coverage as one JSON document, from which the page in Airflow and programs take their figures.

The coverage task stores it as XCom `forge_coverage`, and the command `coverage --json` prints it. Its fields
are in docs/coverage.md. It stays below 64 kB: each quarter hour is a letter, and its figures are in lists::

    {"version": 1, "checked_at": "2026-11-23T12:12:00Z", "start": "2026-11-09T12:15:00Z",
     "cells": "ddle…mmdp", "points": [512, 498, …], "minutes": [6, 6, …], "attempts": [1, 1, …], …}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_forge import __version__
from airflow_provider_forge.coverage.coverage import WindowStatus
from airflow_provider_forge.coverage.healing import can_be_filled
from airflow_provider_forge.coverage.lateness import measure_lateness
from airflow_provider_forge.coverage.report import backfill_command
from airflow_provider_forge.windows import format_time

if TYPE_CHECKING:
    import datetime as dt

    from airflow_provider_forge.coverage.coverage import Coverage, Gap, Quarter

__all__ = ["XCOM_KEY", "to_document"]

XCOM_KEY = "forge_coverage"

VERSION = 1

MAX_GAPS = 50
"""Number of gaps listed: those that expire first. `cells` has all."""

LETTERS = {
    WindowStatus.PENDING: "p",
    WindowStatus.EMPTY: "e",
    WindowStatus.DELIVERED: "d",
    WindowStatus.REJECTED: "r",
    WindowStatus.FAILED: "f",
    WindowStatus.MISSING: "m",
}
"""Letters of the cells. `l` is a delivered window with late points; `F` and `M` expire soon."""


def to_document(
    coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, dag_id: str
) -> dict[str, Any]:
    """Return the document.

    Args:
        coverage: The coverage to report.
        now: Current time, aware.
        alert_before: Gaps that begin to expire within this time are marked as expiring soon.
        dag_id: The DAG that exports, and whose backfill heals a gap.
    """
    quarters, gaps = coverage.quarters, coverage.gaps()
    expiring = coverage.expiring(now, alert_before)
    return {
        "version": VERSION,
        "provider": __version__,
        "checked_at": format_time(now, "seconds"),
        "dag_id": dag_id,
        "environments": list(coverage.environments),
        "metrics": list(coverage.metrics),
        "start": format_time(quarters[0].start) if quarters else None,
        "expire_after": int(coverage.keep.total_seconds()),
        "catchup": format_time(coverage.catchup) if coverage.catchup else None,
        "cells": "".join(_letter(quarter, coverage, now, alert_before) for quarter in quarters),
        "points": [quarter.points for quarter in quarters],
        "minutes": [_minutes(quarter) for quarter in quarters],
        "attempts": [quarter.attempts for quarter in quarters],
        "windows": {status.value: coverage.count(status) for status in WindowStatus},
        "late": sum(quarter.is_late for quarter in quarters),
        "lateness": _lateness(coverage),
        "gap_count": len(gaps),
        "gaps": [
            _gap(gap, dag_id, soon=gap in expiring, in_time=can_be_filled(gap, now))
            for gap in gaps[:MAX_GAPS]
        ],
    }


def _letter(quarter: Quarter, coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta) -> str:
    if quarter.is_late:
        return "l"
    letter = LETTERS[quarter.status]
    soon = quarter.is_open and quarter.start + coverage.keep - now <= alert_before
    return letter.upper() if soon else letter


def _minutes(quarter: Quarter) -> int | None:
    """Return the minutes from a window's end to its latest points."""
    moment = quarter.delivered_at
    return None if moment is None else round((moment - quarter.end).total_seconds() / 60)


def _lateness(coverage: Coverage) -> dict[str, Any]:
    measured = measure_lateness(coverage)
    return {
        "windows": measured.windows,
        "late": measured.late,
        "p50_seconds": None if measured.p50 is None else int(measured.p50.total_seconds()),
        "p95_seconds": None if measured.p95 is None else int(measured.p95.total_seconds()),
        "advice": measured.advice,
    }


def _gap(gap: Gap, dag_id: str, *, soon: bool, in_time: bool) -> dict[str, Any]:
    return {
        "start": format_time(gap.start),
        "end": format_time(gap.end),
        "windows": {
            status.value: count
            for status in (WindowStatus.FAILED, WindowStatus.MISSING)
            if (count := sum(quarter.status is status for quarter in gap.quarters))
        },
        "expires": format_time(gap.expires),
        "expiring_soon": soon,
        "backfill": backfill_command(gap, dag_id) if in_time else None,
    }
