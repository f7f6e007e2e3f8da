"""The shape of OTLP/JSON as metrics come in it, decoded straight from the text.

It supports the shape that exporters write: each field at most once, no null, no exemplars. Any other shape,
such as a field of a later version of OTLP, raises `UnsupportedShape`; the response is then read as
dictionaries (see `messages`), which support every shape and take twenty times as long.

Fields have the names of the specification, in alphabetical order.
"""

from __future__ import annotations

import codecs
import functools
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
    "TextAttribute",
    "Times",
    "UnsupportedShape",
    "attribute_text",
    "decode_attributes",
    "decode_structs",
    "dictionary",
    "doubles",
    "envelope",
    "integers",
    "metric_structs",
    "point_decoder",
    "scan_times",
]


class UnsupportedShape(ValueError):
    """Something that is not known here; the dictionaries may know it, or say what is wrong with it."""


REFUSALS = (
    msgspec.DecodeError,
    ValueError,  # Unfamiliar, MalformedOtlp and UnicodeDecodeError among them
    OverflowError,
    RecursionError,
    struct.error,
    ParseError,
)
"""What reading in this way can end in, where the dictionaries have the last word."""

Int64 = int | str
"""64 bits: OTLP/JSON has them as text, and takes numbers."""

Double = float | Literal["NaN", "Infinity", "-Infinity"]


_PIECE = 2**18

LONGEST_BOUNDS = 4096
"""Bytes of the text of a histogram's bounds: what is made of them is kept for the next ones."""


_NO_ATTRIBUTES = Raw(b"[]")


