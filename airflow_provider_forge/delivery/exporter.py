"""Exports windows of metrics from one app to one receiver: fetch, read, deliver, report."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.attempts import Attempts
from airflow_provider_forge.delivery.deliver import deliver
from airflow_provider_forge.delivery.progress import DeliveryStats, Pass, check_age
from airflow_provider_forge.delivery.telemetry import TaskStats
from airflow_provider_forge.exceptions import BrokenAnswer, ForgeError, WindowExpired, WindowTooLarge
from airflow_provider_forge.otlp.messages import MalformedOtlp
from airflow_provider_forge.payload.conform import Identity
from airflow_provider_forge.payload.reader import read
from airflow_provider_forge.payload.source import GatewayPayload
from airflow_provider_forge.text import get_logger, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.progress import Progress
    from airflow_provider_forge.delivery.sender import Policy
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.payload.source import Payload
    from airflow_provider_forge.windows import Window

__all__ = ["Exporter", "Resource"]

log = get_logger(__name__)

_PACKAGE = logging.getLogger(__name__.partition(".")[0])


@dataclass(frozen=True)
class Resource:
    """Attributes for the resource of all points, in addition to those of the app and the environment.

    Attributes:
        service_name: Value of `service.name`; None for the app's own.
        attributes: The user's attributes; they override all others.
    """

    service_name: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Exporter:
    """Exports windows from one app to one receiver.

    Attributes:
        fetch: Fetches the metrics of a window from the gateway.
        receiver: The receiver.
        ledger: The points that the receiver has acknowledged.
        policy: The treatment of points that are not new, and of windows that are too old.
        resource: How to correct and complete Atlassian's resources; None to pass metrics through unchanged.
        stats: Statistics of this process.
        attempts: State shared by all requests to the receiver.
        now: Returns the current time, aware.
    """

    fetch: Callable[[Window], AppMetrics]
    receiver: OtlpClient
    ledger: Ledger
    policy: Policy
    resource: Resource | None
    stats: TaskStats = field(default_factory=TaskStats)
    attempts: Attempts = field(default_factory=Attempts)
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc)

    def export(self, progress: Progress, save: Callable[[Progress], None] = lambda _: None) -> None:
        """Deliver all windows, one by one; a window that is too large for the gateway in halves.

        Args:
            progress: The windows to deliver. Updated after each window, so it is accurate after an exception.
            save: Called with the progress after each window, because the task may be killed in the next one.

        Raises:
            RetryableError: The gateway, the receiver or the ledger failed.
            FinalError: One of them refused.
        """
        while (window := progress.next_window()) is not None:
            current_pass = progress.current_pass
            halves: tuple[Window, ...] = ()
            try:
                # A late window that is not on record is left to the run that it belongs to.
                if current_pass is Pass.FIRST or self.ledger.has_records(window.start, window.end):
                    check_age(window, self.receiver.endpoint, self.now())
                    self._export_window(window, current_pass, progress)
            except WindowTooLarge as error:
                halves = window.halves()
                if not halves:
                    raise
                log.warning("%s; requesting its two halves instead", error)
            except WindowExpired as error:  # while other windows were delivered, or during a rate-limit wait
                if current_pass is Pass.FIRST and self.policy.on_expired == "fail":
                    raise
                log.warning("Skipped: %s", error)
                progress.stats.expired += 1
                self.stats.windows["expired"] += current_pass is Pass.FIRST
            self.stats.in_window = False
            progress.finish_window(*halves)
            save(progress)

    def _export_window(self, window: Window, current_pass: Pass, progress: Progress) -> None:
        """Fetch a window, read it, deliver the points that the receiver lacks, and report the result."""
        title = window.humanize() + (", looked at again" if current_pass is Pass.REVISIT else "")
        stats = DeliveryStats(calls=1)
        with self.stats.count_window(window, current_pass, stats), log_group(title) as group:
            metrics = self.fetch(window)
            stats.request_ids.append(metrics.request_id)
            log.info(
                "Atlassian answered with %s bytes: %s of %s",
                f"{len(metrics.text):,}",
                ", ".join(metrics.metrics),
                ", ".join(environment.name or environment.id for environment in metrics.environments),
            )
            with _malformed_as_broken(metrics):
                payload = self._read(metrics, [environment.id for environment in metrics.environments])
                if anomalies := str(payload.anomalies):
                    log.warning("%s: %s; sent as they are", window, anomalies)
                deliver(
                    metrics,
                    payload,
                    self.receiver,
                    self.ledger,
                    self.policy,
                    stats,
                    self.attempts,
                    lambda environments: self._read(metrics, environments).fingerprints,
                )
        stats.empty = int(not stats.points)
        group.summarize(
            f"{title}: {stats.describe()}",
            f"call {metrics.elapsed:.2f} s, waited {metrics.waited:.1f} s for the limit, request id"
            f" {metrics.request_id}",
        )
        progress.add(stats)

    def _read(self, metrics: AppMetrics, environments: Collection[str]) -> Payload:
        """Read the gateway's response, as if these environments had been requested."""
        identity = None
        if self.resource is not None:
            names = {environment.id: environment.name for environment in metrics.environments}
            identity = Identity(metrics.app_id, self.resource.service_name, names, self.resource.attributes)
        return read(
            GatewayPayload(
                metrics.text,
                environments,
                int(metrics.window.start.timestamp() // 60),
                identity,
                self.receiver.endpoint.protocol,
                recorded=self.ledger.store.lasting,
            )
        )


@contextlib.contextmanager
def _malformed_as_broken(metrics: AppMetrics) -> Iterator[None]:
    """Report metrics that are not OTLP as a broken response of the gateway, which is retried."""
    try:
        yield
    except MalformedOtlp as error:
        raise BrokenAnswer(
            f"The gateway's metrics for {metrics.window} are not OTLP ({sanitize(error)})."
            " If this persists, please open an issue with airflow-provider-forge",
            request_id=metrics.request_id,
        ) from error


class LogGroup(logging.Handler):
    """A collapsible group of log lines, and the one line about it that is readable without expanding it.

    Warnings are counted, because they are hidden while the group is collapsed.

    Attributes:
        warnings: Number of warnings so far.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings = 0

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging's signature
        """Count a record."""
        self.warnings += 1

    def summarize(self, result: str, details: str) -> None:
        """Log the group's result outside of it, as a warning if the group has any."""
        if self.warnings:
            # Before the details, because the UI cuts off long lines.
            log.warning("%s; warnings above: %d; %s", result, self.warnings, details)
        else:
            log.info("%s; %s", result, details)


@contextlib.contextmanager
def log_group(title: str) -> Iterator[LogGroup]:
    """Put the lines logged inside into a group, with Airflow's own markers.

    Before Airflow 3.3 the UI identifies groups by title, so titles must be unique within a task.
    """
    group = LogGroup()
    log.info("::group::%s", title)
    _PACKAGE.addHandler(group)
    try:
        try:
            yield group
        finally:
            # An open group hides the rest of the log.
            _PACKAGE.removeHandler(group)
            log.info("::endgroup::")
    except ForgeError as error:
        # The details are in the error, and its handler decides how to log them.
        log.info("%s: not delivered, %s", title, type(error).__name__)
        raise
