"""An answer read in one pass over its text: each point is decoded, fingerprinted, encoded and let go.

The attributes of a series come again with each minute of the window, and the times of a minute with each
series, so what is made of them is made once for each text.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from airflow_provider_forge.delivery.fingerprints import (
    Fingerprint,
    begin_key,
    canonical_attributes,
    minute_of,
    value_mark,
)
from airflow_provider_forge.delivery.spliced import Spliced
from airflow_provider_forge.otlp import typed, wire
from airflow_provider_forge.otlp.conform import origin_of
from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.model import DELTA, Json, attribute, whole_nanoseconds
from airflow_provider_forge.otlp.oddities import Glance, Oddities, find_oddities
from airflow_provider_forge.otlp.splice import encode_point, skeleton, splice

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable, Collection

    from msgspec import Raw

    from airflow_provider_forge.delivery.content import Source
    from airflow_provider_forge.otlp.conform import Origin
    from airflow_provider_forge.otlp.encode import Export

__all__ = ["Fast"]

SHORT = 40
"""Letters of a value's text that may well come again, as numbers do and histograms don't."""

Key = TypeVar("Key")
Made = TypeVar("Made")


class Fast:
    """An answer in the usual shape.

    Args:
        source: The answer.

    Attributes:
        points: Fingerprints of the points.

    Raises:
        Exception: It is in another shape; one of `typed.REFUSALS`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._spliced = Spliced(source, typed.decode(source.text))
        reader = _Reader(self._spliced)
        for number, metric in enumerate(typed.metrics_of(self._spliced.resources)):
            reader.read(number, metric)
        self.points = reader.fingerprints
        self._odd = {name for name, glance in reader.glances.items() if not glance.plain}
        # What protobuf's own reader has to say of all that is around the points, it says now.
        splice(skeleton(self._spliced.resources, {}, everything=True), {}, source.protocol)

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
    """What is made of a point's attributes."""

    text: bytes
    asked: bytes
    origin: Origin
    fields: bytes


class _Moment(NamedTuple):
    """What is made of a metric's name and a point's times."""

    time: int
    minute: int
    key: hashlib.blake2b
    fields: bytes


class _Value(NamedTuple):
    """What is made of a point's value."""

    mark: bytes
    fields: bytes


class _Memo(dict[Key, Made]):
    """What is made of a key, made once."""

    def __init__(self, make: Callable[[Key], Made]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> Made:
        made = self[key] = self._make(key)
        return made


class _Reader:
    """Reads metrics one by one.

    Args:
        spliced: Takes the points.

    Attributes:
        fingerprints: Of the points read so far.
        glances: What was seen of them, by the metrics' names.
    """

    def __init__(self, spliced: Spliced) -> None:
        source = spliced.source
        self._spliced = spliced
        self._asked = ",".join(sorted(source.environments)).encode()
        self._minute = source.minute
        self._conform = source.identity is not None
        self._protobuf = source.protocol != HTTP_JSON
        self._attributes: _Memo[str, _Memo[bytes, _Attributes]] = _Memo(
            lambda kind: _Memo(functools.partial(self._make_attributes, kind))
        )
        self._values: defaultdict[str, dict[bytes, _Value]] = defaultdict(dict)
        self.fingerprints: list[Fingerprint] = []
        self.glances: defaultdict[str, Glance] = defaultdict(Glance)

    def read(self, number: int, metric: typed.Metric[Raw]) -> None:
        """Read the points of a metric, and take them out of it.

        Raises:
            Exception: There is something that is not known here; one of `typed.REFUSALS`.
        """
        kind, name, data, spliced = metric.kind, metric.name, metric.data, self._spliced
        decode, all_attributes = typed.point_decoder(kind), self._attributes[kind]
        moments = _Memo(functools.partial(self._make_moment, name, self.glances[name].intervals))
        places = _Memo(functools.partial(spliced.new_place, number))
        keys, fingerprints = self._glance(metric).keys, self.fingerprints
        values, make_value = self._values[kind], functools.partial(self._make_value, kind)
        points, times, place_of = spliced.points, spliced.times, spliced.place_of
        for text in data.dataPoints:
            point = decode(text)
            attributes, asked, origin, attribute_fields = all_attributes[bytes(point.attributes)]
            time, minute, begun, time_fields = moments[asked, point.startTimeUnixNano, point.timeUnixNano]
            value_text = point.value()
            value, value_fields = values.get(value_text) or make_value(point, value_text)
            whole = begun.copy()
            whole.update(attributes)
            key = whole.digest()
            keys.add(key)
            fingerprints.append(Fingerprint(name, minute, key + value))
            times.append(time)
            place_of.append(places[origin])
            if self._protobuf:
                points.append(encode_point(time_fields, value_fields, attribute_fields))
            else:
                points.append(text)
        data.dataPoints = []

    def _glance(self, metric: typed.Metric[Raw]) -> Glance:
        glance = self.glances[metric.name]
        glance.forms.add((metric.kind, metric.unit or ""))
        glance.delta |= metric.data.aggregationTemporality in DELTA
        glance.points += len(metric.data.dataPoints)
        return glance

    def _make_value(self, kind: str, point: typed.Point, text: bytes) -> _Value:
        made = _Value(value_mark(text), wire.value_fields(kind, point) if self._protobuf else b"")
        if len(text) <= SHORT:
            self._values[kind][text] = made
        return made

    def _make_moment(
        self,
        name: str,
        intervals: set[tuple[int, int]],
        asked_and_times: tuple[bytes, typed.Whole, typed.Whole],
    ) -> _Moment:
        asked, *texts = asked_and_times
        start, time = (whole_nanoseconds(text, "time") for text in texts)
        intervals.add((start, time))
        key = begin_key(name, asked, start, time, self._minute)
        return _Moment(time, minute_of(time, self._minute), key, wire.times_fields(start, time))

    def _make_attributes(self, kind: str, text: bytes) -> _Attributes:
        attributes = msgspec.json.decode(text, type=list[dict[str, Any]])
        alone: Json = {"attributes": attributes}
        return _Attributes(
            canonical_attributes(attributes),
            b"" if attribute(alone, "environmentId") else self._asked,
            origin_of(alone) if self._conform else (None, None),
            wire.attributes_field(kind, text, attributes) if self._protobuf else b"",
        )
