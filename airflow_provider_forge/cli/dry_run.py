"""A receiver that is told everything and sends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.replies import Reply

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.otlp.requests import ExportRequest

__all__ = ["Batch", "DryClient"]


@dataclass(frozen=True)
class Batch:
    """A request that would have gone out.

    Attributes:
        points: Number of data points in it.
        metrics: Names of the metrics in it.
        bytes: Its size before compression.
        bytes_sent: Its size as it would have gone out.
        start: Earliest time of a point, in nanoseconds since the epoch.
        end: Latest time of a point, likewise.
    """

    points: int
    metrics: tuple[str, ...]
    bytes: int
    bytes_sent: int
    start: int
    end: int


class DryClient(OtlpClient):
    """Takes everything that the endpoint's limits allow, and sends nothing.

    Attributes:
        batches: What would have gone out, in order.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.batches: list[Batch] = []
        self._sizes: list[int] = []

    def export(self, export: ExportRequest, *, seconds: float | None = None) -> str | None:
        """Note a request; fails as `OtlpClient.export` does where it is larger than the endpoint says."""
        said = super().export(export, seconds=seconds)
        self.batches.append(
            Batch(
                export.points,
                export.metrics,
                len(export.body),
                self._sizes[-1],
                export.start,
                export.end,
            )
        )
        return said

    def _post(self, body: bytes, headers: dict[str, str], seconds: float) -> Reply:  # noqa: ARG002 - as called
        self._sizes.append(len(body))
        return Reply(200)
