"""What a task tells about itself: metrics to the receiver, and to where Airflow's own metrics go."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError, WindowExpired
from airflow_provider_forge.gateway.windows import LIVE_FOR
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.delivery.coverage import Coverage
    from airflow_provider_forge.delivery.delivery import Report
    from airflow_provider_forge.gateway.ratelimit import Usage
    from airflow_provider_forge.gateway.windows import Window
    from airflow_provider_forge.hooks.forge import ForgeMetricsHook
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.otlp.selftelemetry import Measurement, Reporter

__all__ = ["Tally", "tell_coverage", "telling"]

log = get_logger(__name__)

WINDOW_OUTCOMES = ("delivered", "empty", "expired", "failed")
POINT_OUTCOMES = ("sent", "unchanged", "changed", "ambiguous", "rejected")


@dataclass
class Tally:
    """What one process of a task has done; a task that is deferred goes on in another one.

    Attributes:
        started: When it began, in nanoseconds since the epoch.
        windows: Number of windows, by outcome; those that are only looked at again are no part of it.
        points: Number of points, by outcome.
        newest: End of the newest window delivered, empty ones too; None for none.
        at_window: Whether it has begun with a window and not dealt with it yet.
        deferred: Seconds for which the task had been deferred by the rate limit.
        failure: Name of the error that ended it; None for none.
        ended: Whether the task has ended, and not only been deferred.
    """

    started: int = field(default_factory=time.time_ns)
    windows: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    newest: dt.datetime | None = None
    at_window: bool = False
    deferred: float = 0.0
    failure: str | None = None
    ended: bool = True

    @contextlib.contextmanager
    def window(self, window: Window, report: Report, *, again: bool) -> Iterator[None]:
        """Count a window and its points, as far as it comes.

        Args:
            window: Which.
            report: Filled in meanwhile.
            again: Whether it is only looked at again for points that came late.
        """
        self.at_window = not again
        try:
            yield
        finally:
            for name in POINT_OUTCOMES:
                self.points[name] += getattr(report, name)
        if not again:
            self.windows[_outcome(report)] += 1
            if not report.problems and (self.newest is None or window.end > self.newest):
                self.newest = window.end

    def end(self, error: BaseException) -> None:
        """Take down how the process ended, unless all went well."""
        from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

        self.ended = not isinstance(error, TaskDeferred)
        if self.ended and not isinstance(error, AirflowSkipException):
            self.failure = type(error).__name__
            # A window that is too old fails the task before it is begun with.
            self.windows["failed"] += self.at_window or isinstance(error, WindowExpired)

    def lag(self, now: dt.datetime) -> float | None:
        """Return the age of the newest window in seconds; None where it was an old one, made up for."""
        if self.newest is None or now - self.newest >= LIVE_FOR:
            return None
        return (now - self.newest).total_seconds()


def _outcome(report: Report) -> str:
    if report.problems:
        return "failed"
    return "delivered" if report.points else "empty"


@contextlib.contextmanager
def telling(
    tally: Tally, forge: ForgeMetricsHook, endpoint: Endpoint, dag_id: str, *, to_receiver: bool
) -> Iterator[None]:
    """Tell what was done inside, once that has ended or failed.

    Args:
        tally: Of what is done.
        forge: Whose calls are told, too.
        endpoint: The receiver.
        dag_id: Airflow's id of the DAG.
        to_receiver: Whether to tell the receiver, and not only Airflow.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):  # whoever ends the process is not kept waiting
        raise
    except BaseException as error:
        tally.end(error)
        _tell(tally, forge, endpoint, dag_id, to_receiver=to_receiver)
        raise
    _tell(tally, forge, endpoint, dag_id, to_receiver=to_receiver)


def _tell(
    tally: Tally, forge: ForgeMetricsHook, endpoint: Endpoint, dag_id: str, *, to_receiver: bool
) -> None:
    now = dt.datetime.now(dt.timezone.utc)
    try:
        _tell_airflow(tally, forge.usage, dag_id, now)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises, it must not hide the task's own error
        log.warning("Airflow's metrics of this task are lost, %s: %s", type(error).__name__, error)
    if not to_receiver:
        return
    try:
        app_id = forge.app_id
    except ConfigurationError:  # it has failed the task, and without it there is no telling whose metrics
        return
    from airflow_provider_forge.otlp.selftelemetry import Reporter, send_measurements

    measured = _measurements(tally, forge.usage, now)
    send_measurements(endpoint, measured, Reporter(app_id, dag_id), start=tally.started)


