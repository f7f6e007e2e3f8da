"""Requests made of points that are encoded already: bytes are put together, and no point is looked at."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.conform import conform
from airflow_provider_forge.otlp.encode import Export, json_chunks
from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.model import metrics_of
from airflow_provider_forge.otlp.splice import Places, skeleton, splice

if TYPE_CHECKING:
    from collections.abc import Collection

    from msgspec import Raw

    from airflow_provider_forge.delivery.content import Source
    from airflow_provider_forge.otlp.conform import Origin
    from airflow_provider_forge.otlp.typed import ResourceMetrics

__all__ = ["Spliced"]


@dataclass
class Spliced:
    """Points of one answer, in the order in which they came.

    Attributes:
        source: The answer.
        resources: What is around the points.
        points: Each as it goes into a request.
        times: Their times, in nanoseconds since the epoch; 0 where it is left out.
        places: The places of a request that points go to: the number of a metric in the answer, and the
            points' app and environment.
        place_of: The place of each point.
    """

    source: Source
    resources: list[ResourceMetrics[Raw]]
    points: list[bytes | Raw] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    places: list[tuple[int, Origin]] = field(default_factory=list)
    place_of: list[int] = field(default_factory=list)

    def new_place(self, metric: int, origin: Origin) -> int:
        """Return the number of a place that has no points yet."""
        self.places.append((metric, origin))
        return len(self.places) - 1

    def encode(self, numbers: Collection[int]) -> Export:
        """Make one request of these points, in the order in which they came."""
        source, everything = self.source, len(numbers) == len(self.points)
        chosen = range(len(self.points)) if everything else sorted(numbers)
        points: Places = defaultdict(list)
        for number in chosen:
            points[self.place_of[number]].append(self.points[number])
        origins = {place: self.places[place] for place in points}
        resource_metrics = skeleton(self.resources, origins, everything=everything)
        if source.identity:
            resource_metrics = conform(resource_metrics, source.identity)
        names = dict.fromkeys(metric["name"] for metric in metrics_of(resource_metrics))
        if everything and not source.identity and source.protocol == HTTP_JSON:
            chunks = json_chunks(source.text)
        else:
            chunks = splice(resource_metrics, points, source.protocol)
        times = [self.times[number] for number in chosen]
        start, end = min(times, default=0), max(times, default=0)
        return Export(chunks, source.protocol, len(chosen), tuple(names), start, end)
