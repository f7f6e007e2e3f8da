from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import timedelta

import httpx
import pytest

from airflow_provider_forge.sandbox import Fault, Scenario
from airflow_provider_forge.sandbox.faults import GATEWAY_KINDS, SINK_KINDS, FaultPlan
from tests.sandbox.asking import (
    END,
    METRICS_QUERY,
    PAGE_QUERY,
    START,
    app_metrics,
    points_of_answer,
    resource_metrics,
)


def answer_to(client, fault):
    client.gateway.add_fault(fault)
    return client.metrics()


def test_a_status_with_its_headers(client):
    response = answer_to(client, Fault("status", status=503, retry_after="7", rate_limit_reset="soon"))
    assert response.status_code == 503
    assert (response.headers["Retry-After"], response.headers["X-RateLimit-Reset"]) == ("7", "soon")
    assert response.headers["x-request-id"] == client.gateway.calls[0].request_id
    assert client.gateway.calls[0].outcome == "fault:status"
    assert client.gateway.served(START, END) == []


def test_an_html_body(client):
    response = answer_to(client, Fault("html", status=200))
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")
    assert response.text.startswith("<!DOCTYPE html>")


def test_a_redirect_and_a_body_of_ones_own(client):
    client.gateway.add_fault(Fault("redirect", location="https://example.com/", max_times=1))
    client.gateway.add_fault(Fault("body", body="null"))
    redirect, body = client.metrics(), client.metrics()
    assert (redirect.status_code, redirect.headers["Location"]) == (307, "https://example.com/")
    assert (body.status_code, body.text) == (200, "null")


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("reset", httpx.ReadError, "reset by peer"),
        ("reset_mid_body", httpx.ReadError, "reset by peer"),
        ("truncate", httpx.RemoteProtocolError, "without sending complete message body"),
    ],
)
def test_broken_connections(client, kind, error, message):
    with pytest.raises(error, match=message):
        answer_to(client, Fault(kind, max_times=1))
    assert client.gateway.served(START, END) == []
    assert resource_metrics(client.metrics())


def test_a_hanging_response_ends_when_the_gateway_stops(client):
    client.gateway.add_fault(Fault("hang"))
    with pytest.raises(httpx.ReadTimeout):
        client.post(METRICS_QUERY, client.variables(), timeout=0.1)
    client.gateway.stop()
    with pytest.raises(httpx.ConnectError):
        client.metrics()


def test_a_hanging_response_may_end_by_itself(client):
    with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
        answer_to(client, Fault("hang", seconds=0.01))


def test_a_slow_response_is_complete(client):
    response = answer_to(client, Fault("slow", seconds=0.01))
    assert points_of_answer(response) == points_of_answer(client.metrics())
    assert client.gateway.calls[0].outcome == "fault:slow"
    assert Counter(client.gateway.served(START, END)) == Counter(points_of_answer(response) * 2)


@pytest.mark.parametrize("kind", ["errors", "errors_with_data"])
@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ("entry", {"classification": None, "errorType": "THROTTLED", "statusCode": None}),
        ("empty", {}),
        ("null", None),
    ],
)
def test_top_level_errors(client, kind, extensions, expected):
    response = answer_to(
        client,
        Fault(
            kind,
            extensions=extensions,
            error_type="THROTTLED",
            status_code=None,
            classification=None,
            message=None,
        ),
    )
    assert response.status_code == 200
    assert response.json()["errors"] == [{"message": None, "extensions": expected}]
    assert (response.json()["data"] is None) == (kind == "errors")
    assert client.gateway.served(START, END) == []


def test_errors_with_another_status_and_partial_data(client):
    response = answer_to(client, Fault("errors_with_data", status=502, level="appMetrics"))
    assert response.status_code == 502
    assert response.json()["data"] == {"ecosystem": {"forgeMetrics": {"appMetrics": None}}}
    assert response.json()["errors"]


@pytest.mark.parametrize(
    ("parts", "extensions"),
    [
        ({}, [{"statusCode": 500, "errorType": "SANDBOX_FAULT"}]),
        ({"status_code": 429, "error_type": None}, [{"statusCode": 429, "errorType": None}]),
        ({"status_code": None}, [{"statusCode": None, "errorType": "SANDBOX_FAULT"}]),
        ({"extensions": "empty"}, []),
        ({"extensions": "null"}, None),
    ],
)
def test_query_errors(client, parts, extensions):
    error = app_metrics(answer_to(client, Fault("query_error", message=None, identifier="it", **parts)))
    assert error == {"message": None, "identifier": "it", "extensions": extensions}


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("data", None),
        ("ecosystem", {"ecosystem": None}),
        ("forgeMetrics", {"ecosystem": {"forgeMetrics": None}}),
        ("appMetrics", {"ecosystem": {"forgeMetrics": {"appMetrics": None}}}),
        ("resourceMetrics", {"ecosystem": {"forgeMetrics": {"appMetrics": {"resourceMetrics": None}}}}),
    ],
)
def test_null_at_each_level(client, level, expected):
    response = answer_to(client, Fault("null", level=level))
    assert response.json()["data"] == expected
    assert "errors" not in response.json()