class Point(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What all data points have; the subclasses add the fields that make their values."""

    attributes: Raw = _NO_ATTRIBUTES
    startTimeUnixNano: Int64 = 0  # noqa: N815
    timeUnixNano: Int64 = 0  # noqa: N815

    def value(self) -> bytes:
        """Return the value's canonical text; nothing but the value is left of the point."""
        self.attributes, self.startTimeUnixNano, self.timeUnixNano = _NO_ATTRIBUTES, 0, 0
        self.normalize()
        return _encode(self)

    def normalize(self) -> None:
        """Give each whole number its one spelling, which is text."""


class NumberPoint(Point):
    """A point of a gauge or a sum."""

    asDouble: Double | UnsetType = UNSET  # noqa: N815
    asInt: Int64 | UnsetType = UNSET  # noqa: N815
    flags: int | UnsetType = UNSET

    def normalize(self) -> None:
        """Give `asInt` its one spelling.

        Raises:
            UnsupportedShape: There is `asDouble`, too.
        """
        if self.asInt is not UNSET and self.asDouble is not UNSET:
            raise UnsupportedShape("a number that is whole and a fraction")
        self.asInt = _text(self.asInt)


class HistogramPoint(Point):
    """A point of a histogram."""

    bucketCounts: Raw | UnsetType = UNSET  # noqa: N815
    count: Int64 | UnsetType = UNSET
    explicitBounds: Raw | UnsetType = UNSET  # noqa: N815
    flags: int | UnsetType = UNSET
    max: Double | UnsetType = UNSET
    min: Double | UnsetType = UNSET
    sum: Double | UnsetType = UNSET

    def normalize(self) -> None:
        """Give each count and bound its one spelling."""
        self.count, self.bucketCounts = _text(self.count), _counts(self.bucketCounts)
        if self.explicitBounds is not UNSET:
            self.explicitBounds = _bounds(bytes(self.explicitBounds))


class Buckets(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One side of an exponential histogram."""

    bucketCounts: Raw | UnsetType = UNSET  # noqa: N815
    offset: int | UnsetType = UNSET


class ExponentialHistogramPoint(Point):
    """A point of an exponential histogram."""

    count: Int64 | UnsetType = UNSET
    flags: int | UnsetType = UNSET
    max: Double | UnsetType = UNSET
    min: Double | UnsetType = UNSET
    negative: Buckets | UnsetType = UNSET
    positive: Buckets | UnsetType = UNSET
    scale: int | UnsetType = UNSET
    sum: Double | UnsetType = UNSET
    zeroCount: Int64 | UnsetType = UNSET  # noqa: N815
    zeroThreshold: Double | UnsetType = UNSET  # noqa: N815

    def normalize(self) -> None:
        """Give each count its one spelling."""
        self.count, self.zeroCount = _text(self.count), _text(self.zeroCount)
        for buckets in (self.negative, self.positive):
            if buckets is not UNSET:
                buckets.bucketCounts = _counts(buckets.bucketCounts)


class Quantile(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One quantile of a summary."""

    quantile: Double | UnsetType = UNSET
    value: Double | UnsetType = UNSET


class SummaryPoint(Point):
    """A point of a summary."""

    count: Int64 | UnsetType = UNSET
    flags: int | UnsetType = UNSET
    quantileValues: list[Quantile] | UnsetType = UNSET  # noqa: N815
    sum: Double | UnsetType = UNSET

    def normalize(self) -> None:
        """Give the count its one spelling."""
        self.count = _text(self.count)


Each = TypeVar("Each")


class Times(msgspec.Struct, gc=False):
    """A data point of which nothing is wanted but its times."""

    startTimeUnixNano: Int64 = 0  # noqa: N815
    timeUnixNano: Int64 = 0  # noqa: N815


class Data(msgspec.Struct, Generic[Each], forbid_unknown_fields=True):
    """The points of a metric, and what stands beside them."""

    dataPoints: list[Each] = []  # noqa: N815 - msgspec makes a list for each
    aggregationTemporality: int | str | UnsetType = UNSET  # noqa: N815
    isMonotonic: bool | UnsetType = UNSET  # noqa: N815


class Metric(msgspec.Struct, Generic[Each], forbid_unknown_fields=True):
    """A metric."""

    name: str
    description: str | UnsetType = UNSET
    unit: str | UnsetType = UNSET
    metadata: list[Json] | UnsetType = UNSET
    gauge: Data[Each] | UnsetType = UNSET
    sum: Data[Each] | UnsetType = UNSET
    histogram: Data[Each] | UnsetType = UNSET
    exponentialHistogram: Data[Each] | UnsetType = UNSET  # noqa: N815
    summary: Data[Each] | UnsetType = UNSET

    @property
    def kind(self) -> str:
        """The field that holds the points.

        Raises:
            UnsupportedShape: There is not exactly one.
        """
        kinds = [kind for kind in KINDS if getattr(self, kind) is not UNSET]
        if len(kinds) != 1:
            raise UnsupportedShape(f"{self.name} is of {len(kinds)} kinds")
        return kinds[0]

    @property
    def data(self) -> Data[Each]:
        """What is in that field."""
        data: Data[Each] = getattr(self, self.kind)
        return data


class ScopeMetrics(msgspec.Struct, Generic[Each], forbid_unknown_fields=True):
    """The metrics of a scope."""

    metrics: list[Metric[Each]] = []
    scope: Json | UnsetType = UNSET
    schemaUrl: str | UnsetType = UNSET  # noqa: N815


class ResourceMetrics(msgspec.Struct, Generic[Each], forbid_unknown_fields=True):
    """The metrics of a resource."""

    scopeMetrics: list[ScopeMetrics[Each]] = []  # noqa: N815
    resource: Json | UnsetType = UNSET
    schemaUrl: str | UnsetType = UNSET  # noqa: N815


class _Text(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    stringValue: str  # noqa: N815


class TextAttribute(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An attribute that is text, as almost all are."""

    key: str
    value: _Text


_points = {
    kind: msgspec.json.Decoder(point).decode
    for kind, point in zip(
        KINDS,
        (NumberPoint, NumberPoint, HistogramPoint, ExponentialHistogramPoint, SummaryPoint),
        strict=True,
    )
}
_resources = msgspec.json.Decoder(list[ResourceMetrics[Raw]])
_resources_skimmed = msgspec.json.Decoder(list[ResourceMetrics[Times]])
_json_object = msgspec.json.Decoder(dict[str, Any]).decode
_text_attributes = msgspec.json.Decoder(list[TextAttribute])
_any_attributes = msgspec.json.Decoder(list[dict[str, Any]])
_encode = msgspec.json.Encoder().encode

doubles: Callable[[bytes | Raw], list[Double]] = msgspec.json.Decoder(list[Double]).decode
"""Read an array of fractions; raises `msgspec.DecodeError`."""

# Numbers in quotes are read here, not in Python.
integers: Callable[[Raw], list[int]] = msgspec.json.Decoder(list[int], strict=False).decode
"""Read bucket counts once they have their one spelling; raises `msgspec.DecodeError`."""

_wholes = msgspec.json.Decoder(list[Int64]).decode


def decode_structs(resource_metrics: Raw | bytes) -> list[ResourceMetrics[Raw]]:
    """Read the text of an array of `ResourceMetrics`, but for the points in it.

    Raises:
        msgspec.DecodeError: Something is not known here.
    """
    return _resources.decode(resource_metrics)


def scan_times(resource_metrics: Raw | bytes) -> list[ResourceMetrics[Times]]:
    """Read the times of all points, and check that all else is JSON.

    Raises:
        msgspec.DecodeError: It is not, or there is something around the points that is not known here.
        UnicodeDecodeError: It is not text.
    """
    _check_utf8(memoryview(resource_metrics))  # msgspec doesn't look into what it passes over
    return _resources_skimmed.decode(resource_metrics)


def _check_utf8(text: memoryview) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _PIECE):
        decoder.decode(text[start : start + _PIECE])
    decoder.decode(b"", final=True)


def metric_structs(resources: list[ResourceMetrics[Each]]) -> Iterator[Metric[Each]]:
    """Yield each metric."""
    for resource in resources:
        for scope in resource.scopeMetrics:
            yield from scope.metrics


def point_decoder(kind: str) -> Callable[[Raw], Point]:
    """Return what decodes the points of one kind of metric; it raises `msgspec.DecodeError`."""
    return _points[kind]


def decode_attributes(attributes: bytes) -> list[TextAttribute] | list[Json]:
    """Read attributes: as dictionaries where some are no text.

    Raises:
        msgspec.DecodeError: They are no array of objects.
    """
    try:
        return _text_attributes.decode(attributes)
    except msgspec.ValidationError:
        return _any_attributes.decode(attributes)


def attribute_text(attributes: list[TextAttribute] | list[Json], key: str) -> str | None:
    """Return the attribute's text, as `model.attribute` does."""
    for each in attributes:
        if not isinstance(each, TextAttribute):
            return attribute({"attributes": attributes}, key)
        if each.key == key:
            return each.value.stringValue
    return None


def dictionary(metric: Metric[Raw]) -> Json:
    """Return a metric as `model` has it.

    Raises:
        msgspec.DecodeError: A point is no JSON object.
    """
    points = [_json_object(text) for text in metric.data.dataPoints]
    data = {**envelope(metric.data, "dataPoints"), "dataPoints": points}
    return {**envelope(metric, metric.kind), metric.kind: data}


def envelope(message: Any, *without: str) -> Json:
    """Return a message as a dictionary, without the fields that hold other messages of this module."""
    return {
        name: value
        for name in message.__struct_fields__
        if name not in without and (value := getattr(message, name)) is not UNSET
    }


# Almost all histograms of an app have the same bounds.
@functools.lru_cache(maxsize=32)
def _bounds(text: bytes) -> Raw:
    if len(text) > LONGEST_BOUNDS:
        raise UnsupportedShape(f"bounds of {len(text)} bytes")
    return Raw(_encode(doubles(text)))


def _text(value: Int64 | UnsetType) -> str | UnsetType:
    return str(value) if isinstance(value, int) else value


def _counts(counts: Raw | UnsetType) -> Raw | UnsetType:
    """Return bucket counts as text, `["1","2"]`, which is how they usually come."""
    if counts is UNSET or _plain(text := bytes(counts)):
        return counts
    text = _encode([*map(str, _wholes(text))])
    if not _plain(text):
        raise UnsupportedShape("bucket counts in another spelling")
    return Raw(text)


def _plain(counts: bytes) -> bool:
    around = counts.translate(None, b"0123456789")
    return around == b'["' + b'","' * (len(around) // 3 - 1) + b'"]' or counts == b"[]"
