"""A small OTLP receiver that keeps the metrics it receives."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from airflow_provider_forge.sandbox import control
from airflow_provider_forge.sandbox.fault_replies import apply_fault, fault_headers
from airflow_provider_forge.sandbox.faults import SINK_KINDS, TELEMETRY, Fault, FaultInjection, FaultPlan
from airflow_provider_forge.sandbox.points import Point, points_of
from airflow_provider_forge.sandbox.server import LocalServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

__all__ = ["OtlpSink", "SinkRequest", "SinkResource"]

# As in the Collector: the limit applies to uncompressed bodies, and larger ones get a 400.
MAX_BODY_BYTES = 20 * 1024 * 1024
_PATH = "/v1/metrics"
_TELEMETRY_SCOPE = "airflow_provider_forge"
_JSON, _PROTOBUF = "application/json", "application/x-protobuf"
# Faults for which the points are not kept.
_NOT_KEPT = frozenset({"status", "html", "redirect", "hang", "reset", "reset_before"})


@dataclass(frozen=True)
class SinkRequest:
    """A request whose points were kept.

    Attributes:
        content_type: "application/json" or "application/x-protobuf".
        content_encoding: "gzip" or "".
        headers: Names in lower case.
        rejected: Number of points, from the end, that were not kept.
        packed: The body, compressed with zlib so that two weeks of points fit into memory.
        received_at: Seconds since the epoch.
    """

    content_type: str
    content_encoding: str
    headers: dict[str, str]
    rejected: int
    packed: bytes
    received_at: float

    @property
    def body(self) -> bytes:
        """The uncompressed body, byte for byte."""
        return zlib.decompress(self.packed)

    @property
    def message(self) -> ExportMetricsServiceRequest:
        """The body, decoded."""
        return _decoded(self.content_type, self.body)

    @property
    def points(self) -> list[Point]:
        """The points that were kept, except for the exporter's own."""
        points = points_of(_split(self.message)[0].resource_metrics)
        return points[: len(points) - self.rejected]

    @property
    def telemetry(self) -> list[Point]:
        """The exporter's own points."""
        return points_of(_split(self.message)[1].resource_metrics)


@dataclass(frozen=True)
class SinkResource:
    """The resource and scope of received points.

    Attributes:
        attributes: Attributes of the resource, with Python values; compound values are protobuf messages.
        scope_name: Empty without a scope.
        scope_version: Empty without a version.
        schema_url: Schema URL of the resource.
    """

    attributes: dict[str, Any]
    scope_name: str
    scope_version: str
    schema_url: str


class _RejectedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class OtlpSink(FaultInjection, LocalServer):
    """A strict OTLP/HTTP endpoint for metrics: protobuf or JSON, uncompressed or gzip.

    The exporter's own metrics are stored and counted separately, so that the rest can be compared with the
    points that the gateway has served.

    Args:
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        max_body_bytes: Maximum size of an uncompressed body in bytes; larger ones get a 400.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        super().__init__(host, port)
        self._max_body_bytes = max_body_bytes
        self._lock = threading.Lock()
        self._kept: list[SinkRequest] = []
        self._telemetry: list[SinkRequest] = []
        self._counts = {"requests": 0, "refused": 0, "points": 0, "rejected": 0, "bytes": 0}
        self._faults = FaultPlan(SINK_KINDS)

    @property
    def url(self) -> str:
        """Base URL; known once the server has been started."""
        return self.address

    @property
    def requests(self) -> list[SinkRequest]:
        """The requests with app metrics whose points were kept, in order of arrival."""
        with self._lock:
            return list(self._kept)

    @property
    def telemetry(self) -> list[SinkRequest]:
        """The requests with the exporter's own metrics; a batching proxy may have added others."""
        with self._lock:
            return list(self._telemetry)

    @property
    def points(self) -> list[Point]:
        """All points that were kept, including duplicates; decoded on each access."""
        return [point for request in self.requests for point in request.points]

    @property
    def resources(self) -> list[SinkResource]:
        """The distinct resources and scopes of the points that were kept."""
        distinct: list[SinkResource] = []
        for request in self.requests:
            distinct += [each for each in _resources(_split(request.message)[0]) if each not in distinct]
        return distinct

    def summary(self) -> dict[str, int]:
        """Return the numbers of requests, refused requests, kept points, rejected points, and bytes."""
        with self._lock:
            return dict(self._counts)

    def clear(self) -> None:
        """Remove everything received; faults stay."""
        with self._lock:
            self._kept.clear()
            self._telemetry.clear()
            self._counts = dict.fromkeys(self._counts, 0)

    def respond(self, request: Request) -> Reply:
        """Receive metrics, or reply to a control request."""
        if request.path != _PATH:
            return control.sink_reply(self, request)
        if request.method != "POST":
            return Reply.of_json({"message": "POST metrics"}, 405, (("Allow", "POST"),))
        try:
            body, message = self._read(request)
        except _RejectedError as error:
            self._count(requests=1, bytes=len(request.body), refused=1)
            return Reply.of_json({"code": error.status, "message": str(error)}, error.status)
        points, telemetry = map(_point_count, _split(message))
        nothing_else = telemetry and not points
        if not nothing_else:
            self._count(requests=1, bytes=len(request.body))
        fault = self._faults.pick(TELEMETRY if nothing_else else "metrics")
        if fault is None or fault.kind not in _NOT_KEPT:
            kept = _kept(request, body, min(_rejected(fault), points))
            with self._lock:
                self._kept += [] if nothing_else else [kept]
                self._telemetry += [kept] if telemetry else []
            self._count(points=points - kept.rejected, rejected=kept.rejected)
        elif not nothing_else:
            self._count(refused=1)
        return _reply(request, fault)

    def _read(self, request: Request) -> tuple[bytes, ExportMetricsServiceRequest]:
        # Prometheus rejects a charset suffix; so does the sink.
        content_type = request.headers.get("Content-Type", "")
        if content_type not in {_JSON, _PROTOBUF}:
            raise _RejectedError(415, f"Content-Type {content_type!r} is neither {_JSON} nor {_PROTOBUF}")
        encoding = request.headers.get("Content-Encoding", "")
        if encoding not in {"", "identity", "gzip"}:
            raise _RejectedError(415, f"Content-Encoding {encoding!r} is not gzip")
        try:
            body = gzip.decompress(request.body) if encoding == "gzip" else request.body
            if len(body) > self._max_body_bytes:
                raise _RejectedError(400, f"{len(body)} bytes are more than {self._max_body_bytes}")
            return body, _decoded(content_type, body)
        except (OSError, EOFError, zlib.error, DecodeError, ParseError, TypeError, ValueError) as error:
            raise _RejectedError(400, f"the body cannot be read: {error}") from error

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number


