"""From OTLP metrics to the body of a request: protobuf or JSON."""

from __future__ import annotations

import base64
import logging
import re
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.model import (
    Json,
    MalformedOtlp,
    count_points,
    entries,
    metrics_of,
    nanoseconds,
    points_of,
)

__all__ = ["Export", "encode"]

log = logging.getLogger(__name__)

_HEX = re.compile(r"[0-9a-fA-F]*")


@dataclass(frozen=True)
class Export:
    """One request to a receiver.

    Attributes:
        body: An `ExportMetricsServiceRequest`, not compressed.
        protocol: How it is encoded: `http/protobuf` or `http/json`.
        points: Number of data points in it.
        metrics: Names of the metrics in it.
        start: Earliest time of a point, in nanoseconds since the epoch; 0 without points.
        end: Latest time of a point, likewise.
    """

    body: bytes
    protocol: str
    points: int
    metrics: tuple[str, ...]
    start: int
    end: int


def encode(resource_metrics: list[Json], protocol: str, *, verbatim: bytes | None = None) -> Export:
    """Encode one request.

    Args:
        resource_metrics: Decoded OTLP/JSON.
        protocol: `http/protobuf` or `http/json`.
        verbatim: The JSON text that `resource_metrics` was decoded from, if JSON is to go out byte for byte.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    metrics = list(metrics_of(resource_metrics))
    times = [nanoseconds(point, "timeUnixNano") for metric in metrics for point in points_of(metric)]
    if protocol == HTTP_JSON:
        body = b'{"resourceMetrics":%b}' % (verbatim or msgspec.json.encode(resource_metrics))
    else:
        body = _protobuf(resource_metrics)
    return Export(
        body=body,
        protocol=protocol,
        points=count_points(resource_metrics),
        metrics=tuple(dict.fromkeys(str(metric.get("name")) for metric in metrics)),
        start=min(times, default=0),
        end=max(times, default=0),
    )


def _protobuf(resource_metrics: list[Json]) -> bytes:
    request = {"resourceMetrics": [_with_base64_ids(entry) for entry in resource_metrics]}
    message = ExportMetricsServiceRequest()
    try:
        json_format.ParseDict(request, message)
    except json_format.ParseError as error:
        # Either a field from after this was written, which OTLP says to ignore, or no OTLP at all.
        message.Clear()
        try:
            json_format.ParseDict(request, message, ignore_unknown_fields=True)
        except json_format.ParseError as malformed:
            raise MalformedOtlp(f"resourceMetrics is not OTLP/JSON: {malformed}") from malformed
        log.warning(
            "Sent without a field that protobuf has no place for; protocol http/json keeps it: %s", error
        )
    return message.SerializeToString()


def _with_base64_ids(resource_metrics: Json) -> Json:
    """Return the same with exemplars' ids in base64, as protobuf's JSON wants them: OTLP/JSON has hex."""
    if not any(
        "exemplars" in point for metric in metrics_of([resource_metrics]) for point in points_of(metric)
    ):
        return resource_metrics
    copy: Json = msgspec.json.decode(msgspec.json.encode(resource_metrics))
    for metric in metrics_of([copy]):
        for point in points_of(metric):
            for exemplar in entries(point, "exemplars"):
                for field in ("traceId", "spanId"):
                    exemplar[field] = _base64(exemplar.get(field))
    return copy


def _base64(hexadecimal: Any) -> str:
    if hexadecimal is None:
        return ""
    if not isinstance(hexadecimal, str) or not _HEX.fullmatch(hexadecimal) or len(hexadecimal) % 2:
        raise MalformedOtlp(f"{hexadecimal!r} is no trace or span id")
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
