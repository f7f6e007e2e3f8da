from __future__ import annotations

from collections import Counter
from datetime import timedelta

import httpx
import pytest

from airflow_provider_forge.sandbox import Scenario
from airflow_provider_forge.sandbox.catalogue import METRICS
from tests.sandbox.asking import (
    END,
    HEADERS,
    METRICS_QUERY,
    NOW,
    PAGE_QUERY,
    START,
    app_metrics,
    points_of_answer,
    resource_metrics,
)


def test_all_metrics_of_a_window_are_exactly_the_generated_ones(client):
    answer = points_of_answer(client.metrics(metrics=list(METRICS)))
    generated = client.gateway.generated(START, END, environments=["production"])
    assert {point.metric for point in generated} == {metric.name for metric in METRICS.values()}
    assert Counter(answer) == Counter(generated) == Counter(client.gateway.served(START, END))


def test_a_response_has_the_shape_of_the_published_sample(client):
    (resource,) = resource_metrics(client.metrics())
    assert resource.keys() == {"resource", "schemaUrl", "scopeMetrics"}
    assert resource["resource"] == {}
    assert resource["schemaUrl"] == "https://opentelemetry.io/schemas/1.9.0"
    (scope,) = resource["scopeMetrics"]
    assert scope.keys() == {"metrics"}
    (metric,) = scope["metrics"]
    assert metric.keys() == {"name", "description", "sum", "unit"}
    assert (metric["name"], metric["unit"]) == ("forge_backend_invocation_count", "s")
    assert metric["sum"].keys() == {"aggregationTemporality", "dataPoints"}
    assert metric["sum"]["aggregationTemporality"] == 1
    point = metric["sum"]["dataPoints"][0]
    assert point.keys() == {"asInt", "attributes", "startTimeUnixNano", "timeUnixNano"}
    assert isinstance(point["asInt"], int)
    assert isinstance(point["timeUnixNano"], str)
    assert [each["key"] for each in point["attributes"]] == [
        *("appId", "appVersion", "contextAri", "environmentId", "functionKey")
    ]


def test_only_the_requested_environments_and_metrics_are_returned(client):
    wanted = {"environments": [client.environment_id("staging")], "metrics": ["CONTAINER_UPTIME_SECONDS"]}
    answer = points_of_answer(client.metrics(**wanted))
    assert answer
    assert Counter(answer) == Counter(client.gateway.generated(START, END, **wanted))


def test_adjacent_windows_partition_the_points(client):
    half = START + timedelta(minutes=7)
    halves = [*points_of_answer(client.metrics(START, half)), *points_of_answer(client.metrics(half, END))]
    assert Counter(halves) == Counter(points_of_answer(client.metrics()))


def test_another_app_has_other_environments_and_data(client):
    app_id = "ari:cloud:ecosystem::app/11111111-2222-4333-8444-555555555555"
    production = next(each for each in client.gateway.environments_of(app_id) if each.key == "production")
    answer = points_of_answer(client.metrics(app_id=app_id, environments=[production.id]))
    assert answer
    assert not set(answer) & set(client.gateway.generated(START, END))
    assert set(answer) <= set(client.gateway.generated(START, END, app_id=app_id))


def test_no_traffic_is_an_empty_array(start_gateway):
    client = start_gateway(Scenario(traffic=0.0, containers=False))
    assert resource_metrics(client.metrics(metrics=list(METRICS))) == []


@pytest.mark.parametrize(
    "auth", [None, ("dev@example.com", "wrong"), ("someone@example.com", "sandbox-token")]
)
def test_wrong_credentials_are_401(client, auth):
    response = client.post(METRICS_QUERY, client.variables(), auth=auth)
    assert response.status_code == 401
    assert response.json()["extensions"]["gateway"]["request_id"] == response.headers["x-request-id"]
    assert client.gateway.calls[0].outcome == "unauthorized"


def test_metrics_without_the_experimental_header_are_rejected_and_lookups_are_not(client):
    client.headers.pop("X-ExperimentalApi")
    response = client.metrics()
    assert response.json()["data"] is None
    assert response.json()["errors"][0]["extensions"]["errorType"] == "EXPERIMENTAL_API"
    assert "errors" not in client.post(PAGE_QUERY, {"id": client.gateway.app_id, "first": 9}).json()


@pytest.mark.parametrize("user_agent", ["", " ", f"python-httpx/{httpx.__version__}", "python-requests/2.32"])
def test_a_user_agent_of_ones_own_is_demanded(client, user_agent):
    response = client.post(
        METRICS_QUERY, client.variables(), headers={**HEADERS, "User-Agent": user_agent.strip() or ""}
    )
    assert response.status_code == 400
    assert "User-Agent" in response.json()["errors"][0]["message"]


