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

__all__ = ["check_repeats", "decode_joined", "find_repeated"]

_HOLDERS = re.compile(rb'"(scopeMetrics|metrics|dataPoints)"')
_JOINED = {
    *("scopeMetrics", "scope_metrics", "instrumentationLibraryMetrics", "instrumentation_library_metrics"),
    *("resourceMetrics", "metrics", "dataPoints", "data_points"),
    *KINDS,
    "exponential_histogram",
}
"""Fields that hold points, directly or in a nested message."""


def check_repeats(
    text: bytes | msgspec.Raw, resources: list[ResourceMetrics[Any]], filled: int, size: int
) -> None:
    """Check that every point of a text was decoded.

    Args:
        text: JSON text of an array of `ResourceMetrics`.
        resources: The decoded messages, without their points.
        filled: Number of arrays that had points.
        size: Size in bytes of the points' texts, with a comma between two of one array.

    Raises:
        MalformedOtlp: A field occurs twice, so points may be missing.
    """
    if _is_read_whole(text, resources, filled, size):
        return
    if repeated := find_repeated(bytes(text)):
        raise MalformedOtlp(f"{sanitize(', '.join(repeated))} twice in one object")


def _is_read_whole(
    text: bytes | msgspec.Raw, resources: list[ResourceMetrics[Any]], filled: int, size: int
) -> bool:
    """Return whether a cheap comparison proves that every point was decoded."""
    if len(text) == len(msgspec.json.encode(resources)) + size:
        return True
    # The text has another spelling, such as whitespace, or points are missing.
    scopes = [scope for resource in resources for scope in resource.scope_metrics]
    read = {
        b"scopeMetrics": sum(bool(resource.scope_metrics) for resource in resources),
        b"metrics": sum(bool(scope.metrics) for scope in scopes),
        b"dataPoints": filled,
    }
    found = Counter(match[1] for match in _HOLDERS.finditer(memoryview(text)))
    return all(found[name] <= number for name, number in read.items())


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
