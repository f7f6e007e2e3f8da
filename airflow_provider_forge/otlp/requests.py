"""Encodes OTLP metrics as the body of a request, in protobuf or JSON."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import (
    Json,
    MalformedOtlp,
    count_points,
    entries,
    metrics_of,
    nanoseconds,
    points_of,
)
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from google.protobuf.descriptor import Descriptor

__all__ = [
    "ExportRequest",
    "encode_request",
    "json_chunks",
    "known_fields",
    "warn_of_unknown",
    "with_base64_ids",
]

log = get_logger(__name__)

_HEX = re.compile(r"[0-9a-fA-F]*")


@dataclass(frozen=True)
class ExportRequest:
    """One request to a receiver.

    Attributes:
        chunks: The uncompressed `ExportMetricsServiceRequest`, in chunks that are compressed without being
            joined.
        protocol: `http/protobuf` or `http/json`.
        points: Number of data points.
        metrics: Names of the metrics.
        start: Earliest time of a point, in nanoseconds since the epoch; 0 without points.
        end: Latest time of a point, in nanoseconds since the epoch; 0 without points.
    """

    chunks: Sequence[bytes | msgspec.Raw]
    protocol: str
    points: int
    metrics: tuple[str, ...]
    start: int
    end: int

    @cached_property
    def size(self) -> int:
        """Size in bytes, before compression."""
        return sum(map(len, self.chunks))

    @property
    def body(self) -> bytes:
        """The chunks, joined."""
        return b"".join(self.chunks)


def encode_request(
    resource_metrics: list[Json], protocol: str, *, verbatim: bytes | msgspec.Raw | None = None
) -> ExportRequest:
    """Encode one request.

    Args:
        resource_metrics: Decoded OTLP/JSON.
        protocol: `http/protobuf` or `http/json`.
        verbatim: The JSON text of `resource_metrics`, to be sent unchanged with `http/json`.

    Raises:
        MalformedOtlp: `resource_metrics` is not OTLP/JSON.
    """
    metrics = list(metrics_of(resource_metrics))
    times = [nanoseconds(point, "timeUnixNano") for metric in metrics for point in points_of(metric)]
    if protocol == HTTP_JSON:
        chunks = json_chunks(msgspec.json.encode(resource_metrics) if verbatim is None else verbatim)
    else:
        chunks = (_encode_protobuf(resource_metrics),)
    return ExportRequest(
        chunks=chunks,
        protocol=protocol,
        points=count_points(resource_metrics),
        metrics=tuple(dict.fromkeys(str(metric.get("name")) for metric in metrics)),
        start=min(times, default=0),
        end=max(times, default=0),
    )


def json_chunks(resource_metrics: bytes | msgspec.Raw) -> Sequence[bytes | msgspec.Raw]:
    """Return the chunks of a JSON request with this text of an array of `ResourceMetrics`."""
    return b'{"resourceMetrics":', resource_metrics, b"}"


def _encode_protobuf(resource_metrics: list[Json]) -> bytes:
    message = ExportMetricsServiceRequest()
    unknown: set[str] = set()
    try:
        request = known_fields({"resourceMetrics": resource_metrics}, message.DESCRIPTOR, unknown)
        for point in (
            point for metric in metrics_of(request["resourceMetrics"]) for point in points_of(metric)
        ):
            point.update(with_base64_ids(point))
        json_format.ParseDict(request, message)
    except (json_format.ParseError, RecursionError) as error:
        raise MalformedOtlp(f"resourceMetrics is not OTLP/JSON: {error}") from error
    warn_of_unknown(unknown)
    return message.SerializeToString()


def warn_of_unknown(unknown: Collection[str]) -> None:
    """Log the names of fields that a protobuf request cannot hold."""
    if unknown:
        log.warning(
            "Protobuf has no field for %s: sent without it. Protocol http/json keeps it",
            ", ".join(sorted(unknown)),
        )


def known_fields(value: Any, descriptor: Descriptor | None, unknown: set[str]) -> Any:
    """Return the value without unknown fields, which OTLP requires receivers to ignore.

    The JSON reader's own option to ignore unknown fields also ignores text in place of a message.

    Args:
        value: Decoded JSON.
        descriptor: Type of the message; None if the value is not a message.
        unknown: The names of unknown fields are added to it.
    """
    if isinstance(value, list):
        return [known_fields(entry, descriptor, unknown) for entry in value]
    if not isinstance(value, dict) or descriptor is None:
        return value
    fields = {name: field for field in descriptor.fields for name in (field.json_name, field.name)}
    unknown.update(f"{descriptor.name}.{name}" for name in value.keys() - fields)
    return {
        name: known_fields(entry, fields[name].message_type, unknown)
        for name, entry in value.items()
        if name in fields
    }


def with_base64_ids(point: Json) -> Json:
    """Return a point with exemplars' ids in base64, as in protobuf's JSON, instead of hexadecimal.

    Raises:
        MalformedOtlp: An id is not hexadecimal.
    """
    if not (exemplars := entries(point, "exemplars")):
        return point
    ids = ("traceId", "spanId")
    return {
        **point,
        "exemplars": [
            {**exemplar, **{field: _base64(exemplar.get(field)) for field in ids}} for exemplar in exemplars
        ],
    }


def _base64(hexadecimal: Any) -> str:
    if hexadecimal is None:
        return ""
    if not isinstance(hexadecimal, str) or not _HEX.fullmatch(hexadecimal) or len(hexadecimal) % 2:
        raise MalformedOtlp(f"{hexadecimal!r} is not a trace or span id")
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
