"""The gateway's payload of one window, before and after it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_forge.otlp.endpoint import HTTP_JSON

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from msgspec import Raw

    from airflow_provider_forge.otlp.requests import ExportRequest
    from airflow_provider_forge.payload.anomalies import Anomalies
    from airflow_provider_forge.payload.conform import Identity
    from airflow_provider_forge.payload.fingerprints import Fingerprint
    from airflow_provider_forge.payload.salvage import LeftOut

__all__ = ["GatewayPayload", "Payload"]


@dataclass(frozen=True)
class GatewayPayload:
    """What the gateway gave for one window, and what is to become of it.

    Attributes:
        text: JSON text of an array of `ResourceMetrics`.
        environments: UUIDs of the environments that were asked for.
        minute: That the window begins in, counted from the epoch.
        identity: What `conform` needs; None to change nothing.
        protocol: `http/protobuf` or `http/json`.
        recorded: Whether there is a record of what is delivered.
    """

    text: bytes | Raw
    environments: Collection[str]
    minute: int
    identity: Identity | None
    protocol: str
    recorded: bool = True

    @property
    def passes_through(self) -> bool:
        """Whether its text is sent as it came, and nobody asks what is in it."""
        return not self.recorded and self.identity is None and self.protocol == HTTP_JSON


class Payload(Protocol):
    """The points of one answer. They go by their numbers, in the order in which they came.

    Attributes:
        points: Their fingerprints; a metric of a kind that is not known counts as a point here.
        count: How many points there are.
        anomalies: What is odd about them.
        left_out: Number of points that are not OTLP, by the metric's name and the reason; not in `points`.
    """

    @property
    def fingerprints(self) -> Sequence[Fingerprint]: ...  # noqa: D102

    @property
    def count(self) -> int: ...  # noqa: D102

    @property
    def anomalies(self) -> Anomalies: ...  # noqa: D102

    @property
    def left_out(self) -> LeftOut: ...  # noqa: D102

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
        """Make one request of these points, in the order in which they came.

        Raises:
            MalformedOtlp: They are not OTLP.
        """