def test_only_json_is_accepted(client):
    auth = (client.gateway.email, client.gateway.api_token)
    answers = [
        client.http.post(
            client.gateway.url, auth=auth, headers={**HEADERS, "Content-Type": kind}, content=body
        )
        for kind, body in (
            ("text/plain", "{}"),
            ("application/json", "{"),
            ("application/json", "[]"),
            ("application/json", '{"query": "{app}", "variables": 5}'),
        )
    ]
    assert [answer.status_code for answer in answers] == [415, 400, 400, 400]
    assert client.http.get(client.gateway.url, auth=auth).status_code == 405


@pytest.mark.parametrize(
    ("query", "classification"),
    [
        ("{", "InvalidSyntax"),
        ("{ ecosystem { nothing } }", "ValidationError"),
        ("{ ecosystem { forgeMetrics(appId: 1.5) { appId } } }", "ValidationError"),
    ],
)
def test_a_query_that_the_schema_does_not_have_is_an_error(client, query, classification):
    response = client.post(query)
    assert response.status_code == 200
    assert response.json()["data"] is None
    extensions = response.json()["errors"][0]["extensions"]
    assert extensions == {"classification": classification, "errorType": "BAD_REQUEST", "statusCode": 400}


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": ["FORGE_NEW_METRIC"]},
        {"start": "2026-03-10T10:00:00"},
        {"start": "2026-03-10"},
        {"end": "2026-13-10T10:00:00Z"},
        {"environments": [None]},
    ],
)
def test_a_variable_that_the_schema_does_not_take_is_an_error(client, wrong):
    response = client.metrics(**wrong)
    assert response.json()["data"] is None
    assert response.json()["errors"][0]["extensions"]["classification"] == "ValidationError"
    assert client.gateway.calls[0].outcome == "invalid"


@pytest.mark.parametrize(
    "start", ["2026-03-10T10:00:00.000Z", "2026-03-10T10:00Z", "2026-03-10T12:00:00+02:00"]
)
def test_times_may_be_written_in_each_iso_form_with_an_offset(client, start):
    assert resource_metrics(client.metrics(start=start)) == resource_metrics(client.metrics())


def test_times_and_labels_may_be_literals(client):
    query = f"""{{ ecosystem {{ forgeMetrics(appId: "{client.gateway.app_id}") {{
      appMetrics(query: {{filters: {{
        environments: ["{client.environment_id("production")}"], metrics: [FORGE_BACKEND_INVOCATION_COUNT],
        interval: {{start: "{START.isoformat()}", end: "{END.isoformat()}"}}
      }}}}) {{ ... on ForgeMetricsOtlpData {{ resourceMetrics }} }} }} }} }}"""
    assert resource_metrics(client.post(query)) == resource_metrics(client.metrics())
    refused = client.post(query.replace(START.isoformat(), "yesterday"))
    assert refused.json()["errors"][0]["extensions"]["classification"] == "ValidationError"


@pytest.mark.parametrize(
    ("wrong", "error_type"),
    [
        ({"app_id": "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"}, "INVALID_APP_ID"),
        ({"end": END + timedelta(seconds=1)}, "INVALID_INTERVAL"),
        ({"end": START}, "INVALID_INTERVAL"),
        ({"end": START - timedelta(minutes=1)}, "INVALID_INTERVAL"),
        ({"start": NOW - timedelta(days=14, seconds=1)}, "INVALID_INTERVAL"),
        ({"start": NOW + timedelta(seconds=1), "end": NOW + timedelta(seconds=9)}, "INVALID_INTERVAL"),
        ({"environments": ["production"]}, "INVALID_ENVIRONMENT"),
        ({"environments": ["11111111-2222-4333-8444-555555555555"]}, "INVALID_ENVIRONMENT"),
        ({"environments": []}, "INVALID_ENVIRONMENT"),
        ({"metrics": []}, "INVALID_METRICS"),
    ],
)
def test_an_invalid_query_is_a_query_error_400(client, wrong, error_type):
    if "start" in wrong and "end" not in wrong:
        wrong = {**wrong, "end": wrong["start"] + timedelta(minutes=1)}
    error = app_metrics(client.metrics(**wrong))
    assert error["extensions"] == [{"statusCode": 400, "errorType": error_type}]
    if wrong.get("environments"):
        assert wrong["environments"][0] in error["message"]
    assert client.gateway.calls[0].outcome == "query_error"
    assert client.gateway.served(START, END) == []


def test_the_oldest_and_the_youngest_window_are_answered(client):
    for start in (NOW - timedelta(days=14), NOW):
        assert "resourceMetrics" in app_metrics(client.metrics(start, start + timedelta(minutes=15)))


def test_a_minute_is_seen_when_it_is_over(client):
    start = NOW - timedelta(minutes=1)
    client.clock.now -= 1
    assert resource_metrics(client.metrics(start, NOW)) == []
    client.clock.now += 1
    assert points_of_answer(client.metrics(start, NOW))


