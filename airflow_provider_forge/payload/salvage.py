"""What can be had of an answer that is not OTLP/JSON in every place.

One bad value holds back itself: what has one meaning is repaired (see `repair`), and a point that has none
is left out, with its reason. Nothing is lost in silence: an answer whose points have field names that are not
known here does not count as an empty one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory
from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.metrics.v1 import metrics_pb2

from airflow_provider_forge import json_text
from airflow_provider_forge.otlp.messages import KINDS, Json, MalformedOtlp
from airflow_provider_forge.otlp.requests import known_fields
from airflow_provider_forge.payload.repair import Mender, Unusable, camel_case
from airflow_provider_forge.payload.repeats import decode_joined, find_repeated
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import msgspec
    from google.protobuf.descriptor import Descriptor

__all__ = ["NO_NAME", "LeftOut", "Salvaged", "salvage"]

LeftOut = Counter[tuple[str, str]]
"""Number of points that were left out, by the metric's name and the reason."""

DEEPEST = 90
"""Messages within each other in a point. Protobuf reads 100, and some are around a point."""

_RESOURCE = metrics_pb2.ResourceMetrics.DESCRIPTOR
_SCOPE = metrics_pb2.ScopeMetrics.DESCRIPTOR
_METRIC = metrics_pb2.Metric.DESCRIPTOR
_DATA: dict[str, Descriptor] = dict(
    zip(
        KINDS,
        (
            metrics_pb2.Gauge.DESCRIPTOR,
            metrics_pb2.Sum.DESCRIPTOR,
            metrics_pb2.Histogram.DESCRIPTOR,
            metrics_pb2.ExponentialHistogram.DESCRIPTOR,
            metrics_pb2.Summary.DESCRIPTOR,
        ),
        strict=True,
    )
)
_POINT: dict[str, Any] = {
    kind: data.fields_by_name["data_points"].message_type for kind, data in _DATA.items()
}
_BESIDE_THE_VALUE = {"attributes", "startTimeUnixNano", "timeUnixNano", "exemplars", "flags"}

# Before version 0.19 of OTLP, scopes had other names and the same form.
_EARLIER = {
    "scopeMetrics": ("scope_metrics", "instrumentationLibraryMetrics", "instrumentation_library_metrics"),
    "scope": ("instrumentationLibrary", "instrumentation_library"),
    "dataPoints": ("data_points",),
}

_DEEPEST_UNKNOWN = 40
_TOO_DEEP = "it is nested too deeply"

NO_NAME = "?"
"""In place of a metric's name, if none can be told."""


@dataclass
class Salvaged:
    """What is usable of an answer.

    Attributes:
        resource_metrics: OTLP/JSON that protobuf's own reader takes, but for fields that are not known.
        left_out: The points that are not in it.
        notes: What was repaired, and how often.
        carried: Names of metrics of a kind that is not known here, which only JSON can carry.
    """

    resource_metrics: list[Json]
    left_out: LeftOut = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    carried: list[str] = field(default_factory=list)


def salvage(text: bytes | msgspec.Raw, *, protobuf: bool) -> Salvaged:
    """Read the JSON text of an array of `ResourceMetrics`.

    Args:
        text: The text.
        protobuf: Whether it is to be sent as protobuf, which has no place for unknown kinds of metrics.

    Raises:
        MalformedOtlp: It is no JSON, or no array.
    """
    try:
        decoded, repaired = json_text.decode_or_repair(text, Any)
    except json_text.UNREADABLE as error:
        raise MalformedOtlp(f"resourceMetrics is not JSON: {error}") from error
    strict = json_text.repair(bytes(text)) if repaired else bytes(text)
    if repeated := find_repeated(strict):
        decoded = decode_joined(strict)
    if not isinstance(decoded, list):
        raise MalformedOtlp("resourceMetrics is no array")
    reader = _Reader(protobuf=protobuf)
    reader.mender.notes.update(f"{sanitize(name)} twice in one object" for name in repeated)
    if repaired:
        reader.mender.notes["letters or numbers that JSON does not allow"] += 1
    found = list(reader.resources(decoded))
    return Salvaged(found, reader.conclude(), reader.mender.notes, reader.carried)


