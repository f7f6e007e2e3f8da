from __future__ import annotations

import contextlib
import copy
import json
import logging

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF, PROTOCOLS
from airflow_provider_forge.otlp.messages import MalformedOtlp, count_points, decode
from airflow_provider_forge.otlp.requests import encode_request
from airflow_provider_forge.payload.anomalies import find_anomalies
from airflow_provider_forge.payload.conform import Identity, conform
from tests.otlp.building import (
    APP,
    almost_otlp,
    any_json,
    entry,
    exhaustively,
    gauge,
    metric,
    otlp_json,
    point,
    reference,
)

TRACE_ID, SPAN_ID = "5b8efff798038103d269b633813fc60c", "EEE19B7EC3C1B174"


def message_of(export) -> ExportMetricsServiceRequest:
    """Decode a request as a receiver does."""
    if export.protocol == HTTP_JSON:
        return reference(json.loads(export.body)["resourceMetrics"])
    return ExportMetricsServiceRequest.FromString(export.body)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@exhaustively
@given(resource_metrics=otlp_json)
def test_every_message_equals_the_result_of_protobufs_own_reader(protocol, resource_metrics):
    before = copy.deepcopy(resource_metrics)
    export = encode_request(resource_metrics, protocol)
    assert message_of(export).SerializeToString() == reference(before).SerializeToString()
    assert resource_metrics == before
    assert export.points == count_points(before)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@exhaustively
@given(given=any_json | almost_otlp())
def test_any_json_is_encoded_or_malformed(protocol, given):
    text = json.dumps(given).encode()
    with contextlib.suppress(MalformedOtlp):
        resource_metrics = decode(text)
        find_anomalies(resource_metrics)
        encode_request(resource_metrics, protocol, verbatim=text)
        encode_request(conform(resource_metrics, Identity(APP)), protocol)


@pytest.mark.parametrize("depth", [10, 40, 200, 400, 900])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_within_values_are_encoded_or_malformed(protocol, depth):
    value = b'{"arrayValue":{"values":[' * depth + b"{}" + b"]}}" * depth
    attributes = b'[{"key":"deep","value":%b}]' % value
    text = b'[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"attributes":%b}]}}]}]}]' % attributes
    try:
        assert encode_request(conform(decode(text), Identity(APP)), protocol).points == 1
    except MalformedOtlp:
        # Protobuf reads no more than 100 messages within each other.
        assert depth > 40


def test_json_keeps_unknown_fields_and_every_number_as_received():
    resource_metrics = [
        {
            "future": {"a": None},
            **entry(gauge("n", {"asInt": 9007199254740993, "timeUnixNano": "1", "tomorrow": [1, 1.0, -0.0]})),
        }
    ]
    body = encode_request(resource_metrics, HTTP_JSON).body
    assert body == b'{"resourceMetrics":%b}' % msgspec.json.encode(resource_metrics)
    assert b'"tomorrow":[1,1.0,-0.0]' in body
    assert b'"asInt":9007199254740993' in body


def test_verbatim_json_goes_out_byte_for_byte(sample):
    text = b' [ {"scopeMetrics" :\n[{"metrics":[{"name":"\\u00fc","sum":{"dataPoints":[{"asInt":1.0}]}}]}]} ]'
    assert encode_request(decode(text), HTTP_JSON, verbatim=text).body == b'{"resourceMetrics":%b}' % text


