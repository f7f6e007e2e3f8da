"""An answer read in one pass over its text: each point is decoded, fingerprinted, encoded and let go.

The attributes of a series come again with each minute of the window, and the times of a minute with each
series, so what is made of them is made once for each text.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.delivery.fingerprints import (
    Fingerprint,
    begin_key,
    canonical_attributes,
    minute_of,
    value_mark,
)
from airflow_provider_forge.delivery.spliced import Spliced
from airflow_provider_forge.otlp import typed, wire
from airflow_provider_forge.otlp.conform import origin
from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF
from airflow_provider_forge.otlp.model import DELTA, KINDS, whole_nanoseconds
from airflow_provider_forge.otlp.oddities import Glance, Oddities, find_oddities
from airflow_provider_forge.otlp.repeats import check_repeats
from airflow_provider_forge.otlp.salvage import LeftOut
from airflow_provider_forge.otlp.splice import encode_point, skeleton, splice

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Collection

    from msgspec import Raw

    from airflow_provider_forge.delivery.content import Source
    from airflow_provider_forge.otlp.conform import Origin
    from airflow_provider_forge.otlp.encode import Export

__all__ = ["Fast"]

SHORT = 40
"""Letters of a value's text that may well come again, as numbers do and histograms don't."""


class Fast:
    """An answer in the usual shape.

    Args:
        source: The answer.

    Attributes:
        points: Fingerprints of the points.
        left_out: None: what is no OTLP is no usual shape either.

    Raises:
        Exception: It is in another shape; one of `typed.REFUSALS`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._spliced = Spliced(source, typed.decode(source.text))
        reader = _Reader(self._spliced)
        for number, metric in enumerate(typed.metrics_of(self._spliced.resources)):
            reader.read(number, metric)
        check_repeats(source.text, self._spliced.resources, reader.filled, reader.size)
        self.points = reader.fingerprints
        self.left_out = LeftOut()
        self._odd = {name for name, glance in reader.glances.items() if not glance.plain}
        # What protobuf's own reader has to say of all that is around the points, it says now, for JSON too.
        splice(skeleton(self._spliced.resources, {}, everything=True), {}, HTTP_PROTOBUF)

    @property
    def count(self) -> int:
        """How many points there are."""
        return len(self.points)

    @property
    def oddities(self) -> Oddities:
        """What is odd about the points: those of names that are not plain at a glance are read once more."""
        if not self._odd:
            return Oddities()
        metrics = typed.metrics_of(typed.decode(self._source.text))
        odd = [typed.dictionary(metric) for metric in metrics if metric.name in self._odd]
        return find_oddities([{"scopeMetrics": [{"metrics": odd}]}])

    def encode(self, numbers: Collection[int]) -> Export:
        """Make one request of these points, in the order in which they came."""
        return self._spliced.encode(numbers)


class _Attributes(NamedTuple):
    """What is made of a point's attributes.

    Attributes:
        text: As it goes into a mark.
        asked: The environments that were asked for; nothing where the point names its own.
        origin: The point's.
        messages: The attributes in protobuf.
        field: The same, as the field of a point.
    """

    text: bytes
    asked: bytes
    origin: Origin
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
    def __init__(self, source: Source) -> None:
        super().__init__()
        self._asked = ",".join(sorted(source.environments)).encode()
        self._conform = source.identity is not None
        self._protobuf = source.protocol != HTTP_JSON

    def __missing__(self, text: bytes) -> _Attributes:
        attributes = typed.decode_attributes(text)
        app, environment = (typed.attribute_text(attributes, key) for key in ("appId", "environmentId"))
        # JSON has no use for messages; but what is no attribute is found out as they are made.
        is_text = bool(attributes) and isinstance(attributes[0], typed.TextAttribute)
        made = self[text] = _Attributes(
            canonical_attributes(attributes),
            b"" if environment else self._asked,
            origin(app, environment) if self._conform else (None, None),
            wire.key_values(attributes) if self._protobuf or not is_text else [],
        )
        return made


