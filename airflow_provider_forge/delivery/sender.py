"""Sends batches of one window's points: each intended before, acknowledged after, and retried in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.deduplication import PointStatus
from airflow_provider_forge.exceptions import (
    DeliveryAmbiguous,
    ExportRefused,
    LedgerUnavailable,
    PointsRejected,
    ReceiverUnavailable,
    RequestTooLarge,
)
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from airflow_provider_forge.delivery.attempts import Attempts
    from airflow_provider_forge.delivery.deliver import DeliveryStats, Policy
    from airflow_provider_forge.delivery.session import LedgerSession
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.otlp.requests import ExportRequest
    from airflow_provider_forge.payload.source import Payload

__all__ = ["Sender"]

log = get_logger(__name__)


class Sender:
    """Takes points to the receiver, and keeps the record right whatever happens on the way.

    Args:
        content: The window's points.
        receiver: Where they go.
        page: What the record says of them.
        policy: What to do with points that are not simply new.
        report: To be filled.
        attempts: What the requests of the task share.

    Attributes:
        pending: Numbers of points that are to be delivered and not acknowledged yet.
        rejected: Numbers of points of requests of which the receiver rejected some.
        accepted: Whether the receiver has accepted a request.
        ambiguous: Numbers of points that may have arrived and are counted as such.
    """

    def __init__(
        self,
        content: Payload,
        receiver: OtlpClient,
        page: LedgerSession,
        policy: Policy,
        report: DeliveryStats,
        attempts: Attempts,
    ) -> None:
        self._content = content
        self._receiver = receiver
        self._page = page
        self._policy = policy
        self._report = report
        self.attempts = attempts
        self.pending: set[int] = set()
        self.rejected: set[int] = set()
        self.accepted = False
        # Points that this delivery has sent without hearing whether they were stored.
        self._doubtful: set[int] = set()
        self.ambiguous = set(page.points_with(PointStatus.AMBIGUOUS))

    def may_repeat(self, error: ExportRefused | ReceiverUnavailable) -> bool:
        """Whether points of a request that failed may be sent again at once."""
        return not error.maybe_stored or self._policy.on_ambiguous == "resend"

    def send(self, batch: list[int], export: ExportRequest) -> None:
        """Send points in one request, and again while the receiver is away for a moment.

        Args:
            batch: The points' numbers.
            export: The request that holds them.

        Raises:
            LedgerUnavailable: The record cannot be read or written.
            ReceiverUnavailable: The receiver is away for longer, or it is unknown what it has stored.
            ExportRefused: It refused the request.
        """
        retries = self.attempts.begin(self._receiver.endpoint.export_timeout)
        while True:
            try:
                self._send_once(batch, export, retries.seconds_left)
            except ReceiverUnavailable as error:
                wait = retries.wait_after(error) if self.may_repeat(error) else None
                if wait is None:
                    raise
                # Whoever ends the task meanwhile must not leave points in doubt that were not taken.
                self._page.save()
                log.warning("%s, in %.1f s, by this task", error.message, wait)
                self.attempts.sleep(wait)
            else:
                return

    def _send_once(self, batch: list[int], export: ExportRequest, seconds: float | None) -> None:
        self._page.mark_in_flight(batch)
        try:
            self._page.save()
        except LedgerUnavailable:  # nothing was sent
            self._withdraw(batch)
            raise
        self.report_contention()
        if there := self._taken_meanwhile(batch):
            self._page.mark_pending(there)
            batch = [number for number in batch if number not in there]
            if not batch:
                return
            export = self._content.build_request(batch)
        self._note_repetition(batch)
        try:
            self._report.warnings += self._receiver.export(export, seconds=seconds) is not None
        except PointsRejected as rejection:
            # OTLP forbids to send them again, so they count as acknowledged.
            log.warning("%s", rejection)
            self._report.rejected += rejection.rejected
            self._report.sent -= rejection.rejected
            self._report.problems.append(rejection)
            self.rejected.update(batch)
        except (ExportRefused, ReceiverUnavailable) as error:
            self._note_failure(batch, error)
            raise
        self._note_success(batch, export)

    def report_contention(self) -> None:
        """Report another task at the same minutes, once, before anything more is sent."""
        if self._page.contended and not self._report.contended:
            self._report.contended = True
            log.warning(
                "Another task has delivered the same minutes at the same time, on a machine that shares no"
                " lease with this one: points of both may have been sent twice"
            )

    def _taken_meanwhile(self, batch: list[int]) -> set[int]:
        """Return the points that another writer has delivered, or sends, since this page was opened."""
        if self._policy.resend or not self._page.contended:
            return set()
        statuses = {number: self._page.status(number) for number in batch}
        there = {number for number in batch if statuses[number] is PointStatus.UNCHANGED}
        self._report.unchanged += len(there)
        if self._policy.on_changed != "send":
            changed = {number for number in batch if statuses[number] is PointStatus.CHANGED}
            self._report.changed += len(changed)
            there |= changed
        self.pending.difference_update(there)
        unknown = {
            number
            for number in batch
            if statuses[number] is PointStatus.AMBIGUOUS and number not in self.ambiguous
        }
        self.ambiguous |= unknown
        self._report.ambiguous += len(unknown)
        return there | self.settle_ambiguous(unknown)

    def settle_ambiguous(self, numbers: set[int]) -> set[int]:
        """Say what is done with points that may have arrived; return those that are held back."""
        if not numbers:
            return set()
        told = f"{len(numbers)} points were sent before, and whether they arrived is not known"
        if self._policy.on_ambiguous == "resend":
            log.warning("%s: sent again, so one duplicate of each is possible", told)
            return set()
        self._report.problems.append(
            DeliveryAmbiguous(
                f"{told}. Look for them at the receiver; to send them again, run it with"
                " on_ambiguous='resend' or resend=True"
            )
        )
        return set(numbers)

    def _note_repetition(self, batch: list[int]) -> None:
        repeated = self._doubtful.intersection(batch) - self.ambiguous
        if repeated:
            self.ambiguous |= repeated
            self._report.ambiguous += len(repeated)
            log.warning(
                "%d points are sent again though they may have been stored, so one duplicate of each is"
                " possible",
                len(repeated),
            )

    def _note_failure(self, batch: list[int], error: ExportRefused | ReceiverUnavailable) -> None:
        # A request that is too large says nothing of others.
        if isinstance(error, ExportRefused) and not isinstance(error, RequestTooLarge):
            self.attempts.refusals += 1
        if error.maybe_stored:
            self._doubtful.update(batch)
        else:
            self._withdraw(batch)

    def _withdraw(self, batch: list[int]) -> None:
        self._page.mark_pending(number for number in batch if number not in self._doubtful)

    def _note_success(self, batch: list[int], export: ExportRequest) -> None:
        self._page.mark_acknowledged(batch)
        self._doubtful.difference_update(batch)
        self.pending.difference_update(batch)
        self.attempts.refusals = 0
        self.accepted = True
        self._report.sent += export.points
        self._report.batches += 1
        log.info(
            "The receiver took a request of %s bytes: %d points, %s",
            f"{export.size:,}",
            export.points,
            ", ".join(export.metrics),
        )
