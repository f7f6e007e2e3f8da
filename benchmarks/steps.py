"""What is measured: the way from the response's bytes to the request's, ours and others'."""

from __future__ import annotations

import datetime as dt
import functools
import gzip
from typing import TYPE_CHECKING, Any

import httpx
import orjson
from google.protobuf import json_format
from isal import igzip
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from zlib_ng import gzip_ng

from airflow_provider_forge.delivery.content import Complete, Source, read
from airflow_provider_forge.gateway.answer import read_answer
from airflow_provider_forge.gateway.client import _MetricsData, _resource_metrics
from airflow_provider_forge.otlp.compress import compress
from airflow_provider_forge.otlp.conform import Identity
from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF
from benchmarks import response

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_forge.otlp.encode import Export

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc)
IDENTITY = Identity(response.APP, environments=dict.fromkeys(response.ENVIRONMENTS))

Steps = list[tuple[str, "Callable[[], Any]"]]


def source(body: bytes, protocol: str, *, conform: bool = True, recorded: bool = True) -> Source:
    """Return what the gateway's client makes of a response."""
    answer = read_answer(httpx.Response(200, content=body), _MetricsData, now=NOW, secrets=(), of_window=True)
    identity = IDENTITY if conform else None
    return Source(
        _resource_metrics(answer), response.ENVIRONMENTS, response.MINUTE, identity, protocol, recorded
    )


def request(given: Source) -> Export:
    """Return one request of all points, fingerprints taken and oddities looked for."""
    content = read(given)
    _ = content.points, content.oddities
    return content.encode(range(content.count))


def compressed(given: Source) -> bytes:
    """Return what goes out."""
    return compress(request(given).chunks)


def ours(body: bytes) -> Steps:
    """Return the steps of this package; those that are named after targets are whole ways."""

    def passed_through() -> bytes:
        content = read(source(body, HTTP_JSON, conform=False, recorded=False))
        return content.encode(range(content.count)).body

    return [
        ("cut out, syntax checked", lambda: source(body, HTTP_JSON)),
        ("pass-through", passed_through),
        (
            "pass-through + stand-ins for fingerprints",
            lambda: request(source(body, HTTP_JSON, conform=False, recorded=False)).body,
        ),
        ("pass-through + digest", lambda: request(source(body, HTTP_JSON, conform=False)).body),
        ("conform + digest + JSON", lambda: request(source(body, HTTP_JSON)).body),
        ("conform + digest + protobuf", lambda: request(source(body, HTTP_PROTOBUF)).body),
        ("conform + digest + protobuf + gzip", lambda: compressed(source(body, HTTP_PROTOBUF))),
    ]


def unrepeated(points: int) -> bytes:
    """Return a request in protobuf of a minute's window: nothing of a series can be used again."""
    return request(source(response.answer(points, minutes=1), HTTP_PROTOBUF)).body


def others(body: bytes) -> Steps:
    """Return other ways to protobuf: what this package falls back to, protobuf's own, the SDK's encoder."""

    def complete() -> bytes:
        content = Complete(source(body, HTTP_PROTOBUF))
        _ = content.oddities
        return content.encode(range(content.count)).body

    @functools.cache
    def app_metrics() -> dict[str, Any]:
        return orjson.loads(body)["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]

    @functools.cache
    def text() -> bytes:
        return orjson.dumps({"resourceMetrics": app_metrics()["resourceMetrics"]})

    @functools.cache
    def objects() -> Any:
        return sdk_data(app_metrics())

    return [
        ("the complete way: conform + digest + protobuf", complete),
        (
            "json_format.Parse, serialise",
            lambda: json_format.Parse(text(), ExportMetricsServiceRequest()).SerializeToString(),
        ),
        (
            "the OpenTelemetry SDK's encoder, from its objects",
            lambda: encode_metrics(objects()).SerializeToString(),
        ),
    ]


def compressions(body: bytes) -> Steps:
    """Return gzip of the request in protobuf, by several libraries and levels."""

    @functools.cache
    def protobuf() -> bytes:
        return request(source(body, HTTP_PROTOBUF)).body

    def compression(module: Any, level: int) -> Callable[[], bytes]:
        return lambda: module.compress(protobuf(), level)

    libraries = {"zlib": (gzip, (1, 3, 6, 9)), "zlib-ng": (gzip_ng, (1, 2, 4, 6)), "isal": (igzip, (0, 1, 2))}
    return [
        (f"gzip by {name}, level {level}", compression(module, level))
        for name, (module, levels) in libraries.items()
        for level in levels
    ]


def sdk_data(request: dict[str, Any]) -> Any:
    """Return the same points as the OpenTelemetry SDK's objects."""
    from opentelemetry.sdk.metrics import export
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    def point(kind: str, given: dict[str, Any]) -> Any:
        attributes = {each["key"]: each["value"]["stringValue"] for each in given["attributes"]}
        times = int(given["startTimeUnixNano"]), int(given["timeUnixNano"])
        if kind == "sum":
            return export.NumberDataPoint(attributes, *times, given["asInt"])
        counts = [int(count) for count in given["bucketCounts"]]
        bounds = given["explicitBounds"]
        of_all = int(given["count"]), given["sum"]
        return export.HistogramDataPoint(
            attributes, *times, *of_all, counts, bounds, given["min"], given["max"]
        )

    def metric(given: dict[str, Any]) -> Any:
        kind = "sum" if "sum" in given else "histogram"
        points = [point(kind, each) for each in given[kind]["dataPoints"]]
        delta = export.AggregationTemporality.DELTA
        data = export.Sum(points, delta, True) if kind == "sum" else export.Histogram(points, delta)
        return export.Metric(given["name"], "", given["unit"], data)

    (resource,) = request["resourceMetrics"]
    (scope,) = resource["scopeMetrics"]
    metrics = [metric(each) for each in scope["metrics"]]
    scopes = [export.ScopeMetrics(InstrumentationScope("n"), metrics, "")]
    return export.MetricsData([export.ResourceMetrics(Resource({}), scopes, "")])