def _measurements(tally: Tally, usage: Usage, now: dt.datetime) -> Iterator[Measurement]:
    from airflow_provider_forge.otlp import selftelemetry as own

    if tally.ended:
        yield own.Measurement(own.HEARTBEAT, 1)
    lag = tally.lag(now)
    if tally.newest is not None and lag is not None:
        yield own.Measurement(own.WINDOW_END, int(tally.newest.timestamp()))
        yield own.Measurement(own.LAG, lag)
    # Zeros too: a series that is not there before its first count loses that in most backends' sums.
    for outcome in WINDOW_OUTCOMES:
        yield own.Measurement(own.WINDOWS, tally.windows[outcome], {own.OUTCOME: outcome})
    for outcome in POINT_OUTCOMES:
        yield own.Measurement(own.POINTS, max(tally.points[outcome], 0), {own.OUTCOME: outcome})
    yield own.Measurement(own.WAIT, float(usage.waited + tally.deferred))
    yield own.Measurement(own.CALLS, usage.calls)
    yield own.Measurement(own.THROTTLES, usage.throttles)
    if tally.failure:
        yield own.Measurement(own.FAILURES, 1, {own.ERROR_TYPE: tally.failure})


def _tell_airflow(tally: Tally, usage: Usage, dag_id: str, now: dt.datetime) -> None:
    from airflow.providers.common.compat.sdk import Stats

    tags = {"dag_id": dag_id}
    for outcome in WINDOW_OUTCOMES:
        if number := tally.windows[outcome]:
            Stats.incr("forge.windows", number, tags={**tags, "outcome": outcome})
    for outcome in POINT_OUTCOMES:
        if (number := tally.points[outcome]) > 0:
            Stats.incr(f"forge.points.{outcome}", number, tags=tags)
    Stats.timing("forge.wait", dt.timedelta(seconds=usage.waited + tally.deferred), tags=tags)
    if usage.throttles:
        Stats.incr("forge.throttles", usage.throttles, tags=tags)
    if tally.failure:
        Stats.incr("forge.failures", tags={**tags, "error_type": tally.failure})
    if (lag := tally.lag(now)) is not None:
        Stats.gauge("forge.lag", lag, tags=tags)


def tell_coverage(
    coverage: Coverage | None,
    first_expiry: dt.datetime | None,
    token_expires_on: dt.date | None,
    now: dt.datetime,
    endpoint: Endpoint,
    reporter: Reporter,
) -> None:
    """Tell the receiver what is delivered and missing, and how long it or the token will last.

    Args:
        coverage: Of the last 14 days; None for no record.
        first_expiry: When the first gap begins to expire that nobody is about to fill; None for none.
        token_expires_on: The API token's last day, in UTC; None for unknown.
        now: The present, aware.
        endpoint: The receiver.
        reporter: The app, and the DAG that delivers.
    """
    from airflow_provider_forge.otlp import selftelemetry as own

    measured = [*_coverage_measurements(coverage), *_token_measurements(token_expires_on, now)]
    if first_expiry is not None:
        measured.append(own.Measurement(own.GAP_EXPIRY, (first_expiry - now).total_seconds()))
    if measured:
        own.send_measurements(endpoint, measured, reporter, start=time.time_ns())


def _coverage_measurements(coverage: Coverage | None) -> Iterator[Measurement]:
    from airflow_provider_forge.delivery.coverage import Outcome
    from airflow_provider_forge.otlp import selftelemetry as own

    if coverage is None:
        return
    for outcome in Outcome:
        yield own.Measurement(own.COVERAGE, coverage.count(outcome), {own.OUTCOME: outcome.value})


def _token_measurements(last_day: dt.date | None, now: dt.datetime) -> Iterator[Measurement]:
    from airflow_provider_forge.otlp import selftelemetry as own

    if last_day is not None:
        end = dt.datetime.combine(last_day + dt.timedelta(days=1), dt.time(), dt.timezone.utc)
        yield own.Measurement(own.TOKEN_EXPIRY, (end - now).total_seconds())
