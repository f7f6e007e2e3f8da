"""Fingerprints: what tells one data point from another, whatever window it was asked for in.

Taken from Atlassian's points before `conform`, so that an upgrade or a changed option leaves them as they
are, and from nothing else that can vary between two calls: not from the order of points or attributes, not
from the resource or the scope, which are the gateway's own.
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

    from airflow_provider_forge.payload.structs import TextAttribute

__all__ = [
    "HASH_BYTES",
    "KEY_BYTES",
    "VALUE_BYTES",
    "Fingerprint",
    "begin_key",
    "canonical_attributes",
    "fingerprint_points",
    "minute_of",
    "value_hash",
]

KEY_BYTES = 8
"""One point of a metric and minute taken for another: about once in 10^11 windows of 20,000 points."""

VALUE_BYTES = 4
"""A changed value not noticed: once in 4 * 10^9 changes."""

HASH_BYTES = KEY_BYTES + VALUE_BYTES
"""16 letters in base64, which is what a store of JSON takes."""

_NANOSECONDS = 60 * 10**9
_NOT_A_VALUE = ("attributes", "startTimeUnixNano", "timeUnixNano", "exemplars")
# OTLP/JSON has whole numbers of 64 bits as text or as numbers, and fractions with or without their point.
_WHOLE_NUMBERS = frozenset({"asInt", "count", "zeroCount", "bucketCounts"})
_FRACTIONS = frozenset(
    {"asDouble", "sum", "min", "max", "zeroThreshold", "explicitBounds", "quantile", "value"}
)


class Fingerprint(NamedTuple):
    """What is remembered of a point.

    Attributes:
        metric: The metric's name.
        minute: The minute that its time lies in, counted from the epoch.
        point_hash: `KEY_BYTES` for metric, attributes, start and time, then `VALUE_BYTES` for its value.
    """

    metric: str
    minute: int
    point_hash: bytes

    @property
    def key(self) -> bytes:
        """The part of the mark that does not depend on the value."""
        return self.point_hash[:KEY_BYTES]


def minute_of(time: int, minute: int) -> int:
    """Return the minute of a point's time in nanoseconds, in an answer whose window begins in `minute`."""
    return time // _NANOSECONDS if time else minute


def begin_key(name: str, asked: bytes, start: int, time: int, minute: int) -> hashlib.blake2b:
    """Return the beginning of a hash that tells points apart; their `canonical_attributes` are its end.

    Args:
        name: The metric's.
        asked: The environments that were asked for; nothing where the point names its own.
        start: Of the point, in nanoseconds since the epoch; 0 where it is left out.
        time: Likewise.
        minute: That the window begins in: without a time, one of another window is another point.
    """
    moment = b"%d %d" % (start, time) if time else b"%d in %d" % (start, minute)
    return hashlib.blake2b(b"%b\n%b\n%b" % (name.encode(), asked, moment), digest_size=KEY_BYTES)


def canonical_attributes(attributes: Iterable[Json | TextAttribute]) -> bytes:
    """Return one text for the same attributes, whatever their order: a line before each."""
    return b"".join(b"\n" + text for text in sorted(map(canonical, attributes)))


def value_hash(value: bytes) -> bytes:
    """Return the part of a mark that tells one value from another.

    Args:
        value: Canonical text of the fields that make it, each number in its one spelling.
    """
    return hashlib.blake2b(value, digest_size=VALUE_BYTES).digest()


def fingerprint_points(
    resource_metrics: list[Json], *, environments: Iterable[str], minute: int
) -> list[Fingerprint]:
    """Return the fingerprints of all points, in the order of `data_points`.

    Args:
        resource_metrics: The gateway's answer, decoded.
        environments: UUIDs of the environments that were asked for: they tell apart the points that don't
            name one, as those of containers.
        minute: That the window begins in; stands in for the time of points without one.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    asked = ",".join(sorted(environments)).encode()
    return [_fingerprint(metric, point, asked, minute) for metric, point in data_points(resource_metrics)]


def _fingerprint(metric: Json, point: Json | None, asked: bytes, minute: int) -> Fingerprint:
    name = str(metric.get("name"))
    if point is None:
        key = hashlib.blake2b(canonical(metric), digest_size=KEY_BYTES).digest()
        return Fingerprint(name, minute, key + bytes(VALUE_BYTES))
    start, time = nanoseconds(point, "startTimeUnixNano"), nanoseconds(point, "timeUnixNano")
    value = {key: _plain(key, value) for key, value in point.items() if key not in _NOT_A_VALUE}
    whole = begin_key(name, b"" if attribute(point, "environmentId") else asked, start, time, minute)
    whole.update(canonical_attributes(entries(point, "attributes")))
    return Fingerprint(name, minute_of(time, minute), whole.digest() + value_hash(canonical(value)))


def _plain(key: str, value: Any) -> Any:
    """Return the one spelling of a value."""
    if isinstance(value, dict):
        return {inner: _plain(inner, entry) for inner, entry in value.items()}
    if isinstance(value, list):
        return [_plain(key, entry) for entry in value]
    if key in _WHOLE_NUMBERS:
        return str(value)
    if key in _FRACTIONS and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise MalformedOtlp(f"{key} is {error}") from None
    return value
