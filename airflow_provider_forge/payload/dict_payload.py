"""A payload read as dictionaries: slow, and open to any shape."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import select
from airflow_provider_forge.otlp.requests import ExportRequest, encode_request
from airflow_provider_forge.payload.anomalies import Anomalies, find_anomalies
from airflow_provider_forge.payload.conform import conform
from airflow_provider_forge.payload.fingerprints import fingerprint_points
from airflow_provider_forge.payload.salvage import salvage
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_forge.payload.source import GatewayPayload

__all__ = ["DictPayload"]

log = get_logger(__name__)


class DictPayload:
    """An answer as dictionaries: slow, and open to whatever nobody has seen yet.

    Attributes:
        left_out: Number of points that are no OTLP, by the metric's name and the reason.
    """

    def __init__(self, source: GatewayPayload) -> None:
        self._source = source
        salvaged = salvage(source.text, protobuf=source.protocol != HTTP_JSON)
        self._resource_metrics = salvaged.resource_metrics
        self.left_out = salvaged.left_out
        self._verbatim = None if salvaged.notes or salvaged.left_out else source.text
        self.fingerprints = fingerprint_points(
            self._resource_metrics, environments=source.environments, minute=source.minute
        )
        self.count = len(self.fingerprints)
        if salvaged.notes:
            log.warning("Repaired in Atlassian's answer: %s", _listed(salvaged.notes))
        if salvaged.carried:
            log.warning(
                "%s: of a kind that is not known here; sent as it came, and a receiver that does not know"
                " it either keeps nothing of it",
                ", ".join(dict.fromkeys(salvaged.carried)),
            )

    @cached_property
    def anomalies(self) -> Anomalies:
        """What is odd about the points."""
        return find_anomalies(self._resource_metrics)

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
        """Make one request of these points.

        Raises:
            MalformedOtlp: They are not OTLP.
        """
        source, chosen = self._source, self._resource_metrics
        everything = len(numbers) == len(self.fingerprints)
        if not everything:
            chosen = select(chosen, set(numbers))
        if source.identity:
            return encode_request(conform(chosen, source.identity), source.protocol)
        return encode_request(chosen, source.protocol, verbatim=self._verbatim if everything else None)


def _listed(notes: Mapping[str, int]) -> str:
    return ", ".join(f"{what} ({count})" for what, count in notes.items())
