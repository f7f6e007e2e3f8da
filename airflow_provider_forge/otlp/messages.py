"""OTLP metrics as decoded OTLP/JSON: dictionaries with the field names of the OTLP specification.

Dictionaries, because what Atlassian sends is an open list: a field, an attribute or a metric that nobody has
seen yet passes through as it came.
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
    "points_of",
    "select",
    "whole_nanoseconds",
]

Json = dict[str, Any]

KINDS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
"""The fields of a metric that can hold its data points: exactly one is set."""

DELTA = (1, "AGGREGATION_TEMPORALITY_DELTA")
"""`aggregationTemporality` of points that each count since the one before. OTLP wants the number."""


class MalformedOtlp(ValueError):
    """Something stands where OTLP/JSON has something else."""


def decode(resource_metrics: bytes | msgspec.Raw) -> list[Json]:
    """Read the JSON text of an array of `ResourceMetrics`.

    Raises:
        MalformedOtlp: It is no JSON, or no array of objects.
    """
    try:
        return entries({"resourceMetrics": msgspec.json.decode(resource_metrics)}, "resourceMetrics")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedOtlp(f"resourceMetrics is not JSON: {error}") from error


def entries(parent: Json, field: str) -> list[Json]:
    """Return a repeated field; an empty list where it is left out or null, as in protobuf's JSON.

    Raises:
        MalformedOtlp: It is no array of objects.
    """
    value = parent.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise MalformedOtlp(f"{field} is no array of objects")
    return value


def object_at(parent: Json, field: str) -> Json:
    """Return a message field; an empty one where it is left out or null.

    Raises:
        MalformedOtlp: It is no object.
    """
    value = parent.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedOtlp(f"{field} is no object")
    return value


def kind_of(metric: Json) -> str | None:
    """Return which field holds the metric's points; None for a kind that OTLP did not have in 2026."""
    for kind in KINDS:
        data = metric.get(kind)
        if isinstance(data, dict):
            return kind
        if data is not None:
            raise MalformedOtlp(f"{kind} of {metric.get('name')!r} is no object")
    return None


def metrics_of(resource_metrics: list[Json]) -> Iterator[Json]:
    """Yield each metric."""
    for resource in resource_metrics:
        for scope in entries(resource, "scopeMetrics"):
            yield from entries(scope, "metrics")


def points_of(metric: Json) -> list[Json]:
    """Return the metric's data points; none where it has no known kind."""
    kind = kind_of(metric)
    return entries(metric[kind], "dataPoints") if kind else []


def count_points(resource_metrics: list[Json]) -> int:
    """Return the number of data points."""
    return sum(len(points_of(metric)) for metric in metrics_of(resource_metrics))


def data_points(resource_metrics: list[Json]) -> Iterator[tuple[Json, Json | None]]:
    """Yield each data point with its metric; a metric of a kind that is not known once, with None."""
    for metric in metrics_of(resource_metrics):
        if kind_of(metric) is None:
            yield metric, None
        for point in points_of(metric):
            yield metric, point


def select(resource_metrics: list[Json], chosen: Collection[int]) -> list[Json]:
    """Return the same with no other points than those chosen, and without what then is empty.

    Args:
        resource_metrics: Decoded OTLP/JSON.
        chosen: Numbers of points, counted from 0 in the order of `data_points`.
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
    """Return an attribute that is text; None where there is none, or it is not text."""
    for entry in entries(owner, "attributes"):
        if entry.get("key") == key and isinstance(value := entry.get("value"), dict):
            text = value.get("stringValue")
            return text if isinstance(text, str) else None
    return None


def any_value(value: Any) -> Json:
    """Return a Python value as an OTLP `AnyValue`.

    Raises:
        TypeError: OTLP has no such type.
        ValueError: It is no number that OTLP/JSON can hold.
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
            raise ValueError("no finite number")
        return {"doubleValue": value}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [any_value(entry) for entry in value]}}
    raise TypeError(f"of type {type(value).__name__}")


def nanoseconds(point: Json, field: str) -> int:
    """Return a time field, in nanoseconds since the epoch; 0 where it is left out.

    Raises:
        MalformedOtlp: It is no whole number of 64 bits.
    """
    return whole_nanoseconds(point.get(field), field)


def whole_nanoseconds(value: Any, field: str) -> int:
    """Return the value of a time field in nanoseconds; 0 for None.

    Raises:
        MalformedOtlp: It is no whole number of 64 bits.
    """
    if value is None:
        return 0
    if isinstance(value, str):
        # Python refuses to read numbers of thousands of digits.
        whole = value.isascii() and value.isdecimal() and len(value) <= len(str(2**64))
    else:
        whole = type(value) is int
    if not whole or not 0 <= int(value) < 2**64:
        raise MalformedOtlp(f"{field} is {value!r}, not nanoseconds since the epoch")
    return int(value)


def canonical(value: Json | msgspec.Struct) -> bytes:
    """Return one text for equal JSON objects, whatever the order of their fields."""
    return msgspec.json.encode(value, order="sorted")
