"""What a task tells about itself: metrics to the receiver, and to where Airflow's own metrics go."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError, WindowExpired
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import LIVE_FOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.delivery.deliver import DeliveryStats
    from airflow_provider_forge.gateway.ratelimit import Usage
    from airflow_provider_forge.hooks.forge import ForgeMetricsHook
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.otlp.selftelemetry import Measurement
    from airflow_provider_forge.windows import Window

__all__ = ["TaskStats", "report_task"]

log = get_logger(__name__)

WINDOW_OUTCOMES = ("delivered", "empty", "expired", "failed")
POINT_OUTCOMES = ("sent", "unchanged", "changed", "ambiguous", "rejected")


@dataclass
class TaskStats:
    """What one process of a task has done; a task that is deferred goes on in another one.

    Attributes:
        started: When it began, in nanoseconds since the epoch.
        windows: Number of windows, by outcome; those that are only looked at again are no part of it.
        points: Number of points, by outcome.
        newest: End of the newest window delivered, empty ones too; None for none.
        in_window: Whether it has begun with a window and not dealt with it yet.
        deferred: Seconds for which the task had been deferred by the rate limit.
        failure: Name of the error that ended it; None for none.
        ended: Whether the task has ended, and not only been deferred.
    """

    started: int = field(default_factory=time.time_ns)
    windows: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    newest: dt.datetime | None = None
    in_window: bool = False
    deferred: float = 0.0
    failure: str | None = None
    ended: bool = True

    @contextlib.contextmanager
    def window(self, window: Window, report: DeliveryStats, *, again: bool) -> Iterator[None]:
        """Count a window and its points, as far as it comes.

        Args:
            window: Which.
            report: Filled in meanwhile.
            again: Whether it is only looked at again for points that came late.
        """
        self.in_window = not again
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
            self.windows["failed"] += self.in_window or isinstance(error, WindowExpired)

    def lag(self, now: dt.datetime) -> float | None:
        """Return the age of the newest window in seconds; None where it was an old one, made up for."""
        if self.newest is None or now - self.newest >= LIVE_FOR:
            return None
        return (now - self.newest).total_seconds()


def _outcome(report: DeliveryStats) -> str:
    if report.problems:
        return "failed"
    return "delivered" if report.points else "empty"


@contextlib.contextmanager
def report_task(
    stats: TaskStats, forge: ForgeMetricsHook, endpoint: Endpoint, dag_id: str, *, to_receiver: bool
) -> Iterator[None]:
    """Tell what was done inside, once that has ended or failed.

    Args:
        stats: Of what is done.
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
        stats.end(error)
        _tell(stats, forge, endpoint, dag_id, to_receiver=to_receiver)
        raise
    _tell(stats, forge, endpoint, dag_id, to_receiver=to_receiver)


def _tell(
    stats: TaskStats, forge: ForgeMetricsHook, endpoint: Endpoint, dag_id: str, *, to_receiver: bool
) -> None:
    now = dt.datetime.now(dt.timezone.utc)
    try:
        _tell_airflow(stats, forge.usage, dag_id, now)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises, it must not hide the task's own error
        log.warning("Airflow's metrics of this task are lost, %s: %s", type(error).__name__, error)
    if not to_receiver:
        return
    try:
        app_id = forge.app_id
    except ConfigurationError:  # it has failed the task, and without it there is no telling whose metrics
        return
    from airflow_provider_forge.otlp.selftelemetry import Reporter, send_measurements

    measured = _measurements(stats, forge.usage, now)
    send_measurements(endpoint, measured, Reporter(app_id, dag_id), start=stats.started)


def _measurements(stats: TaskStats, usage: Usage, now: dt.datetime) -> Iterator[Measurement]:
    from airflow_provider_forge.otlp import selftelemetry as own

    if stats.ended:
        yield own.Measurement(own.HEARTBEAT, 1)
    lag = stats.lag(now)
    if stats.newest is not None and lag is not None:
        yield own.Measurement(own.WINDOW_END, int(stats.newest.timestamp()))
        yield own.Measurement(own.LAG, lag)
    # Zeros too: a series that is not there before its first count loses that in most backends' sums.
    for outcome in WINDOW_OUTCOMES:
        yield own.Measurement(own.WINDOWS, stats.windows[outcome], {own.OUTCOME: outcome})
    for outcome in POINT_OUTCOMES:
        yield own.Measurement(own.POINTS, max(stats.points[outcome], 0), {own.OUTCOME: outcome})
    yield own.Measurement(own.WAIT, float(usage.waited + stats.deferred))
    yield own.Measurement(own.CALLS, usage.calls)
    yield own.Measurement(own.THROTTLES, usage.throttles)
    if stats.failure:
        yield own.Measurement(own.FAILURES, 1, {own.ERROR_TYPE: stats.failure})


def _tell_airflow(stats: TaskStats, usage: Usage, dag_id: str, now: dt.datetime) -> None:
    from airflow.providers.common.compat.sdk import Stats

    tags = {"dag_id": dag_id}
    for outcome in WINDOW_OUTCOMES:
        if number := stats.windows[outcome]:
            Stats.incr("forge.windows", number, tags={**tags, "outcome": outcome})
    for outcome in POINT_OUTCOMES:
        if (number := stats.points[outcome]) > 0:
            Stats.incr(f"forge.points.{outcome}", number, tags=tags)
    Stats.timing("forge.wait", dt.timedelta(seconds=usage.waited + stats.deferred), tags=tags)
    if usage.throttles:
        Stats.incr("forge.throttles", usage.throttles, tags=tags)
    if stats.failure:
        Stats.incr("forge.failures", tags={**tags, "error_type": stats.failure})
    if (lag := stats.lag(now)) is not None:
        Stats.gauge("forge.lag", lag, tags=tags)
