"""OTLP metrics as decoded OTLP/JSON: dictionaries with the field names of the OTLP specification.

Dictionaries preserve unknown fields, attributes and metrics, which Atlassian may add at any time.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = [
    "DELTA",
    "KINDS",
    "Json",
    "MalformedOtlp",
    "any_value",
    "attribute",
    "canonical",
    "count_points",
    "data_points",
    "decode",
    "entries",
    "kind_of",
    "metrics_of",
    "nanoseconds",
    "object_at",
    "parse_nanoseconds",
    "points_of",
    "select",
]

Json = dict[str, Any]

KINDS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
"""The fields of a metric that can hold its data points. Exactly one of them is set."""

DELTA = (1, "AGGREGATION_TEMPORALITY_DELTA")
"""Values of `aggregationTemporality` for delta points. OTLP specifies the number."""


class MalformedOtlp(ValueError):
    """A value is not OTLP/JSON."""


def decode(resource_metrics: bytes | msgspec.Raw) -> list[Json]:
    """Decode the JSON text of an array of `ResourceMetrics`.

    Raises:
        MalformedOtlp: The text is not JSON, or not an array of objects.
    """
    try:
        return entries({"resourceMetrics": msgspec.json.decode(resource_metrics)}, "resourceMetrics")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedOtlp(f"resourceMetrics is not JSON: {error}") from error


def entries(parent: Json, field: str) -> list[Json]:
    """Return a repeated field; an empty list if it is missing or null, as in protobuf's JSON.

    Raises:
        MalformedOtlp: The field is not an array of objects.
    """
    value = parent.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise MalformedOtlp(f"{field} is not an array of objects")
    return value


def object_at(parent: Json, field: str) -> Json:
    """Return a message field; an empty message if it is missing or null.

    Raises:
        MalformedOtlp: The field is not an object.
    """
    value = parent.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedOtlp(f"{field} is not an object")
    return value


def kind_of(metric: Json) -> str | None:
    """Return the field that holds the metric's points; None for an unknown kind of metric.

    Raises:
        MalformedOtlp: The field is not an object.
    """
    for kind in KINDS:
        data = metric.get(kind)
        if isinstance(data, dict):
            return kind
        if data is not None:
            raise MalformedOtlp(f"{kind} of {metric.get('name')!r} is not an object")
    return None


def metrics_of(resource_metrics: list[Json]) -> Iterator[Json]:
    """Yield each metric."""
    for resource in resource_metrics:
        for scope in entries(resource, "scopeMetrics"):
            yield from entries(scope, "metrics")


def points_of(metric: Json) -> list[Json]:
    """Return the metric's data points; an empty list if its kind is unknown."""
    kind = kind_of(metric)
    return entries(metric[kind], "dataPoints") if kind else []


def count_points(resource_metrics: list[Json]) -> int:
    """Return the number of data points."""
    return sum(len(points_of(metric)) for metric in metrics_of(resource_metrics))


def data_points(resource_metrics: list[Json]) -> Iterator[tuple[Json, Json | None]]:
    """Yield each metric and data point; a metric of an unknown kind once, with None as its point."""
    for metric in metrics_of(resource_metrics):
        if kind_of(metric) is None:
            yield metric, None
        for point in points_of(metric):
            yield metric, point


def select(resource_metrics: list[Json], chosen: Collection[int]) -> list[Json]:
    """Return the metrics with the chosen points only, without empty metrics, scopes and resources.

    Args:
        resource_metrics: Decoded OTLP/JSON.
        chosen: Numbers of the points, from 0 in the order of `data_points`.
    """
    numbers = itertools.count()

    def metrics_left(scope: Json) -> Iterator[Json]:
        for metric in entries(scope, "metrics"):
            if (kind := kind_of(metric)) is None:
                if next(numbers) in chosen:
                    yield metric
            elif points := [point for point in points_of(metric) if next(numbers) in chosen]:
                yield {**metric, kind: {**metric[kind], "dataPoints": points}}

    def scopes_left(resource: Json) -> Iterator[Json]:
        for scope in entries(resource, "scopeMetrics"):
            if metrics := list(metrics_left(scope)):
                yield {**scope, "metrics": metrics}

    return [
        {**resource, "scopeMetrics": scopes}
        for resource in resource_metrics
        if (scopes := list(scopes_left(resource)))
    ]


def attribute(owner: Json, key: str) -> str | None:
    """Return the value of a string attribute; None if it is missing or not a string."""
    for entry in entries(owner, "attributes"):
        if entry.get("key") == key and isinstance(value := entry.get("value"), dict):
            text = value.get("stringValue")
            return text if isinstance(text, str) else None
    return None


def any_value(value: Any) -> Json:
    """Return a Python value as an OTLP `AnyValue`.

    Raises:
        TypeError: OTLP does not support the type.
        ValueError: OTLP/JSON cannot represent the number.
    """
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("too large a number")
        return {"intValue": str(value)}
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("not a finite number")
        return {"doubleValue": value}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [any_value(entry) for entry in value]}}
    raise TypeError(f"of type {type(value).__name__}")


def nanoseconds(point: Json, field: str) -> int:
    """Return a time field, in nanoseconds since the epoch; 0 if it is missing.

    Raises:
        MalformedOtlp: The value is not an unsigned 64-bit integer.
    """
    return parse_nanoseconds(point.get(field), field)


def parse_nanoseconds(value: Any, field: str) -> int:
    """Return the value of a time field, in nanoseconds since the epoch; 0 for None.

    Args:
        value: The value in OTLP/JSON.
        field: Name of the field, for the error.

    Raises:
        MalformedOtlp: The value is not an unsigned 64-bit integer.
    """
    if value is None:
        return 0
    if isinstance(value, str):
        # Python does not convert text with thousands of digits to a number.
        is_integer = value.isascii() and value.isdecimal() and len(value) <= len(str(2**64))
    else:
        is_integer = type(value) is int
    if not is_integer or not 0 <= int(value) < 2**64:
        raise MalformedOtlp(f"{field} is {value!r}, not nanoseconds since the epoch")
    return int(value)


def canonical(value: Json | msgspec.Struct) -> bytes:
    """Return the same text for equal JSON objects with fields in any order."""
    return msgspec.json.encode(value, order="sorted")
