"""Delivers one window: sends the points that the receiver has not acknowledged yet, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.isolation import Isolation, halves
from airflow_provider_forge.delivery.ledger import Selection
from airflow_provider_forge.delivery.sender import Sender
from airflow_provider_forge.exceptions import ExportRefused, PointsMalformed, RequestTooLarge
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow_provider_forge.delivery.destination import Destination
    from airflow_provider_forge.delivery.progress import DeliveryStats
    from airflow_provider_forge.delivery.sender import Policy
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.otlp.requests import ExportRequest
    from airflow_provider_forge.payload.fingerprints import Fingerprint
    from airflow_provider_forge.payload.payload import Payload

__all__ = ["deliver", "selection_of"]

MAX_HALVINGS = 8
"""How many times a batch that is too large for the receiver is halved."""

MAX_REASONS = 5
"""Number of reasons that an error lists for points that were left out."""


def deliver(
    metrics: AppMetrics,
    payload: Payload,
    destination: Destination,
    policy: Policy,
    stats: DeliveryStats,
    reread: Callable[[Collection[str]], Sequence[Fingerprint]],
) -> None:
    """Send the points that the receiver has not acknowledged yet, oldest first, and record each response.

    Args:
        metrics: The gateway's metrics of the window.
        payload: The same, read.
        destination: The receiver, and the ledger of the points that it has acknowledged.
        policy: The treatment of points that are not new.
        stats: Updated while points are delivered, so that the caller has partial counts after an exception.
        reread: Returns the payload's fingerprints as if these environments had been requested.

    Raises:
        DeliveryBusy: Another task holds a lease on one of the records.
        LedgerUnavailable: The ledger cannot be read or written.
        ReceiverUnavailable: The receiver is busy or did not answer, even after retries.
        ExportRefused: The receiver refuses every request.
    """
    points, selection, window = payload.fingerprints, selection_of(metrics), metrics.window
    limits = destination.receiver.endpoint.limits
    with destination.ledger.open_session(
        points, selection, window.start, window.end, reread=reread
    ) as session:
        sender = Sender(payload, destination.receiver, session, policy, stats, destination.attempts)
        isolation = Isolation(payload, sender)
        batches = _Batches(payload, sender.choose_points(), limits.max_body_bytes)
        with sender.recording():
            for batch, request in batches:
                try:
                    sender.send(batch, request)
                except ExportRefused as refusal:
                    _recover(batch, refusal, batches, isolation)
    problems = (isolation.problem(), _points_malformed(metrics, payload))
    stats.problems += [problem for problem in problems if problem]


def _recover(batch: list[int], refusal: ExportRefused, batches: _Batches, isolation: Isolation) -> None:
    """Continue after a refused request: halve one that is too large, else isolate its bad points."""
    if not isinstance(refusal, RequestTooLarge):
        isolation.deliver_rest(batch, refusal)
    elif len(batch) > 1:
        batches.halve(batch, refusal)
    else:
        isolation.leave_out(batch, refusal)


def selection_of(metrics: AppMetrics) -> Selection:
    """Return the environments and metrics that the window was fetched for.

    Metrics that the gateway does not know belong to it: the selection stays the same if the gateway learns
    them, so that neither coverage nor the ledger begins anew.
    """
    names = {environment.id: environment.name for environment in metrics.environments if environment.name}
    labels = (*metrics.metrics, *metrics.left_out)
    return Selection([environment.id for environment in metrics.environments], labels, names)


class _Batches:
    """Batches of points, with the request for each; none is larger than the receiver's limit.

    Args:
        payload: The window's points.
        numbers: Numbers of the points to send, oldest first.
        max_bytes: Maximum size in bytes of a request, before compression.
    """

    def __init__(self, payload: Payload, numbers: list[int], max_bytes: int) -> None:
        self._payload = payload
        self._max_bytes = max_bytes
        self._queue = [(numbers, MAX_HALVINGS)] if numbers else []
        self._halvings_left = MAX_HALVINGS

    def __iter__(self) -> Iterator[tuple[list[int], ExportRequest]]:
        while self._queue:
            batch, self._halvings_left = self._queue.pop()
            request = self._payload.build_request(batch)
            parts = -(-request.size // self._max_bytes)
            if parts > 1 and len(batch) > 1:
                self._queue += [(part, self._halvings_left) for part in reversed(_cut(batch, parts))]
            else:
                yield batch, request

    def halve(self, batch: list[int], refusal: RequestTooLarge) -> None:
        """Continue with the halves of the current batch, which the receiver refused as too large.

        Raises:
            RequestTooLarge: It has been halved often enough.
        """
        if not self._halvings_left:
            raise refusal
        self._queue += [(part, self._halvings_left - 1) for part in reversed(halves(batch))]


def _points_malformed(metrics: AppMetrics, payload: Payload) -> PointsMalformed | None:
    """Return the error for points that are not OTLP; None if there are none."""
    if not payload.left_out:
        return None
    total = sum(payload.left_out.values())
    listed = payload.left_out.most_common(MAX_REASONS)
    reasons = [f"{count} of {sanitize(metric)} ({sanitize(reason)})" for (metric, reason), count in listed]
    if others := total - sum(count for _, count in listed):
        reasons.append(f"{others} for other reasons")
    # A task with several windows shows the message only.
    request = f" (request id {sanitize(metrics.request_id)})" if metrics.request_id else ""
    return PointsMalformed(
        f"Atlassian's response for {metrics.window.humanize()} has {total} points"
        f" that are not OTLP: {'; '.join(reasons)}{request}. They are left out, and all others are delivered."
        " The window remains a gap in the ledger: run it again to send only these points. If this persists,"
        " report it to Atlassian's support with the request id",
        request_id=metrics.request_id,
    )


def _cut(batch: list[int], parts: int) -> list[list[int]]:
    size = -(-len(batch) // parts)
    return [batch[at : at + size] for at in range(0, len(batch), size)]