@pytest.mark.parametrize("ari", [True, False])
def test_a_forbidden_app_is_a_query_error_403_and_its_lookup_an_error(start_gateway, ari):
    uuid = "11111111-2222-4333-8444-555555555555"
    app_id = f"ari:cloud:ecosystem::app/{uuid}"
    client = start_gateway(Scenario(forbidden_apps=frozenset({app_id if ari else uuid})))
    assert app_metrics(client.metrics(app_id=app_id))["extensions"][0]["statusCode"] == 403
    lookup = client.post(PAGE_QUERY, {"id": app_id, "first": 1}).json()
    assert lookup["data"] == {"app": None}
    assert lookup["errors"][0]["extensions"]["statusCode"] == 403


def test_a_query_error_has_its_type_if_requested(client):
    query = METRICS_QUERY.replace("... on ForgeMetricsOtlpData", "__typename ... on ForgeMetricsOtlpData")
    found = [
        app_metrics(client.post(query, client.variables(end=end)))["__typename"]
        for end in (END, END + timedelta(1))
    ]
    assert found == ["ForgeMetricsOtlpData", "QueryError"]


@pytest.mark.parametrize(
    ("environment_ids", "prefix"),
    [("uuid", ""), ("ari", "ari:cloud:ecosystem::environment/8ce114f4-d82c-45e2-b4fb-c6a0751d7d57/")],
)
def test_environments_are_paginated(start_gateway, environment_ids, prefix):
    client = start_gateway(Scenario(environment_ids=environment_ids))
    nodes, after, pages = [], None, 0
    more = True
    while more:
        variables = {"id": client.gateway.app_id, "first": 3, "after": after}
        page = client.post(PAGE_QUERY, variables).json()["data"]["app"]["environmentsPage"]
        nodes += page["nodes"]
        more, after, pages = page["pageInfo"]["hasNextPage"], page["pageInfo"]["endCursor"], pages + 1
    assert pages == 2
    assert page["totalCount"] == 4
    assert nodes == [
        {"id": prefix + each.id, "key": each.key, "type": each.type} for each in client.gateway.environments
    ]
    assert {node["key"]: node["type"] for node in nodes} == {
        "default": "DEVELOPMENT",
        "staging": "STAGING",
        "production": "PRODUCTION",
        "feature-x": "DEVELOPMENT",
    }


@pytest.mark.parametrize("wrong", [{"first": 0}, {"first": 1, "after": "somewhere"}])
def test_a_page_that_does_not_exist_is_an_error(client, wrong):
    answer = client.post(PAGE_QUERY, {"id": client.gateway.app_id, **wrong}).json()
    assert answer["errors"][0]["extensions"]["statusCode"] == 400


def test_an_environment_is_found_by_its_key_until_it_is_renamed(client):
    query = "query ($id: ID!, $key: String!) { app(id: $id) { environmentByKey(key: $key) { id key } } }"
    identifier = client.environment_id("production")
    before = client.gateway.generated(START, END, environments=[identifier])
    client.gateway.rename_environment(identifier, "live")
    found = [
        client.post(query, {"id": client.gateway.app_id, "key": key}).json()["data"]["app"][
            "environmentByKey"
        ]
        for key in ("production", "live")
    ]
    assert found == [None, {"id": identifier, "key": "live"}]
    assert client.gateway.generated(START, END, environments=["live"]) == before


def test_calls_are_recorded_with_their_arguments(client):
    response = client.metrics()
    client.post(PAGE_QUERY, {"id": client.gateway.app_id, "first": 1})
    metrics, lookup = client.gateway.calls
    assert (metrics.operation, lookup.operation) == ("appMetrics", "app")
    assert (metrics.start, metrics.end, metrics.received_at) == (START, END, NOW.timestamp())
    assert metrics.environments == (client.environment_id("production"),)
    assert metrics.metrics == ("FORGE_BACKEND_INVOCATION_COUNT",)
    assert (metrics.outcome, metrics.status) == ("ok", 200)
    assert metrics.points == len(points_of_answer(response))
    assert metrics.request_id == response.json()["extensions"]["gateway"]["request_id"]
    assert metrics.user_agent == HEADERS["User-Agent"]
    assert metrics.experimental_api == "ForgeMetricsQuery"


@pytest.mark.parametrize("place", ["body", "x-request-id", "x-trace-id"])
def test_the_request_id_is_in_the_place_that_the_scenario_chooses(start_gateway, place):
    client = start_gateway(Scenario(request_id_in=frozenset({place})))
    response = client.metrics()
    found = {name: response.headers.get(name) for name in ("x-request-id", "x-trace-id")}
    found["body"] = response.json().get("extensions", {}).get("gateway", {}).get("request_id")
    request_id = client.gateway.calls[0].request_id
    assert {name: value for name, value in found.items() if value} == {place: request_id}


def test_generated_knows_only_real_names(client):
    with pytest.raises(ValueError, match="nowhere"):
        client.gateway.generated(START, END, environments=["nowhere"])
    with pytest.raises(ValueError, match="FORGE_NEW"):
        client.gateway.generated(START, END, metrics=["FORGE_NEW"])
