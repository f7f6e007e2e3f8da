"""Reports a task's statistics when it ends: to Airflow's own metrics, and to the receiver."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Protocol

from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.delivery.telemetry import TaskStats
    from airflow_provider_forge.gateway.ratelimit import Usage
    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["report_task"]

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
    def usage(self) -> Usage: ...


@contextlib.contextmanager
def report_task(
    stats: TaskStats, source: MetricsSource, endpoint: Endpoint, dag_id: str, *, to_receiver: bool
) -> Iterator[None]:
    """Report the statistics of the task inside once it has ended, been deferred, or failed.

    Args:
        stats: The task's statistics.
        source: The hook that fetches the metrics.
        endpoint: The receiver.
        dag_id: Airflow's id of the DAG.
        to_receiver: Whether to send them to the receiver, in addition to Airflow.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):  # the process must end without a wait
        raise
    except BaseException as error:
        if isinstance(error, TaskDeferred):
            stats.has_ended = False
        elif not isinstance(error, AirflowSkipException):
            stats.fail(error)
        _report(stats, source, endpoint, dag_id, to_receiver=to_receiver)
        raise
    _report(stats, source, endpoint, dag_id, to_receiver=to_receiver)


def _report(
    stats: TaskStats, source: MetricsSource, endpoint: Endpoint, dag_id: str, *, to_receiver: bool
) -> None:
    now = dt.datetime.now(dt.timezone.utc)
    try:
        _report_to_airflow(stats, source.usage, dag_id, now)
    except Exception as error:  # noqa: BLE001 - a backend's error must not hide the task's own
        log.warning("Airflow's metrics of this task are lost, %s: %s", type(error).__name__, error)
    if not to_receiver:
        return
    try:
        app_id = source.app_id
    except ConfigurationError:  # it has failed the task, and metrics without an app have no resource
        return
    from airflow_provider_forge.delivery.telemetry import Reporter, send_measurements

    measurements = stats.measurements(source.usage, now)
    send_measurements(endpoint, measurements, Reporter(app_id, dag_id), start=stats.started)


def _report_to_airflow(stats: TaskStats, usage: Usage, dag_id: str, now: dt.datetime) -> None:
    from airflow.providers.common.compat.sdk import Stats

    from airflow_provider_forge.delivery.telemetry import POINT_OUTCOMES, WINDOW_OUTCOMES

    tags = {"dag_id": dag_id}
    for outcome in WINDOW_OUTCOMES:
        if number := stats.windows[outcome]:
            Stats.incr("forge.windows", number, tags={**tags, "outcome": outcome})
    for outcome in POINT_OUTCOMES:
        if number := stats.count(outcome):
            Stats.incr(f"forge.points.{outcome}", number, tags=tags)
    Stats.timing("forge.wait", dt.timedelta(seconds=usage.waited + stats.deferred), tags=tags)
    if usage.throttles:
        Stats.incr("forge.throttles", usage.throttles, tags=tags)
    if stats.failure:
        Stats.incr("forge.failures", tags={**tags, "error_type": stats.failure})
    if (lag := stats.lag(now)) is not None:
        Stats.gauge("forge.lag", lag, tags=tags)
