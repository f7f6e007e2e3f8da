"""Exports windows of metrics from one app to its receivers: fetch, read, deliver, report."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.deliver import deliver
from airflow_provider_forge.delivery.destination import check_all
from airflow_provider_forge.delivery.progress import DeliveryStats, Pass, check_age, problem_log
from airflow_provider_forge.exceptions import (
    ArchiveDamaged,
    BrokenAnswer,
    ForgeError,
    WindowExpired,
    WindowNotArchived,
    WindowTooLarge,
)
from airflow_provider_forge.otlp.messages import MalformedOtlp
from airflow_provider_forge.payload.conform import Identity
from airflow_provider_forge.payload.payload import ReadOptions
from airflow_provider_forge.payload.reader import read
from airflow_provider_forge.text import get_logger, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from airflow_provider_forge.delivery.destination import Destination
    from airflow_provider_forge.delivery.sender import Policy
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.payload.fingerprints import Fingerprint
    from airflow_provider_forge.payload.payload import Payload
    from airflow_provider_forge.windows import Window

    Source = Callable[[Window, DeliveryStats], Sequence[AppMetrics]]
    """Returns the responses of a window, and counts them: one from the gateway, or all in the archive."""

__all__ = ["Exporter", "Resource", "Source"]

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
    """Exports windows from one app to its destinations. Each window is fetched once for all of them.

    An error of the only destination ends the export. If there are several, it ends the deliveries to that
    destination, and the others continue.

    Attributes:
        fetch: Fetches the metrics of a window from the gateway or the archive.
        destinations: The destinations, each with its progress.
        policy: The treatment of points that are not new, and of windows that are too old.
        resource: How to correct and complete Atlassian's resources; None to pass metrics through unchanged.
        now: Returns the current time, aware.
    """

    fetch: Source
    destinations: Sequence[Destination]
    policy: Policy
    resource: Resource | None
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc)

    def export(self) -> None:
        """Deliver all windows, one by one; a window that is too large for the gateway in halves.

        Raises:
            RetryableError: The gateway, the archive, a receiver or a ledger failed.
            FinalError: One of them refused.
        """
        while takers := self._takers():
            window, current_pass = takers[0].upcoming()
            due = [each for each in takers if self._is_due(window, current_pass, each)]
            halves: tuple[Window, ...] = ()
            try:
                if due:
                    self._export_window(window, current_pass, due)
            except WindowTooLarge as error:
                halves = window.halves()
                if not halves:
                    raise
                log.warning("%s; requesting its two halves instead", error)
            except WindowExpired as error:  # while other windows were delivered, or during a rate-limit wait
                for destination in due:
                    with self.apart(destination):
                        self._expire(current_pass, destination, error)
            for destination in takers:
                if destination.failure is None:
                    destination.stats.in_window = False
                    destination.progress.finish_window(*(halves if destination in due else ()))
                    destination.save()
        if any(destination.failure for destination in self.destinations):
            check_all(self.destinations)

    def _takers(self) -> list[Destination]:
        """Return the destinations that need the next window: the oldest to deliver; late ones come last."""
        active = [each for each in self.destinations if each.failure is None and each.progress.next_window()]
        if not active:
            return []
        turn = min((each.upcoming() for each in active), key=lambda each: (each[1] is Pass.REVISIT, each[0]))
        return [each for each in active if each.upcoming() == turn]

    def _is_due(self, window: Window, current_pass: Pass, destination: Destination) -> bool:
        """Return whether to deliver a window: not one that is too old, nor a late one without a record."""
        with self.apart(destination):
            # Such a window is left to the run that it belongs to.
            if current_pass is Pass.REVISIT and not destination.ledger.has_records(window.start, window.end):
                return False
            try:
                check_age(window, destination.receiver.endpoint, self.now())
            except WindowExpired as error:
                self._expire(current_pass, destination, error)
            else:
                return True
        return False

    def _expire(self, current_pass: Pass, destination: Destination, error: WindowExpired) -> None:
        """Skip a window that is too old, or fail as the policy says.

        A window that is not in the archive fails the task once the others are delivered.
        """
        is_first = current_pass is Pass.FIRST
        if is_first and self.policy.on_expired == "fail":
            if not isinstance(error, WindowNotArchived):
                raise error
            problem_log.warning("%s", error)
            destination.progress.add(DeliveryStats(problems=[error]))
            destination.stats.windows["failed"] += 1
            return
        log.warning("Skipped: %s", error)
        destination.progress.stats.expired += 1
        destination.stats.windows["expired"] += is_first

    @contextlib.contextmanager
    def apart(self, destination: Destination) -> Iterator[None]:
        """Keep an error of one destination from the others, if there are others."""
        try:
            yield
        except ForgeError as error:
            if len(self.destinations) == 1:
                raise
            destination.fail(error)

    def _export_window(self, window: Window, current_pass: Pass, takers: list[Destination]) -> None:
        """Fetch a window, read it, deliver the points that each receiver lacks, and report the result."""
        title = window.humanize() + (", revisited for late points" if current_pass is Pass.REVISIT else "")
        shares = [(destination, DeliveryStats()) for destination in takers]
        try:
            with log_group(title) as group:
                for destination, _ in shares:
                    destination.stats.begin_window(current_pass)
                responses = self.fetch(window, found := DeliveryStats())
                _note_source(found, responses, shares)
                for metrics in responses:
                    with _reporting_malformed(metrics, archived=bool(found.replayed), shares=shares):
                        self._deliver_response(metrics, shares)
        finally:
            for destination, stats in shares:
                destination.stats.delivery.include(stats)
        _hand_on(found, shares)
        for destination, stats in shares:
            name = f"{title}, {destination.name}" if destination.name else title
            if destination.failure:
                log.info("%s: not delivered, %s", name, type(destination.failure).__name__)
                continue
            # An archived response that cannot be used may have points.
            stats.empty = int(not stats.points and not stats.problems)
            destination.stats.count_window(window, current_pass, stats)
            group.summarize(f"{name}: {stats.describe()}", _describe_source(found, responses))
            destination.progress.add(stats)

    def _deliver_response(self, metrics: AppMetrics, shares: list[tuple[Destination, DeliveryStats]]) -> None:
        """Deliver one response to each destination that has not failed."""
        readings = _Readings(metrics, self.resource)
        for destination, stats in shares:
            if destination.failure:
                continue
            part = DeliveryStats()
            try:
                with self.apart(destination):
                    deliver(
                        metrics,
                        readings.payload(destination),
                        destination,
                        self.policy,
                        part,
                        functools.partial(readings.fingerprints, destination),
                    )
            finally:
                stats.include(part)


class _Readings:
    """One response, read once for all destinations that need it in the same form.

    Args:
        metrics: The response.
        resource: As for `Exporter`.
    """

    def __init__(self, metrics: AppMetrics, resource: Resource | None) -> None:
        self._metrics = metrics
        self._resource = resource
        self._payloads: dict[tuple[str, bool], Payload] = {}

    def payload(self, destination: Destination) -> Payload:
        """Return the payload in the destination's form; log its anomalies once."""
        form = destination.receiver.endpoint.protocol, destination.ledger.store.lasting
        if form not in self._payloads:
            payload = self._read(form, [environment.id for environment in self._metrics.environments])
            if not self._payloads and (anomalies := str(payload.anomalies)):
                log.warning("%s: %s; sent as they are", self._metrics.window.humanize(), anomalies)
            self._payloads[form] = payload
        return self._payloads[form]

    def fingerprints(self, destination: Destination, environments: Collection[str]) -> Sequence[Fingerprint]:
        """Return the fingerprints of the points, as if these environments had been requested."""
        form = destination.receiver.endpoint.protocol, destination.ledger.store.lasting
        return self._read(form, environments).fingerprints

    def _read(self, form: tuple[str, bool], environments: Collection[str]) -> Payload:
        metrics, identity = self._metrics, None
        if self._resource is not None:
            names = {environment.id: environment.name for environment in metrics.environments}
            identity = Identity(metrics.app_id, self._resource.service_name, names, self._resource.attributes)
        protocol, recorded = form
        return read(
            metrics.text,
            ReadOptions(
                environments,
                int(metrics.window.start.timestamp() // 60),
                identity,
                protocol,
                recorded=recorded,
            ),
        )


def _note_source(
    found: DeliveryStats, responses: Sequence[AppMetrics], shares: list[tuple[Destination, DeliveryStats]]
) -> None:
    """Log the source of a window; count it for the first destination only, so that the sum is right."""
    for problem in found.problems:
        problem_log.warning("%s", problem)
    for _, stats in shares:
        stats.problems += found.problems
    found.problems = []
    found.request_ids = [metrics.request_id for metrics in responses]
    shares[0][1].include(found)
    for metrics in responses:
        log.info(
            "%s %s bytes: %s of %s",
            "The archive has" if found.replayed else "Atlassian answered with",
            f"{len(metrics.text):,}",
            ", ".join(metrics.metrics),
            ", ".join(environment.name or environment.id for environment in metrics.environments),
        )


def _hand_on(found: DeliveryStats, shares: list[tuple[Destination, DeliveryStats]]) -> None:
    """Count the source for another destination if the first has failed, whose statistics are dropped."""
    if shares[0][0].failure:
        for destination, stats in shares:
            if destination.failure is None:
                stats.include(found)
                return


def _describe_source(found: DeliveryStats, responses: Sequence[AppMetrics]) -> str:
    ids = ", ".join(str(metrics.request_id) for metrics in responses) or "none"
    if found.replayed:
        return f"from the archive, request id {ids}"
    [metrics] = responses
    return f"call {metrics.elapsed:.2f} s, waited {metrics.waited:.1f} s for the limit, request id {ids}"


@contextlib.contextmanager
def _reporting_malformed(
    metrics: AppMetrics, *, archived: bool, shares: list[tuple[Destination, DeliveryStats]]
) -> Iterator[None]:
    """Report metrics that are not OTLP: as a retryable error of the gateway, or a problem of the archive."""
    try:
        yield
    except MalformedOtlp as error:
        message = f"metrics for {metrics.window.humanize()} are not OTLP ({sanitize(error)})"
        report = "If this persists, please open an issue with airflow-provider-forge"
        if not archived:
            raise BrokenAnswer(f"The gateway's {message}. {report}", request_id=metrics.request_id) from error
        problem = ArchiveDamaged(f"The archive's {message}. {report}", request_id=metrics.request_id)
        for _, stats in shares:
            stats.problems.append(problem)


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
