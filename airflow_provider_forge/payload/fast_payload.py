"""Reads a payload in one pass over its points: each is decoded, fingerprinted, encoded and released.

The attributes of a series repeat in each minute of the window, and the times of a minute in each series.
Their results are therefore cached by their text.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import DELTA, KINDS, kind_of, parse_nanoseconds
from airflow_provider_forge.otlp.requests import warn_of_unknown
from airflow_provider_forge.payload import protobuf, structs
from airflow_provider_forge.payload.anomalies import Anomalies, AnomalyPrecheck, find_anomalies
from airflow_provider_forge.payload.assembly import EncodedPoints, encode_point
from airflow_provider_forge.payload.conform import point_source
from airflow_provider_forge.payload.fingerprints import (
    Fingerprint,
    canonical_attributes,
    minute_of,
    partial_key_hash,
    value_hash,
)
from airflow_provider_forge.payload.salvage import Salvager, log_repairs
from airflow_provider_forge.payload.skeleton import decode
from airflow_provider_forge.payload.unusual import UnusualPoints

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Collection

    from msgspec import Raw

    from airflow_provider_forge.otlp.messages import Json
    from airflow_provider_forge.otlp.requests import ExportRequest
    from airflow_provider_forge.payload.conform import PointSource
    from airflow_provider_forge.payload.payload import ReadOptions
    from airflow_provider_forge.payload.unusual import UnusualPoint

__all__ = ["FastPayload"]

MAX_CACHED_VALUE = 40
"""Maximum size in bytes of a cached value's text: numbers repeat, histograms rarely do."""


class FastPayload:
    """A payload whose points are read one by one, most of them in the usual shape of OTLP/JSON.

    Args:
        text: JSON text of an array of `ResourceMetrics`.
        options: The options that decide how it is read.

    Attributes:
        fingerprints: Fingerprints of the points, in the order of the payload.
        left_out: Number of invalid points, by the metric's name and the reason.

    Raises:
        Exception: Only the payload as a whole can be salvaged; one of `structs.REFUSALS`.
    """

    def __init__(self, text: bytes | Raw, options: ReadOptions) -> None:
        self._text = text
        self._options = options
        salvager = Salvager(protobuf=options.protocol != HTTP_JSON)
        skeleton = decode(text, salvager)
        self._encoded_points = EncodedPoints(text, options, skeleton.resources)
        reader = _Reader(self._encoded_points, salvager)
        number, emptied = 0, []
        for metric, texts in skeleton.metrics():
            if reader.read(number, metric, texts) or not texts:
                number += 1
            else:
                emptied.append(metric)
        self._encoded_points.remove(emptied)
        self.fingerprints, self.left_out = reader.fingerprints, salvager.conclude()
        self._unusual = reader.unusual
        self._suspects = {name for name, precheck in reader.prechecks.items() if not precheck.is_clean}
        self._encoded_points.verbatim = not (salvager.repairer.repairs or self.left_out)
        log_repairs(salvager.repairer.repairs)
        if options.protocol != HTTP_JSON:
            warn_of_unknown(skeleton.unknown | reader.unusual_points.unknown)

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.fingerprints)

    @property
    def anomalies(self) -> Anomalies:
        """Anomalies of the points. Metrics that fail the precheck are decoded again for it."""
        if not self._suspects:
            return Anomalies()
        salvager = Salvager(protobuf=self._options.protocol != HTTP_JSON)
        reader = UnusualPoints(self._options, salvager)
        skeleton, place, suspects = decode(self._text, salvager), 0, []
        for metric, texts in skeleton.metrics():
            if str(metric.get("name")) in self._suspects:
                kind = str(kind_of(metric))
                points = [
                    reader.content(metric, kind, text)
                    if number in self._unusual
                    else msgspec.json.decode(text)
                    for number, text in enumerate(texts, place)
                ]
                left = [point for point in points if point is not None]
                if left or not texts:
                    suspects.append({**metric, kind: {**metric[kind], "dataPoints": left}})
            place += len(texts)
        return find_anomalies([{"scopeMetrics": [{"metrics": suspects}]}])

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
        """Return one request with these points, in the order of the payload."""
        return self._encoded_points.build_request(numbers)


