"""The line of one window: gateway, typed answer, what is still undelivered, conform, OTLP, ledger."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.attempts import Attempts
from airflow_provider_forge.exceptions import BrokenAnswer, ForgeError, WindowExpired, WindowTooLarge
from airflow_provider_forge.operators.interval import check_age
from airflow_provider_forge.operators.progress import in_words
from airflow_provider_forge.operators.sections import section
from airflow_provider_forge.operators.telemetry import Tally
from airflow_provider_forge.text import get_logger, quote

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_forge.delivery.delivery import Answer, Policy, Report
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.gateway.windows import Window
    from airflow_provider_forge.hooks.forge import ForgeMetricsHook
    from airflow_provider_forge.operators.progress import Progress
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.otlp.conform import Identity

__all__ = ["Exporter"]

log = get_logger(__name__)


@dataclass
class Exporter:
    """Takes windows from one app to one receiver.

    Attributes:
        forge: The gateway.
        receiver: The receiver.
        ledger: What the receiver has.
        policy: What to do with points that are not simply new.
        environments: As `ForgeMetricsHook.fetch` takes them.
        metrics: Likewise.
        resource_attributes: The user's attributes for the resource.
        conform: Whether to put right what Atlassian labels wrongly.
        on_expired: `fail`, or `skip` what is too old.
        tally: Of what is done.
        attempts: What the requests to the receiver share.
        now: Returns the present, aware.
    """

    forge: ForgeMetricsHook
    receiver: OtlpClient
    ledger: Ledger
    policy: Policy
    environments: str | Sequence[str] | None
    metrics: str | Sequence[str] | None
    resource_attributes: Mapping[str, Any]
    conform: bool
    on_expired: str
    tally: Tally = field(default_factory=Tally)
    attempts: Attempts = field(default_factory=Attempts)
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc)

    def export(self, progress: Progress, keep: Callable[[Progress], None] = lambda _: None) -> None:
        """Deliver what is to do, window by window; one that is too much for the gateway in halves.

        Whatever is raised, the progress says what was delivered until then, and what is left.

        Args:
            progress: What is to do.
            keep: Called with it after each window, because a task can be stopped in the next one.

        Raises:
            RetryableError: The gateway, the receiver or the ledger failed.
            FinalError: One of them refused.
        """
        while progress.todo:
            self._export_next(progress.todo, progress, self.on_expired)
            keep(progress)
        while progress.late:
            # What nobody has delivered yet is left to its own run.
            if self.ledger.knows(progress.late[0].start, progress.late[0].end):
                self._export_next(progress.late, progress, "skip")
            else:
                progress.late.popleft()

    def _export_next(self, todo: deque[Window], progress: Progress, on_expired: str) -> None:
        window, again = todo[0], todo is progress.late
        halves: tuple[Window, ...] = ()
        try:
            check_age(window, self.receiver.endpoint, self.now())
            self._export_window(window, progress, again=again)
        except WindowTooLarge as error:
            halves = window.halves()
            if not halves:
                raise
            log.warning("%s; asked again as two halves", error)
        except WindowExpired as error:  # while others were delivered, or it waited for the rate limit
            if on_expired == "fail":
                raise
            log.warning("Left out: %s", error)
            progress.summary.expired += 1
            self.tally.windows["expired"] += not again
        self.tally.at_window = False
        todo.popleft()
        todo.extendleft(reversed(halves))

    def _export_window(self, window: Window, progress: Progress, *, again: bool) -> None:
        from airflow_provider_forge.delivery.delivery import Report

        title = f"{window.for_people()}, looked at again" if again else window.for_people()
        report = Report()
        try:
            with self.tally.window(window, report, again=again), section(title) as details:
                metrics = self.forge.fetch(window.start, window.end, self.environments, self.metrics)
                log.info(
                    "Atlassian answered with %s bytes: %s of %s",
                    f"{len(metrics.text):,}",
                    ", ".join(metrics.metrics),
                    ", ".join(environment.name or environment.id for environment in metrics.environments),
                )
                self._deliver(metrics, report)
        except ForgeError as error:
            # What happened is in the error, and who catches it decides how loud to be.
            log.info("%s: not delivered, %s", title, type(error).__name__)
            raise
        details.say(
            f"{title}: {in_words(report)}",
            f"call {metrics.elapsed:.2f} s, waited {metrics.waited:.1f} s for the limit, request id"
            f" {metrics.request_id}",
        )
        progress.summary.add(report, metrics.request_id)
        progress.note_problems(problem.message for problem in report.problems)

    def _deliver(self, metrics: AppMetrics, report: Report) -> None:
        from airflow_provider_forge.delivery.delivery import deliver
        from airflow_provider_forge.otlp.model import MalformedOtlp

        try:
            deliver(self._read(metrics), self.receiver, self.ledger, self.policy, report, self.attempts)
        except MalformedOtlp as error:
            raise BrokenAnswer(
                f"The gateway's metrics for {metrics.window} are not OTLP ({quote(error)}). They are asked"
                " for again; should that not end, please open an issue with airflow-provider-forge",
                request_id=metrics.request_id,
            ) from error

    def _read(self, metrics: AppMetrics) -> Answer:
        from airflow_provider_forge.delivery.content import Source, read
        from airflow_provider_forge.delivery.delivery import Answer
        from airflow_provider_forge.delivery.ledger import Selection

        environments = [environment.id for environment in metrics.environments]
        names = {environment.id: environment.name for environment in metrics.environments if environment.name}
        source = Source(
            metrics.text,
            environments,
            int(metrics.window.start.timestamp() // 60),
            self._identity(metrics) if self.conform else None,
            self.receiver.endpoint.protocol,
            recorded=self.ledger.store.lasting,
        )
        content = read(source)
        if odd := str(content.oddities):
            log.warning("%s: %s; sent as they are", metrics.window, odd)
        selection = Selection(environments, metrics.metrics, names)
        return Answer(
            metrics.window.start,
            metrics.window.end,
            selection,
            content,
            lambda others: read(dataclasses.replace(source, environments=others)).points,
            metrics.request_id,
        )

    def _identity(self, metrics: AppMetrics) -> Identity:
        from airflow_provider_forge.otlp.conform import Identity

        return Identity(
            metrics.app_id,
            self.forge.service_name,
            {environment.id: environment.name for environment in metrics.environments},
            self.resource_attributes,
        )
