"""Writes data points and their attributes in protobuf's wire format.

The field numbers are read from the descriptors of `opentelemetry-proto`. The rest of a request is small, and
is encoded by protobuf's own JSON reader.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.json_format import ParseDict
from msgspec import UNSET
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
    SummaryDataPoint,
)

from airflow_provider_forge.otlp.messages import KINDS
from airflow_provider_forge.payload.structs import (
    HistogramPoint,
    StringAttribute,
    UnsupportedShape,
    doubles,
    integers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw

    from airflow_provider_forge.otlp.messages import Json
    from airflow_provider_forge.payload.structs import Buckets, Double, Int64, Point, Quantile

__all__ = [
    "MAX_DEPTH",
    "POINT_FIELDS",
    "POINT_MESSAGES",
    "attributes_field",
    "check_value",
    "key_values",
    "nested",
    "tag",
    "times_fields",
    "value_fields",
    "varint",
]

MAX_DEPTH = 50
"""Maximum depth of values in an attribute. Protobuf reads 100 levels, those around an attribute included."""

POINT_MESSAGES: dict[str, Any] = dict(
    zip(
        KINDS,
        (
            NumberDataPoint,
            NumberDataPoint,
            HistogramDataPoint,
            ExponentialHistogramDataPoint,
            SummaryDataPoint,
        ),
        strict=True,
    )
)
"""The messages of data points, by the field of `Metric` that holds them."""

POINT_FIELDS = {
    kind: frozenset(name for field in message.DESCRIPTOR.fields for name in (field.json_name, field.name))
    for kind, message in POINT_MESSAGES.items()
}
"""Names of their fields, in JSON and in protobuf, likewise."""

_VARINT, _FIXED64, _BYTES = 0, 1, 2

_MAX_COUNT_CHARACTERS = len('["1234567890123456789"]')
"""A count of no more characters, quotes and brackets included, is less than 2**64."""


def _encode_varint(number: int) -> bytes:
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))


_SHORT_VARINTS = [*map(_encode_varint, range(0x800))]


def varint(number: int) -> bytes:
    """Return a non-negative integer as a varint."""
    return _SHORT_VARINTS[number] if number < len(_SHORT_VARINTS) else _encode_varint(number)


def tag(message: Any, field: str, wire_type: int = _BYTES) -> bytes:
    """Return the tag of a message's field."""
    return varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type)


def nested(field_tag: bytes, content: bytes) -> bytes:
    """Return a length-delimited field: a string, a message or a packed array."""
    return field_tag + varint(len(content)) + content


_KEY, _VALUE, _STRING = tag(KeyValue, "key"), tag(KeyValue, "value"), tag(AnyValue, "string_value")


def key_values(attributes: list[StringAttribute] | list[Json]) -> list[bytes]:
    """Return attributes as encoded `KeyValue` messages.

    Raises:
        ParseError: An entry is not an attribute, or has unknown fields.
    """
    return [
        _string_key_value(each) if isinstance(each, StringAttribute) else _key_value(each)
        for each in attributes
    ]


def attributes_field(kind: str, messages: list[bytes]) -> bytes:
    """Return the attributes field of a point of this kind of metric, from encoded `KeyValue` messages."""
    field_tag = tag(POINT_MESSAGES[kind], "attributes")
    return b"".join([nested(field_tag, message) for message in messages])


def _string_key_value(attribute: StringAttribute) -> bytes:
    value = nested(_STRING, attribute.value.string_value.encode())
    return nested(_KEY, attribute.key.encode()) + nested(_VALUE, value)


def _key_value(attribute: Json) -> bytes:
    message: bytes = ParseDict(attribute, KeyValue(), max_recursion_depth=MAX_DEPTH).SerializeToString()
    return message


# All kinds of points have the same field numbers for their times.
_START, _TIME = (tag(NumberDataPoint, f"{name}time_unix_nano", _FIXED64) for name in ("start_", ""))
_TIMES = struct.Struct("<cQcQ")


def times_fields(start: int, time: int) -> bytes:
    """Return the time fields of a point.

    Args:
        start: Start time in nanoseconds since the epoch; 0 if the point has none.
        time: Time in nanoseconds since the epoch; 0 if the point has none.
    """
    return _TIMES.pack(_START, start, _TIME, time)


def value_fields(kind: str, point: Point) -> bytes:
    """Return all fields of a point but its attributes and times.

    Args:
        kind: The field of `Metric` that holds the point.
        point: The point.

    Raises:
        UnsupportedShape: A value is not a number, or out of range.
        struct.error: A number is out of range.
    """
    if isinstance(point, HistogramPoint) and (fields := _complete_histogram(point)):
        return fields
    return _fields(_LAYOUTS[kind], point)


def check_value(kind: str, point: Point) -> None:
    """Raise as `value_fields` does, but return nothing, which is faster for most histograms.

    Raises:
        UnsupportedShape: A value is not a number, or out of range.
        struct.error: A number is out of range.
    """
    if isinstance(point, HistogramPoint) and point.bucket_counts is not UNSET and point.flags is UNSET:
        counts = bytes(point.bucket_counts)
        # Each count takes at least four characters, so this is the largest possible size of one count.
        if len(counts) - 4 * counts.count(b",") <= _MAX_COUNT_CHARACTERS:
            if point.count is not UNSET:
                _check_below(2**64, _integer(point.count))
            return
    value_fields(kind, point)


class _Field(NamedTuple):
    name: str
    tag: bytes
    write: Callable[[bytes, Any], bytes]


def _fields(layout: list[_Field], message: Any) -> bytes:
    return b"".join(
        [
            write(field_tag, value)
            for name, field_tag, write in layout
            if (value := getattr(message, name)) is not UNSET
        ]
    )