def test_null_finds_its_level_under_an_alias(client):
    client.gateway.add_fault(Fault("null", level="forgeMetrics"))
    query = METRICS_QUERY.replace("forgeMetrics(", "mine: forgeMetrics(")
    assert client.post(query, client.variables()).json()["data"] == {"ecosystem": {"mine": None}}


def test_duplicate_and_missing_points(client):
    client.gateway.add_fault(Fault("duplicate_points", calls={1}))
    client.gateway.add_fault(Fault("empty", calls={2}))
    twice, none, once = (points_of_answer(client.metrics()) for _ in range(3))
    assert none == []
    assert Counter(twice) == Counter(once * 2)
    assert Counter(client.gateway.served(START, END)) == Counter(once * 3)


@pytest.mark.parametrize(("channel", "status"), [("seconds", 429), ("query_error", 200)])
def test_rate_limited_without_being_over_the_limit(start_gateway, channel, status):
    client = start_gateway(Scenario(rate_limit_channel=channel))
    response = answer_to(client, Fault("rate_limited", seconds=9))
    assert response.status_code == status
    assert "429" in response.text
    assert response.headers.get("Retry-After") == ("9" if status == 429 else None)
    assert client.gateway.calls[0].outcome == "fault:rate_limited"
    assert client.gateway.violations == 0


@pytest.mark.parametrize("kind", ["errors", "query_error", "status", "null"])
def test_only_the_lookup_fails(client, kind):
    client.gateway.add_fault(Fault(kind, operation="app", status_code=403))
    lookup = client.post(PAGE_QUERY, {"id": client.gateway.app_id, "first": 1})
    assert lookup.status_code == 503 or not (lookup.json()["data"] or {}).get("app")
    assert points_of_answer(client.metrics())


def test_a_call_without_a_known_field_has_faults_too(client):
    client.gateway.add_fault(Fault("status", operation="__typename"))
    assert client.post("{ __typename }").status_code == 503
    assert client.metrics().status_code == 200


def hits(fault, count=10):
    plan = FaultPlan(GATEWAY_KINDS)
    plan.add(fault)
    return [number for number in range(1, count + 1) if plan.pick("appMetrics", (START, END))]


def test_which_calls_are_hit():
    assert hits(Fault("empty", calls=[2, 5])) == [2, 5]
    assert hits(Fault("empty", first=3)) == [1, 2, 3]
    assert hits(Fault("empty", max_times=4)) == [1, 2, 3, 4]
    assert hits(Fault("empty", operation="app")) == []


def test_a_share_of_calls_is_reproducible_and_depends_on_the_seed():
    share = hits(Fault("empty", share=0.3), 1000)
    assert share == hits(Fault("empty", share=0.3), 1000)
    assert share != hits(Fault("empty", share=0.3, seed=2), 1000)
    assert 250 < len(share) < 350


def test_which_windows_are_hit():
    second = timedelta(seconds=1)
    assert hits(Fault("empty", start=END - second, end=END), 1) == [1]
    assert hits(Fault("empty", start=END), 1) == []
    assert hits(Fault("empty", end=START), 1) == []
    assert hits(Fault("empty", end=START + second), 1) == [1]
    assert hits(Fault("empty", longer_than=899), 1) == [1]
    assert hits(Fault("empty", longer_than=900), 1) == []
    plan = FaultPlan(GATEWAY_KINDS)
    plan.add(Fault("empty", start=START))
    assert plan.pick("app") is None


def test_calls_are_counted_per_rule_and_the_first_rule_wins():
    plan = FaultPlan(GATEWAY_KINDS)
    first, second = Fault("empty", calls={2}), Fault("null", first=2)
    plan.add(first)
    plan.add(second)
    assert [plan.pick("app") for _ in range(3)] == [second, first, None]
    plan.clear()
    assert plan.current() == []


def test_faults_are_checked():
    with pytest.raises(ValueError, match="nonsense"):
        Fault("nonsense")
    with pytest.raises(ValueError, match="time zone"):
        Fault("empty", start=START.replace(tzinfo=None))
    with pytest.raises(ValueError, match="partial_success"):
        FaultPlan(GATEWAY_KINDS).add(Fault("partial_success"))
    with pytest.raises(ValueError, match="query_error"):
        FaultPlan(SINK_KINDS).add(Fault("query_error"))
    with pytest.raises(ValueError, match="nonsense"):
        Fault.from_json({"kind": "empty", "nonsense": 1})


def test_faults_survive_json():
    fault = Fault("empty", calls={3, 1}, start=START, share=0.5, error_type=None)
    assert Fault.from_json(fault.to_json()) == fault
    assert Fault.from_json({"kind": "empty", "start": "2026-03-10T10:00:00Z"}).start == START
    assert fault.to_json().keys() == {field.name for field in dataclasses.fields(Fault)}
