"""Isolates the points for which the receiver refuses a request, so that all others are delivered.

An OTLP response cannot name a bad point, and receivers refuse a whole request because of one: with 400 or
422, and Prometheus, or a Collector whose exporter fails, with 500. A refused request is therefore sent again
metric by metric, and a refused metric in halves, oldest first. A receiver that accepts none of the parts is
itself at fault: after a few of them nothing more is sent to it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ExportRefused, RequestTooLarge
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from airflow_provider_forge.delivery.sender import Sender
    from airflow_provider_forge.payload.payload import Payload

__all__ = ["Isolation", "halves"]

log = get_logger(__name__)

MAX_REQUESTS = 512
"""Maximum number of requests for the points of one metric; points that remain are left out unsent."""

SMALL = 4
"""Number of points that are sent one by one, even if all points before them were refused."""

_CLIENT_ERROR = 400
_ABOUT_THE_CONNECTION = frozenset(
    {401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 417, 421, 426, 431, 451, 501, 505, 511}
)
"""Statuses that any other request would get, too."""


def halves(batch: list[int]) -> tuple[list[int], list[int]]:
    """Return the two halves of a batch of at least two points."""
    middle = -(-len(batch) // 2)
    return batch[:middle], batch[middle:]


class Isolation:
    """Delivers the good points of the refused batches of one window.

    Args:
        payload: The window's points.
        sender: Sends them to the receiver.
    """

    def __init__(self, payload: Payload, sender: Sender) -> None:
        self._payload = payload
        self._sender = sender
        self._left_out: Counter[str] = Counter()
        self._first_refusal: ExportRefused | None = None
        self._has_accepted = False
        self._requests = 0

    def deliver_rest(self, batch: list[int], refusal: ExportRefused) -> None:
        """Send a refused batch in parts, and leave out points that are refused on their own.

        Args:
            batch: Numbers of its points.
            refusal: The receiver's response to the whole batch.

        Raises:
            ExportRefused: The receiver refuses everything, or nothing more may be sent to it.
            ReceiverUnavailable: It is busy or did not answer.
            LedgerUnavailable: The ledger cannot be read or written.
        """
        if self._sender.attempts.exhausted:
            raise refusal
        self._check(refusal)
        metrics = self._by_metric(batch)
        self._has_accepted = False
        suspects = [(batch, refusal)] if len(metrics) == 1 else self._refused_of(metrics, refusal)
        # A receiver that has just accepted other metrics refuses these for their points.
        self._has_accepted = len(suspects) < len(metrics)
        for part, reply in suspects:
            self._deliver_suspect(part, reply)
        if self._sender.attempts.exhausted:
            # The receiver is at fault: further requests might make their points ambiguous, too.
            raise refusal

    def problem(self) -> ExportRefused | None:
        """Return the error for all points left out; None if there are none."""
        if self._first_refusal is None or not self._sender.has_accepted:
            return self._first_refusal
        counts = ", ".join(f"{metric} {count}" for metric, count in self._left_out.items())
        return ExportRefused(
            f"The receiver refuses {', '.join(self._left_out)}, and accepted everything else:"
            f" {self._first_refusal.message}. Points left out: {counts}",
            status=self._first_refusal.status,
        )

    def leave_out(self, batch: list[int], refusal: ExportRefused) -> None:
        """Skip points that are refused on their own, so that they do not block the others."""
        metric = self._payload.fingerprints[batch[0]].metric
        log.warning("%s: %d points are left out: %s", metric, len(batch), refusal)
        self._left_out[metric] += len(batch)
        self._first_refusal = self._first_refusal or refusal

    def _check(self, refusal: ExportRefused) -> None:
        """Raise a refusal that is not about single points, or after which points must not be sent again."""
        status = refusal.status
        is_about_points = isinstance(refusal, RequestTooLarge) or (
            status is not None and status >= _CLIENT_ERROR and status not in _ABOUT_THE_CONNECTION
        )
        if not is_about_points or not self._sender.may_resend_after(refusal):
            raise refusal

    def _by_metric(self, batch: list[int]) -> list[list[int]]:
        metrics: dict[str, list[int]] = {}
        for number in batch:
            metrics.setdefault(self._payload.fingerprints[number].metric, []).append(number)
        return list(metrics.values())

    def _refused_of(
        self, metrics: list[list[int]], refusal: ExportRefused
    ) -> list[tuple[list[int], ExportRefused]]:
        """Send each metric on its own, and return those that were refused."""
        suspects = []
        for part in metrics:
            reply = refusal if self._sender.attempts.exhausted else self._send(part)
            if reply is not None:
                suspects.append((part, reply))
        return suspects

    def _deliver_suspect(self, batch: list[int], refusal: ExportRefused) -> None:
        """Send the good points of a refused batch of one metric.

        If nothing has been accepted yet, single points show whether anything will be: bisecting down to one
        bad point among thousands would look like a receiver that refuses everything.
        """
        self._requests = 0
        if not self._has_accepted and len(batch) > SMALL:
            # The oldest, to keep the order; and the newest, in case the oldest are too old.
            for number in (*batch[: SMALL - 1], batch[-1]):
                if self._has_accepted or self._is_exhausted:
                    break
                self._deliver_part([number], refusal)
                batch = [other for other in batch if other != number]
            if not self._has_accepted:
                self.leave_out(batch, refusal)
                return
        self._deliver_parts(batch, refusal)

    def _deliver_parts(self, batch: list[int], refusal: ExportRefused) -> bool:
        """Send a refused batch of one metric in halves; return whether any point was accepted."""
        if len(batch) == 1 or self._is_exhausted:
            self.leave_out(batch, refusal)
            return False
        first, second = halves(batch)
        accepted = self._deliver_part(first, refusal)
        return self._deliver_part(second, refusal, is_suspect=not accepted) or accepted

    def _deliver_part(self, part: list[int], refusal: ExportRefused, *, is_suspect: bool = False) -> bool:
        """Send a part of a refused batch; return whether any point was accepted.

        If `is_suspect`, because all points before it were refused, its newest point decides about the rest.
        """
        reply = refusal if self._is_exhausted else self._send(part)
        if reply is None:
            return True
        if not is_suspect or len(part) <= SMALL:
            return self._deliver_parts(part, reply)
        part, newest = part[:-1], part[-1:]
        if not self._deliver_part(newest, reply):
            self.leave_out(part, reply)
            return False
        self._deliver_parts(part, reply)
        return True

    @property
    def _is_exhausted(self) -> bool:
        return self._requests >= MAX_REQUESTS or self._sender.attempts.exhausted

    def _send(self, part: list[int]) -> ExportRefused | None:
        self._requests += 1
        try:
            self._sender.send(part, self._payload.build_request(part))
        except ExportRefused as refusal:
            if self._has_accepted:
                self._sender.attempts.refusals = 0
            self._check(refusal)
            return refusal
        self._has_accepted = True
        return None
