"""Atlassian's published sample, through the whole line: nothing changes but what conform names."""

from __future__ import annotations

import json

import msgspec
import pytest

from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.endpoint import HTTP_JSON, PROTOCOLS, Endpoint, metrics_url
from airflow_provider_forge.otlp.messages import decode
from airflow_provider_forge.otlp.requests import encode_request
from airflow_provider_forge.payload.anomalies import Anomalies, find_anomalies
from airflow_provider_forge.payload.conform import Identity, conform
from tests.otlp.building import protobuf_points, reference, text

FIRST_APP, FIRST_ENVIRONMENT = "a11dfa0b-cf2c-44d1-9080-5c3944961223", "6f5f56e9-55c0-4551-9247-ee1484340f64"
SECOND_APP, SECOND_ENVIRONMENT = (
    "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57",
    "8cb293d5-be08-47ae-a75c-95b89da5ad1d",
)

PATH = ("data", "ecosystem", "forgeMetrics", "appMetrics", "resourceMetrics")


def cut(sample: bytes) -> bytes:
    """Return the bytes of `resourceMetrics`, as they stand in the answer."""
    for name in PATH:
        sample = msgspec.json.decode(sample, type=dict[str, msgspec.Raw])[name]
    return bytes(sample)


def resource(app: str, environment: str, name: str) -> dict:
    return {
        "attributes": [
            text("atlassian.forge.app.id", app),
            text("atlassian.forge.environment.id", environment),
            text("deployment.environment.name", name),
            text("service.instance.id", environment),
            text("service.name", f"forge-app-{app}"),
            text("service.namespace", "atlassian-forge"),
        ]
    }


def conformed_by_hand(sample: bytes) -> list[dict]:
    """Return the sample with the changes that conform.md names, and no other."""
    (entry,) = json.loads(sample)["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]["resourceMetrics"]
    (scope_metrics,) = entry["scopeMetrics"]
    requests, invocations, errors = scope_metrics["metrics"]
    for metric, unit in ((requests, "{request}"), (invocations, "{invocation}"), (errors, "{error}")):
        assert metric["unit"] == "s"
        assert "isMonotonic" not in metric["sum"]
        metric["unit"] = unit
        metric["sum"]["isMonotonic"] = True
    return [
        {
            "resource": resource(app, environment, name),
            "schemaUrl": "https://opentelemetry.io/schemas/1.27.0",
            "scopeMetrics": [{"scope": {"name": "atlassian.forge.app_metrics"}, "metrics": metrics}],
        }
        for app, environment, name, metrics in (
            (FIRST_APP, FIRST_ENVIRONMENT, "staging", [requests]),
            (SECOND_APP, SECOND_ENVIRONMENT, "production", [invocations, errors]),
        )
    ]


@pytest.fixture
def identity() -> Identity:
    environments = {FIRST_ENVIRONMENT: "staging", SECOND_ENVIRONMENT: "production"}
    return Identity(SECOND_APP, environments=environments)


def send(export, sink, protocol):
    with OtlpClient(Endpoint(metrics_url(sink.url), protocol=protocol)) as client:
        client.export(export)
    (request,) = sink.requests
    return request


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_sample_arrives_with_only_the_documented_changes(sample, identity, sink, protocol):
    export = encode_request(conform(decode(cut(sample)), identity), protocol)
    request = send(export, sink, protocol)
    assert request.message == reference(conformed_by_hand(sample))
    assert (export.points, sink.summary()["points"]) == (3, 3)
    if protocol == HTTP_JSON:
        assert json.loads(request.body) == {"resourceMetrics": conformed_by_hand(sample)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_its_points_are_the_published_ones(sample, identity, sink, protocol):
    request = send(encode_request(conform(decode(cut(sample)), identity), protocol), sink, protocol)
    assert protobuf_points(request.message) == protobuf_points(reference(json.loads(cut(sample))))


def test_the_request_describes_the_content_of_the_sample(sample, identity):
    export = encode_request(conform(decode(cut(sample)), identity), HTTP_JSON)
    assert export.metrics == (
        "forge_api_request_count",
        "forge_backend_invocation_count",
        "forge_backend_invocation_errors",
    )
    assert (export.start, export.end) == (1687489020000000000, 1698720900000000000)


def test_nothing_about_the_sample_is_odd(sample):
    assert find_anomalies(decode(cut(sample))) == Anomalies()


def test_unconformed_json_arrives_byte_for_byte(sample, sink):
    raw = cut(sample)
    assert b"\n  " in raw
    assert raw in sample
    request = send(encode_request(decode(raw), HTTP_JSON, verbatim=raw), sink, HTTP_JSON)
    assert request.body == b'{"resourceMetrics":%b}' % raw


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unconformed_is_the_published_message(sample, sink, protocol):
    raw = cut(sample)
    request = send(encode_request(decode(raw), protocol, verbatim=raw), sink, protocol)
    assert request.message == reference(json.loads(raw))
