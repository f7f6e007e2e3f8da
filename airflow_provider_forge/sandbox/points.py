"""A canonical form of data points, to compare generated points with received ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    SummaryDataPoint,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

__all__ = ["DataPoint", "Point", "points_of"]

DataPoint = NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint | SummaryDataPoint

_KINDS: dict[str, tuple[str, type[DataPoint]]] = {
    "gauge": ("gauge", NumberDataPoint),
    "sum": ("sum", NumberDataPoint),
    "histogram": ("histogram", HistogramDataPoint),
    "exponential_histogram": ("exponentialHistogram", ExponentialHistogramDataPoint),
    "summary": ("summary", SummaryDataPoint),
}
_TYPES = dict(_KINDS.values())


@dataclass(frozen=True, slots=True)
class Point:
    """The identity and content of one data point.

    Excludes the unit, `isMonotonic`, description, scope and resource, which an exporter may correct.

    Attributes:
        metric: Name.
        kind: "gauge", "sum", "histogram", "exponentialHistogram" or "summary".
        temporality: OTLP's enum: 0 for types without one, 1 delta, 2 cumulative.
        attributes: Sorted by key; a value that is not a string is a serialized `AnyValue`.
        start: Nanoseconds since the epoch, 0 without one.
        time: Nanoseconds since the epoch.
        value: The protobuf data point, serialized without attributes and times: 1 and 1.0 differ.
    """

    metric: str
    kind: str
    temporality: int
    attributes: tuple[tuple[str, str | bytes], ...]
    start: int
    time: int
    value: bytes

    def data(self) -> DataPoint:
        """Return `value` as a protobuf message."""
        data = _TYPES[self.kind]()
        data.ParseFromString(self.value)
        return data

    def to_json(self) -> dict[str, Any]:
        """Return the point as JSON data; equal points give equal JSON."""
        return {
            "metric": self.metric,
            "kind": self.kind,
            "temporality": self.temporality,
            "attributes": {
                key: value if isinstance(value, str) else value.hex() for key, value in self.attributes
            },
            "start": str(self.start),
            "time": str(self.time),
            "value": MessageToDict(self.data()),
        }


def points_of(resource_metrics: Iterable[ResourceMetrics]) -> list[Point]:
    """Return the data points of OTLP messages, in order, including duplicates."""
    return [
        point
        for resource in resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in _points_of_metric(metric)
    ]


def _points_of_metric(metric: Metric) -> Iterator[Point]:
    field = metric.WhichOneof("data")
    if field is None:
        return
    kind, message_type = _KINDS[field]
    data = getattr(metric, field)
    temporality = getattr(data, "aggregation_temporality", 0)
    for data_point in data.data_points:
        bare = message_type()
        bare.CopyFrom(data_point)
        for name in ("attributes", "start_time_unix_nano", "time_unix_nano"):
            bare.ClearField(name)
        yield Point(
            metric.name,
            kind,
            temporality,
            _attributes(data_point.attributes),
            data_point.start_time_unix_nano,
            data_point.time_unix_nano,
            bare.SerializeToString(deterministic=True),
        )


def _attributes(attributes: Iterable[KeyValue]) -> tuple[tuple[str, str | bytes], ...]:
    return tuple(sorted(map(_attribute, attributes), key=lambda pair: pair[0]))


def _attribute(attribute: KeyValue) -> tuple[str, str | bytes]:
    value = attribute.value
    if value.HasField("string_value"):
        return attribute.key, value.string_value
    return attribute.key, value.SerializeToString(deterministic=True)
