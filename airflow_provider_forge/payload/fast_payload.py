"""An answer read in one pass over its text: each point is decoded, fingerprinted, encoded and let go.

The attributes of a series come again with each minute of the window, and the times of a minute with each
series, so what is made of them is made once for each text.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF
from airflow_provider_forge.otlp.messages import DELTA, KINDS, whole_nanoseconds
from airflow_provider_forge.payload import protobuf, structs
from airflow_provider_forge.payload.anomalies import Anomalies, Glance, find_anomalies
from airflow_provider_forge.payload.assembly import EncodedPoints, assemble, encode_point, template
from airflow_provider_forge.payload.conform import point_source
from airflow_provider_forge.payload.fingerprints import (
    Fingerprint,
    begin_key,
    canonical_attributes,
    minute_of,
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

SHORT = 40
"""Letters of a value's text that may well come again, as numbers do and histograms don't."""


class FastPayload:
    """An answer in the usual shape.

    Args:
        source: The answer.

    Attributes:
        fingerprints: Fingerprints of the points.
        left_out: None: what is no OTLP is no usual shape either.

    Raises:
        Exception: It is in another shape; one of `structs.REFUSALS`.
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
        self._odd = {name for name, glance in reader.glances.items() if not glance.plain}
        # What protobuf's own reader has to say of all that is around the points, it says now, for JSON too.
        assemble(template(self._encoded_points.resources, {}, everything=True), {}, HTTP_PROTOBUF)

    @property
    def count(self) -> int:
        """How many points there are."""
        return len(self.fingerprints)

    @property
    def anomalies(self) -> Anomalies:
        """What is odd about the points: those of names that are not plain at a glance are read once more."""
        if not self._odd:
            return Anomalies()
        metrics = structs.metric_structs(structs.decode_structs(self._source.text))
        odd = [structs.dictionary(metric) for metric in metrics if metric.name in self._odd]
        return find_anomalies([{"scopeMetrics": [{"metrics": odd}]}])

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
        """Make one request of these points, in the order in which they came."""
        return self._encoded_points.build_request(numbers)


class _Attributes(NamedTuple):
    """What is made of a point's attributes.

    Attributes:
        text: As it goes into a mark.
        asked: The environments that were asked for; nothing where the point names its own.
        point_source: The point's.
        messages: The attributes in protobuf.
        field: The same, as the field of a point.
    """

    text: bytes
    asked: bytes
    point_source: PointSource
    messages: list[bytes]
    field: bytes = b""


class _Moment(NamedTuple):
    """What is made of a metric's name and a point's times."""

    time: int
    minute: int
    key: hashlib.blake2b
    field: bytes


_Value = tuple[bytes, bytes]
"""What is made of a point's value: the mark, and the fields in protobuf."""


# Each of these makes what it is asked for once. None holds on to its reader: what goes in a circle is let go
# only when the garbage collector comes by, and this is most of a window.


class _AttributesOfAnyPoint(dict[bytes, _Attributes]):
    def __init__(self, source: GatewayPayload) -> None:
        super().__init__()
        self._asked = ",".join(sorted(source.environments)).encode()
        self._conform = source.identity is not None
        self._protobuf = source.protocol != HTTP_JSON

    def __missing__(self, text: bytes) -> _Attributes:
        attributes = structs.decode_attributes(text)
        app, environment = (structs.attribute_text(attributes, key) for key in ("appId", "environmentId"))
        # JSON has no use for messages; but what is no attribute is found out as they are made.
        is_text = bool(attributes) and isinstance(attributes[0], structs.TextAttribute)
        made = self[text] = _Attributes(
            canonical_attributes(attributes),
            b"" if environment else self._asked,
            point_source(app, environment) if self._conform else (None, None),
            protobuf.key_values(attributes) if self._protobuf or not is_text else [],
        )
        return made


class _AttributesOfKind(dict[bytes, _Attributes]):
    def __init__(self, kind: str, of_any_point: _AttributesOfAnyPoint) -> None:
        super().__init__()
        self._kind = kind
        self._of_any_point = of_any_point

    def __missing__(self, text: bytes) -> _Attributes:
        made = self._of_any_point[text]
        made = self[text] = made._replace(field=protobuf.attributes_field(self._kind, made.messages))
        return made


