"""Salvages the valid points of a payload that is not entirely OTLP/JSON.

An invalid value affects only itself: a value with a single meaning is repaired (see `repair`), and a point
with any other invalid value is left out and reported with the reason. Nothing is lost silently: a payload in
which all fields with points are unknown does not count as empty.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.metrics.v1 import metrics_pb2

from airflow_provider_forge import json_text
from airflow_provider_forge.otlp.messages import KINDS, Json, MalformedOtlp
from airflow_provider_forge.otlp.requests import known_fields
from airflow_provider_forge.payload.protobuf import POINT_FIELDS, POINT_MESSAGES
from airflow_provider_forge.payload.repair import InvalidValue, Repairer, camel_case
from airflow_provider_forge.payload.repeats import decode_joined, find_repeated
from airflow_provider_forge.text import get_logger, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.protobuf.descriptor import Descriptor

__all__ = ["FIELDS_BESIDE_VALUE", "NO_NAME", "LeftOut", "Salvaged", "Salvager", "log_repairs", "salvage"]

log = get_logger(__name__)

LeftOut = Counter[tuple[str, str]]
"""Number of points left out, by the metric's name and the reason."""

MAX_DEPTH = 90
"""Maximum depth of messages in a point. Protobuf reads 100 levels, those around a point included."""