class _EncodedAttributes(NamedTuple):
    """Results of a point's attributes.

    Attributes:
        text: The attributes' part of the text that is hashed.
        environments: The queried environments; empty if the attributes name an environment.
        point_source: The app and environment of the point.
        messages: The attributes as protobuf messages.
        field: The same as the attributes field of a point.
    """

    text: bytes
    environments: bytes
    point_source: PointSource
    messages: list[bytes]
    field: bytes = b""


class _EncodedTimes(NamedTuple):
    """Results of a metric's name and a point's times."""

    time: int
    minute: int
    key_hash: hashlib.blake2b
    fields: bytes


_EncodedValue = tuple[bytes, bytes]
"""Results of a point's value: its hash, and its fields in protobuf."""


# Each cache computes a missing result once. None of them refers to its reader: a reference cycle would only
# be released by the garbage collector, and a reader holds most of a window.


class _AttributesCache(dict[bytes, _EncodedAttributes]):
    """Attributes by their text, for all kinds of metrics."""

    def __init__(self, options: ReadOptions) -> None:
        super().__init__()
        self._environments = ",".join(sorted(options.environments)).encode()
        self._conform = options.identity is not None
        self._protobuf = options.protocol != HTTP_JSON

    def __missing__(self, text: bytes) -> _EncodedAttributes:
        attributes = structs.decode_attributes(text)
        app, environment = (structs.attribute_text(attributes, key) for key in ("appId", "environmentId"))
        # A JSON request needs no messages, but encoding them is the check that they are valid attributes.
        is_checked = bool(attributes) and isinstance(attributes[0], structs.StringAttribute)
        encoded = self[text] = _EncodedAttributes(
            canonical_attributes(attributes),
            b"" if environment else self._environments,
            point_source(app, environment) if self._conform else (None, None),
            protobuf.key_values(attributes) if self._protobuf or not is_checked else [],
        )
        return encoded


class _AttributesCacheOfKind(dict[bytes, _EncodedAttributes]):
    """The same with `field`, whose number depends on the kind of metric."""

    def __init__(self, kind: str, attributes: _AttributesCache) -> None:
        super().__init__()
        self._kind = kind
        self._attributes = attributes

    def __missing__(self, text: bytes) -> _EncodedAttributes:
        encoded = self._attributes[text]
        field = protobuf.attributes_field(self._kind, encoded.messages)
        encoded = self[text] = encoded._replace(field=field)
        return encoded


class _TimesCache(dict[tuple[bytes, structs.Int64, structs.Int64], _EncodedTimes]):
    """The times of one metric's points by their text, and the queried environments."""

    def __init__(self, name: str, minute: int, intervals: set[tuple[int, int]]) -> None:
        super().__init__()
        self._name = name
        self._minute = minute
        self._intervals = intervals

    def __missing__(self, key: tuple[bytes, structs.Int64, structs.Int64]) -> _EncodedTimes:
        environments, *texts = key
        start, time = (parse_nanoseconds(text, "time") for text in texts)
        self._intervals.add((start, time))
        encoded = self[key] = _EncodedTimes(
            time,
            minute_of(time, self._minute),
            partial_key_hash(self._name, environments, start, time, self._minute),
            protobuf.times_fields(start, time),
        )
        return encoded


class _BundleCache(dict["PointSource", int]):
    """The bundles of one metric's points, by their source."""

    def __init__(self, metric: int, encoded: EncodedPoints) -> None:
        super().__init__()
        self._metric = metric
        self._encoded_points = encoded

    def __missing__(self, source: PointSource) -> int:
        bundle = self[source] = self._encoded_points.new_bundle(self._metric, source)
        return bundle


