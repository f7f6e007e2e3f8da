"""Finds out what of a refused request the receiver cannot use, so that all else of it arrives.

OTLP has no answer that names a bad point, and receivers refuse a whole request for one of them: with 400 or
422, and Prometheus, or a Collector whose exporter fails, with 500. A request is therefore sent again metric
by metric, and a metric that is refused in halves, oldest first. A receiver that accepts none of the parts has
a fault of its own: after a few of them it is asked no more.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ExportRefused, RequestTooLarge
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from airflow_provider_forge.delivery.sender import Sender
    from airflow_provider_forge.payload.source import Payload

__all__ = ["Isolation", "halves"]

log = get_logger(__name__)

MAX_REQUESTS = 512
"""Requests that are spent on the points of one metric; what is left then is left out untried."""

SMALL = 4
"""Points that are tried one by one, even if all points before them were refused."""

_CLIENT_ERROR = 400
_ABOUT_THE_CONNECTION = frozenset(
    {401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 417, 421, 426, 431, 451, 501, 505, 511}
)
"""Statuses that would answer any other request, too."""


def halves(batch: list[int]) -> tuple[list[int], list[int]]:
    """Cut a batch of at least two points in two."""
    middle = -(-len(batch) // 2)
    return batch[:middle], batch[middle:]


class Isolation:
    """Delivers what is good of the refused batches of one window.

    Args:
        content: The window's points.
        sender: Takes them to the receiver.
    """

    def __init__(self, content: Payload, sender: Sender) -> None:
        self._content = content
        self._sender = sender
        self._left_out: Counter[str] = Counter()
        self._first: ExportRefused | None = None
        self._alive = False
        self._requests = 0

    def deliver_rest(self, batch: list[int], refusal: ExportRefused) -> None:
        """Send a refused batch in parts, and leave out what is refused by itself.

        Args:
            batch: Numbers of its points.
            refusal: The receiver's answer to all of them.

        Raises:
            ExportRefused: The receiver refuses everything, or must not be asked again.
            ReceiverUnavailable: It is busy or did not answer.
            LedgerUnavailable: The record cannot be read or written.
        """
        if self._sender.attempts.exhausted:
            raise refusal
        self._check(refusal)
        metrics = self._by_metric(batch)
        self._alive = False
        suspects = [(batch, refusal)] if len(metrics) == 1 else self._refused_of(metrics, refusal)
        # A receiver that has just accepted other metrics refuses these for what is in them.
        self._alive = len(suspects) < len(metrics)
        for part, said in suspects:
            self._deliver_suspect(part, said)
        if self._sender.attempts.exhausted:
            # A fault of the receiver's own: going on might put the points of further requests in doubt, too.
            raise refusal

    def problem(self) -> ExportRefused | None:
        """Return the error for all that was left out; None if nothing was."""
        if self._first is None or not self._sender.accepted:
            return self._first
        counts = ", ".join(f"{metric}: {count}" for metric, count in self._left_out.items())
        return ExportRefused(
            f"The receiver refuses {', '.join(self._left_out)}, and took everything else:"
            f" {self._first.message}. Points left out of {counts}",
            status=self._first.status,
        )

    def leave_out(self, batch: list[int], refusal: ExportRefused) -> None:
        """Go on without points that are refused by themselves: they must not hold back the rest."""
        metric = self._content.fingerprints[batch[0]].metric
        log.warning("%s: %d points are left out: %s", metric, len(batch), refusal)
        self._left_out[metric] += len(batch)
        self._first = self._first or refusal

    def _check(self, refusal: ExportRefused) -> None:
        """Raise a refusal that parts of the request would meet with, too, or that parts must not follow."""
        status = refusal.status
        of_content = isinstance(refusal, RequestTooLarge) or (
            status is not None and status >= _CLIENT_ERROR and status not in _ABOUT_THE_CONNECTION
        )
        if not of_content or not self._sender.may_repeat(refusal):
            raise refusal

    def _by_metric(self, batch: list[int]) -> list[list[int]]:
        metrics: dict[str, list[int]] = {}
        for number in batch:
            metrics.setdefault(self._content.fingerprints[number].metric, []).append(number)
        return list(metrics.values())

    def _refused_of(
        self, metrics: list[list[int]], refusal: ExportRefused
    ) -> list[tuple[list[int], ExportRefused]]:
        """Send each metric by itself, and return those that were refused."""
        suspects = []
        for part in metrics:
            said = refusal if self._sender.attempts.exhausted else self._try(part)
            if said is not None:
                suspects.append((part, said))
        return suspects

    def _deliver_suspect(self, batch: list[int], refusal: ExportRefused) -> None:
        """Send what is good of a refused batch of one metric.

        Where nothing has been accepted yet, single points tell whether anything will be: going down to one
        bad point among thousands would look like a receiver that refuses everything.
        """
        self._requests = 0
        if not self._alive and len(batch) > SMALL:
            # The oldest, to keep the order; and the newest, should the oldest be too old.
            for number in (*batch[: SMALL - 1], batch[-1]):
                if self._alive or self._spent:
                    break
                self._deliver_part([number], refusal)
                batch = [other for other in batch if other != number]
            if not self._alive:
                self.leave_out(batch, refusal)
                return
        self._deliver_parts(batch, refusal)

    def _deliver_parts(self, batch: list[int], refusal: ExportRefused) -> bool:
        """Send a refused batch of one metric in halves; return whether some of it was accepted."""
        if len(batch) == 1 or self._spent:
            self.leave_out(batch, refusal)
            return False
        first, second = halves(batch)
        accepted = self._deliver_part(first, refusal)
        return self._deliver_part(second, refusal, briefly=not accepted) or accepted

    def _deliver_part(self, part: list[int], refusal: ExportRefused, *, briefly: bool = False) -> bool:
        """Send a part of a refused batch; look at it briefly if all points before it were refused."""
        said = refusal if self._spent else self._try(part)
        if said is None:
            return True
        if not briefly or len(part) <= SMALL:
            return self._deliver_parts(part, said)
        # All before it was refused: its newest point tells whether anything in it is good.
        part, newest = part[:-1], part[-1:]
        if not self._deliver_part(newest, said):
            self.leave_out(part, said)
            return False
        self._deliver_parts(part, said)
        return True

    @property
    def _spent(self) -> bool:
        return self._requests >= MAX_REQUESTS or self._sender.attempts.exhausted

    def _try(self, part: list[int]) -> ExportRefused | None:
        self._requests += 1
        try:
            self._sender.send(part, self._content.build_request(part))
        except ExportRefused as refusal:
            if self._alive:
                self._sender.attempts.refusals = 0
            self._check(refusal)
            return refusal
        self._alive = True
        return None
