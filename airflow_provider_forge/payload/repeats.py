"""Finds fields that occur twice in one JSON object.

JSON allows it, and decoders silently keep the last one: the points in the first would be lost.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_forge.otlp.messages import KINDS, MalformedOtlp
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.otlp.messages import Json
    from airflow_provider_forge.payload.structs import ResourceMetrics

__all__ = ["check_all_read", "check_repeats", "decode_joined", "find_repeated"]

_HOLDERS = re.compile(rb'"(scopeMetrics|metrics|dataPoints)"')
_JOINED = {
    *("scopeMetrics", "scope_metrics", "instrumentationLibraryMetrics", "instrumentation_library_metrics"),
    *("resourceMetrics", "metrics", "dataPoints", "data_points"),
    *KINDS,
    "exponential_histogram",
}
"""Fields that hold points, directly or in a nested message."""


def check_repeats(
    text: bytes | msgspec.Raw, resources: list[ResourceMetrics[Any]], points: list[list[msgspec.Raw]]
) -> None:
    """Check that every point of a text was decoded.

    Args:
        text: JSON text of an array of `ResourceMetrics`.
        resources: The decoded messages, without their points.
        points: Texts of the points of each metric.

    Raises:
        MalformedOtlp: A field occurs twice, so points may be missing.
    """
    filled = [texts for texts in points if texts]
    size = sum(sum(map(len, texts)) + len(texts) - 1 for texts in filled)
    if len(text) == len(msgspec.json.encode(resources)) + size:
        return
    # The text has another spelling, such as whitespace, or points are missing.
    scopes = [scope for resource in resources for scope in resource.scope_metrics]
    _check_arrays(
        text,
        sum(bool(resource.scope_metrics) for resource in resources),
        sum(bool(scope.metrics) for scope in scopes),
        len(filled),
    )


def check_all_read(text: bytes | msgspec.Raw, resources: list[Json]) -> None:
    """Check that every array of a text is in the decoded messages.

    Args:
        text: JSON text of an array of `ResourceMetrics`.
        resources: The decoded messages.

    Raises:
        MalformedOtlp: A field occurs twice, so points may be missing.
    """
    scopes = [scope for resource in resources for scope in resource.get("scopeMetrics") or ()]
    metrics = [metric for scope in scopes for metric in scope.get("metrics") or ()]
    _check_arrays(
        text,
        sum("scopeMetrics" in resource for resource in resources),
        sum("metrics" in scope for scope in scopes),
        sum("dataPoints" in (metric.get(kind) or ()) for metric in metrics for kind in KINDS),
    )


def _check_arrays(text: bytes | msgspec.Raw, scopes: int, metrics: int, points: int) -> None:
    """Check that a text does not have more arrays than were read."""
    found = Counter(match[1] for match in _HOLDERS.finditer(memoryview(text)))
    read = {b"scopeMetrics": scopes, b"metrics": metrics, b"dataPoints": points}
    if any(found[name] > number for name, number in read.items()) and (
        repeated := find_repeated(bytes(text))
    ):
        raise MalformedOtlp(f"{sanitize(', '.join(repeated))} twice in one object")


def find_repeated(text: bytes) -> list[str]:
    """Return the names of fields that an object has twice; none if the text is not JSON."""
    found: dict[str, None] = {}

    def look(pairs: list[tuple[str, Any]]) -> None:
        # Returns nothing, so that no object is kept in memory.
        if len({name for name, _ in pairs}) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            found.update((name, None) for name, count in counts.items() if count > 1)

    try:
        json.loads(text, object_pairs_hook=look)
    except (ValueError, RecursionError):
        return []
    return list(found)


def decode_joined(text: bytes) -> Any:
    """Return the decoded JSON, with the points of both if a field occurs twice."""
    return json.loads(text, object_pairs_hook=_join)


def _join(pairs: Iterable[tuple[str, Any]]) -> Json:
    joined: Json = {}
    for name, value in pairs:
        joined[name] = _both(joined[name], value) if name in joined and name in _JOINED else value
    return joined


def _both(one: Any, other: Any) -> Any:
    """Return the union of two values of one field."""
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    if isinstance(one, dict) and isinstance(other, dict):
        return _join([*one.items(), *other.items()])
    return other or one
