"""Fingerprints identify data points across windows and calls: deliveries are deduplicated by them.

They are computed from Atlassian's points before `conform`, so that an upgrade or a changed option does not
change them. They depend on nothing that varies between two calls: not on the order of points or attributes,
nor on the resource or the scope, which belong to the gateway.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_forge.otlp.messages import (
    Json,
    MalformedOtlp,
    attribute,
    canonical,
    data_points,
    entries,
    nanoseconds,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.payload.structs import StringAttribute

__all__ = [
    "HASH_BYTES",
    "KEY_BYTES",
    "VALUE_BYTES",
    "Fingerprint",
    "canonical_attributes",
    "fingerprint_point",
    "fingerprint_points",
    "minute_of",
    "partial_key_hash",
    "value_hash",
]

KEY_BYTES = 8
"""Two points of a metric and minute collide about once in 10^11 windows of 20,000 points."""

VALUE_BYTES = 4
"""A changed value is missed once in 4 * 10^9 changes."""

HASH_BYTES = KEY_BYTES + VALUE_BYTES
"""16 characters in base64, as written to JSON."""

_NANOSECONDS_PER_MINUTE = 60 * 10**9
_NOT_A_VALUE = ("attributes", "startTimeUnixNano", "timeUnixNano", "exemplars")
# OTLP/JSON writes 64-bit integers as text or numbers, and doubles with or without a decimal point.
_INT64_FIELDS = frozenset({"asInt", "count", "zeroCount", "bucketCounts"})
_DOUBLE_FIELDS = frozenset(
    {"asDouble", "sum", "min", "max", "zeroThreshold", "explicitBounds", "quantile", "value"}
)


class Fingerprint(NamedTuple):
    """The identity and value of a point, as recorded in the ledger.

    Attributes:
        metric: Name of the metric.
        minute: Minute of the point's time, in minutes since the epoch.
        point_hash: `KEY_BYTES` of hash of the metric, attributes, start and time, then `VALUE_BYTES` of hash
            of the value.
    """

    metric: str
    minute: int
    point_hash: bytes

    @property
    def key(self) -> bytes:
        """The part of the hash that does not depend on the value."""
        return self.point_hash[:KEY_BYTES]


def minute_of(time: int, minute: int) -> int:
    """Return the minute of a point's time, in minutes since the epoch.

    Args:
        time: Nanoseconds since the epoch; 0 if the point has no time.
        minute: Start of the window, used for a point without a time.
    """
    return time // _NANOSECONDS_PER_MINUTE if time else minute


def partial_key_hash(name: str, environments: bytes, start: int, time: int, minute: int) -> hashlib.blake2b:
    """Return the hash of a point's key, to be updated with its `canonical_attributes`.

    Args:
        name: Name of the metric.
        environments: The queried environments; empty if the point names its environment.
        start: Start of the point, in nanoseconds since the epoch; 0 if it has none.
        time: Time of the point, in nanoseconds since the epoch; 0 if it has none.
        minute: Start of the window, in minutes since the epoch: points without a time differ between windows.
    """
    moment = b"%d %d" % (start, time) if time else b"%d in %d" % (start, minute)
    return hashlib.blake2b(b"%b\n%b\n%b" % (name.encode(), environments, moment), digest_size=KEY_BYTES)


def canonical_attributes(attributes: Iterable[Json | StringAttribute]) -> bytes:
    """Return the same text for the same attributes in any order; each attribute starts a line."""
    return b"".join(b"\n" + text for text in sorted(map(canonical, attributes)))


def value_hash(value: bytes) -> bytes:
    """Return the part of a point's hash that depends on its value.

    Args:
        value: Canonical text of the value's fields, with normalized numbers.
    """
    return hashlib.blake2b(value, digest_size=VALUE_BYTES).digest()


def fingerprint_points(
    resource_metrics: list[Json], *, environments: Iterable[str], minute: int
) -> list[Fingerprint]:
    """Return the fingerprints of all points, in the order of `data_points`.

    Args:
        resource_metrics: The decoded payload.
        environments: UUIDs of the queried environments: part of the key of points that do not name an
            environment, such as those of containers.
        minute: Start of the window, in minutes since the epoch, used for points without a time.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    queried = ",".join(sorted(environments)).encode()
    return [
        fingerprint_point(metric, point, queried, minute) for metric, point in data_points(resource_metrics)
    ]


def fingerprint_point(metric: Json, point: Json | None, environments: bytes, minute: int) -> Fingerprint:
    """Return the fingerprint of one point.

    Args:
        metric: The metric of the point.
        point: The point; None for a metric of an unknown kind.
        environments: UUIDs of the queried environments, sorted and joined by commas.
        minute: Start of the window, in minutes since the epoch, used for a point without a time.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    name = str(metric.get("name"))
    if point is None:
        key = hashlib.blake2b(canonical(metric), digest_size=KEY_BYTES).digest()
        return Fingerprint(name, minute, key + bytes(VALUE_BYTES))
    start, time = nanoseconds(point, "startTimeUnixNano"), nanoseconds(point, "timeUnixNano")
    value = {key: _normalized(key, value) for key, value in point.items() if key not in _NOT_A_VALUE}
    key_hash = partial_key_hash(
        name, b"" if attribute(point, "environmentId") else environments, start, time, minute
    )
    key_hash.update(canonical_attributes(entries(point, "attributes")))
    return Fingerprint(name, minute_of(time, minute), key_hash.digest() + value_hash(canonical(value)))


def _normalized(key: str, value: Any) -> Any:
    """Return a value with numbers as the fast reader writes them."""
    if isinstance(value, dict):
        return {inner: _normalized(inner, entry) for inner, entry in value.items()}
    if isinstance(value, list):
        return [_normalized(key, entry) for entry in value]
    if key in _INT64_FIELDS:
        return str(value)
    if key in _DOUBLE_FIELDS and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise MalformedOtlp(f"{key}: {error}") from None
    return value