class _Reader:
    def __init__(self, *, protobuf: bool) -> None:
        self.mender = Mender()
        self.carried: list[str] = []
        self._protobuf = protobuf
        self._left_out: LeftOut = Counter()
        self._points = 0
        self._unknown: list[str] = []

    def conclude(self) -> LeftOut:
        """Return what was left out; an answer of nothing but unknown fields is not an empty one."""
        if self._unknown and not (self._points or self._left_out or self.carried):
            reason = f"no field is known here, but {', '.join(dict.fromkeys(self._unknown))} is not empty"
            self._left_out[NO_NAME, reason] += 1
        return self._left_out

    def resources(self, values: list[Any]) -> Iterator[Json]:
        """Yield each `ResourceMetrics`, with all that is usable of it."""
        for value in self._flat(values):
            given = value
            # An answer within an answer: the same array, wrapped once more.
            if isinstance(given, dict) and isinstance(inner := given.get("resourceMetrics"), list):
                self.mender.notes["resourceMetrics within each other"] += 1
                yield from self.resources(inner)
                given = {name: entry for name, entry in given.items() if name != "resourceMetrics"}
            kept = self._unit(given, lambda each: self._around(each, _RESOURCE, "scopeMetrics", self._scope))
            if kept is not None:
                yield kept

    def _scope(self, value: Any) -> Json | None:
        return self._unit(value, lambda given: self._around(given, _SCOPE, "metrics", self._metric))

    def _metric(self, value: Any) -> Json | None:
        return self._unit(value, self._read_metric)

    def _unit(self, value: Any, read: Callable[[Any], Json | None]) -> Json | None:
        """Read a part of the answer; leave all of it out if it has no meaning."""
        try:
            return read(value)
        except Unusable as error:
            self._leave_out(value, str(error))
        except RecursionError:
            self._leave_out(value, _TOO_DEEP)
        return None

    def _leave_out(self, value: Any, reason: str) -> None:
        for name, count in _points_in(value) or [(_name_of(value), 1)]:
            self._left_out[name, reason] += count

    def _around(
        self, value: Any, descriptor: Descriptor, held: str, read: Callable[[Any], Json | None]
    ) -> Json:
        """Read a message that holds others in an array.

        Raises:
            Unusable: Something beside them has no meaning, and so nothing says what they belong to.
        """
        given = self._in_todays_names(_object(value))
        entries = self._array(given, held)
        around = {name: entry for name, entry in given.items() if name != held}
        mended = self._known(self.mender.message(around, descriptor, descriptor.name), descriptor)
        return {**mended, held: [kept for each in entries if (kept := read(each)) is not None]}

    def _read_metric(self, value: Any) -> Json | None:
        metric = camel_case(_object(value), _METRIC)
        head = self._head({name: entry for name, entry in metric.items() if name not in KINDS})
        data = {kind: self._data(metric[kind], kind) for kind in KINDS if metric.get(kind) is not None}
        if not data:
            return self._of_no_kind(metric)
        filled = [kind for kind in data if data[kind]["dataPoints"]]
        if len(filled) > 1:
            raise Unusable(f"{' and '.join(filled)} are both there, of which OTLP takes one")
        if len(data) > 1:
            self.mender.notes["kinds without points beside another"] += 1
        kind = filled[0] if filled else next(iter(data))
        head, around = self._known(head, _METRIC), self._known(data[kind], _DATA[kind])
        points = [
            kept for each in around["dataPoints"] if (kept := self._point(each, kind, head)) is not None
        ]
        self._points += len(points)
        if filled and not points:
            return None
        nulls = {other: None for other in KINDS if other in metric and metric[other] is None}
        return {**nulls, **head, kind: {**around, "dataPoints": points}}

    def _head(self, head: Json) -> Json:
        """Return the fields that tell a metric from others, and those that describe it as far as they can."""
        for name in ("description", "metadata"):
            try:
                self.mender.message({name: head.get(name)}, _METRIC, "metric")
            except Unusable as error:
                self.mender.notes[f"left out a {name} ({error})"] += 1
                head = {other: value for other, value in head.items() if other != name}
        mended: Json = self.mender.message(head, _METRIC, "metric")
        return mended

    def _data(self, value: Any, kind: str) -> Json:
        if not isinstance(value, dict):
            raise Unusable(f"{kind} is no object")
        given = self._in_todays_names(value)
        points = self._array(given, "dataPoints")
        around = {name: entry for name, entry in given.items() if name != "dataPoints"}
        return {**self.mender.message(around, _DATA[kind], kind), "dataPoints": points}

    def _of_no_kind(self, metric: Json) -> Json | None:
        """Return a metric of a kind that is not known here, if it can be sent with what is in it."""
        unknown = [name for name in _unknown_fields(metric, _METRIC) if _is_filled(metric[name])]
        if not self._protobuf:
            if unknown:
                self.carried.append(_name_of(metric))
            return metric
        if unknown:
            self._leave_out(metric, f"protobuf has no place for {', '.join(unknown)}")
        return None

    def _point(self, value: Any, kind: str, head: Json) -> Json | None:
        try:
            return self._read_point(value, kind)
        except Unusable as error:
            reason = str(error)
        except RecursionError:
            reason = _TOO_DEEP
        self._left_out[str(head.get("name")), reason] += 1
        return None

    def _read_point(self, value: Any, kind: str) -> Json:
        point: Json = self.mender.message(value, _POINT[kind], "a data point")
        names = {name for field in _POINT[kind].fields for name in (field.json_name, field.name)}
        fields = names - _BESIDE_THE_VALUE
        if all(point.get(name) is None for name in fields) and (
            unknown := [name for name in _unknown_fields(point, _POINT[kind]) if point[name] is not None]
        ):
            raise Unusable(f"it has no value but {', '.join(unknown)}, which is not known")
        # The ids of exemplars are in hex, which protobuf's reader takes for base64.
        checked = {name: entry for name, entry in point.items() if name != "exemplars"}
        try:
            message = message_factory.GetMessageClass(_POINT[kind])()
            ParseDict(known_fields(checked, _POINT[kind], set()), message, max_recursion_depth=DEEPEST)
        except (ParseError, ValueError, TypeError, OverflowError):
            raise Unusable(_TOO_DEEP) from None
        return point

    def _known(self, message: Json, descriptor: Descriptor) -> Json:
        """Return a message without unknown fields that hold points: these are left out."""
        kept = message
        for name in _unknown_fields(message, descriptor):
            if _points_in(message[name]):
                self._leave_out({"name": message.get("name"), name: message[name]}, f"{name} is not known")
                kept = {other: value for other, value in kept.items() if other != name}
            elif _is_filled(message[name]):
                self._unknown.append(name)
        return kept

    def _in_todays_names(self, message: Json) -> Json:
        """Return a message with the names that OTLP has today for what holds points and scopes.

        Raises:
            Unusable: Something is there in two spellings.
        """
        renamed = message
        for name, others in _EARLIER.items():
            for other in others:
                if other in renamed:
                    renamed = {**renamed}
                    self.mender.notes[f"{name} as {other}"] += 1
                    renamed[name] = _either(name, renamed.get(name), renamed.pop(other))
        return renamed

    def _array(self, message: Json, name: str) -> list[Any]:
        values = message.get(name)
        if values is None:
            return []
        if not isinstance(values, list):
            raise Unusable(f"{name} is no array")
        return list(self._flat(values))

    def _flat(self, values: list[Any]) -> Iterator[Any]:
        for value in values:
            if isinstance(value, list):
                self.mender.notes["arrays within arrays"] += 1
                yield from value
            else:
                yield value


