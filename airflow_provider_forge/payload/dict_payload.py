"""Reads a payload as dictionaries: slow, but in any shape of OTLP/JSON, and with invalid points."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import select
from airflow_provider_forge.otlp.requests import ExportRequest, encode_request
from airflow_provider_forge.payload.anomalies import Anomalies, find_anomalies
from airflow_provider_forge.payload.conform import conform
from airflow_provider_forge.payload.fingerprints import fingerprint_points
from airflow_provider_forge.payload.salvage import log_repairs, salvage
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection

    from msgspec import Raw

    from airflow_provider_forge.payload.payload import ReadOptions

__all__ = ["DictPayload"]

log = get_logger(__name__)


class DictPayload:
    """A payload as dictionaries, which support unknown fields and kinds of metrics.

    Args:
        text: JSON text of an array of `ResourceMetrics`.
        options: The options that decide how it is read.

    Attributes:
        fingerprints: Fingerprints of the points, in the order of the payload.
        count: Number of points.
        left_out: Number of invalid points, by the metric's name and the reason.

    Raises:
        MalformedOtlp: The payload is not OTLP/JSON.
    """

    def __init__(self, text: bytes | Raw, options: ReadOptions) -> None:
        self._options = options
        salvaged = salvage(text, protobuf=options.protocol != HTTP_JSON)
        self._resource_metrics = salvaged.resource_metrics
        self.left_out = salvaged.left_out
        self._verbatim = None if salvaged.repairs or salvaged.left_out else text
        self.fingerprints = fingerprint_points(
            self._resource_metrics, environments=options.environments, minute=options.minute
        )
        self.count = len(self.fingerprints)
        log_repairs(salvaged.repairs)
        if salvaged.unknown_kinds:
            log.warning(
                "%s: unknown kind of metric; sent unchanged, but a receiver that does not support it"
                " discards it",
                ", ".join(dict.fromkeys(salvaged.unknown_kinds)),
            )

    @cached_property
    def anomalies(self) -> Anomalies:
        """Anomalies of the points."""
        return find_anomalies(self._resource_metrics)

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
        """Return one request with these points, in the order of the payload.

        Raises:
            MalformedOtlp: The points are not OTLP.
        """
        options, chosen = self._options, self._resource_metrics
        everything = len(numbers) == len(self.fingerprints)
        if not everything:
            chosen = select(chosen, set(numbers))
        if options.identity:
            return encode_request(conform(chosen, options.identity), options.protocol)
        return encode_request(chosen, options.protocol, verbatim=self._verbatim if everything else None)
