"""Protobuf's wire format, for what comes by the thousand: data points and their attributes.

The numbers and JSON names of fields are those of `opentelemetry-proto`. Everything else of a request is left
to protobuf's own JSON reader.
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
    TextAttribute,
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
    "DEEPEST",
    "attributes_field",
    "check_value",
    "key_values",
    "nested",
    "tag",
    "times_fields",
    "value_fields",
    "varint",
]

DEEPEST = 50
"""Values within each other in an attribute. Protobuf reads 100 messages deep, and some are around it."""

_VARINT, _FIXED64, _BYTES = 0, 1, 2

_SURELY_64_BITS = len('["1234567890123456789"]')


def _varint(number: int) -> bytes:
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))


_SHORT = [*map(_varint, range(0x800))]


def varint(number: int) -> bytes:
    """Return a number that is not negative in as few bytes as it takes."""
    return _SHORT[number] if number < len(_SHORT) else _varint(number)


def tag(message: Any, field: str, wire_type: int = _BYTES) -> bytes:
    """Return what a field of a message begins with."""
    return varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type)


def nested(start: bytes, content: bytes) -> bytes:
    """Return a field that is text or a message, from its tag and what is in it."""
    return start + varint(len(content)) + content


_KEY, _VALUE, _STRING = tag(KeyValue, "key"), tag(KeyValue, "value"), tag(AnyValue, "string_value")


def key_values(attributes: list[TextAttribute] | list[Json]) -> list[bytes]:
    """Return attributes as messages.

    Raises:
        ParseError: Something is no attribute, or has fields that are not known.
    """
    return [
        _text_key_value(each) if isinstance(each, TextAttribute) else _key_value(each) for each in attributes
    ]


def attributes_field(kind: str, messages: list[bytes]) -> bytes:
    """Return the attributes of a point of this kind of metric, from what `key_values` returns."""
    start = tag(_MESSAGES[kind], "attributes")
    return b"".join([nested(start, each) for each in messages])


def _text_key_value(attribute: TextAttribute) -> bytes:
    text = nested(_STRING, attribute.value.stringValue.encode())
    return nested(_KEY, attribute.key.encode()) + nested(_VALUE, text)


def _key_value(attribute: Json) -> bytes:
    message: bytes = ParseDict(attribute, KeyValue(), max_recursion_depth=DEEPEST).SerializeToString()
    return message


# All kinds of points have them in the same places.
_START, _TIME = (tag(NumberDataPoint, f"{name}time_unix_nano", _FIXED64) for name in ("start_", ""))
_TIMES = struct.Struct("<cQcQ")


def times_fields(start: int, time: int) -> bytes:
    """Return the times of a point, in nanoseconds since the epoch."""
    return _TIMES.pack(_START, start, _TIME, time)


def value_fields(kind: str, point: Point) -> bytes:
    """Return the other fields of a point of this kind of metric.

    Raises:
        UnsupportedShape: A number is none, or too large.
        struct.error: Likewise.
    """
    if isinstance(point, HistogramPoint) and (fields := _usual_histogram(point)):
        return fields
    return _fields(_LAYOUTS[kind], point)


def check_value(kind: str, point: Point) -> None:
    """Refuse what `value_fields` refuses, in less time where point is a usual histogram.

    Raises:
        UnsupportedShape: A number is none, or too large.
        struct.error: Likewise.
    """
    if isinstance(point, HistogramPoint) and point.bucketCounts is not UNSET and point.flags is UNSET:
        counts = bytes(point.bucketCounts)
        # Each count but one takes four characters or more, which bounds the digits of the longest.
        if len(counts) - 4 * counts.count(b",") <= _SURELY_64_BITS:
            if point.count is not UNSET:
                _below(2**64, _integer(point.count))
            return
    value_fields(kind, point)


class _Field(NamedTuple):
    name: str
    start: bytes
    write: Callable[[bytes, Any], bytes]


def _fields(layout: list[_Field], message: Any) -> bytes:
    return b"".join(
        [
            write(start, value)
            for name, start, write in layout
            if (value := getattr(message, name)) is not UNSET
        ]
    )


_pack_statistics = struct.Struct("<cQcdcdcd").pack
_COUNT, _SUM, _MIN, _MAX = (
    tag(HistogramDataPoint, name, _FIXED64) for name in ("count", "sum", "min", "max")
)
_COUNTS, _BOUNDS = (tag(HistogramDataPoint, name) for name in ("bucket_counts", "explicit_bounds"))
_pack_double, _pack_unsigned, _pack_signed = (struct.Struct(f"<c{code}").pack for code in "dQq")


def _double(start: bytes, number: Double) -> bytes:
    return _pack_double(start, float(number))


def _bounds(start: bytes, text: Raw) -> bytes:
    return _known_bounds(start, bytes(text))


@functools.lru_cache(maxsize=32)
def _known_bounds(start: bytes, text: bytes) -> bytes:
    numbers = doubles(text)
    return nested(start, struct.pack(f"<{len(numbers)}d", *map(float, numbers)))


def _unsigned(start: bytes, number: Int64) -> bytes:
    return _pack_unsigned(start, _integer(number))


def _signed(start: bytes, number: Int64) -> bytes:
    return _pack_signed(start, _integer(number))


def _counts(start: bytes, counts: Raw) -> bytes:
    numbers = integers(counts)
    head, pack = _packer(start, len(numbers))
    return head + pack(*numbers)


@functools.lru_cache(maxsize=32)
def _packer(start: bytes, count: int) -> tuple[bytes, Callable[..., bytes]]:
    packer = struct.Struct(f"<{count}Q")
    return start + varint(packer.size), packer.pack


def _short_counts(start: bytes, counts: Raw) -> bytes:
    return nested(start, b"".join(varint(_below(2**64, number)) for number in integers(counts)))


def _flags(start: bytes, number: int) -> bytes:
    return start + varint(_below(2**32, number))


def _zigzag(start: bytes, number: int) -> bytes:
    return start + varint(_below(2**32, 2 * number if number >= 0 else -2 * number - 1))


def _buckets(start: bytes, buckets: Buckets) -> bytes:
    return nested(start, _fields(_BUCKETS, buckets))


def _quantiles(start: bytes, quantiles: list[Quantile]) -> bytes:
    return b"".join(nested(start, _fields(_QUANTILE, quantile)) for quantile in quantiles)


def _usual_histogram(point: HistogramPoint) -> bytes | None:
    """Return the fields of a histogram that has all but flags, at once: this takes half the time.

    Histograms are most of the work.
    """
    count, total, low, high = point.count, point.sum, point.min, point.max
    counts, bounds = point.bucketCounts, point.explicitBounds
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
    return b"".join((statistics, _counts(_COUNTS, counts), _bounds(_BOUNDS, bounds)))


def _integer(number: Int64) -> int:
    # Of what else int() takes, such as spaces, protobuf's own reader is the judge.
    if isinstance(number, str) and not number.removeprefix("-").isdecimal():
        raise UnsupportedShape(f"{number!r} where a whole number should be")
    return int(number)


def _below(limit: int, number: int) -> int:
    if not 0 <= number < limit:
        raise UnsupportedShape(f"{number}, which is out of range")
    return number


_WIRE_TYPES: dict[Callable[[bytes, Any], bytes], int] = {
    _double: _FIXED64,
    _unsigned: _FIXED64,
    _signed: _FIXED64,
    _flags: _VARINT,
    _zigzag: _VARINT,
}


def _layout(message: Any, **writers: Callable[[bytes, Any], bytes]) -> list[_Field]:
    fields = message.DESCRIPTOR.fields_by_name
    return [
        _Field(fields[name].json_name, tag(message, name, _WIRE_TYPES.get(write, _BYTES)), write)
        for name, write in writers.items()
    ]


_MESSAGES = dict(
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
_NUMBER = _layout(NumberDataPoint, as_double=_double, as_int=_signed, flags=_flags)
_LAYOUTS = {
    "gauge": _NUMBER,
    "sum": _NUMBER,
    "histogram": _layout(
        HistogramDataPoint,
        count=_unsigned,
        sum=_double,
        bucket_counts=_counts,
        explicit_bounds=_bounds,
        flags=_flags,
        min=_double,
        max=_double,
    ),
    "exponentialHistogram": _layout(
        ExponentialHistogramDataPoint,
        count=_unsigned,
        sum=_double,
        scale=_zigzag,
        zero_count=_unsigned,
        positive=_buckets,
        negative=_buckets,
        flags=_flags,
        min=_double,
        max=_double,
        zero_threshold=_double,
    ),
    "summary": _layout(
        SummaryDataPoint, count=_unsigned, sum=_double, quantile_values=_quantiles, flags=_flags
    ),
}
_BUCKETS = _layout(ExponentialHistogramDataPoint.Buckets, offset=_zigzag, bucket_counts=_short_counts)
_QUANTILE = _layout(SummaryDataPoint.ValueAtQuantile, quantile=_double, value=_double)
