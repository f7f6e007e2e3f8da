"""Reads a payload in one pass over its text: each point is decoded, fingerprinted, encoded and released.

The attributes of a series repeat in each minute of the window, and the times of a minute in each series.
Their results are therefore cached by their text.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF
from airflow_provider_forge.otlp.messages import DELTA, KINDS, parse_nanoseconds
from airflow_provider_forge.payload import protobuf, structs
from airflow_provider_forge.payload.anomalies import Anomalies, AnomalyPrecheck, find_anomalies
from airflow_provider_forge.payload.assembly import EncodedPoints, assemble, encode_point, template
from airflow_provider_forge.payload.conform import point_source
from airflow_provider_forge.payload.fingerprints import (
    Fingerprint,
    canonical_attributes,
    minute_of,
    partial_key_hash,
    value_hash,
)
from airflow_provider_forge.payload.repeats import check_repeats
from airflow_provider_forge.payload.salvage import LeftOut

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Collection

    from msgspec import Raw

    from airflow_provider_forge.otlp.requests import ExportRequest
    from airflow_provider_forge.payload.conform import PointSource
    from airflow_provider_forge.payload.source import GatewayPayload

__all__ = ["FastPayload"]

MAX_CACHED_VALUE = 40
"""Maximum size in bytes of a cached value's text: numbers repeat, histograms rarely do."""


class FastPayload:
    """A payload in the usual shape of OTLP/JSON.

    Args:
        source: The gateway's payload.

    Attributes:
        fingerprints: Fingerprints of the points, in the order of the payload.
        left_out: Always empty, because a payload with an invalid point is not read by this class.

    Raises:
        Exception: The payload has another shape; one of `structs.REFUSALS`.
    """

    def __init__(self, source: GatewayPayload) -> None:
        self._source = source
        self._encoded_points = EncodedPoints(source, structs.decode_structs(source.text))
        reader = _Reader(self._encoded_points)
        for number, metric in enumerate(structs.metric_structs(self._encoded_points.resources)):
            reader.read(number, metric)
        check_repeats(source.text, self._encoded_points.resources, reader.filled, reader.size)
        self.fingerprints = reader.fingerprints
        self.left_out = LeftOut()
        self._suspects = {name for name, precheck in reader.prechecks.items() if not precheck.is_clean}
        # Protobuf's own reader checks everything around the points now, for JSON requests as well.
        assemble(template(self._encoded_points.resources, {}, everything=True), {}, HTTP_PROTOBUF)

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.fingerprints)

    @property
    def anomalies(self) -> Anomalies:
        """Anomalies of the points. Metrics that fail the precheck are decoded again for it."""
        if not self._suspects:
            return Anomalies()
        metrics = structs.metric_structs(structs.decode_structs(self._source.text))
        suspects = [structs.metric_dict(metric) for metric in metrics if metric.name in self._suspects]
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

    def __init__(self, source: GatewayPayload) -> None:
        super().__init__()
        self._environments = ",".join(sorted(source.environments)).encode()
        self._conform = source.identity is not None
        self._protobuf = source.protocol != HTTP_JSON

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


class _SlotCache(dict["PointSource", int]):
    """The slots of one metric's points, by their source."""

    def __init__(self, metric: int, encoded: EncodedPoints) -> None:
        super().__init__()
        self._metric = metric
        self._encoded_points = encoded

    def __missing__(self, source: PointSource) -> int:
        slot = self[source] = self._encoded_points.new_slot(self._metric, source)
        return slot


class _Reader:
    """Reads metrics one by one.

    Args:
        encoded: Receives the encoded points.

    Attributes:
        fingerprints: Fingerprints of the points read so far.
        prechecks: Prechecks of those points, by the metrics' names.
        filled: Number of metrics that had points.
        size: Size in bytes of the points' texts, with a comma between two of one metric.
    """

    def __init__(self, encoded: EncodedPoints) -> None:
        self._encoded_points = encoded
        self._minute = encoded.source.minute
        self._protobuf = encoded.source.protocol != HTTP_JSON
        attributes = _AttributesCache(encoded.source)
        self._attributes = {kind: _AttributesCacheOfKind(kind, attributes) for kind in KINDS}
        self._values: defaultdict[str, dict[bytes, _EncodedValue]] = defaultdict(dict)
        self.fingerprints: list[Fingerprint] = []
        self.prechecks: defaultdict[str, AnomalyPrecheck] = defaultdict(AnomalyPrecheck)
        self.filled = self.size = 0

    def read(self, number: int, metric: structs.Metric[Raw]) -> None:
        """Read the points of a metric, and remove them from it.

        Args:
            number: Number of the metric in the payload.
            metric: The metric.

        Raises:
            Exception: A point has another shape; one of `structs.REFUSALS`.
        """
        kind, name, data, encoded = metric.kind, metric.name, metric.data, self._encoded_points
        decode, precheck = structs.point_decoder(kind), self._precheck(metric)
        all_attributes, all_times = (
            self._attributes[kind],
            _TimesCache(name, self._minute, precheck.intervals),
        )
        slots, values = _SlotCache(number, encoded), self._values[kind]
        points, times, slot_of = encoded.points, encoded.times, encoded.slot_of
        keys, fingerprints = precheck.keys, self.fingerprints
        for text in data.data_points:
            point = decode(text)
            attributes, environments, source, _, attributes_field = all_attributes[bytes(point.attributes)]
            time, minute, key_hash, times_fields = all_times[
                environments, point.start_time_unix_nano, point.time_unix_nano
            ]
            value_text = point.value()
            value, value_fields = values.get(value_text) or self._encode_value(kind, point, value_text)
            key_hash = key_hash.copy()
            key_hash.update(attributes)
            key = key_hash.digest()
            keys.add(key)
            fingerprints.append(Fingerprint(name, minute, key + value))
            times.append(time)
            slot_of.append(slots[source])
            if self._protobuf:
                points.append(encode_point(times_fields, value_fields, attributes_field))
            else:
                points.append(text)
        if data.data_points:
            self.filled += 1
            self.size += sum(map(len, data.data_points)) + len(data.data_points) - 1
        data.data_points = []

    def _precheck(self, metric: structs.Metric[Raw]) -> AnomalyPrecheck:
        precheck = self.prechecks[metric.name]
        precheck.types_and_units.add((metric.kind, metric.unit or ""))
        precheck.has_delta |= metric.data.aggregation_temporality in DELTA
        precheck.points += len(metric.data.data_points)
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
