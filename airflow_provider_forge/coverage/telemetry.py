"""Metrics of the coverage task: windows by status, late ones, the expiries of the first gap and the token."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

from airflow_provider_forge.coverage.coverage import WindowStatus
from airflow_provider_forge.coverage.lateness import measure_lateness
from airflow_provider_forge.delivery import telemetry as own

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.coverage.coverage import Coverage
    from airflow_provider_forge.delivery.telemetry import Measurement, Reporter
    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["report_coverage"]


def report_coverage(
    coverage: Coverage | None,
    first_expiry: dt.datetime | None,
    token_expires_on: dt.date | None,
    now: dt.datetime,
    endpoint: Endpoint,
    reporter: Reporter,
) -> None:
    """Send the coverage and the time left for gaps and token to the receiver.

    Never raises: losing telemetry must not fail the task. Failures are logged.

    Args:
        coverage: Coverage of the retention period; None if the ledger is empty.
        first_expiry: Time at which the first unattended window expires that can still be delivered; None
            without one.
        token_expires_on: The API token's last day, in UTC; None if unknown.
        now: Current time, aware.
        endpoint: The receiver.
        reporter: The app and the DAG that exports it.
    """
    measured = [*_coverage_measurements(coverage), *_token_measurements(token_expires_on, now)]
    if first_expiry is not None:
        measured.append(own.Measurement(own.GAP_EXPIRY, (first_expiry - now).total_seconds()))
    if measured:
        own.send_measurements(endpoint, measured, reporter, start=time.time_ns())


def _coverage_measurements(coverage: Coverage | None) -> Iterator[Measurement]:
    if coverage is None:
        return
    for status in WindowStatus:
        yield own.Measurement(own.COVERAGE, coverage.count(status), {own.OUTCOME: status.value})
    if (share := measure_lateness(coverage).share) is not None:
        yield own.Measurement(own.LATE, share)


def _token_measurements(last_day: dt.date | None, now: dt.datetime) -> Iterator[Measurement]:
    if last_day is not None:
        end = dt.datetime.combine(last_day + dt.timedelta(days=1), dt.time(), dt.timezone.utc)
        yield own.Measurement(own.TOKEN_EXPIRY, (end - now).total_seconds())
