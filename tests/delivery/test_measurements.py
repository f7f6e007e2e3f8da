"""The exporter's own metrics on their way: what goes out, and what becomes of it where nobody takes it."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

import pytest

from airflow_provider_forge.delivery import telemetry as own
from airflow_provider_forge.delivery.telemetry import Measurement, Reporter, encode_measurements
from airflow_provider_forge.otlp.endpoint import PROTOCOLS, metrics_url
from airflow_provider_forge.sandbox import Fault, OtlpSink
from tests.otlp.endpoints import endpoint_of

APP, OTHER = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57", "11111111-d82c-45e2-b4fb-c6a0751d7d57"
REPORTER = Reporter(APP, "forge_metrics")
START, NOW = 1_795_410_000_000_000_000, 1_795_410_001_000_000_000
DOCUMENT = Path(__file__).parents[2] / "docs" / "telemetry.md"
CANARY = "hunter2-canary"
MEASURED = [
    Measurement(own.HEARTBEAT, 1),
    Measurement(own.LAG, 312.5),
    Measurement(own.POINTS, 7, {own.OUTCOME: "sent"}),
    Measurement(own.POINTS, 0, {own.OUTCOME: "rejected"}),
    Measurement(own.WAIT, 0.0),
]


@pytest.fixture
def sink():
    with OtlpSink() as running:
        yield running


def send(url, measured=MEASURED, **settings):
    settings = {"headers": {"Authorization": f"Bearer {CANARY}"}, **settings}
    return own.send_measurements(endpoint_of(metrics_url(url), **settings), measured, REPORTER, start=START)


def by_name(request):
    [resource] = request.message.resource_metrics
    [scope] = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_telemetry_is_one_request_in_the_endpoints_protocol(sink, protocol):
    before = time.time_ns()
    assert send(sink.url, protocol=protocol, compression="none")
    [request] = sink.telemetry
    assert ("json" in request.content_type) == ("json" in protocol)
    metrics = by_name(request)
    [heartbeat] = metrics["forge.exporter.heartbeat"].gauge.data_points
    assert (heartbeat.as_int, heartbeat.start_time_unix_nano) == (1, 0)
    assert before <= heartbeat.time_unix_nano <= time.time_ns()
    assert metrics["forge.exporter.lag"].gauge.data_points[0].as_double == 312.5
    points = metrics["forge.exporter.points"].sum
    assert (points.aggregation_temporality, points.is_monotonic) == (1, True)
    assert [point.as_int for point in points.data_points] == [7, 0]
    assert {point.start_time_unix_nano for point in points.data_points} == {START}
    assert metrics["forge.exporter.wait"].sum.data_points[0].WhichOneof("value") == "as_double"
    assert metrics["forge.exporter.points"].unit == "{point}"
    assert metrics["forge.exporter.points"].description


def test_a_series_is_one_app_in_one_dag_and_nothing_else(sink):
    send(sink.url)
    [resource] = sink.telemetry[0].message.resource_metrics
    assert {each.key: each.value.string_value for each in resource.resource.attributes} == {
        "atlassian.forge.app.id": APP,
        "service.instance.id": APP,
        "service.name": "airflow-provider-forge",
        "service.namespace": "atlassian-forge",
    }
    [scope] = resource.scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("airflow_provider_forge", "")
    attributes = {point.attributes for point in sink.telemetry[0].telemetry}
    of_dag = ("forge.exporter.dag.id", "forge_metrics")
    assert attributes == {
        (of_dag,),
        (of_dag, ("forge.exporter.outcome", "rejected")),
        (of_dag, ("forge.exporter.outcome", "sent")),
    }


def test_a_point_ends_after_it_begins_even_if_the_clock_stands_still(sink, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: START)
    send(sink.url)
    assert {point.time for point in sink.telemetry[0].telemetry} == {START + 1}


def test_two_apps_are_two_resources():
    resources = {
        bytes(encode_measurements(MEASURED, Reporter(app, "dag"), "http/protobuf", start=START, now=NOW).body)
        for app in (APP, OTHER)
    }
    assert len(resources) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -1])
def test_a_value_that_receivers_refuse_is_refused_here(value):
    with pytest.raises(ValueError, match=r"forge.exporter.wait cannot be"):
        Measurement(own.WAIT, value)


def test_a_gauge_may_be_below_zero():
    assert Measurement(own.TOKEN_EXPIRY, -3.5).value == -3.5


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", status=503, retry_after="600", operation="telemetry"), "answered 503"),
        (Fault("status", status=400, operation="telemetry"), "answered 400"),
        (Fault("partial_success", rejected=2, message="no", operation="telemetry"), "rejected 2 of 5 points"),
        (Fault("html", status=200, operation="telemetry"), "HTML"),
        (Fault("reset", operation="telemetry"), "No answer from"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_refused_telemetry_is_logged_once_and_not_sent_again(sink, caplog, fault, said):
    sink.add_fault(fault)
    asked = []
    respond = sink.respond
    sink.respond = lambda request: asked.append(request) or respond(request)
    assert not send(sink.url)
    assert len(asked) == 1
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert said in record.getMessage()
    assert "telemetry=False" in record.getMessage()
    assert "tried again" not in record.getMessage()


def test_a_receiver_that_is_not_there_raises_nothing_and_shows_no_secret(sink, caplog):
    with OtlpSink() as gone:
        url = gone.url
    assert not send(url)
    assert "No answer from" in caplog.text
    assert CANARY not in caplog.text


def test_telemetry_has_a_shorter_timeout_than_the_apps_points(sink, monkeypatch, caplog):
    monkeypatch.setattr(own, "MAX_SECONDS", 0.2)
    sink.add_fault(Fault("hang", operation="telemetry"))
    assert not send(sink.url, timeout=3600.0)
    assert "ReadTimeout" in caplog.text


def test_telemetry_that_cannot_be_sent_raises_no_error(sink, caplog):
    def broken():
        yield Measurement(own.HEARTBEAT, 1)
        raise KeyError("a mistake of ours")

    assert not send(sink.url, broken())
    assert "KeyError" in caplog.text
    assert not sink.telemetry


def test_the_documentation_has_every_instrument_with_its_kind_and_unit():
    rows = re.findall(
        r"^\| `(forge\.exporter\.[a-z.]+)` \| ([a-z ]+) \| `([^`]+)` \|", DOCUMENT.read_text(), re.MULTILINE
    )
    instruments = [each for each in vars(own).values() if isinstance(each, own.Instrument)]
    assert len(instruments) == 14
    assert {(each.name, "delta sum" if each.adds_up else "gauge", each.unit) for each in instruments} == {
        *rows
    }
