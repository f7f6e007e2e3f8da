"""Decodes everything around the points of a payload as dictionaries; the points remain texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.json_format import ParseDict
from msgspec import Raw
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2

from airflow_provider_forge.otlp.messages import KINDS, Json, kind_of, metrics_of
from airflow_provider_forge.otlp.requests import known_fields
from airflow_provider_forge.payload.protobuf import MAX_DEPTH
from airflow_provider_forge.payload.repeats import check_all_read, check_repeats
from airflow_provider_forge.payload.structs import (
    REFUSALS,
    UnsupportedShape,
    decode_structs,
    metric_structs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_forge.payload.salvage import Salvager

__all__ = ["Skeleton", "decode", "decode_usual"]

_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_object_or_null = msgspec.json.Decoder(dict[str, Raw] | None).decode
_objects_or_null = msgspec.json.Decoder(list[dict[str, Raw]] | None).decode
_texts_or_null = msgspec.json.Decoder(list[Raw] | None).decode


@dataclass
class Skeleton:
    """A payload without its points, and the texts of the points.

    Attributes:
        resources: OTLP/JSON in which each array of points is empty.
        points: Texts of the points of each metric, in the order of `metrics_of(resources)`.
        unknown: Names of the fields in `resources` that protobuf does not have.
    """

    resources: list[Json]
    points: list[list[Raw]]
    unknown: frozenset[str] = frozenset()

    def metrics(self) -> Iterator[tuple[Json, list[Raw]]]:
        """Yield each metric with the texts of its points."""
        yield from zip(metrics_of(self.resources), self.points, strict=True)


def decode(text: Raw | bytes, salvager: Salvager) -> Skeleton:
    """Decode a payload, and check everything around its points by protobuf's own reader.

    Args:
        text: JSON text of an array of `ResourceMetrics`.
        salvager: Repairs what is not usual, and counts it.

    Raises:
        Exception: It has points in another place, or metrics of an unknown kind; one of `structs.REFUSALS`.
    """
    try:
        usual = decode_usual(text)
        _check_protobuf(usual.resources)
    except REFUSALS:
        resources, points = _decode_unusual(text, salvager)
        unknown: set[str] = set()
        _check_protobuf(known_fields(resources, metrics_pb2.ResourceMetrics.DESCRIPTOR, unknown))
        return Skeleton(resources, points, frozenset(unknown))
    return usual


def decode_usual(text: Raw | bytes) -> Skeleton:
    """Decode a payload whose resources, scopes and metrics have the usual shape.

    Raises:
        Exception: They have another shape; one of `structs.REFUSALS`.
    """
    structs = decode_structs(text)
    points = []
    for metric in metric_structs(structs):
        points.append(metric.data.data_points)
        metric.data.data_points = []
    check_repeats(text, structs, points)
    return Skeleton(msgspec.to_builtins(structs), points)


def _check_protobuf(resources: list[Json]) -> None:
    """Raise ParseError if it is not OTLP, or has unknown fields."""
    ParseDict({"resourceMetrics": resources}, ExportMetricsServiceRequest(), max_recursion_depth=MAX_DEPTH)


def _decode_unusual(text: Raw | bytes, salvager: Salvager) -> tuple[list[Json], list[list[Raw]]]:
    """Decode resources, scopes and metrics with nulls and unknown fields: one pass for each level."""
    tree = [_open(each, "scopeMetrics", _open_scope) for each in _objects(text)]
    check_all_read(text, tree)
    resources, points = list(salvager.read_resources(tree)), []
    for metric in metrics_of(resources):
        if (kind := kind_of(metric)) is None:
            raise UnsupportedShape(f"{metric.get('name')} is of an unknown kind")
        texts, metric[kind]["dataPoints"] = metric[kind]["dataPoints"], []
        if not all(type(each) is Raw for each in texts):
            raise UnsupportedShape("points in a field of another name")
        points.append(texts)
    return resources, points


def _open(fields: dict[str, Raw], array_field: str, read: Callable[[dict[str, Raw]], Json]) -> Json:
    """Decode the fields of a message, and the messages in one of them."""

    def value(name: str, text: Raw) -> Any:
        if name != array_field:
            return msgspec.json.decode(text)
        entries = _objects_or_null(text)
        return None if entries is None else [read(each) for each in entries]

    return {name: value(name, text) for name, text in fields.items()}


def _open_scope(fields: dict[str, Raw]) -> Json:
    return _open(fields, "metrics", _open_metric)


def _open_metric(fields: dict[str, Raw]) -> Json:
    return {
        name: _open_data(text) if name in KINDS else msgspec.json.decode(text)
        for name, text in fields.items()
    }


def _open_data(text: Raw) -> Json | None:
    fields = _object_or_null(text)
    return fields and {
        name: _texts_or_null(value) if name == "dataPoints" else msgspec.json.decode(value)
        for name, value in fields.items()
    }