def test_verbatim_is_for_json_only():
    text = b'[{"scopeMetrics":[]}]'
    assert encode_request(decode(text), HTTP_PROTOBUF, verbatim=text) == encode_request(
        decode(text), HTTP_PROTOBUF
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_describes_its_content(protocol):
    export = encode_request(
        [
            entry(
                metric("b", {"timeUnixNano": "300"}, {"timeUnixNano": 200}),
                gauge("a", {"timeUnixNano": "250"}),
            ),
            entry(metric("b", {"timeUnixNano": "400", "startTimeUnixNano": "1"})),
        ],
        protocol,
    )
    assert export.protocol == protocol
    assert (export.points, export.metrics, export.start, export.end) == (4, ("b", "a"), 200, 400)


@pytest.mark.parametrize(("protocol", "body"), [(HTTP_JSON, b'{"resourceMetrics":[]}'), (HTTP_PROTOBUF, b"")])
def test_nothing_is_an_empty_request(protocol, body):
    export = encode_request([], protocol)
    assert (export.body, export.points, export.metrics, export.start, export.end) == (body, 0, (), 0, 0)


def with_exemplar(**fields) -> list[dict]:
    return [entry(gauge("n", {"exemplars": [{"asInt": "1", **fields}]}))]


def exemplar_in(export):
    (resource,) = message_of(export).resource_metrics
    return resource.scope_metrics[0].metrics[0].gauge.data_points[0].exemplars[0]


def test_the_hex_ids_of_exemplars_become_bytes_in_protobuf():
    exemplar = exemplar_in(encode_request(with_exemplar(traceId=TRACE_ID, spanId=SPAN_ID), HTTP_PROTOBUF))
    assert exemplar.trace_id == bytes.fromhex(TRACE_ID)
    assert exemplar.span_id == bytes.fromhex(SPAN_ID)


def test_the_hex_ids_of_exemplars_stay_hex_in_json():
    body = json.loads(encode_request(with_exemplar(traceId=TRACE_ID, spanId=SPAN_ID), HTTP_JSON).body)
    assert body["resourceMetrics"] == with_exemplar(traceId=TRACE_ID, spanId=SPAN_ID)


@pytest.mark.parametrize("ids", [{}, {"traceId": None}, {"traceId": "", "spanId": ""}])
def test_exemplars_need_no_ids(ids):
    exemplar = exemplar_in(encode_request(with_exemplar(**ids), HTTP_PROTOBUF))
    assert (exemplar.trace_id, exemplar.span_id, exemplar.as_int) == (b"", b"", 1)


@pytest.mark.parametrize("wrong", ["xyz", "abc", 1, ["ab"], "W47/95gDgQPSabYzgT/GDA=="])
def test_an_id_that_is_not_hex_is_malformed(wrong):
    with pytest.raises(MalformedOtlp, match="id"):
        encode_request(with_exemplar(traceId=wrong), HTTP_PROTOBUF)


@pytest.mark.parametrize(
    "unknown",
    [
        {**entry(metric("n", point(asInt=7))), "future": 1},
        entry(metric("n", point(asInt=7)), future={"a": 1}),
        entry({**metric("n", point(asInt=7)), "future": []}),
        entry(metric("n", point(asInt=7, future="x"))),
        entry(metric("n", point(asInt=7)), {"name": "m", "sketch": {"dataPoints": [{}]}}),
    ],
)
def test_protobuf_logs_an_omitted_unknown_field_and_sends_the_rest(unknown, caplog):
    with caplog.at_level(logging.WARNING):
        export = encode_request([unknown], HTTP_PROTOBUF)
    (resource,) = message_of(export).resource_metrics
    (data_point,) = resource.scope_metrics[0].metrics[0].sum.data_points
    assert MessageToDict(data_point) == point(asInt="7")
    (record,) = caplog.records
    assert "http/json keeps it" in record.getMessage()
    assert ("future" in record.getMessage()) != ("sketch" in record.getMessage())


def test_known_fields_are_not_logged(caplog):
    encode_request([entry(metric("n", point(asInt=7)))], HTTP_PROTOBUF)
    assert not caplog.records


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopeMetrics": {}},
        {"scopeMetrics": [{"metrics": "x"}]},
        entry({"name": "n", "sum": []}),
        entry(gauge("n", {"timeUnixNano": "today"})),
        entry(gauge("n", {"timeUnixNano": str(2**64)})),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_malformed_in_either_protocol(protocol, wrong):
    with pytest.raises(MalformedOtlp):
        encode_request([wrong], protocol)


@pytest.mark.parametrize(
    "wrong",
    [
        entry({"name": 1}),
        entry({"name": "n", "gauge": {}, "sum": {}}),
        entry(gauge("n", {"asInt": 2**63})),
        entry(gauge("n", {"asInt": "1.5"})),
        entry(gauge("n", {"asDouble": "many"})),
        entry(gauge("n", {"asInt": 1, "asDouble": 1.0})),
        entry(gauge("n", {"attributes": [{"key": "k", "value": "bare"}]})),
    ],
)
def test_malformed_for_protobuf(wrong):
    with pytest.raises(MalformedOtlp, match="OTLP/JSON"):
        encode_request([wrong], HTTP_PROTOBUF)
