"""Sends one window's points: each request is on record before it is sent and after it is acknowledged."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.deduplication import PointStatus
from airflow_provider_forge.delivery.progress import problem_log
from airflow_provider_forge.exceptions import (
    DeliveryAmbiguous,
    ExportRefused,
    LedgerUnavailable,
    PointsChanged,
    PointsRejected,
    ReceiverUnavailable,
    RequestTooLarge,
)
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.delivery.attempts import Attempts
    from airflow_provider_forge.delivery.progress import DeliveryStats
    from airflow_provider_forge.delivery.session import LedgerSession
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.otlp.requests import ExportRequest
    from airflow_provider_forge.payload.payload import Payload

__all__ = ["Policy", "Sender"]

log = get_logger(__name__)


@dataclass(frozen=True)
class Policy:
    """The treatment of points that are not new, and of windows that are too old.

    Attributes:
        resend: Whether to send all points, acknowledged ones too.
        on_changed: For points acknowledged with another value: `skip`, `send` or `fail`.
        on_ambiguous: For points sent before without a known response: `resend` or `fail`.
        on_expired: For windows that are too old: `fail` or `skip`.
        since: Start of the run, in seconds since the epoch. Points rejected since then fail the run, even if
            an earlier try sent them. None to ignore earlier rejections.
        run: Identity of the run, so that with `resend` its retries do not send again what it has sent. Empty
            if there are no retries.
    """

    resend: bool = False
    on_changed: str = "skip"
    on_ambiguous: str = "resend"
    on_expired: str = "fail"
    since: float | None = None
    run: str = ""


class Sender:
    """Sends points to the receiver, and keeps the ledger correct if it is interrupted.

    Args:
        payload: The window's points.
        receiver: The receiver.
        session: The ledger's record of these points.
        policy: The treatment of points that are not new.
        stats: Updated while points are sent.
        attempts: State shared by all requests to the destination.

    Attributes:
        pending: Numbers of the points to deliver that are not acknowledged yet.
        rejected: Numbers of the points in requests of which the receiver rejected some.
        has_accepted: Whether the receiver has accepted a request.
        ambiguous: Numbers of the points counted as ambiguous.
    """

    def __init__(
        self,
        payload: Payload,
        receiver: OtlpClient,
        session: LedgerSession,
        policy: Policy,
        stats: DeliveryStats,
        attempts: Attempts,
    ) -> None:
        self._payload = payload
        self._receiver = receiver
        self._session = session
        self._policy = policy
        self._stats = stats
        self.attempts = attempts
        self.pending: set[int] = set()
        self.rejected: set[int] = set()
        self.has_accepted = False
        # Points that were sent here without a known response.
        self._unconfirmed: set[int] = set()
        self.ambiguous = set(session.points_with(PointStatus.AMBIGUOUS))
        # Whether earlier tries of the run have sent nothing yet, nor had points rejected.
        self._resends_all = False

    def choose_points(self) -> list[int]:
        """Return the points to send, oldest first; log or report the treatment of those that are not new."""
        session, stats = self._session, self._stats
        stats.points = self._payload.count + sum(self._payload.left_out.values())
        stats.unchanged = len(session.points_with(PointStatus.UNCHANGED))
        stats.changed = len(session.points_with(PointStatus.CHANGED))
        stats.ambiguous = len(self.ambiguous)
        if self._policy.resend:
            self._resends_all = session.resend(self._policy.run or uuid.uuid4().hex)
            numbers = session.points_with(PointStatus.NEW, PointStatus.CHANGED, PointStatus.AMBIGUOUS)
        else:
            statuses = [PointStatus.NEW]
            if self._may_send_changed(stats.changed):
                statuses.append(PointStatus.CHANGED)
            if not self._withhold_ambiguous(self.ambiguous):
                statuses.append(PointStatus.AMBIGUOUS)
            numbers = session.points_with(*statuses)
        if not self._resends_all:
            self._recall_rejections()
        self.pending |= {*numbers, *session.points_with(PointStatus.NEW, PointStatus.AMBIGUOUS)}
        return numbers

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record the window's result at the end, even after an exception: no acknowledgement is lost."""
        session, stats = self._session, self._stats
        try:
            yield
        finally:
            session.record_window(
                pending=self.pending,
                rejected=self.rejected,
                resent=self._resends_all,
                complete=not self._payload.left_out,
            )
            try:
                session.save()
            finally:
                self._report_contention()
        session.prune()
        stats.digested = session.digested

    def send(self, batch: list[int], request: ExportRequest) -> None:
        """Send points in one request, and retry it during a short outage of the receiver.

        Args:
            batch: Numbers of the points.
            request: The request that contains them.

        Raises:
            LedgerUnavailable: The ledger cannot be read or written.
            ReceiverUnavailable: The outage lasts, or it is unknown whether the points were stored.
            ExportRefused: The receiver refused the request.
        """
        retries = self.attempts.begin(self._receiver.endpoint.limits.export_timeout)
        while True:
            remaining = self._announce(batch)
            if not remaining:
                return
            if len(remaining) < len(batch):
                batch, request = remaining, self._payload.build_request(remaining)
            try:
                warning = self._receiver.export(request, seconds=retries.seconds_left)
            except PointsRejected as rejection:
                self._note_rejection(batch, rejection)
                break
            except ExportRefused as error:
                self._note_failure(batch, error)
                raise
            except ReceiverUnavailable as error:
                self._note_failure(batch, error)
                if not self.may_resend_after(error):
                    raise
                # If the task is killed during the wait, the points must not be on record as sent.
                retries.wait(error, before=self._session.save)
            else:
                self._stats.warnings += warning is not None
                log.info(
                    "The receiver accepted a request of %s bytes: %d points, %s",
                    f"{request.size:,}",
                    request.points,
                    ", ".join(request.metrics),
                )
                break
        self._note_success(batch, request)

    def may_resend_after(self, error: ExportRefused | ReceiverUnavailable) -> bool:
        """Return whether the points of a failed request may be sent again at once."""
        return not error.maybe_stored or self._policy.on_ambiguous == "resend"

    def _announce(self, batch: list[int]) -> list[int]:
        """Record that points are about to be sent; return them without those that another task has sent."""
        self._session.mark_in_flight(batch)
        try:
            self._session.save()
        except LedgerUnavailable:  # nothing was sent
            self._withdraw(batch)
            raise
        self._report_contention()
        if withheld := self._sent_meanwhile(batch):
            self._session.mark_pending(withheld)
            batch = [number for number in batch if number not in withheld]
        if repeated := self._unconfirmed.intersection(batch) - self.ambiguous:
            self.ambiguous |= repeated
            self._stats.ambiguous += len(repeated)
            log.warning(
                "%d points are sent again though they may have been stored, so one duplicate of each is"
                " possible",
                len(repeated),
            )
        return batch

    def _report_contention(self) -> None:
        """Report, once and before anything more is sent, that another task delivers the same minutes."""
        if self._session.contended and not self._stats.contended:
            self._stats.contended = True
            log.warning(
                "Another task has delivered the same minutes at the same time, on a machine that shares no"
                " lease with this one: points of both may have been sent twice"
            )

    def _sent_meanwhile(self, batch: list[int]) -> set[int]:
        """Return the points not to send because another task has, since this session was opened."""
        if self._policy.resend or not self._session.contended:
            return set()
        statuses = {number: self._session.status(number) for number in batch}
        delivered = {number for number in batch if statuses[number] is PointStatus.UNCHANGED}
        # A batch that is sent again in parts has these points again.
        self._stats.unchanged += len(delivered & self.pending)
        if self._policy.on_changed != "send":
            changed = {number for number in batch if statuses[number] is PointStatus.CHANGED}
            news = len(changed & self.pending)
            self._stats.changed += news
            self._may_send_changed(news)
            delivered |= changed
        self.pending.difference_update(delivered)
        unknown = {
            number
            for number in batch
            if statuses[number] is PointStatus.AMBIGUOUS and number not in self.ambiguous
        }
        self.ambiguous |= unknown
        self._stats.ambiguous += len(unknown)
        return delivered | self._withhold_ambiguous(unknown)

    def _may_send_changed(self, count: int) -> bool:
        """Log or report points that have other values than those delivered; return whether to send them."""
        if not count:
            return False
        message = f"{count} points now have values other than those delivered"
        if self._policy.on_changed == "send":
            log.warning("%s: sent again", message)
            return True
        if self._policy.on_changed == "skip":
            log.warning(
                "%s: not sent. The operator's on_changed='send', or send --resend, sends them", message
            )
        else:
            self._stats.problems.append(
                PointsChanged(
                    f"{message}. To send them, run the task again with on_changed='send' or resend=True"
                )
            )
        return False

    def _withhold_ambiguous(self, numbers: set[int]) -> set[int]:
        """Log or report points that may have been stored; return those that must not be sent again."""
        if not numbers:
            return set()
        message = f"{len(numbers)} points were sent before, and it is not known whether they arrived"
        if self._policy.on_ambiguous == "resend":
            log.warning("%s: sent again, so one duplicate of each is possible", message)
            return set()
        self._stats.problems.append(
            DeliveryAmbiguous(
                f"{message}. Look for them at the receiver; to send them again, run the task again"
                " with on_ambiguous='resend' or resend=True"
            )
        )
        return set(numbers)

    def _recall_rejections(self) -> None:
        """Fail the run for points rejected in an earlier try, even if this try delivers everything else."""
        since = self._policy.since
        if since is not None and self._session.has_rejections_since(since):
            self._stats.problems.append(
                PointsRejected(
                    "The receiver rejected points in an earlier try of this run; that try's log has the"
                    " reason. OTLP forbids sending them again. To send them anyway, run the task"
                    " again with resend=True",
                    rejected=0,
                )
            )

    def _note_rejection(self, batch: list[int], rejection: PointsRejected) -> None:
        # OTLP forbids sending them again, so they count as acknowledged.
        problem_log.warning("%s", rejection)
        self._stats.rejected += rejection.rejected
        self._stats.sent -= rejection.rejected
        self._stats.problems.append(rejection)
        self.rejected.update(batch)

    def _note_failure(self, batch: list[int], error: ExportRefused | ReceiverUnavailable) -> None:
        # A request that is too large says nothing about others.
        if isinstance(error, ExportRefused) and not isinstance(error, RequestTooLarge):
            self.attempts.refusals += 1
        if error.maybe_stored:
            self._unconfirmed.update(batch)
        else:
            self._withdraw(batch)

    def _withdraw(self, batch: list[int]) -> None:
        self._session.mark_pending(number for number in batch if number not in self._unconfirmed)

    def _note_success(self, batch: list[int], request: ExportRequest) -> None:
        self._session.mark_acknowledged(batch)
        self._unconfirmed.difference_update(batch)
        self.pending.difference_update(batch)
        self.attempts.refusals = 0
        self.has_accepted = True
        self._stats.sent += request.points
        self._stats.batches += 1