_RESOURCE_TYPE = metrics_pb2.ResourceMetrics.DESCRIPTOR
_SCOPE_TYPE = metrics_pb2.ScopeMetrics.DESCRIPTOR
_METRIC_TYPE = metrics_pb2.Metric.DESCRIPTOR
_DATA_TYPES: dict[str, Descriptor] = dict(
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
FIELDS_BESIDE_VALUE = frozenset({"attributes", "startTimeUnixNano", "timeUnixNano", "exemplars", "flags"})
"""Fields of a point that say nothing without a value."""

# Before version 0.19 of OTLP, scopes had other names but the same fields.
_EARLIER_NAMES = {
    "scopeMetrics": ("scope_metrics", "instrumentationLibraryMetrics", "instrumentation_library_metrics"),
    "scope": ("instrumentationLibrary", "instrumentation_library"),
    "dataPoints": ("data_points",),
}

_MAX_UNKNOWN_DEPTH = 40
_TOO_DEEP = "it is nested too deeply"

NO_NAME = "?"
"""Stands for the name of a metric without one."""


@dataclass
class Salvaged:
    """The usable part of a payload.

    Attributes:
        resource_metrics: OTLP/JSON that protobuf's own reader accepts, except for unknown fields.
        left_out: Number of points left out, by the metric's name and the reason.
        repairs: Number of repairs, by their description.
        unknown_kinds: Names of metrics of an unknown kind, which only a JSON request can hold.
    """

    resource_metrics: list[Json]
    left_out: LeftOut = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    unknown_kinds: list[str] = field(default_factory=list)


def salvage(text: bytes | msgspec.Raw, *, protobuf: bool) -> Salvaged:
    """Decode the JSON text of an array of `ResourceMetrics`, and salvage its valid points.

    Args:
        text: The text.
        protobuf: Whether requests are protobuf, which cannot hold unknown kinds of metrics.

    Raises:
        MalformedOtlp: The text is not JSON, or not an array.
    """
    try:
        decoded, repaired = json_text.decode_or_repair(text, Any)
    except json_text.UNREADABLE as error:
        raise MalformedOtlp(f"resourceMetrics is not JSON: {error}") from error
    strict = json_text.repair(bytes(text)) if repaired else bytes(text)
    if repeated := find_repeated(strict):
        decoded = decode_joined(strict)
    if not isinstance(decoded, list):
        raise MalformedOtlp("resourceMetrics is not an array")
    salvager = Salvager(protobuf=protobuf)
    salvager.repairer.repairs.update(f"{sanitize(name)} twice in one object" for name in repeated)
    if repaired:
        salvager.repairer.repairs["characters or numbers that JSON does not allow"] += 1
    found = list(salvager.read_resources(decoded))
    return Salvaged(found, salvager.conclude(), salvager.repairer.repairs, salvager.unknown_kinds)


def log_repairs(repairs: Mapping[str, int]) -> None:
    """Log how many values of each kind were repaired."""
    if repairs:
        found = ", ".join(f"{repair} ({count})" for repair, count in repairs.items())
        log.warning("Repaired in Atlassian's response: %s", found)


class Salvager:
    """Reads decoded OTLP/JSON, repairs it, and leaves out what is invalid.

    Args:
        protobuf: Whether requests are protobuf, which cannot hold unknown kinds of metrics.

    Attributes:
        repairer: Repairs values, and counts the repairs.
        unknown_kinds: Names of metrics of an unknown kind, which only a JSON request can hold.
    """

    def __init__(self, *, protobuf: bool) -> None:
        self.repairer = Repairer()
        self.unknown_kinds: list[str] = []
        self._protobuf = protobuf
        self._left_out: LeftOut = Counter()
        self._points = 0
        self._unknown_names: list[str] = []

    def conclude(self) -> LeftOut:
        """Return the points left out; a payload with nothing but unknown fields counts as one point."""
        if self._unknown_names and not (self._points or self._left_out or self.unknown_kinds):
            reason = f"only unknown fields have content: {', '.join(dict.fromkeys(self._unknown_names))}"
            self._left_out[NO_NAME, reason] += 1
        return self._left_out

    def read_resources(self, values: list[Any]) -> Iterator[Json]:
        """Yield the usable part of each `ResourceMetrics`."""
        for value in self._flattened(values):
            given = value
            # A request within the array: the same field once more.
            if isinstance(given, dict) and isinstance(inner := given.get("resourceMetrics"), list):
                self.repairer.repairs["nested resourceMetrics"] += 1
                yield from self.read_resources(inner)
                given = {name: entry for name, entry in given.items() if name != "resourceMetrics"}
            kept = self._read_or_leave_out(
                given,
                lambda each: self._read_container(each, _RESOURCE_TYPE, "scopeMetrics", self._read_scope),
            )
            if kept is not None:
                yield kept

    def _read_scope(self, value: Any) -> Json | None:
        return self._read_or_leave_out(
            value,
            lambda given: self._read_container(given, _SCOPE_TYPE, "metrics", self._read_metric_or_leave_out),
        )

    def _read_metric_or_leave_out(self, value: Any) -> Json | None:
        return self._read_or_leave_out(value, self._read_metric)

    def _read_or_leave_out(self, value: Any, read: Callable[[Any], Json | None]) -> Json | None:
        """Read a message; leave out all its points if it is invalid."""
        try:
            return read(value)
        except InvalidValue as error:
            self._leave_out(value, str(error))
        except RecursionError:
            self._leave_out(value, _TOO_DEEP)
        return None

    def _leave_out(self, value: Any, reason: str) -> None:
        for name, count in _count_points_in(value) or [(_name_of(value), 1)]:
            self._left_out[name, reason] += count

    def _read_container(
        self, value: Any, descriptor: Descriptor, array_field: str, read: Callable[[Any], Json | None]
    ) -> Json:
        """Read a message that contains other messages in an array.

        Raises:
            InvalidValue: A field outside the array is invalid, so the messages cannot be attributed.
        """
        given = self._with_current_names(_require_object(value))
        entries = self._entries(given, array_field)
        own_fields = {name: entry for name, entry in given.items() if name != array_field}
        repaired = self._without_unknown_points(
            self.repairer.message(own_fields, descriptor, descriptor.name), descriptor
        )
        return {**repaired, array_field: [kept for each in entries if (kept := read(each)) is not None]}

    def _read_metric(self, value: Any) -> Json | None:
        metric = camel_case(_require_object(value), _METRIC_TYPE)
        metric_fields = self._read_metric_fields(
            {name: entry for name, entry in metric.items() if name not in KINDS}
        )
        data = {kind: self._read_data(metric[kind], kind) for kind in KINDS if metric.get(kind) is not None}
        if not data:
            return self._read_unknown_kind(metric)
        filled = [kind for kind in data if data[kind]["dataPoints"]]
        if len(filled) > 1:
            raise InvalidValue(f"{' and '.join(filled)} are both set, but OTLP allows only one")
        if len(data) > 1:
            self.repairer.repairs["empty kinds of points beside a filled one"] += 1
        kind = filled[0] if filled else next(iter(data))
        metric_fields = self._without_unknown_points(metric_fields, _METRIC_TYPE)
        data_fields = self._without_unknown_points(data[kind], _DATA_TYPES[kind])
        points = [
            kept
            for each in data_fields["dataPoints"]
            if (kept := self.read_point(each, kind, metric_fields)) is not None
        ]
        self._points += len(points)
        if filled and not points:
            return None
        nulls = {other: None for other in KINDS if other in metric and metric[other] is None}
        return {**nulls, **metric_fields, kind: {**data_fields, "dataPoints": points}}

    def _read_metric_fields(self, metric_fields: Json) -> Json:
        """Return the fields that identify a metric, and those that describe it unless they are invalid."""
        for name in ("description", "metadata"):
            try:
                self.repairer.message({name: metric_fields.get(name)}, _METRIC_TYPE, "metric")
            except InvalidValue as error:
                self.repairer.repairs[f"left out a {name} ({error})"] += 1
                metric_fields = {other: value for other, value in metric_fields.items() if other != name}
        repaired: Json = self.repairer.message(metric_fields, _METRIC_TYPE, "metric")
        return repaired

    def _read_data(self, value: Any, kind: str) -> Json:
        if not isinstance(value, dict):
            raise InvalidValue(f"{kind} is not an object")
        given = self._with_current_names(value)
        points = self._entries(given, "dataPoints")
        own_fields = {name: entry for name, entry in given.items() if name != "dataPoints"}
        return {**self.repairer.message(own_fields, _DATA_TYPES[kind], kind), "dataPoints": points}

    def _read_unknown_kind(self, metric: Json) -> Json | None:
        """Return a metric of an unknown kind if a request can hold it."""
        unknown = [name for name in _unknown_fields(metric, _METRIC_TYPE) if _has_content(metric[name])]
        if not self._protobuf:
            if unknown:
                self.unknown_kinds.append(_name_of(metric))
            return metric
        if unknown:
            self._leave_out(metric, f"protobuf has no field for {', '.join(unknown)}")
        return None

    def read_point(self, value: Any, kind: str, metric_fields: Json) -> Any:
        """Return a repaired point; None if it is left out. A point that is still a text is not read."""
        if type(value) is msgspec.Raw:
            return value
        try:
            return self._read_point(value, kind)
        except InvalidValue as error:
            reason = str(error)
        except RecursionError:
            reason = _TOO_DEEP
        self._left_out[str(metric_fields.get("name")), reason] += 1
        return None

    def _read_point(self, value: Any, kind: str) -> Json:
        message = POINT_MESSAGES[kind]()
        point: Json = self.repairer.message(value, message.DESCRIPTOR, "a data point")
        fields = POINT_FIELDS[kind] - FIELDS_BESIDE_VALUE
        if all(point.get(name) is None for name in fields) and (
            unknown := [
                name for name in _unknown_fields(point, message.DESCRIPTOR) if point[name] is not None
            ]
        ):
            raise InvalidValue(f"it has no value but unknown fields: {', '.join(unknown)}")
        # Protobuf's reader would decode the hexadecimal ids of exemplars as base64.
        checked = {name: entry for name, entry in point.items() if name != "exemplars"}
        try:
            ParseDict(
                known_fields(checked, message.DESCRIPTOR, set()), message, max_recursion_depth=MAX_DEPTH
            )
        except (ParseError, ValueError, TypeError, OverflowError):
            raise InvalidValue(_TOO_DEEP) from None
        return point

    def _without_unknown_points(self, message: Json, descriptor: Descriptor) -> Json:
        """Return a message without the unknown fields that contain points; these points are left out."""
        kept = message
        for name in _unknown_fields(message, descriptor):
            if _count_points_in(message[name]):
                self._leave_out({"name": message.get("name"), name: message[name]}, f"unknown field {name}")
                kept = {other: value for other, value in kept.items() if other != name}
            elif _has_content(message[name]):
                self._unknown_names.append(name)
        return kept

    def _with_current_names(self, message: Json) -> Json:
        """Return a message with OTLP's current names of the fields for scopes and points.

        Raises:
            InvalidValue: A field is present under two names.
        """
        renamed = message
        for name, others in _EARLIER_NAMES.items():
            for other in others:
                if other in renamed:
                    renamed = {**renamed}
                    self.repairer.repairs[f"{name} as {other}"] += 1
                    renamed[name] = _merge_spellings(name, renamed.get(name), renamed.pop(other))
        return renamed

    def _entries(self, message: Json, name: str) -> list[Any]:
        values = message.get(name)
        if values is None:
            return []
        if not isinstance(values, list):
            raise InvalidValue(f"{name} is not an array")
        return list(self._flattened(values))

    def _flattened(self, values: list[Any]) -> Iterator[Any]:
        for value in values:
            if isinstance(value, list):
                self.repairer.repairs["nested arrays"] += 1
                yield from value
            else:
                yield value


def _require_object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise InvalidValue(f"{'null' if value is None else 'a bare value or array'} in place of an object")
    return value


def _merge_spellings(name: str, one: Any, other: Any) -> Any:
    """Return the value of a field that is present under two names."""
    if not one or not other:
        return one or other
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    raise InvalidValue(f"{name} is present under two names")


def _unknown_fields(message: Json, descriptor: Descriptor) -> list[str]:
    known = {name for field in descriptor.fields for name in (field.json_name, field.name)}
    return [name for name in message if name not in known]


def _has_content(value: Any) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


def _name_of(value: Any) -> str:
    return str(value.get("name")) if isinstance(value, dict) and "name" in value else NO_NAME


def _count_points_in(value: Any) -> list[tuple[str, int]]:
    """Return the apparent numbers of points in a value, with the names of their metrics."""
    found: list[tuple[str, int]] = []
    todo = [(value, NO_NAME, 0)]
    while todo:
        each, name, depth = todo.pop()
        if depth > _MAX_UNKNOWN_DEPTH:
            continue
        if isinstance(each, dict):
            name = str(each["name"]) if each.get("name") is not None else name
            for field_name, entry in each.items():
                is_list = field_name.replace("_", "").casefold() == "datapoints"
                if is_list and _has_content(entry):
                    found.append((name, len(entry) if isinstance(entry, list) else 1))
                elif _has_content(entry):
                    todo.append((entry, name, depth + 1))
        elif isinstance(each, list):
            todo += [(entry, name, depth + 1) for entry in each if _has_content(entry)]
    return found
