"""Reports a task's statistics when it ends: to Airflow's own metrics, and to the receiver."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, NamedTuple, Protocol

from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_forge.delivery.telemetry import TaskStats
    from airflow_provider_forge.gateway.ratelimit import LimitUsage
    from airflow_provider_forge.otlp.client import OtlpClient

__all__ = ["ReceiverStats", "report_task"]

log = get_logger(__name__)


class MetricsSource(Protocol):
    """The hook that fetches the metrics.

    Attributes:
        app_id: UUID of the app; raises a `ConfigurationError` if the Connection has none.
        usage: The task's use of the rate limit.
    """

    @property
    def app_id(self) -> str: ...

    @property
    def usage(self) -> LimitUsage: ...


class ReceiverStats(NamedTuple):
    """One destination of a task, and what the task has done for it.

    Attributes:
        stats: Statistics of the destination.
        receiver: Its client.
        name: Id of the destination's Connection if the task has several, else empty.
    """

    stats: TaskStats
    receiver: OtlpClient
    name: str = ""


@contextlib.contextmanager
def report_task(
    reports: Sequence[ReceiverStats], source: MetricsSource, dag_id: str, *, to_receiver: bool
) -> Iterator[None]:
    """Report the statistics of the task inside once it has ended, been deferred, or failed.

    Args:
        reports: The destinations of the task, each of which gets its own.
        source: The hook that fetches the metrics.
        dag_id: Airflow's id of the DAG.
        to_receiver: Whether to send them to the receivers, in addition to Airflow.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):  # the process must end without a wait
        raise
    except BaseException as error:
        if isinstance(error, TaskDeferred):
            for report in reports:
                report.stats.has_ended = False
        elif not isinstance(error, AirflowSkipException):
            _blame(reports, error)
        _report(reports, source, dag_id, to_receiver=to_receiver)
        raise
    _report(reports, source, dag_id, to_receiver=to_receiver)


def _blame(reports: Sequence[ReceiverStats], error: BaseException) -> None:
    """Note an error that failed the task: for all destinations, unless it is the failure of some of them."""
    if not any(report.stats.failure for report in reports):
        for report in reports:
            report.stats.fail(error)


def _report(
    reports: Sequence[ReceiverStats], source: MetricsSource, dag_id: str, *, to_receiver: bool
) -> None:
    now = dt.datetime.now(dt.timezone.utc)
    for number, report in enumerate(reports):
        try:
            _report_to_airflow(report, source.usage if number == 0 else None, dag_id, now)
        except Exception as error:  # noqa: BLE001 - a backend's error must not hide the task's own
            log.warning("This task's metrics did not reach Airflow: %s: %s", type(error).__name__, error)
    if not to_receiver:
        return
    try:
        app_id = source.app_id
    except ConfigurationError:  # it has failed the task, and metrics without an app have no resource
        return
    from airflow_provider_forge.delivery.telemetry import Reporter, send_measurements

    for stats, receiver, name in reports:
        reporter = Reporter(app_id, dag_id, name)
        measurements = stats.measurements(source.usage, now)
        send_measurements(receiver.endpoint, measurements, reporter, start=stats.started)


def _report_to_airflow(
    report: ReceiverStats, usage: LimitUsage | None, dag_id: str, now: dt.datetime
) -> None:
    """Report to Airflow's own metrics; the rate limit's, which all destinations share, only with `usage`."""
    from airflow.providers.common.compat.sdk import Stats

    from airflow_provider_forge.delivery.telemetry import POINT_OUTCOMES, WINDOW_OUTCOMES

    stats = report.stats
    tags = {"dag_id": dag_id, **({"destination": report.name} if report.name else {})}
    for outcome in WINDOW_OUTCOMES:
        if number := stats.windows[outcome]:
            Stats.incr("forge.windows", number, tags={**tags, "outcome": outcome})
    for outcome in POINT_OUTCOMES:
        if number := stats.count(outcome):
            Stats.incr(f"forge.points.{outcome}", number, tags=tags)
    if stats.delivery.unarchived:
        Stats.incr("forge.unarchived", stats.delivery.unarchived, tags=tags)
    if usage is not None:
        Stats.timing("forge.wait", dt.timedelta(seconds=usage.waited + stats.deferred), tags=tags)
        if usage.throttles:
            Stats.incr("forge.throttles", usage.throttles, tags=tags)
    if stats.failure:
        Stats.incr("forge.failures", tags={**tags, "error_type": stats.failure})
    if (lag := stats.lag(now)) is not None:
        Stats.gauge("forge.lag", lag, tags=tags)