class _AttributesOfKind(dict[bytes, _Attributes]):
    def __init__(self, kind: str, of_any_point: _AttributesOfAnyPoint) -> None:
        super().__init__()
        self._kind = kind
        self._of_any_point = of_any_point

    def __missing__(self, text: bytes) -> _Attributes:
        made = self._of_any_point[text]
        made = self[text] = made._replace(field=wire.attributes_field(self._kind, made.messages))
        return made


class _Moments(dict[tuple[bytes, typed.Whole, typed.Whole], _Moment]):
    def __init__(self, name: str, minute: int, intervals: set[tuple[int, int]]) -> None:
        super().__init__()
        self._name = name
        self._minute = minute
        self._intervals = intervals

    def __missing__(self, asked_and_times: tuple[bytes, typed.Whole, typed.Whole]) -> _Moment:
        asked, *texts = asked_and_times
        start, time = (whole_nanoseconds(text, "time") for text in texts)
        self._intervals.add((start, time))
        key = begin_key(self._name, asked, start, time, self._minute)
        made = _Moment(time, minute_of(time, self._minute), key, wire.times_fields(start, time))
        self[asked_and_times] = made
        return made


class _Places(dict["Origin", int]):
    def __init__(self, number: int, spliced: Spliced) -> None:
        super().__init__()
        self._number = number
        self._spliced = spliced

    def __missing__(self, where: Origin) -> int:
        place = self[where] = self._spliced.new_place(self._number, where)
        return place


class _Reader:
    """Reads metrics one by one.

    Args:
        spliced: Takes the points.

    Attributes:
        fingerprints: Of the points read so far.
        glances: What was seen of them, by the metrics' names.
        filled: Number of metrics that had points.
        size: Bytes of the points' texts, with a comma between two of one metric.
    """

    def __init__(self, spliced: Spliced) -> None:
        self._spliced = spliced
        self._minute = spliced.source.minute
        self._protobuf = spliced.source.protocol != HTTP_JSON
        of_any_point = _AttributesOfAnyPoint(spliced.source)
        self._attributes = {kind: _AttributesOfKind(kind, of_any_point) for kind in KINDS}
        self._values: defaultdict[str, dict[bytes, _Value]] = defaultdict(dict)
        self.fingerprints: list[Fingerprint] = []
        self.glances: defaultdict[str, Glance] = defaultdict(Glance)
        self.filled = self.size = 0

    def read(self, number: int, metric: typed.Metric[Raw]) -> None:
        """Read the points of a metric, and take them out of it.

        Raises:
            Exception: There is something that is not known here; one of `typed.REFUSALS`.
        """
        kind, name, data, spliced = metric.kind, metric.name, metric.data, self._spliced
        decode, glance = typed.point_decoder(kind), self._glance(metric)
        all_attributes, moments = self._attributes[kind], _Moments(name, self._minute, glance.intervals)
        places, values = _Places(number, spliced), self._values[kind]
        points, times, place_of = spliced.points, spliced.times, spliced.place_of
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
            place_of.append(places[where])
            if self._protobuf:
                points.append(encode_point(times_fields, value_fields, attributes_field))
            else:
                points.append(text)
        if data.dataPoints:
            self.filled += 1
            self.size += sum(map(len, data.dataPoints)) + len(data.dataPoints) - 1
        data.dataPoints = []

    def _glance(self, metric: typed.Metric[Raw]) -> Glance:
        glance = self.glances[metric.name]
        glance.forms.add((metric.kind, metric.unit or ""))
        glance.delta |= metric.data.aggregationTemporality in DELTA
        glance.points += len(metric.data.dataPoints)
        return glance

    def _make_value(self, kind: str, point: typed.Point, text: bytes) -> _Value:
        if self._protobuf:
            made = value_mark(text), wire.value_fields(kind, point)
        else:
            wire.check_value(kind, point)
            made = value_mark(text), b""
        if len(text) <= SHORT:
            self._values[kind][text] = made
        return made