def _kept(request: Request, body: bytes, rejected: int) -> SinkRequest:
    return SinkRequest(
        content_type=request.headers["Content-Type"],
        content_encoding=request.headers.get("Content-Encoding", ""),
        headers={name.lower(): value for name, value in request.headers.items()},
        rejected=rejected,
        packed=zlib.compress(body, 1),
        received_at=time.time(),
    )


def _split(message: ExportMetricsServiceRequest) -> tuple[ExportMetricsServiceRequest, ...]:
    """Return the app's metrics and the exporter's own."""
    names = {scope.scope.name for resource in message.resource_metrics for scope in resource.scope_metrics}
    if _TELEMETRY_SCOPE not in names:
        return message, ExportMetricsServiceRequest()
    sides = ExportMetricsServiceRequest(), ExportMetricsServiceRequest()
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            side = sides[scope.scope.name == _TELEMETRY_SCOPE].resource_metrics.add()
            side.CopyFrom(resource)
            del side.scope_metrics[:]
            side.scope_metrics.append(scope)
    return sides


def _decoded(content_type: str, body: bytes) -> ExportMetricsServiceRequest:
    message = ExportMetricsServiceRequest()
    if content_type == _JSON:
        content = json.loads(body, object_hook=_ids_in_base64)
        if not isinstance(content, dict):
            raise TypeError("not a JSON object")
        ParseDict(content, message, ignore_unknown_fields=True)
    else:
        message.ParseFromString(body)
    return message


def _ids_in_base64(value: dict[str, Any]) -> dict[str, Any]:
    """Convert an exemplar's ids from OTLP's hex to the base64 of protobuf's JSON."""
    for name in ("traceId", "spanId"):
        if name in value:
            value[name] = base64.b64encode(bytes.fromhex(value[name])).decode()
    return value


def _rejected(fault: Fault | None) -> int:
    return fault.rejected if fault is not None and fault.kind == "partial_success" else 0


def _reply(request: Request, fault: Fault | None) -> Reply:
    content_type = request.headers["Content-Type"]
    answer = ExportMetricsServiceResponse()
    if fault is not None and fault.kind == "partial_success":
        partial = ExportMetricsPartialSuccess(
            rejected_data_points=fault.rejected, error_message=fault.message or ""
        )
        answer.partial_success.CopyFrom(partial)
    body = MessageToJson(answer).encode() if content_type == _JSON else answer.SerializeToString()
    if fault is not None and fault.kind == "empty":
        body = b""
    ordinary = Reply(200, body, (("Content-Type", content_type), *fault_headers(fault)))
    return ordinary if fault is None else apply_fault(fault, ordinary)


def _point_count(message: ExportMetricsServiceRequest) -> int:
    return sum(
        len(getattr(metric, kind).data_points)
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if (kind := metric.WhichOneof("data"))
    )


def _resources(message: ExportMetricsServiceRequest) -> Iterator[SinkResource]:
    for resource in message.resource_metrics:
        attributes = dict(map(_attribute, resource.resource.attributes))
        for scope in resource.scope_metrics:
            yield SinkResource(attributes, scope.scope.name, scope.scope.version, resource.schema_url)


def _attribute(attribute: KeyValue) -> tuple[str, Any]:
    kind = attribute.value.WhichOneof("value")
    return attribute.key, getattr(attribute.value, kind) if kind else None
