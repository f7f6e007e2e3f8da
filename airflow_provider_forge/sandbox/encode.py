"""Encode generated data points as Atlassian's OTLP/JSON and as OTLP protobuf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as MetricMessage
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from airflow_provider_forge.sandbox.catalogue import METRICS, Metric, Sample
from airflow_provider_forge.sandbox.shapes import LATENCY_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.sandbox.scenario import LatencyShape

__all__ = ["to_json", "to_message"]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.9.0"

_JSON_NAMES = {
    "as_int": "asInt",
    "as_double": "asDouble",
    "bucket_counts": "bucketCounts",
    "explicit_bounds": "explicitBounds",
    "zero_count": "zeroCount",
    "quantile_values": "quantileValues",
}
# OTLP/JSON encodes 64-bit integers as strings, but the gateway's `asInt` is a number.
_AS_STRINGS = frozenset({"count", "bucket_counts", "zero_count"})


def to_json(samples: Iterable[Sample], shape: LatencyShape) -> list[dict[str, Any]]:
    """Return the `resourceMetrics` of a response, in the shape of Atlassian's sample; `[]` without points."""
    metrics = [
        _metric_json(METRICS[label], shape, of_label) for label, of_label in _by_label(samples).items()
    ]
    if not metrics:
        return []
    return [{"resource": {}, "schemaUrl": SCHEMA_URL, "scopeMetrics": [{"metrics": metrics}]}]


def to_message(samples: Iterable[Sample], shape: LatencyShape) -> ResourceMetrics:
    """Return the content of `to_json` as one protobuf message."""
    metrics = [
        _metric_message(METRICS[label], shape, of_label) for label, of_label in _by_label(samples).items()
    ]
    scopes = [ScopeMetrics(metrics=metrics)]
    return ResourceMetrics(resource=Resource(), schema_url=SCHEMA_URL, scope_metrics=scopes)


def _by_label(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    by_label: dict[str, list[Sample]] = {}
    for sample in samples:
        by_label.setdefault(sample.label, []).append(sample)
    return by_label


def _kind(metric: Metric, shape: LatencyShape) -> str:
    return shape if metric.kind == "latency" else metric.kind


def _fields(sample: Sample, shape: LatencyShape) -> dict[str, Any]:
    if isinstance(sample.value, tuple):
        return LATENCY_FIELDS[shape](sample.value)
    return {"as_int" if isinstance(sample.value, int) else "as_double": sample.value}


def _has_temporality(kind: str) -> bool:
    return kind not in {"gauge", "summary"}


def _metric_json(metric: Metric, shape: LatencyShape, samples: list[Sample]) -> dict[str, Any]:
    kind = _kind(metric, shape)
    data: dict[str, Any] = {"dataPoints": [_point_json(sample, shape) for sample in samples]}
    if _has_temporality(kind):
        data = {"aggregationTemporality": metric.temporality, **data}
    if metric.monotonic:
        data["isMonotonic"] = True
    key = "exponentialHistogram" if kind == "exponential_histogram" else kind
    return {"name": metric.name, "description": "", key: data, "unit": metric.unit}


def _point_json(sample: Sample, shape: LatencyShape) -> dict[str, Any]:
    point = {
        **_json_fields(_fields(sample, shape)),
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in sample.attributes],
    }
    if sample.start:
        point["startTimeUnixNano"] = str(sample.start)
    point["timeUnixNano"] = str(sample.time)
    return point


def _json_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {_JSON_NAMES.get(name, name): _json_value(name, value) for name, value in fields.items()}


def _json_value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_json_value(name, item) for item in value]
    if isinstance(value, dict):
        return _json_fields(value)
    return str(value) if name in _AS_STRINGS else value


def _metric_message(metric: Metric, shape: LatencyShape, samples: list[Sample]) -> MetricMessage:
    kind = _kind(metric, shape)
    data: dict[str, Any] = {
        "data_points": [
            {
                **_fields(sample, shape),
                "attributes": _attributes(sample),
                "start_time_unix_nano": sample.start,
                "time_unix_nano": sample.time,
            }
            for sample in samples
        ]
    }
    if _has_temporality(kind):
        data["aggregation_temporality"] = metric.temporality
    if metric.monotonic:
        data["is_monotonic"] = True
    fields: dict[str, Any] = {kind: data}
    return MetricMessage(name=metric.name, unit=metric.unit, **fields)


def _attributes(sample: Sample) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"string_value": value}} for key, value in sample.attributes]