class _Reader:
    """Reads metrics one by one.

    Args:
        encoded: Receives the encoded points.
        salvager: Repairs what is not usual, and counts it.

    Attributes:
        fingerprints: Fingerprints of the points read so far.
        prechecks: Prechecks of those points, by the metrics' names.
        unusual: Places of the points that the structs do not support, from 0 in the order of the payload.
        unusual_points: Reader of these points.
    """

    def __init__(self, encoded: EncodedPoints, salvager: Salvager) -> None:
        self._encoded_points = encoded
        self._minute = encoded.options.minute
        self._protobuf = encoded.options.protocol != HTTP_JSON
        attributes = _AttributesCache(encoded.options)
        self._attributes = {kind: _AttributesCacheOfKind(kind, attributes) for kind in KINDS}
        self._values: defaultdict[str, dict[bytes, _EncodedValue]] = defaultdict(dict)
        self.unusual_points = UnusualPoints(encoded.options, salvager)
        self._texts = 0
        self.fingerprints: list[Fingerprint] = []
        self.prechecks: defaultdict[str, AnomalyPrecheck] = defaultdict(AnomalyPrecheck)
        self.unusual: set[int] = set()

    def read(self, number: int, metric: Json, texts: list[Raw]) -> int:
        """Read the texts of a metric's points, and return how many of them are sent; raises a REFUSAL."""
        kind, name = str(kind_of(metric)), str(metric.get("name"))
        precheck, encoded = self._precheck(kind, metric), self._encoded_points
        decode, all_attributes, values = (
            structs.point_decoder(kind),
            self._attributes[kind],
            self._values[kind],
        )
        all_times = _TimesCache(name, self._minute, precheck.intervals)
        bundles, points, before = _BundleCache(number, encoded), encoded.points, len(encoded.points)
        for place, text in enumerate(texts, self._texts):
            try:
                point = decode(text)
                attributes, environments, source, _, field = all_attributes[bytes(point.attributes)]
                time, minute, key_hash, times_fields = all_times[
                    environments, point.start_time_unix_nano, point.time_unix_nano
                ]
                value_text = point.value()
                value, value_fields = values.get(value_text) or self._encode_value(kind, point, value_text)
                key_hash = key_hash.copy()
                key_hash.update(attributes)
                key = key_hash.digest()
                fingerprint = Fingerprint(name, minute, key + value)
                content = encode_point(times_fields, value_fields, field) if self._protobuf else text
            except structs.REFUSALS:
                unusual = self._read_unusual(place, metric, kind, text)
                if unusual is None:
                    continue
                start, time, source, fingerprint, content = unusual
                precheck.intervals.add((start, time))
                key = fingerprint.key
            precheck.keys.add(key)
            self.fingerprints.append(fingerprint)
            encoded.times.append(time)
            encoded.bundle_of.append(bundles[source])
            points.append(content)
        self._texts += len(texts)
        precheck.points += len(points) - before
        return len(points) - before

    def _read_unusual(self, place: int, metric: Json, kind: str, text: Raw) -> UnusualPoint | None:
        self.unusual.add(place)
        return self.unusual_points.read(metric, kind, text, self._attributes[kind])

    def _precheck(self, kind: str, metric: Json) -> AnomalyPrecheck:
        precheck = self.prechecks[str(metric.get("name"))]
        precheck.types_and_units.add((kind, str(metric.get("unit") or "")))
        precheck.has_delta |= metric[kind].get("aggregationTemporality") in DELTA
        return precheck

    def _encode_value(self, kind: str, point: structs.Point, text: bytes) -> _EncodedValue:
        if self._protobuf:
            encoded = value_hash(text), protobuf.value_fields(kind, point)
        else:
            protobuf.check_value(kind, point)
            encoded = value_hash(text), b""
        if len(text) <= MAX_CACHED_VALUE:
            self._values[kind][text] = encoded
        return encoded
