"""Assembles a request from encoded points, and from dictionaries for everything around them.

In the dictionaries, one placeholder represents all points of a bundle: those of one metric, app and
environment. `conform` therefore processes a few dozen placeholders instead of the points.
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
from airflow_provider_forge.otlp.requests import ExportRequest, json_chunks, known_fields
from airflow_provider_forge.payload.conform import conform
from airflow_provider_forge.payload.protobuf import MAX_DEPTH, nested, tag, varint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from google.protobuf.message import Message
    from msgspec import Raw

    from airflow_provider_forge.payload.conform import PointSource
    from airflow_provider_forge.payload.payload import ReadOptions

__all__ = ["Bundles", "EncodedPoints", "assemble", "encode_message", "encode_point", "template"]

Bundles = Mapping[int, list[Any]]
"""Encoded points, by their bundle."""

_BUNDLE = "bundle"


def template(
    resources: list[Json], bundles: Mapping[int, tuple[int, PointSource]], *, everything: bool
) -> list[Json]:
    """Return a payload with placeholders for its points.

    Args:
        resources: The payload without its points. It is not modified.
        bundles: The number of the metric in the payload and the source of the points, for each bundle.
        everything: Whether to keep resources, scopes and metrics without points.
    """
    points = defaultdict(list)
    for bundle, (number, source) in bundles.items():
        points[number].append(_placeholder(bundle, *source))
    numbers = itertools.count()

    def metrics_left(scope: Json) -> Iterator[Json]:
        for metric, number in zip(entries(scope, "metrics"), numbers, strict=False):
            if everything or number in points:
                kind = str(kind_of(metric))
                yield {**metric, kind: {**metric[kind], "dataPoints": points[number]}}

    def scopes_left(resource: Json) -> Iterator[Json]:
        for scope in entries(resource, "scopeMetrics"):
            if (metrics := list(metrics_left(scope))) or everything:
                yield {**scope, "metrics": metrics}

    return [
        {**resource, "scopeMetrics": scopes}
        for resource in resources
        if (scopes := list(scopes_left(resource))) or everything
    ]


def _placeholder(bundle: int, app_id: str | None, environment_id: str | None) -> Json:
    source = {"appId": app_id, "environmentId": environment_id}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in source.items() if value]
    return {_BUNDLE: bundle, "attributes": attributes}


def assemble(resource_metrics: list[Json], points: Bundles, protocol: str) -> list[bytes | msgspec.Raw]:
    """Return the body of a request, in chunks.

    Args:
        resource_metrics: OTLP/JSON with placeholders for points. It is modified.
        points: Points by bundle: as returned by `encode_point`, or JSON texts for `http/json`.
        protocol: `http/protobuf` or `http/json`.

    Raises:
        ParseError: `resource_metrics` is not OTLP. Not raised for `http/json`.
    """
    if protocol == HTTP_JSON:
        return list(_json_chunks(resource_metrics, points))
    return _protobuf_chunks(resource_metrics, points)


def _points_of(data: Json, points: Bundles) -> Iterator[Any]:
    for placeholder in data.pop("dataPoints"):
        yield from points[placeholder[_BUNDLE]]


# Never part of a JSON text, which escapes it.
_SEPARATOR = b"\0"


def _json_chunks(resource_metrics: list[Json], points: Bundles) -> Iterator[Any]:
    points_of_metrics = []
    for metric in metrics_of(resource_metrics):
        data = metric[str(kind_of(metric))]
        points_of_metrics.append(list(_points_of(data, points)))
        data["dataPoints"] = msgspec.Raw(_SEPARATOR)
    first, *others = msgspec.json.encode({"resourceMetrics": resource_metrics}).split(_SEPARATOR)
    yield first
    for metric_points, text in zip(points_of_metrics, others, strict=True):
        yield b"["
        for number, point in enumerate(metric_points):
            if number:
                yield b","
            yield point
        yield b"]"
        yield text


_RESOURCE_TAG = tag(ExportMetricsServiceRequest, "resource_metrics")
_SCOPE_TAG = tag(metrics_pb2.ResourceMetrics, "scope_metrics")
_METRIC_TAG = tag(metrics_pb2.ScopeMetrics, "metrics")
# All kinds of metrics have the same field number for their points.
_POINT_TAG = tag(metrics_pb2.Sum, "data_points")


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
    """Return a point of a protobuf request, from its encoded fields."""
    size = varint(len(times) + len(value) + len(attributes))
    return b"".join((_POINT_TAG, size, times, value, attributes))


def encode_message(message: Message) -> bytes:
    """Return a point of a protobuf request, from its message."""
    return nested(_POINT_TAG, message.SerializeToString())


def _protobuf_chunks(resource_metrics: list[Json], points: Bundles) -> list[bytes | msgspec.Raw]:
    chunks: list[bytes | msgspec.Raw] = []
    for resource in resource_metrics:
        scopes = entries(resource, "scopeMetrics")
        chunks_inside = [chunk for scope in scopes for chunk in _scope_chunks(scope, points)]
        chunks += _nest(
            _RESOURCE_TAG,
            _encode_envelope(metrics_pb2.ResourceMetrics, resource, "scopeMetrics"),
            chunks_inside,
        )
    return chunks


def _scope_chunks(scope: Json, points: Bundles) -> list[bytes]:
    chunks_inside = [
        chunk for metric in entries(scope, "metrics") for chunk in _metric_chunks(metric, points)
    ]
    return _nest(_SCOPE_TAG, _encode_envelope(metrics_pb2.ScopeMetrics, scope, "metrics"), chunks_inside)


def _metric_chunks(metric: Json, points: Bundles) -> list[bytes]:
    kind = str(kind_of(metric))
    message, field_tag = _DATA[kind]
    chunks_inside = list(_points_of(metric[kind], points))
    data = _nest(field_tag, _encode_envelope(message, metric[kind]), chunks_inside)
    return _nest(_METRIC_TAG, _encode_envelope(metrics_pb2.Metric, metric, kind), data)


def _encode_envelope(message_type: Any, message: Json, *without: str) -> bytes:
    inside = {name: value for name, value in message.items() if name not in without}
    fields = known_fields(inside, message_type.DESCRIPTOR, set())
    parsed = ParseDict(fields, message_type(), max_recursion_depth=MAX_DEPTH)
    encoded: bytes = parsed.SerializeToString()
    return encoded


def _nest(field_tag: bytes, envelope: bytes, chunks_inside: list[bytes]) -> list[bytes]:
    """Return the chunks of a field with a message: an encoded envelope, followed by chunks of fields."""
    size = len(envelope) + sum(map(len, chunks_inside))
    return [field_tag + varint(size) + envelope, *chunks_inside]


@dataclass
class EncodedPoints:
    """The encoded points of a payload, from which requests are assembled without decoding a point.

    Attributes:
        text: JSON text of the payload, an array of `ResourceMetrics`.
        options: The options that decide how it is read.
        resources: The payload without its points.
        verbatim: Whether the payload's text is a request with all points.
        points: The encoded points, in the order of the payload.
        times: Times of the points, in nanoseconds since the epoch; 0 if a point has none.
        bundles: For each bundle, the number of the metric in the payload, and the source of the points.
        bundle_of: The bundle of each point.
    """

    text: bytes | Raw
    options: ReadOptions
    resources: list[Json]
    verbatim: bool = True
    points: list[bytes | Raw] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    bundles: list[tuple[int, PointSource]] = field(default_factory=list)
    bundle_of: list[int] = field(default_factory=list)

    def new_bundle(self, metric: int, source: PointSource) -> int:
        """Add a bundle without points, and return its number."""
        self.bundles.append((metric, source))
        return len(self.bundles) - 1

    def remove(self, emptied: Collection[Json]) -> None:
        """Remove metrics without a bundle, which are not numbered."""
        for scope in (scope for resource in self.resources for scope in entries(resource, "scopeMetrics")):
            if emptied:
                metrics = entries(scope, "metrics")
                scope["metrics"] = [each for each in metrics if not any(each is other for other in emptied)]

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
        """Return one request with these points, in the order of the payload."""
        options, everything = self.options, len(numbers) == len(self.points)
        chosen = range(len(self.points)) if everything else sorted(numbers)
        points: Bundles = defaultdict(list)
        for number in chosen:
            points[self.bundle_of[number]].append(self.points[number])
        bundles = {bundle: self.bundles[bundle] for bundle in points}
        resource_metrics = template(self.resources, bundles, everything=everything)
        if options.identity:
            resource_metrics = conform(resource_metrics, options.identity)
        names = dict.fromkeys(str(metric.get("name")) for metric in metrics_of(resource_metrics))
        if everything and self.verbatim and not options.identity and options.protocol == HTTP_JSON:
            chunks = json_chunks(self.text)
        else:
            chunks = assemble(resource_metrics, points, options.protocol)
        times = [self.times[number] for number in chosen]
        start, end = min(times, default=0), max(times, default=0)
        return ExportRequest(chunks, options.protocol, len(chosen), tuple(names), start, end)
