"""Requests made of points that are encoded already: bytes are put together, and no point is looked at."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import metrics_of
from airflow_provider_forge.otlp.requests import ExportRequest, json_chunks
from airflow_provider_forge.payload.assembly import Slots, assemble, template
from airflow_provider_forge.payload.conform import conform

if TYPE_CHECKING:
    from collections.abc import Collection

    from msgspec import Raw

    from airflow_provider_forge.payload.conform import PointSource
    from airflow_provider_forge.payload.content import GatewayPayload
    from airflow_provider_forge.payload.structs import ResourceMetrics

__all__ = ["EncodedPoints"]


@dataclass
class EncodedPoints:
    """Points of one answer, in the order in which they came.

    Attributes:
        source: The answer.
        resources: What is around the points.
        points: Each as it goes into a request.
        times: Their times, in nanoseconds since the epoch; 0 where it is left out.
        slots: The places of a request that points go to: the number of a metric in the answer, and the
            points' app and environment.
        slot_of: The place of each point.
    """

    source: GatewayPayload
    resources: list[ResourceMetrics[Raw]]
    points: list[bytes | Raw] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    slots: list[tuple[int, PointSource]] = field(default_factory=list)
    slot_of: list[int] = field(default_factory=list)

    def new_slot(self, metric: int, origin: PointSource) -> int:
        """Return the number of a place that has no points yet."""
        self.slots.append((metric, origin))
        return len(self.slots) - 1

    def encode(self, numbers: Collection[int]) -> ExportRequest:
        """Make one request of these points, in the order in which they came."""
        source, everything = self.source, len(numbers) == len(self.points)
        chosen = range(len(self.points)) if everything else sorted(numbers)
        points: Slots = defaultdict(list)
        for number in chosen:
            points[self.slot_of[number]].append(self.points[number])
        origins = {slot: self.slots[slot] for slot in points}
        resource_metrics = template(self.resources, origins, everything=everything)
        if source.identity:
            resource_metrics = conform(resource_metrics, source.identity)
        names = dict.fromkeys(metric["name"] for metric in metrics_of(resource_metrics))
        if everything and not source.identity and source.protocol == HTTP_JSON:
            chunks = json_chunks(source.text)
        else:
            chunks = assemble(resource_metrics, points, source.protocol)
        times = [self.times[number] for number in chosen]
        start, end = min(times, default=0), max(times, default=0)
        return ExportRequest(chunks, source.protocol, len(chosen), tuple(names), start, end)
