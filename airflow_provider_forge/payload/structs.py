"""Structs for OTLP/JSON metrics, decoded directly from the text.

They support the shape that exporters write: each field at most once, no null, no exemplars. Any other shape,
such as a field of a later version of OTLP, is refused, and read as dictionaries instead: a point by
`unusual`, everything around the points by `skeleton`.

Fields have the names of the OTLP specification, and its JSON names in alphabetical order: fingerprints depend
on the order.
"""

from __future__ import annotations

import codecs
import functools
import re
import struct
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec
from google.protobuf.json_format import ParseError
from msgspec import UNSET, Raw, UnsetType

from airflow_provider_forge.otlp.messages import KINDS, Json, attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "REFUSALS",
    "Buckets",
    "Data",
    "Double",
    "HistogramPoint",
    "Int64",
    "Metric",
    "Point",
    "Quantile",
    "ResourceMetrics",
    "ScopeMetrics",
    "StringAttribute",
    "Times",
    "UnsupportedShape",
    "attribute_text",
    "decode_attributes",
    "decode_structs",
    "doubles",
    "integers",
    "metric_structs",
    "point_decoder",
    "scan_times",
]


class UnsupportedShape(ValueError):
    """The structs do not support the text; `DictPayload` may, or reports the fault in it."""


REFUSALS = (
    msgspec.DecodeError,
    ValueError,  # UnsupportedShape, MalformedOtlp and UnicodeDecodeError among them
    OverflowError,
    RecursionError,
    struct.error,
    ParseError,
)
"""The exceptions after which the payload is read as dictionaries instead."""

Int64 = int | str
"""A 64-bit integer, which OTLP/JSON writes as text and also accepts as a number."""

