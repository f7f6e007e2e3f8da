from __future__ import annotations

import pytest

from airflow_provider_forge.sandbox import Fault
from airflow_provider_forge.sandbox.catalogue import METRICS
from tests.sandbox.asking import END, NOW, START, export_request

WINDOW = {"start": START.isoformat(), "end": END.isoformat().replace("+00:00", "Z")}


def get(client, path, **parameters):
    # No credentials, no headers.
    return client.http.get(client.gateway.url.replace("/graphql", path), params=parameters)


def test_the_truth_is_available_over_http(client):
    client.metrics()
    ask = {**WINDOW, "environment": "production", "metric": "FORGE_BACKEND_INVOCATION_COUNT"}
    points = client.gateway.generated(
        START, END, environments=["production"], metrics=["FORGE_BACKEND_INVOCATION_COUNT"]
    )
    expected = [point.to_json() for point in points]
    assert get(client, "/sandbox/truth", kind="generated", **ask).json() == expected
    assert get(client, "/sandbox/truth", kind="served", **ask).json() == expected
    visible = get(client, "/sandbox/truth", kind="visible", at=NOW.isoformat(), **ask).json()
    assert visible == expected
    assert get(client, "/sandbox/truth", kind="visible", at=START.isoformat(), **ask).json() == []


def test_a_summary_has_numbers_of_points_and_totals(client):
    client.metrics(metrics=list(METRICS))
    summary = get(client, "/sandbox/truth", environment="production", **WINDOW).json()
    assert summary["generated"] == summary["served"]
    points = client.gateway.generated(START, END, environments=["production"])
    for metric in METRICS.values():
        assert summary["generated"][metric.name]["points"] == sum(
            each.metric == metric.name for each in points
        )
    count, latency = (summary["generated"][f"forge_api_request_{name}"] for name in ("count", "latency"))
    assert count["total"] == latency["total"] > 0


def test_the_truth_about_another_app(client):
    app = "ari:cloud:ecosystem::app/11111111-2222-4333-8444-555555555555"
    found = get(client, "/sandbox/truth", kind="generated", app=app, **WINDOW).json()
    assert found == [point.to_json() for point in client.gateway.generated(START, END, app_id=app)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "invented"},
        {"start": ""},
        {"end": "2026-03-10T10:00"},
        {"environment": "x"},
        {"kind": "visible"},
    ],
)
def test_a_wrong_question_is_answered_with_400(client, wrong):
    assert get(client, "/sandbox/truth", **{**WINDOW, **wrong}).status_code == 400


def test_calls_can_be_read(client):
    client.metrics()
    (call,) = get(client, "/sandbox/calls").json()
    assert call == client.gateway.calls[0].to_json() | {
        "environments": [client.environment_id("production")],
        "metrics": ["FORGE_BACKEND_INVOCATION_COUNT"],
    }
    assert call["start"] == START.isoformat()


def test_faults_can_be_added_and_cleared_on_both(client, sink):
    for server, url in ((client.gateway, client.gateway.url.replace("/graphql", "")), (sink, sink.url)):
        url += "/sandbox/faults"
        added = client.http.post(url, json={"kind": "status", "status": 500, "calls": [2]})
        assert [Fault.from_json(each) for each in added.json()] == server.faults
        assert server.faults == [Fault("status", status=500, calls=frozenset({2}))]
        assert client.http.post(url, json={"kind": "nonsense"}).status_code == 400
        assert client.http.get(url).json() == added.json()
        assert client.http.delete(url).json() == server.faults == []


def test_the_sink_can_be_read_from_outside(http, sink):
    body = export_request(points=3).SerializeToString()
    http.post(f"{sink.url}/v1/metrics", content=body, headers={"Content-Type": "application/x-protobuf"})
    assert http.get(f"{sink.url}/sandbox/points").json() == [point.to_json() for point in sink.points]
    assert http.get(f"{sink.url}/sandbox/summary").json() == {
        "requests": 1,
        "refused": 0,
        "points": 3,
        "rejected": 0,
        "bytes": len(body),
        "metrics": {"forge_api_request_count": {"points": 3, "total": 3}},
    }


def test_both_describe_themselves_and_the_control_plane_is_never_counted(client, sink):
    about = get(client, "/").json()
    assert "gateway" in about["what"]
    assert about["app_id"] == client.gateway.app_id
    assert "OTLP" in client.http.get(sink.url).json()["what"]
    assert get(client, "/elsewhere").status_code == 404
    assert client.gateway.calls == []
    assert sink.summary()["requests"] == 0
