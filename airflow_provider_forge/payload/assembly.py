"""A request made of dictionaries for everything but the points, and of points that are encoded already.

In the dictionaries, placeholders stand for points: one for all that go to the same place. So `conform` works
on a few dozen placeholders as it does on points, and nothing here knows what it does.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import Json, entries, kind_of, metrics_of
from airflow_provider_forge.otlp.requests import ExportRequest, json_chunks
from airflow_provider_forge.payload.conform import conform
from airflow_provider_forge.payload.protobuf import DEEPEST, tag, varint
from airflow_provider_forge.payload.structs import envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from msgspec import Raw

    from airflow_provider_forge.payload.conform import PointSource
    from airflow_provider_forge.payload.source import GatewayPayload
    from airflow_provider_forge.payload.structs import ResourceMetrics, ScopeMetrics

__all__ = ["EncodedPoints", "Slots", "assemble", "encode_point", "template"]

Slots = Mapping[int, list[Any]]
"""Points that are encoded already, by the place that they go to."""

_PLACE = "place"


def template(
    resources: list[ResourceMetrics[Any]], slots: Mapping[int, tuple[int, PointSource]], *, everything: bool
) -> list[Json]:
    """Return an answer with placeholders for points, as dictionaries.

    Args:
        resources: The answer.
        slots: For each placeholder the number of its metric in the answer, and the origin of its points.
        everything: Whether to keep what then has no points.
    """
    points = defaultdict(list)
    for slot, (number, origin) in slots.items():
        points[number].append(_placeholder(slot, *origin))
    numbers = itertools.count()

    def metrics_left(scope: ScopeMetrics[Any]) -> Iterator[Json]:
        for metric, number in zip(scope.metrics, numbers, strict=False):
            if everything or number in points:
                data = {**envelope(metric.data, "dataPoints"), "dataPoints": points[number]}
                yield {**envelope(metric, metric.kind), metric.kind: data}

    def scopes_left(resource: ResourceMetrics[Any]) -> Iterator[Json]:
        for scope in resource.scopeMetrics:
            if (metrics := list(metrics_left(scope))) or everything:
                yield {**envelope(scope, "metrics"), "metrics": metrics}

    return [
        {**envelope(resource, "scopeMetrics"), "scopeMetrics": scopes}
        for resource in resources
        if (scopes := list(scopes_left(resource))) or everything
    ]


def _placeholder(slot: int, app_id: str | None, environment_id: str | None) -> Json:
    origin = {"appId": app_id, "environmentId": environment_id}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in origin.items() if value]
    return {_PLACE: slot, "attributes": attributes}


def assemble(resource_metrics: list[Json], points: Slots, protocol: str) -> list[bytes | msgspec.Raw]:
    """Return the body of a request, in pieces.

    Args:
        resource_metrics: OTLP/JSON with placeholders for points. Its own; not to be used thereafter.
        points: Points as `encode_point` gives them, or as JSON texts, by place.
        protocol: `http/protobuf` or `http/json`.

    Raises:
        ParseError: Something is not OTLP, or has fields that are not known; not for JSON.
    """
    if protocol == HTTP_JSON:
        return list(_json(resource_metrics, points))
    return _protobuf(resource_metrics, points)


def _take(data: Json, points: Slots) -> Iterator[Any]:
    for each in data.pop("dataPoints"):
        yield from points[each[_PLACE]]


# Never part of a JSON text, which has it as six letters.
_GAP = b"\0"


def _json(resource_metrics: list[Json], points: Slots) -> Iterator[Any]:
    filling = []
    for metric in metrics_of(resource_metrics):
        data = metric[str(kind_of(metric))]
        filling.append(list(_take(data, points)))
        data["dataPoints"] = msgspec.Raw(_GAP)
    first, *others = msgspec.json.encode({"resourceMetrics": resource_metrics}).split(_GAP)
    yield first
    for content, text in zip(filling, others, strict=True):
        yield b"["
        for number, point in enumerate(content):
            if number:
                yield b","
            yield point
        yield b"]"
        yield text


_RESOURCE = tag(ExportMetricsServiceRequest, "resource_metrics")
_SCOPE = tag(metrics_pb2.ResourceMetrics, "scope_metrics")
_METRIC = tag(metrics_pb2.ScopeMetrics, "metrics")
# The same in all kinds of metrics.
_POINT = tag(metrics_pb2.Sum, "data_points")


_DATA = {
    "gauge": (metrics_pb2.Gauge, tag(metrics_pb2.Metric, "gauge")),
    "sum": (metrics_pb2.Sum, tag(metrics_pb2.Metric, "sum")),
    "histogram": (metrics_pb2.Histogram, tag(metrics_pb2.Metric, "histogram")),
    "exponentialHistogram": (
        metrics_pb2.ExponentialHistogram,
        tag(metrics_pb2.Metric, "exponential_histogram"),
    ),
    "summary": (metrics_pb2.Summary, tag(metrics_pb2.Metric, "summary")),
}


def encode_point(times: bytes, value: bytes, attributes: bytes) -> bytes:
    """Return a point of a protobuf request, from its fields."""
    size = varint(len(times) + len(value) + len(attributes))
    return b"".join((_POINT, size, times, value, attributes))


def _protobuf(resource_metrics: list[Json], points: Slots) -> list[bytes | msgspec.Raw]:
    chunks: list[bytes | msgspec.Raw] = []
    for resource in resource_metrics:
        scopes = entries(resource, "scopeMetrics")
        inside = [chunk for scope in scopes for chunk in _scope(scope, points)]
        chunks += _around(_RESOURCE, _message(metrics_pb2.ResourceMetrics, resource, "scopeMetrics"), inside)
    return chunks


def _scope(scope: Json, points: Slots) -> list[bytes]:
    inside = [chunk for metric in entries(scope, "metrics") for chunk in _metric(metric, points)]
    return _around(_SCOPE, _message(metrics_pb2.ScopeMetrics, scope, "metrics"), inside)


def _metric(metric: Json, points: Slots) -> list[bytes]:
    kind = str(kind_of(metric))
    message, start = _DATA[kind]
    inside = list(_take(metric[kind], points))
    data = _around(start, _message(message, metric[kind]), inside)
    return _around(_METRIC, _message(metrics_pb2.Metric, metric, kind), data)


def _message(message: Any, content: Json, *without: str) -> bytes:
    left = {name: value for name, value in content.items() if name not in without}
    envelope: bytes = ParseDict(left, message(), max_recursion_depth=DEEPEST).SerializeToString()
    return envelope


def _around(start: bytes, envelope: bytes, inside: list[bytes]) -> list[bytes]:
    """Return a field that holds a message whose fields are partly written, partly chunks."""
    size = len(envelope) + sum(map(len, inside))
    return [start + varint(size) + envelope, *inside]


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

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
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
