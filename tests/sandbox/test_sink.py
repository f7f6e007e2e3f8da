from __future__ import annotations

import gzip
from collections import Counter

import httpx
import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from airflow_provider_forge.sandbox import Fault, OtlpSink, SinkResource, points_of
from tests.sandbox.asking import export_request, points_of_answer

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}


def export(http, sink, request=None, headers=PROTOBUF, **more):
    body = (request or export_request()).SerializeToString()
    return http.post(f"{sink.url}/v1/metrics", content=body, headers={**headers, **more})


def test_protobuf_and_json_plain_and_gzip_give_the_same_points(http, sink):
    request = export_request()
    bodies = [(PROTOBUF, request.SerializeToString()), (JSON, MessageToJson(request).encode())]
    url = f"{sink.url}/v1/metrics"
    for headers, body in bodies:
        assert http.post(url, content=body, headers=headers).status_code == 200
        gzipped = {**headers, "Content-Encoding": "gzip"}
        assert http.post(url, content=gzip.compress(body), headers=gzipped).status_code == 200
    assert [kept.points for kept in sink.requests] == [points_of(request.resource_metrics)] * 4
    assert [(kept.content_type, kept.content_encoding) for kept in sink.requests] == [
        *(("application/x-protobuf", ""), ("application/x-protobuf", "gzip")),
        *(("application/json", ""), ("application/json", "gzip")),
    ]
    assert [kept.body for kept in sink.requests] == [bodies[0][1], bodies[0][1], bodies[1][1], bodies[1][1]]
    assert all(kept.message == request for kept in sink.requests)
    assert Counter(sink.points) == Counter(points_of(request.resource_metrics) * 4)


def test_exemplars_have_their_ids_in_hex_in_json(http, sink):
    exemplar = {"asInt": "1", "traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708"}
    metric = {"name": "m", "sum": {"dataPoints": [{"asInt": "1", "exemplars": [exemplar]}]}}
    body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    assert http.post(f"{sink.url}/v1/metrics", json=body).status_code == 200
    (point,) = sink.points
    assert point.data().exemplars[0].trace_id == bytes(range(1, 17))


@pytest.mark.parametrize("body", [b"{", b"[]", b"5", b'{"resourceMetrics":[{"traceId":5}]}', b"\xff"])
def test_json_that_is_not_otlp_is_refused(http, sink, body):
    assert http.post(f"{sink.url}/v1/metrics", content=body, headers=JSON).status_code == 400


def test_a_body_may_be_chunked(http, sink):
    body = export_request().SerializeToString()
    response = http.post(
        f"{sink.url}/v1/metrics", content=iter([body[:9], body[9:20], body[20:]]), headers=PROTOBUF
    )
    assert response.status_code == 200
    assert sink.requests[0].body == body
    assert export(http, sink).status_code == 200


def test_the_gateways_response_can_be_posted_unchanged(http, sink, client):
    response = client.metrics()
    answer = response.json()["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]
    assert http.post(f"{sink.url}/v1/metrics", json=answer).status_code == 200
    assert sink.points == points_of_answer(response)


def test_the_whole_envelope_is_accepted_without_points_as_by_a_collector(http, sink, client):
    assert http.post(f"{sink.url}/v1/metrics", json=client.metrics().json()).status_code == 200
    assert sink.points == []


def test_success_is_reported_in_the_encoding_of_the_request(http, sink):
    protobuf = export(http, sink)
    assert (protobuf.headers["Content-Type"], protobuf.content) == ("application/x-protobuf", b"")
    json = http.post(f"{sink.url}/v1/metrics", content="{}", headers=JSON)
    assert (json.headers["Content-Type"], json.json()) == ("application/json", {})


def test_headers_and_resources_are_kept(http, sink):
    export(http, sink, **{"Api-Key": "canary"})
    export(http, sink)
    assert sink.requests[0].headers["api-key"] == "canary"
    assert sink.resources == [
        SinkResource({"service.name": "forge"}, "scope", "1", "https://opentelemetry.io/schemas/1.9.0")
    ]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, b"{}", 415),
        ({}, b"", 415),
        ({**PROTOBUF, "Content-Encoding": "zstd"}, b"", 415),
        ({**PROTOBUF, "Content-Encoding": "gzip"}, b"no gzip", 400),
        ({**PROTOBUF, "Content-Encoding": "gzip"}, gzip.compress(b"")[:-3], 400),
        (PROTOBUF, b"\xff", 400),
        (JSON, b"{", 400),
        (JSON, b"\xff", 400),
    ],
)
def test_an_unreadable_body_is_refused(http, sink, headers, body, status):
    response = http.post(f"{sink.url}/v1/metrics", content=body, headers=headers)
    assert response.status_code == status
    assert sink.requests == []
    assert sink.summary()["refused"] == 1


def test_a_body_is_measured_without_its_compression(http):
    body = export_request(points=100).SerializeToString()
    with OtlpSink(max_body_bytes=len(body) - 1) as sink:
        gzipped = {**PROTOBUF, "Content-Encoding": "gzip"}
        url = f"{sink.url}/v1/metrics"
        assert http.post(url, content=gzip.compress(body), headers=gzipped).status_code == 400
        assert export(http, sink, export_request(points=99)).status_code == 200


