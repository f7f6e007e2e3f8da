"""The measured steps from a response's bytes to a request's: this package's, and alternatives."""

from __future__ import annotations

import datetime as dt
import functools
import gzip
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pendulum
from google.protobuf import json_format
from isal import igzip
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from zlib_ng import gzip_ng

from airflow_provider_forge.archive.archive import Archive
from airflow_provider_forge.archive.sources import Archivist
from airflow_provider_forge.archive.storage import Storage
from airflow_provider_forge.gateway.client import AppMetrics
from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.gateway.responses import MetricsData, read_resource_metrics, read_response
from airflow_provider_forge.otlp.client import compress
from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF
from airflow_provider_forge.payload.conform import Identity
from airflow_provider_forge.payload.dict_payload import DictPayload
from airflow_provider_forge.payload.payload import ReadOptions
from airflow_provider_forge.payload.reader import read
from airflow_provider_forge.windows import Window
from benchmarks import response

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from airflow_provider_forge.otlp.requests import ExportRequest

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc)
IDENTITY = Identity(response.APP, environments=dict.fromkeys(response.ENVIRONMENTS))

Source = tuple["bytes | msgspec.Raw", ReadOptions]
Steps = list[tuple[str, "Callable[[], Any]"]]


def source(body: bytes, protocol: str, *, conform: bool = True, recorded: bool = True) -> Source:
    """Return the payload that the gateway's client reads from a response, and how to read it."""
    identity = IDENTITY if conform else None
    return metrics_of(body), ReadOptions(response.ENVIRONMENTS, response.MINUTE, identity, protocol, recorded)


def metrics_of(body: bytes) -> msgspec.Raw:
    """Return the metrics in a response, as a slice of it."""
    answer = read_response(
        httpx.Response(200, content=body), MetricsData, now=NOW, secrets=(), splittable=True
    )
    return read_resource_metrics(answer)


def request(given: Source) -> ExportRequest:
    """Return one request with all points, including fingerprints and the check for anomalies."""
    payload = read(*given)
    _ = payload.fingerprints, payload.anomalies
    return payload.build_request(range(payload.count))


def compressed(given: Source) -> bytes:
    """Return the compressed request body."""
    return compress(request(given).chunks)


def ours(body: bytes) -> Steps:
    """Return the steps of this package; those named in `TARGETS` are complete paths."""

    def passed_through() -> bytes:
        payload = read(*source(body, HTTP_JSON, conform=False, recorded=False))
        return payload.build_request(range(payload.count)).body

    return [
        ("slice and check syntax", lambda: source(body, HTTP_JSON)),
        ("pass-through", passed_through),
        (
            "pass-through + placeholders for fingerprints",
            lambda: request(source(body, HTTP_JSON, conform=False, recorded=False)).body,
        ),
        ("pass-through + fingerprints", lambda: request(source(body, HTTP_JSON, conform=False)).body),
        ("conform + fingerprints + JSON", lambda: request(source(body, HTTP_JSON)).body),
        ("conform + fingerprints + protobuf", lambda: request(source(body, HTTP_PROTOBUF)).body),
        ("conform + fingerprints + protobuf + gzip", lambda: compressed(source(body, HTTP_PROTOBUF))),
    ]


def archived(body: bytes) -> bytes:
    """Return a protobuf request for a window whose response is archived in a directory before."""
    start = pendulum.from_timestamp(60 * response.MINUTE)
    metrics = AppMetrics(
        response.APP,
        Window(start, start.add(minutes=response.MINUTES)),
        tuple(Environment(each, each) for each in response.ENVIRONMENTS),
        DEFAULT_METRICS,
        metrics_of(body),
        request_id=None,
        elapsed=0.0,
        waited=0.0,
    )
    with tempfile.TemporaryDirectory() as directory:
        if not Archivist(Archive(Storage(Path(directory)))).keep(metrics):
            raise RuntimeError("nothing was archived")
    payload = (
        metrics.text,
        ReadOptions(response.ENVIRONMENTS, response.MINUTE, IDENTITY, HTTP_PROTOBUF, recorded=True),
    )
    return request(payload).body


def one_point_per_series(points: int) -> bytes:
    """Return a protobuf request for a window of one minute: nothing can be cached per series."""
    return request(source(response.response_body(points, minutes=1), HTTP_PROTOBUF)).body


EXEMPLAR = {"timeUnixNano": "1795410000000000000", "asDouble": 1.5, "spanId": "00f067aa0ba902b7"}
AROUND = "an unknown field and a null around points"
UNUSUAL = {
    "an exemplar": {"exemplars": [EXEMPLAR]},
    "a null": {"flags": None},
    "an unknown field": {"future": 1},
    "an invalid value": {"asInt": "many"},
}


def unusual(points: int) -> Steps:
    """Return steps to protobuf requests from responses with one unusual point or metric."""

    def step(body: bytes) -> Callable[[], bytes]:
        return lambda: request(source(body, HTTP_PROTOBUF)).body

    bodies = {name: response.unusual_body(points, **fields) for name, fields in UNUSUAL.items()}
    bodies[AROUND] = response.unusual_metric_body(points)
    return [(name, step(body)) for name, body in bodies.items()]


def others(body: bytes) -> Steps:
    """Return alternatives: this package's fallback, protobuf's own JSON reader, and the SDK's encoder."""

    def complete() -> bytes:
        payload = DictPayload(*source(body, HTTP_PROTOBUF))
        _ = payload.anomalies
        return payload.build_request(range(payload.count)).body

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
        ("the complete path: conform + fingerprints + protobuf", complete),
        (
            "json_format.Parse, serialize",
            lambda: json_format.Parse(text(), ExportMetricsServiceRequest()).SerializeToString(),
        ),
        (
            "the OpenTelemetry SDK's encoder, from existing objects",
            lambda: encode_metrics(objects()).SerializeToString(),
        ),
    ]


def compressions(body: bytes) -> Steps:
    """Return steps that gzip the protobuf request, for several libraries and levels."""

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
    """Return the points as objects of the OpenTelemetry SDK."""
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
