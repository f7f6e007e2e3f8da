"""The destinations of a task: each has its own ledger, progress and failures, and none holds up another."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.attempts import Attempts
from airflow_provider_forge.delivery.progress import DeliveryStats, Progress
from airflow_provider_forge.delivery.telemetry import TaskStats
from airflow_provider_forge.exceptions import DeliveryBusy, FinalError, RetryableError
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_forge.delivery.checkpoint import Checkpoint
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.progress import Pass
    from airflow_provider_forge.exceptions import ForgeError
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.windows import Window

__all__ = ["Destination", "check_all", "summarize"]

log = get_logger(__name__)


@dataclass
class Destination:
    """One receiver of a task.

    Attributes:
        receiver: The receiver.
        ledger: The points that it has acknowledged.
        name: Id of its Connection if the task has several destinations, else empty.
        stats: Statistics of this process.
        progress: The windows to deliver. Updated after each window, so it is accurate after an exception.
        checkpoint: Stores the progress after each window, because the task may be killed in the next one.
        attempts: State shared by all requests to the receiver.
        failure: Error that ended the deliveries of this try, if the task has several destinations.
    """

    receiver: OtlpClient
    ledger: Ledger
    name: str = ""
    stats: TaskStats = field(default_factory=TaskStats)
    progress: Progress = field(default_factory=lambda: Progress.begin([], [], expired=0))
    checkpoint: Checkpoint | None = None
    attempts: Attempts = field(default_factory=Attempts)
    failure: ForgeError | None = None

    def upcoming(self) -> tuple[Window, Pass]:
        """Return the window to deliver now, and the reason; there must be one."""
        window = self.progress.next_window()
        assert window is not None  # noqa: S101 - the caller has asked
        return window, self.progress.current_pass

    def save(self) -> None:
        """Store the progress."""
        if self.checkpoint:
            self.checkpoint.save(self.progress)

    def label(self, text: str) -> str:
        """Return a text for the log, which names the destination if the task has several."""
        return f"{self.name}: {text}" if self.name else text

    def fail(self, error: ForgeError) -> None:
        """End the deliveries to this destination, for this try."""
        self.failure = error
        if not isinstance(error, DeliveryBusy):  # for which the task is deferred
            self.stats.fail(error)
        log.warning(
            "%s: %s: %s. Deliveries to the other destinations continue",
            self.name,
            type(error).__name__,
            error,
        )


def check_all(destinations: Sequence[Destination]) -> None:
    """Fail the task as the worst of its destinations would: a failure that a retry may fix goes first.

    Otherwise a destination that refuses would keep the others from their retries.

    Raises:
        ForgeError: A destination has failed, or has problems. If there are several destinations, the message
            names each that has.
    """
    if len(destinations) == 1:
        destinations[0].progress.check()
        return
    errors: dict[str, ForgeError] = {}
    for destination in destinations:
        try:
            destination.progress.check()
        except FinalError as problem:
            errors[destination.name] = problem
            destination.stats.fail(problem)
        if destination.failure:
            errors[destination.name] = destination.failure
    if not errors:
        return
    worst = copy.copy(min(errors.values(), key=_rank))
    worst.message = " | ".join(f"{name}: {error.message}" for name, error in errors.items())
    if isinstance(worst, RetryableError):
        waits = [error.retry_after for error in errors.values() if isinstance(error, RetryableError)]
        # The one that is ready first must not wait for the others.
        worst.retry_after = min((wait for wait in waits if wait is not None), default=None)
    raise worst


def summarize(interval: Window, destinations: Sequence[Destination]) -> dict[str, Any]:
    """Log the statistics of each destination, and return them for XCom.

    Returns:
        The statistics of the only destination; of several the sums, and each one's under `destinations`.
    """
    total, each = DeliveryStats(), {}
    for destination in destinations:
        stats = destination.progress.stats
        total.include(stats)
        each[destination.name] = {"window": str(interval), **stats.to_json()}
        log.info(
            "Summary: %s: calls: %d, %s, requests: %d%s%s%s",
            destination.label(interval.humanize()),
            stats.calls,
            stats.describe(),
            stats.batches,
            f", windows from the archive: {stats.replayed}" if stats.replayed else "",
            f", windows not archived: {stats.unarchived}" if stats.unarchived else "",
            f", windows expired: {stats.expired}" if stats.expired else "",
        )
    summary = {"window": str(interval), **total.to_json()}
    return summary if len(each) == 1 else {**summary, "destinations": each}


def _rank(error: ForgeError) -> int:
    if isinstance(error, DeliveryBusy):
        return 1
    return 0 if isinstance(error, RetryableError) else 2
