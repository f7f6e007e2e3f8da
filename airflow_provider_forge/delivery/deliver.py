"""One answer's way to the receiver: what is not there yet, in batches, each recorded as it arrives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.attempts import Attempts
from airflow_provider_forge.delivery.deduplication import PointStatus
from airflow_provider_forge.delivery.isolation import Isolation, halves
from airflow_provider_forge.delivery.sender import Sender
from airflow_provider_forge.exceptions import (
    ExportRefused,
    FinalError,
    PointsChanged,
    PointsMalformed,
    PointsRejected,
    RequestTooLarge,
)
from airflow_provider_forge.text import get_logger, sanitize

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Sequence

    from airflow_provider_forge.delivery.ledger import Ledger, Selection
    from airflow_provider_forge.delivery.session import LedgerSession
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.payload.fingerprints import Fingerprint
    from airflow_provider_forge.payload.source import Payload

__all__ = ["DeliveryStats", "FetchedWindow", "Policy", "deliver"]

log = get_logger(__name__)

HALVINGS = 8
"""How often a request that the receiver finds too large is cut in two."""

REASONS = 5
"""How many reasons an error gives for points that were left out."""


@dataclass(frozen=True)
class Policy:
    """What to do with points that are not simply new.

    Attributes:
        resend: Send all, whatever was acknowledged.
        on_changed: What to do with points acknowledged with another value: `skip`, `send` or `fail`.
        on_ambiguous: What to do with points that were sent with no answer known: `resend` or `fail`.
        since: Time of the epoch at which the run began: what was rejected since then fails it, in whichever
            of its tries; None not to look.
    """

    resend: bool = False
    on_changed: str = "skip"
    on_ambiguous: str = "resend"
    since: float | None = None


@dataclass(frozen=True)
class FetchedWindow:
    """What the gateway gave for one window.

    Attributes:
        start: The window's first moment.
        end: The first moment after it.
        selection: What was asked for.
        content: Its points.
        reread: Returns its fingerprints as if these environments had been asked for.
        request_id: The gateway's id of the request.
    """

    start: dt.datetime
    end: dt.datetime
    selection: Selection
    content: Payload
    reread: Callable[[Collection[str]], Sequence[Fingerprint]] | None = None
    request_id: str | None = None


@dataclass
class DeliveryStats:
    """What became of an answer's points.

    Attributes:
        points: Points in the answer.
        sent: Points that the receiver has acknowledged now.
        unchanged: Points that it had acknowledged before.
        changed: Points that it had acknowledged with another value.
        ambiguous: Points that it may have had before, with no answer known.
        rejected: Points that it rejected of those sent.
        batches: Requests that it acknowledged.
        warnings: Requests that it acknowledged with words beside, or with an answer that cannot be read.
        digested: Whether points are too many to be recorded one by one.
        contended: Whether another task delivered the same minutes at the same time.
        problems: What fails the task once everything else is delivered.
    """

    points: int = 0
    sent: int = 0
    unchanged: int = 0
    changed: int = 0
    ambiguous: int = 0
    rejected: int = 0
    batches: int = 0
    warnings: int = 0
    digested: bool = False
    contended: bool = False
    problems: list[FinalError] = field(default_factory=list)


def deliver(
    answer: FetchedWindow,
    receiver: OtlpClient,
    ledger: Ledger,
    policy: Policy,
    report: DeliveryStats | None = None,
    attempts: Attempts | None = None,
) -> DeliveryStats:
    """Send what the receiver has not acknowledged yet, oldest first, and record what it acknowledges.

    Args:
        answer: What the gateway gave.
        receiver: Where it goes.
        ledger: What the receiver has.
        policy: What to do with points that are not simply new.
        report: An empty one to fill, for who wants to know how far it came where something is raised.
        attempts: What the requests of one task share; None for a task of this window only.

    Raises:
        DeliveryBusy: Another task delivers the same minutes at this moment.
        LedgerUnavailable: The record cannot be read or written.
        ReceiverUnavailable: The receiver is busy or did not answer, and that lasts.
        ExportRefused: It refuses requests, whatever is in them.
    """
    with ledger.open_session(
        answer.content.fingerprints, answer.selection, answer.start, answer.end, reread=answer.reread
    ) as page:
        return _Delivery(
            answer, receiver, page, policy, report or DeliveryStats(), attempts or Attempts()
        ).run()


class _Delivery:
    def __init__(
        self,
        answer: FetchedWindow,
        receiver: OtlpClient,
        page: LedgerSession,
        policy: Policy,
        report: DeliveryStats,
        attempts: Attempts,
    ) -> None:
        self._content = answer.content
        self._most_bytes = receiver.endpoint.max_body_bytes
        self._page = page
        self._policy = policy
        self._report = report
        self._answer = answer
        self._sender = Sender(answer.content, receiver, page, policy, report, attempts)
        self._isolation = Isolation(answer.content, self._sender)
        report.points = answer.content.count + sum(answer.content.left_out.values())
        report.unchanged = len(page.points_with(PointStatus.UNCHANGED))
        report.changed = len(page.points_with(PointStatus.CHANGED))
        report.ambiguous = len(self._sender.ambiguous)

    def run(self) -> DeliveryStats:
        numbers = self._to_send()
        sender = self._sender
        sender.pending |= {*numbers, *self._page.points_with(PointStatus.NEW, PointStatus.AMBIGUOUS)}
        self._recall_rejections()
        try:
            self._send(numbers)
        finally:
            # Also when it failed half-way: what was acknowledged until then is never sent again.
            self._page.record_window(
                pending=sender.pending,
                rejected=sender.rejected,
                resent=self._policy.resend,
                complete=not self._content.left_out,
            )
            try:
                self._page.save()
            finally:
                sender.report_contention()
        self._page.prune()
        if (problem := self._isolation.problem()) is not None:
            self._report.problems.append(problem)
        if self._content.left_out:
            self._report.problems.append(_malformed(self._answer))
        self._report.digested = self._page.digested
        return self._report

    def _recall_rejections(self) -> None:
        """Let a rejection fail the run, though a later try of it find all else delivered."""
        policy = self._policy
        if policy.since is not None and not policy.resend and self._page.has_rejections_since(policy.since):
            self._report.problems.append(
                PointsRejected(
                    "The receiver rejected points in an earlier try of this run, whose log says why; OTLP"
                    " forbids to send them again. To do it all the same, run it with resend=True",
                    rejected=0,
                )
            )

    def _to_send(self) -> list[int]:
        """Return the points to send; say what is done with those that are not simply new."""
        policy, report = self._policy, self._report
        if policy.resend:
            return self._page.points_with(*PointStatus)
        wanted = [PointStatus.NEW]
        if report.changed:
            told = f"{report.changed} points have other values now than those delivered"
            if policy.on_changed == "send":
                wanted.append(PointStatus.CHANGED)
                log.warning("%s: sent again (on_changed='send')", told)
            elif policy.on_changed == "skip":
                log.warning("%s: not sent (on_changed='skip')", told)
            else:
                report.problems.append(
                    PointsChanged(f"{told}. To send them, run it with on_changed='send' or resend=True")
                )
        if not self._sender.settle_ambiguous(self._sender.ambiguous):
            wanted.append(PointStatus.AMBIGUOUS)
        return self._page.points_with(*wanted)

    def _send(self, numbers: list[int]) -> None:
        todo = [(numbers, HALVINGS)] if numbers else []
        while todo:
            batch, halvings = todo.pop()
            export = self._content.build_request(batch)
            parts = -(-export.size // self._most_bytes)
            if parts > 1 and len(batch) > 1:
                todo += [(part, halvings) for part in reversed(_cut(batch, parts))]
                continue
            try:
                self._sender.send(batch, export)
            except RequestTooLarge as refusal:
                if len(batch) == 1:
                    self._isolation.leave_out(batch, refusal)
                    continue
                if not halvings:
                    raise
                todo += [(part, halvings - 1) for part in reversed(halves(batch))]
            except ExportRefused as refusal:
                self._isolation.deliver_rest(batch, refusal)


def _malformed(answer: FetchedWindow) -> PointsMalformed:
    left_out = answer.content.left_out
    total = sum(left_out.values())
    most = left_out.most_common(REASONS)
    reasons = [f"{count} of {sanitize(metric)} ({sanitize(reason)})" for (metric, reason), count in most]
    if more := total - sum(count for _, count in most):
        reasons.append(f"{more} for other reasons")
    # The message alone is what a task with several windows shows in the end.
    request = f" (request id {sanitize(answer.request_id)})" if answer.request_id else ""
    return PointsMalformed(
        f"Atlassian's answer for {answer.start:%Y-%m-%d %H:%M} to {answer.end:%H:%M} UTC has {total} points"
        f" that are not OTLP: {'; '.join(reasons)}{request}. They are left out, and all others are delivered."
        " The window stays open in the record: run it again, and only these points are still to be sent. If"
        " this persists, report it to Atlassian's support with the request id",
        request_id=answer.request_id,
    )


def _cut(batch: list[int], parts: int) -> list[list[int]]:
    size = -(-len(batch) // parts)
    return [batch[at : at + size] for at in range(0, len(batch), size)]