class _Moments(dict[tuple[bytes, structs.Int64, structs.Int64], _Moment]):
    def __init__(self, name: str, minute: int, intervals: set[tuple[int, int]]) -> None:
        super().__init__()
        self._name = name
        self._minute = minute
        self._intervals = intervals

    def __missing__(self, asked_and_times: tuple[bytes, structs.Int64, structs.Int64]) -> _Moment:
        asked, *texts = asked_and_times
        start, time = (whole_nanoseconds(text, "time") for text in texts)
        self._intervals.add((start, time))
        key = begin_key(self._name, asked, start, time, self._minute)
        made = _Moment(time, minute_of(time, self._minute), key, protobuf.times_fields(start, time))
        self[asked_and_times] = made
        return made


class _SlotsOfMetric(dict["PointSource", int]):
    def __init__(self, number: int, encoded: EncodedPoints) -> None:
        super().__init__()
        self._number = number
        self._encoded_points = encoded

    def __missing__(self, where: PointSource) -> int:
        slot = self[where] = self._encoded_points.new_slot(self._number, where)
        return slot


class _Reader:
    """Reads metrics one by one.

    Args:
        encoded: Takes the points.

    Attributes:
        fingerprints: Of the points read so far.
        glances: What was seen of them, by the metrics' names.
        filled: Number of metrics that had points.
        size: Size in bytes of the points' texts, with a comma between two of one metric.
    """

    def __init__(self, encoded: EncodedPoints) -> None:
        self._encoded_points = encoded
        self._minute = encoded.source.minute
        self._protobuf = encoded.source.protocol != HTTP_JSON
        of_any_point = _AttributesOfAnyPoint(encoded.source)
        self._attributes = {kind: _AttributesOfKind(kind, of_any_point) for kind in KINDS}
        self._values: defaultdict[str, dict[bytes, _Value]] = defaultdict(dict)
        self.fingerprints: list[Fingerprint] = []
        self.glances: defaultdict[str, Glance] = defaultdict(Glance)
        self.filled = self.size = 0

    def read(self, number: int, metric: structs.Metric[Raw]) -> None:
        """Read the points of a metric, and take them out of it.

        Raises:
            Exception: There is something that is not known here; one of `structs.REFUSALS`.
        """
        kind, name, data, encoded = metric.kind, metric.name, metric.data, self._encoded_points
        decode, glance = structs.point_decoder(kind), self._glance(metric)
        all_attributes, moments = self._attributes[kind], _Moments(name, self._minute, glance.intervals)
        slots, values = _SlotsOfMetric(number, encoded), self._values[kind]
        points, times, slot_of = encoded.points, encoded.times, encoded.slot_of
        keys, fingerprints = glance.keys, self.fingerprints
        for text in data.dataPoints:
            point = decode(text)
            attributes, asked, where, _, attributes_field = all_attributes[bytes(point.attributes)]
            time, minute, begun, times_fields = moments[asked, point.startTimeUnixNano, point.timeUnixNano]
            value_text = point.value()
            value, value_fields = values.get(value_text) or self._make_value(kind, point, value_text)
            whole = begun.copy()
            whole.update(attributes)
            key = whole.digest()
            keys.add(key)
            fingerprints.append(Fingerprint(name, minute, key + value))
            times.append(time)
            slot_of.append(slots[where])
            if self._protobuf:
                points.append(encode_point(times_fields, value_fields, attributes_field))
            else:
                points.append(text)
        if data.dataPoints:
            self.filled += 1
            self.size += sum(map(len, data.dataPoints)) + len(data.dataPoints) - 1
        data.dataPoints = []

    def _glance(self, metric: structs.Metric[Raw]) -> Glance:
        glance = self.glances[metric.name]
        glance.forms.add((metric.kind, metric.unit or ""))
        glance.delta |= metric.data.aggregationTemporality in DELTA
        glance.points += len(metric.data.dataPoints)
        return glance

    def _make_value(self, kind: str, point: structs.Point, text: bytes) -> _Value:
        if self._protobuf:
            made = value_hash(text), protobuf.value_fields(kind, point)
        else:
            protobuf.check_value(kind, point)
            made = value_hash(text), b""
        if len(text) <= SHORT:
            self._values[kind][text] = made
        return made