_KIND_FIELDS = {kind: re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", kind) for kind in KINDS}
"""Attributes of `Metric` that can hold points, by their JSON names."""

Double = float | Literal["NaN", "Infinity", "-Infinity"]

_UTF8_CHUNK = 2**18
"""Bytes of text that are checked at a time."""

MAX_BOUNDS_BYTES = 4096
"""Maximum size in bytes of the text of a histogram's bounds, because the encoded bounds are cached."""

_NO_ATTRIBUTES = Raw(b"[]")


class Point(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """The fields that all data points have; subclasses add those of the value."""

    attributes: Raw = _NO_ATTRIBUTES
    start_time_unix_nano: Int64 = 0
    time_unix_nano: Int64 = 0

    def value(self) -> bytes:
        """Return the canonical text of the value; the attributes and times of the point are cleared."""
        self.attributes, self.start_time_unix_nano, self.time_unix_nano = _NO_ATTRIBUTES, 0, 0
        self.normalize()
        return _encode(self)

    def normalize(self) -> None:
        """Write each 64-bit integer as text."""


class NumberPoint(Point, rename="camel"):
    """A point of a gauge or a sum."""

    as_double: Double | UnsetType = UNSET
    as_int: Int64 | UnsetType = UNSET
    flags: int | UnsetType = UNSET

    def normalize(self) -> None:
        """Write `asInt` as text.

        Raises:
            UnsupportedShape: The point has `asDouble` as well.
        """
        if self.as_int is not UNSET and self.as_double is not UNSET:
            raise UnsupportedShape("a point with both asInt and asDouble")
        self.as_int = _as_text(self.as_int)


class HistogramPoint(Point, rename="camel"):
    """A point of a histogram."""

    bucket_counts: Raw | UnsetType = UNSET
    count: Int64 | UnsetType = UNSET
    explicit_bounds: Raw | UnsetType = UNSET
    flags: int | UnsetType = UNSET
    max: Double | UnsetType = UNSET
    min: Double | UnsetType = UNSET
    sum: Double | UnsetType = UNSET

    def normalize(self) -> None:
        """Write each count as text, and each bound as a fraction."""
        self.count, self.bucket_counts = _as_text(self.count), _normalized_counts(self.bucket_counts)
        if self.explicit_bounds is not UNSET:
            self.explicit_bounds = _normalized_bounds(bytes(self.explicit_bounds))


class Buckets(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """The positive or negative buckets of an exponential histogram."""

    bucket_counts: Raw | UnsetType = UNSET
    offset: int | UnsetType = UNSET


class ExponentialHistogramPoint(Point, rename="camel"):
    """A point of an exponential histogram."""

    count: Int64 | UnsetType = UNSET
    flags: int | UnsetType = UNSET
    max: Double | UnsetType = UNSET
    min: Double | UnsetType = UNSET
    negative: Buckets | UnsetType = UNSET
    positive: Buckets | UnsetType = UNSET
    scale: int | UnsetType = UNSET
    sum: Double | UnsetType = UNSET
    zero_count: Int64 | UnsetType = UNSET
    zero_threshold: Double | UnsetType = UNSET

    def normalize(self) -> None:
        """Write each count as text."""
        self.count, self.zero_count = _as_text(self.count), _as_text(self.zero_count)
        for buckets in (self.negative, self.positive):
            if buckets is not UNSET:
                buckets.bucket_counts = _normalized_counts(buckets.bucket_counts)


class Quantile(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One quantile of a summary."""

    quantile: Double | UnsetType = UNSET
    value: Double | UnsetType = UNSET


class SummaryPoint(Point, rename="camel"):
    """A point of a summary."""

    count: Int64 | UnsetType = UNSET
    flags: int | UnsetType = UNSET
    quantile_values: list[Quantile] | UnsetType = UNSET
    sum: Double | UnsetType = UNSET

    def normalize(self) -> None:
        """Write the count as text."""
        self.count = _as_text(self.count)


Each = TypeVar("Each")


class Times(msgspec.Struct, rename="camel", gc=False):
    """The times of a data point."""

    start_time_unix_nano: Int64 = 0
    time_unix_nano: Int64 = 0


class Data(msgspec.Struct, Generic[Each], rename="camel", forbid_unknown_fields=True):
    """The points of a metric, with its temporality."""

    data_points: list[Each] = []
    aggregation_temporality: int | str | UnsetType = UNSET
    is_monotonic: bool | UnsetType = UNSET


class Metric(msgspec.Struct, Generic[Each], rename="camel", forbid_unknown_fields=True):
    """A metric."""

    name: str
    description: str | UnsetType = UNSET
    unit: str | UnsetType = UNSET
    metadata: list[Json] | UnsetType = UNSET
    gauge: Data[Each] | UnsetType = UNSET
    sum: Data[Each] | UnsetType = UNSET
    histogram: Data[Each] | UnsetType = UNSET
    exponential_histogram: Data[Each] | UnsetType = UNSET
    summary: Data[Each] | UnsetType = UNSET

    @property
    def kind(self) -> str:
        """The JSON name of the field that holds the points.

        Raises:
            UnsupportedShape: The metric does not have exactly one such field.
        """
        kinds = [kind for kind, field in _KIND_FIELDS.items() if getattr(self, field) is not UNSET]
        if len(kinds) != 1:
            raise UnsupportedShape(f"{self.name} has {len(kinds)} kinds of points")
        return kinds[0]

    @property
    def data(self) -> Data[Each]:
        """The value of that field."""
        data: Data[Each] = getattr(self, _KIND_FIELDS[self.kind])
        return data


class ScopeMetrics(msgspec.Struct, Generic[Each], rename="camel", forbid_unknown_fields=True):
    """The metrics of a scope."""

    metrics: list[Metric[Each]] = []
    scope: Json | UnsetType = UNSET
    schema_url: str | UnsetType = UNSET


class ResourceMetrics(msgspec.Struct, Generic[Each], rename="camel", forbid_unknown_fields=True):
    """The metrics of a resource."""

    scope_metrics: list[ScopeMetrics[Each]] = []
    resource: Json | UnsetType = UNSET
    schema_url: str | UnsetType = UNSET


class StringValue(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """An `AnyValue` that is a string."""

    string_value: str


class StringAttribute(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An attribute whose value is a string, as it is for almost all attributes."""

    key: str
    value: StringValue


_points = {
    kind: msgspec.json.Decoder(point).decode
    for kind, point in zip(
        KINDS,
        (NumberPoint, NumberPoint, HistogramPoint, ExponentialHistogramPoint, SummaryPoint),
        strict=True,
    )
}
_resources = msgspec.json.Decoder(list[ResourceMetrics[Raw]])
_resources_with_times = msgspec.json.Decoder(list[ResourceMetrics[Times]])
_string_attributes = msgspec.json.Decoder(list[StringAttribute])
_any_attributes = msgspec.json.Decoder(list[dict[str, Any]])
_encode = msgspec.json.Encoder().encode

doubles: Callable[[bytes | Raw], list[Double]] = msgspec.json.Decoder(list[Double]).decode
"""Decode an array of doubles; raises `msgspec.DecodeError`."""

# Not strict: msgspec itself reads numbers in quotes.
integers: Callable[[Raw], list[int]] = msgspec.json.Decoder(list[int], strict=False).decode
"""Decode normalized bucket counts; raises `msgspec.DecodeError`."""

_int64s = msgspec.json.Decoder(list[Int64]).decode


def decode_structs(resource_metrics: Raw | bytes) -> list[ResourceMetrics[Raw]]:
    """Decode the text of an array of `ResourceMetrics`; each point remains a raw text.

    Raises:
        msgspec.DecodeError: The structs do not support the text.
    """
    return _resources.decode(resource_metrics)


def scan_times(resource_metrics: Raw | bytes) -> list[ResourceMetrics[Times]]:
    """Decode the times of all points only, and check that the rest is JSON.

    Raises:
        msgspec.DecodeError: It is not JSON, or the structs do not support a field outside the points.
        UnicodeDecodeError: It is not UTF-8.
    """
    _check_utf8(memoryview(resource_metrics))  # msgspec does not check values that it skips
    return _resources_with_times.decode(resource_metrics)


def _check_utf8(text: memoryview) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _UTF8_CHUNK):
        decoder.decode(text[start : start + _UTF8_CHUNK])
    decoder.decode(b"", final=True)


def metric_structs(resources: list[ResourceMetrics[Each]]) -> Iterator[Metric[Each]]:
    """Yield each metric struct."""
    for resource in resources:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def point_decoder(kind: str) -> Callable[[Raw], Point]:
    """Return the decoder of points of this kind of metric; it raises `msgspec.DecodeError`."""
    return _points[kind]


def decode_attributes(attributes: bytes) -> list[StringAttribute] | list[Json]:
    """Decode attributes: all as dictionaries if some values are not strings.

    Raises:
        msgspec.DecodeError: The text is not an array of objects.
    """
    try:
        return _string_attributes.decode(attributes)
    except msgspec.ValidationError:
        return _any_attributes.decode(attributes)


def attribute_text(attributes: list[StringAttribute] | list[Json], key: str) -> str | None:
    """Return the attribute's text, as `messages.attribute` does."""
    for each in attributes:
        if not isinstance(each, StringAttribute):
            return attribute({"attributes": attributes}, key)
        if each.key == key:
            return each.value.string_value
    return None


# Almost all histograms of an app have the same bounds.
@functools.lru_cache(maxsize=32)
def _normalized_bounds(text: bytes) -> Raw:
    if len(text) > MAX_BOUNDS_BYTES:
        raise UnsupportedShape(f"bounds of {len(text)} bytes")
    return Raw(_encode(doubles(text)))


def _as_text(value: Int64 | UnsetType) -> str | UnsetType:
    return str(value) if isinstance(value, int) else value


def _normalized_counts(counts: Raw | UnsetType) -> Raw | UnsetType:
    """Return bucket counts as `["1","2"]`, which is their usual spelling."""
    if counts is UNSET or _is_normalized(text := bytes(counts)):
        return counts
    text = _encode([*map(str, _int64s(text))])
    if not _is_normalized(text):
        raise UnsupportedShape("bucket counts that are not whole numbers")
    return Raw(text)


def _is_normalized(counts: bytes) -> bool:
    without_digits = counts.translate(None, b"0123456789")
    between = b'","' * (len(without_digits) // 3 - 1)
    return without_digits == b'["' + between + b'"]' or counts == b"[]"