def _object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise Unusable(
            f"{'null' if value is None else 'a bare value or array'} stands where an object belongs"
        )
    return value


def _either(name: str, one: Any, other: Any) -> Any:
    """Return what a field holds that is there in two spellings."""
    if not one or not other:
        return one or other
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    raise Unusable(f"{name} is there in two spellings")


def _unknown_fields(message: Json, descriptor: Descriptor) -> list[str]:
    known = {name for field in descriptor.fields for name in (field.json_name, field.name)}
    return [name for name in message if name not in known]


def _is_filled(value: Any) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


def _name_of(value: Any) -> str:
    return str(value.get("name")) if isinstance(value, dict) and "name" in value else NO_NAME


def _points_in(value: Any) -> list[tuple[str, int]]:
    """Return how many points something seems to hold, by the names of metrics."""
    found: list[tuple[str, int]] = []
    todo = [(value, NO_NAME, 0)]
    while todo:
        each, name, depth = todo.pop()
        if depth > _DEEPEST_UNKNOWN:
            continue
        if isinstance(each, dict):
            name = str(each["name"]) if each.get("name") is not None else name
            for field_name, entry in each.items():
                is_list = field_name.replace("_", "").casefold() == "datapoints"
                if is_list and _is_filled(entry):
                    found.append((name, len(entry) if isinstance(entry, list) else 1))
                elif _is_filled(entry):
                    todo.append((entry, name, depth + 1))
        elif isinstance(each, list):
            todo += [(entry, name, depth + 1) for entry in each if _is_filled(entry)]
    return found
