"""The payload of one window: the options that decide how it is read, and the points that it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_forge.otlp.endpoint import HTTP_JSON

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow_provider_forge.otlp.requests import ExportRequest
    from airflow_provider_forge.payload.anomalies import Anomalies
    from airflow_provider_forge.payload.conform import Identity
    from airflow_provider_forge.payload.fingerprints import Fingerprint
    from airflow_provider_forge.payload.salvage import LeftOut

__all__ = ["Payload", "ReadOptions"]


@dataclass(frozen=True)
class ReadOptions:
    """The options that decide how the gateway's payload of one window is read.

    Attributes:
        environments: UUIDs of the queried environments.
        minute: Start of the window, in minutes since the epoch.
        identity: The configured identity for `conform`; None to send the metrics unchanged.
        protocol: `http/protobuf` or `http/json`.
        recorded: Whether deliveries are recorded in a ledger.
    """

    environments: Collection[str]
    minute: int
    identity: Identity | None
    protocol: str
    recorded: bool = True

    @property
    def passes_through(self) -> bool:
        """Whether the payload is sent unchanged, and fingerprints are not needed."""
        return not self.recorded and self.identity is None and self.protocol == HTTP_JSON


class Payload(Protocol):
    """The points of one window, numbered from 0 in the order of the gateway's payload.

    Attributes:
        fingerprints: Fingerprints of the points. A metric of an unknown kind counts as one point.
        count: Number of points.
        anomalies: Anomalies of the points, for the log.
        left_out: Number of invalid points, which have no number, by the metric's name and the reason.
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
        """Return one request with the points of these numbers, in the order of the payload.

        Raises:
            MalformedOtlp: The points are not OTLP.
        """