def test_only_posts_of_metrics_are_accepted(http, sink):
    assert http.get(f"{sink.url}/v1/metrics").status_code == 405
    assert http.post(f"{sink.url}/v1/traces", content=b"", headers=PROTOBUF).status_code == 404


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
def test_partial_success(http, sink, headers):
    sink.add_fault(Fault("partial_success", rejected=2, message="too old"))
    body = export_request(points=5)
    content = MessageToJson(body).encode() if headers is JSON else body.SerializeToString()
    response = http.post(f"{sink.url}/v1/metrics", content=content, headers=headers)
    assert response.status_code == 200
    if headers is JSON:
        assert response.json() == {"partialSuccess": {"rejectedDataPoints": "2", "errorMessage": "too old"}}
    else:
        partial = ExportMetricsServiceResponse.FromString(response.content).partial_success
        assert (partial.rejected_data_points, partial.error_message) == (2, "too old")
    assert sink.points == points_of(body.resource_metrics)[:3]
    summary = sink.summary()
    assert (summary["points"], summary["rejected"]) == (3, 2)


@pytest.mark.parametrize(
    ("fault", "status", "kept"),
    [
        (Fault("status", status=429, retry_after="3"), 429, 0),
        (Fault("status", body=""), 503, 0),
        (Fault("html"), 503, 0),
        (Fault("redirect"), 307, 0),
        (Fault("empty"), 200, 3),
        (Fault("body", body="\n\x00"), 200, 3),
        (Fault("slow", seconds=0.01), 200, 3),
    ],
)
def test_responses_and_the_points_kept(http, sink, fault, status, kept):
    sink.add_fault(fault)
    response = export(http, sink)
    assert response.status_code == status
    assert response.headers.get("Retry-After") == fault.retry_after
    if fault.body is not None or fault.kind == "empty":
        assert response.text == (fault.body or "")
    assert len(sink.points) == sink.summary()["points"] == kept


@pytest.mark.parametrize(
    ("kind", "kept"), [("reset", 0), ("reset_before", 0), ("reset_after", 3), ("truncate", 3)]
)
def test_broken_connections_and_the_points_kept(http, sink, kind, kept):
    sink.add_fault(Fault("partial_success", rejected=0, calls={2}))
    sink.add_fault(Fault(kind, calls={1}))
    # An empty response cannot be truncated; in JSON, a success is at least {}.
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        http.post(f"{sink.url}/v1/metrics", content=MessageToJson(export_request()), headers=JSON)
    assert len(sink.points) == kept
    assert export(http, sink).status_code == 200
    assert len(sink.points) == kept + 3


@pytest.mark.parametrize(("kind", "kept"), [("hang", 0), ("hang_after", 3)])
def test_no_response_and_the_points_kept(http, sink, kind, kept):
    sink.add_fault(Fault(kind))
    with pytest.raises(httpx.ReadTimeout):
        http.post(
            f"{sink.url}/v1/metrics",
            content=export_request().SerializeToString(),
            headers=PROTOBUF,
            timeout=0.2,
        )
    assert len(sink.points) == kept


def test_faults_and_memory_can_be_cleared(http, sink):
    sink.add_fault(Fault("status"))
    assert export(http, sink).status_code == 503
    sink.clear_faults()
    assert export(http, sink).status_code == 200
    sink.clear()
    assert sink.points == sink.requests == []
    assert set(sink.summary().values()) == {0}


def own_metrics(points: int = 2) -> ExportMetricsServiceRequest:
    request = export_request(points=points)
    request.resource_metrics[0].scope_metrics[0].scope.name = "airflow_provider_forge"
    return request


def test_the_exporter_s_own_metrics_are_kept_and_counted_apart(http, sink):
    export(http, sink, own_metrics())
    assert sink.requests == sink.points == sink.resources == []
    assert set(sink.summary().values()) == {0}
    [request] = sink.telemetry
    assert len(request.telemetry) == 2
    assert request.points == []
    assert len(http.get(f"{sink.url}/sandbox/telemetry").json()) == 2
    sink.clear()
    assert sink.telemetry == []


def test_requests_that_a_collector_has_batched_are_separated(http, sink):
    together = export_request(points=3)
    together.resource_metrics.extend(own_metrics().resource_metrics)
    export(http, sink, together)
    assert sink.summary()["points"] == len(sink.points) == 3
    assert [len(request.telemetry) for request in sink.telemetry] == [2]
    assert [resource.scope_name for resource in sink.resources] == ["scope"]


def test_only_a_fault_that_names_them_hits_the_exporter_s_own_metrics(http, sink):
    sink.add_fault(Fault("status", calls={1}))
    assert export(http, sink, own_metrics()).status_code == 200
    assert export(http, sink).status_code == 503
    sink.add_fault(Fault("status", operation="telemetry"))
    assert export(http, sink).status_code == 200
    assert export(http, sink, own_metrics()).status_code == 503