_pack_statistics = struct.Struct("<cQcdcdcd").pack
_COUNT, _SUM, _MIN, _MAX = (
    tag(HistogramDataPoint, name, _FIXED64) for name in ("count", "sum", "min", "max")
)
_COUNTS, _BOUNDS = (tag(HistogramDataPoint, name) for name in ("bucket_counts", "explicit_bounds"))
_pack_double, _pack_unsigned, _pack_signed = (struct.Struct(f"<c{code}").pack for code in "dQq")


def _write_double(field_tag: bytes, number: Double) -> bytes:
    return _pack_double(field_tag, float(number))


def _write_bounds(field_tag: bytes, text: Raw) -> bytes:
    return _cached_bounds(field_tag, bytes(text))


@functools.lru_cache(maxsize=32)
def _cached_bounds(field_tag: bytes, text: bytes) -> bytes:
    numbers = doubles(text)
    return nested(field_tag, struct.pack(f"<{len(numbers)}d", *map(float, numbers)))


def _write_unsigned(field_tag: bytes, number: Int64) -> bytes:
    return _pack_unsigned(field_tag, _integer(number))


def _write_signed(field_tag: bytes, number: Int64) -> bytes:
    return _pack_signed(field_tag, _integer(number))


def _write_counts(field_tag: bytes, counts: Raw) -> bytes:
    numbers = integers(counts)
    head, pack = _packer(field_tag, len(numbers))
    return head + pack(*numbers)


@functools.lru_cache(maxsize=32)
def _packer(field_tag: bytes, count: int) -> tuple[bytes, Callable[..., bytes]]:
    packer = struct.Struct(f"<{count}Q")
    return field_tag + varint(packer.size), packer.pack


def _write_varint_counts(field_tag: bytes, counts: Raw) -> bytes:
    return nested(field_tag, b"".join(varint(_check_below(2**64, number)) for number in integers(counts)))


def _write_flags(field_tag: bytes, number: int) -> bytes:
    return field_tag + varint(_check_below(2**32, number))


def _write_zigzag(field_tag: bytes, number: int) -> bytes:
    return field_tag + varint(_check_below(2**32, 2 * number if number >= 0 else -2 * number - 1))


def _write_buckets(field_tag: bytes, buckets: Buckets) -> bytes:
    return nested(field_tag, _fields(_BUCKETS_LAYOUT, buckets))


def _write_quantiles(field_tag: bytes, quantiles: list[Quantile]) -> bytes:
    return b"".join(nested(field_tag, _fields(_QUANTILE_LAYOUT, quantile)) for quantile in quantiles)


def _complete_histogram(point: HistogramPoint) -> bytes | None:
    """Return the fields of a histogram that has all of them but flags; None for any other.

    To pack them together takes half the time, and histograms take most of the time of a payload.
    """
    count, total, low, high = point.count, point.sum, point.min, point.max
    counts, bounds = point.bucket_counts, point.explicit_bounds
    if (
        count is UNSET
        or total is UNSET
        or low is UNSET
        or high is UNSET
        or counts is UNSET
        or bounds is UNSET
        or point.flags is not UNSET
    ):
        return None
    statistics = _pack_statistics(
        _COUNT, _integer(count), _SUM, float(total), _MIN, float(low), _MAX, float(high)
    )
    return b"".join((statistics, _write_counts(_COUNTS, counts), _write_bounds(_BOUNDS, bounds)))


def _integer(number: Int64) -> int:
    # int() also accepts spaces and underscores; whether OTLP does is left to protobuf's own reader.
    if isinstance(number, str) and not number.removeprefix("-").isdecimal():
        raise UnsupportedShape(f"{number!r} is not a whole number")
    return int(number)


def _check_below(limit: int, number: int) -> int:
    if not 0 <= number < limit:
        raise UnsupportedShape(f"{number} is out of range")
    return number


_WIRE_TYPES: dict[Callable[[bytes, Any], bytes], int] = {
    _write_double: _FIXED64,
    _write_unsigned: _FIXED64,
    _write_signed: _FIXED64,
    _write_flags: _VARINT,
    _write_zigzag: _VARINT,
}


def _layout(message: Any, **writers: Callable[[bytes, Any], bytes]) -> list[_Field]:
    return [
        _Field(name, tag(message, name, _WIRE_TYPES.get(write, _BYTES)), write)
        for name, write in writers.items()
    ]


_NUMBER_LAYOUT = _layout(NumberDataPoint, as_double=_write_double, as_int=_write_signed, flags=_write_flags)
_LAYOUTS = {
    "gauge": _NUMBER_LAYOUT,
    "sum": _NUMBER_LAYOUT,
    "histogram": _layout(
        HistogramDataPoint,
        count=_write_unsigned,
        sum=_write_double,
        bucket_counts=_write_counts,
        explicit_bounds=_write_bounds,
        flags=_write_flags,
        min=_write_double,
        max=_write_double,
    ),
    "exponentialHistogram": _layout(
        ExponentialHistogramDataPoint,
        count=_write_unsigned,
        sum=_write_double,
        scale=_write_zigzag,
        zero_count=_write_unsigned,
        positive=_write_buckets,
        negative=_write_buckets,
        flags=_write_flags,
        min=_write_double,
        max=_write_double,
        zero_threshold=_write_double,
    ),
    "summary": _layout(
        SummaryDataPoint,
        count=_write_unsigned,
        sum=_write_double,
        quantile_values=_write_quantiles,
        flags=_write_flags,
    ),
}
_BUCKETS_LAYOUT = _layout(
    ExponentialHistogramDataPoint.Buckets, offset=_write_zigzag, bucket_counts=_write_varint_counts
)
_QUANTILE_LAYOUT = _layout(SummaryDataPoint.ValueAtQuantile, quantile=_write_double, value=_write_double)
