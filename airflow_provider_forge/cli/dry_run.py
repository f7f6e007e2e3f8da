"""Dry runs: all of a delivery but its requests and records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.cli.context import ledger_store
from airflow_provider_forge.delivery.stores import InMemoryStore
from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.replies import Reply

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.connections.otlp import OtlpAccess
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.otlp.requests import ExportRequest

__all__ = ["NOTE", "TO_SEND", "DryClient", "open_receiver", "open_store"]

NOTE = "Nothing was sent or recorded: this was a dry run."
"""The last line of a dry run."""

TO_SEND = "to send"
"""What a dry run says of points in place of *sent*."""


@dataclass(frozen=True)
class Batch:
    """A request that would have been sent.

    Attributes:
        points: Number of data points in it.
        metrics: Names of the metrics in it.
        bytes: Its size before compression.
        bytes_sent: Its size after compression.
        start: Earliest timestamp of a point, in nanoseconds since the epoch.
        end: Latest timestamp of a point, in nanoseconds since the epoch.
    """

    points: int
    metrics: tuple[str, ...]
    bytes: int
    bytes_sent: int
    start: int
    end: int


class DryClient(OtlpClient):
    """A client that accepts each request within the endpoint's limits, and sends nothing.

    Attributes:
        batches: The requests that would have been sent, in order.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.batches: list[Batch] = []
        self._bytes_sent = 0

    def export(self, request: ExportRequest, *, seconds: float | None = None) -> str | None:
        """Record a request; raise as `OtlpClient.export` does if it exceeds the endpoint's limits."""
        warning = super().export(request, seconds=seconds)
        self.batches.append(
            Batch(
                request.points,
                request.metrics,
                len(request.body),
                self._bytes_sent,
                request.start,
                request.end,
            )
        )
        return warning

    def _post(self, body: bytes, headers: dict[str, str], seconds: float) -> Reply:  # noqa: ARG002 - as called
        self._bytes_sent = len(body)
        return Reply(200)


def open_receiver(options: Namespace, otlp: OtlpAccess) -> OtlpClient:
    """Open the receiver; with `--dry-run`, one that is sent nothing."""
    return DryClient(otlp.endpoint()) if options.dry_run else otlp.get_conn()


def open_store(options: Namespace, otlp: OtlpAccess) -> Store:
    """Open the store of the ledger; with `--dry-run`, one in memory over it."""
    store = ledger_store(options, otlp)
    return InMemoryStore(store) if options.dry_run else store
