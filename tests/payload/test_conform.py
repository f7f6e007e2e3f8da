from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given

import airflow_provider_forge
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF
from airflow_provider_forge.otlp.messages import MalformedOtlp
from airflow_provider_forge.otlp.requests import encode_request
from airflow_provider_forge.payload.conform import Identity, check_attributes, conform
from tests.otlp.building import (
    APP,
    PRODUCTION,
    STAGING,
    entry,
    exhaustively,
    gauge,
    metric,
    otlp_json,
    point,
    protobuf_points,
    reference,
    text,
)

OTHER_APP = "a11dfa0b-cf2c-44d1-9080-5c3944961223"
NAMES = {PRODUCTION: "production", STAGING: "staging"}
SCHEMA_URL = "https://opentelemetry.io/schemas/1.27.0"
OURS = {
    "service.name": f"forge-app-{APP}",
    "service.namespace": "atlassian-forge",
    "service.instance.id": PRODUCTION,
    "deployment.environment.name": "production",
    "atlassian.forge.app.id": APP,
    "atlassian.forge.environment.id": PRODUCTION,
}


def identity(app=APP, environments=NAMES, **more) -> Identity:
    return Identity(app, environments=environments, **more)


def attributes(resource_metrics: dict) -> dict:
    """Return the resource's attributes, with the contents of each `AnyValue`."""
    return {
        pair["key"]: next(iter(pair["value"].values())) for pair in resource_metrics["resource"]["attributes"]
    }


def resource_of(data_point: dict, who: Identity | None = None, source: dict | None = None) -> dict:
    """Return the resource attributes of a conformed point."""
    given = {**entry(metric("n", data_point)), "resource": source}
    (resource_metrics,) = conform([given], who or identity())
    return attributes(resource_metrics)


def only_metric(given: dict) -> dict:
    """Return the conformed metric."""
    (resource_metrics,) = conform([entry(given)], identity())
    (scope_metrics,) = resource_metrics["scopeMetrics"]
    (right,) = scope_metrics["metrics"]
    return right


def test_the_whole_resource_of_a_point_that_names_its_source():
    assert resource_of(point()) == OURS


def test_the_resource_has_only_stable_attributes():
    unstable = ("cloud.", "host.", "faas.", "telemetry.", "process.", "service.version")
    busy = point(region="eu", appVersion="5.1.0")
    busy["attributes"] += [text("region", "eu"), text("appVersion", "5.1.0"), text("pod", "pod-1")]
    assert not [key for key in resource_of(busy) if key.startswith(unstable)]


@pytest.mark.parametrize(
    ("who", "data_point", "name"),
    [
        (identity(), point(), f"forge-app-{APP}"),
        (identity(), point(app=OTHER_APP), f"forge-app-{OTHER_APP}"),
        (identity(), point(app=None), f"forge-app-{APP}"),
        (identity(service_name="checkout"), point(), "checkout"),
        (identity(service_name=""), point(), f"forge-app-{APP}"),
        (identity(attributes={"service.name": "mine"}, service_name="checkout"), point(), "mine"),
    ],
)
def test_service_name(who, data_point, name):
    assert resource_of(data_point, who)["service.name"] == name


def test_the_namespace_can_be_overridden():
    assert resource_of(point(), identity(attributes={"service.namespace": "x"}))["service.namespace"] == "x"


@pytest.mark.parametrize(
    ("environments", "environment", "instance", "name"),
    [
        (NAMES, PRODUCTION, PRODUCTION, "production"),
        (NAMES, STAGING, STAGING, "staging"),
        ({PRODUCTION: "my-own-key"}, PRODUCTION, PRODUCTION, "my-own-key"),
        # A bare UUID whose look-up failed has no name, for good.
        ({PRODUCTION: None}, PRODUCTION, PRODUCTION, None),
        ({PRODUCTION: ""}, PRODUCTION, PRODUCTION, None),
        # An environment that nobody asked for.
        ({PRODUCTION: "production"}, STAGING, STAGING, None),
        # A point that does not name its environment takes the only one asked for, else none.
        ({STAGING: "staging"}, None, STAGING, "staging"),
        ({STAGING: None}, None, STAGING, None),
        ({STAGING: "staging"}, "", STAGING, "staging"),
        (NAMES, None, None, None),
        ({}, None, None, None),
        (NAMES, f"ari:cloud:ecosystem::environment/{APP}/{STAGING}", STAGING, "staging"),
    ],
)
def test_environment(environments, environment, instance, name):
    resource = resource_of(point(environment=environment), identity(environments=environments))
    assert resource.get("service.instance.id") == instance
    assert resource.get("atlassian.forge.environment.id") == instance
    assert resource.get("deployment.environment.name") == name


@pytest.mark.parametrize("app", [APP, f"ari:cloud:ecosystem::app/{APP}", None, ""])
def test_the_app_id_is_always_there_and_a_uuid(app):
    assert resource_of(point(app=app))["atlassian.forge.app.id"] == APP


@pytest.mark.parametrize(
    ("atlassians", "users", "value"),
    [
        (None, None, f"forge-app-{APP}"),
        ("atlassian", None, "atlassian"),
        (None, "user", "user"),
        ("atlassian", "user", "user"),
    ],
)
def test_the_users_attributes_override_atlassians_which_override_ours(atlassians, users, value):
    source = {"attributes": [text("service.name", atlassians)]} if atlassians else {}
    who = identity(attributes={"service.name": users} if users else {})
    assert resource_of(point(), who, source) == {**OURS, "service.name": value}


def test_further_attributes_of_atlassian_and_the_user_are_added():
    source = {"attributes": [text("cloud.region", "eu"), {"key": "n", "value": {"intValue": "7"}}]}
    who = identity(attributes={"team": "a", "tier": 1, "ratio": 0.5, "live": True})
    more = {"cloud.region": "eu", "n": "7", "team": "a", "tier": "1", "ratio": 0.5, "live": True}
    assert resource_of(point(), who, source) == {**OURS, **more}


def test_nothing_but_configuration_and_payload_makes_an_identity(monkeypatch):
    before = conform([entry(metric("n", point()))], identity())
    monkeypatch.setattr(airflow_provider_forge, "__version__", "99.0.0")
    for name, value in {
        "OTEL_SERVICE_NAME": "airflow",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=airflow,service.instance.id=worker",
        "HOSTNAME": "worker-7",
        "AIRFLOW_CTX_DAG_RUN_ID": "manual",
        "TZ": "Asia/Kathmandu",
    }.items():
        monkeypatch.setenv(name, value)
    assert conform([entry(metric("n", point()))], identity()) == before
    assert attributes(before[0]) == OURS
    assert before[0]["scopeMetrics"][0]["scope"] == {"name": "atlassian.forge.app_metrics"}


def test_neither_the_order_of_environments_nor_other_queried_ones_matter():
    turned = dict(reversed(NAMES.items()))
    alone = {PRODUCTION: "production"}
    assert resource_of(point()) == resource_of(point(), identity(environments=turned))
    assert resource_of(point()) == resource_of(point(), identity(environments=alone))


def test_points_are_grouped_by_app_and_environment_and_keep_their_order():
    points = [
        point(asInt=1),
        point(environment=STAGING, asInt=2),
        point(app=OTHER_APP, asInt=3),
        point(asInt=4),
        point(environment=None, asInt=5),
        point(environment=STAGING, asInt=6),
    ]
    groups = {
        (resource["atlassian.forge.app.id"], resource.get("atlassian.forge.environment.id")): [
            data_point["asInt"]
            for data_point in resource_metrics["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"]
        ]
        for resource_metrics in conform([entry(metric("n", *points))], identity())
        if (resource := attributes(resource_metrics))
    }
    assert groups == {
        (APP, PRODUCTION): [1, 4],
        (APP, STAGING): [2, 6],
        (OTHER_APP, PRODUCTION): [3],
        (APP, None): [5],
    }


def shape(resource_metrics: list[dict]) -> list:
    """Return the number of points in each metric, in each scope, in each resource."""
    return [
        [
            [len(one["sum"]["dataPoints"]) for one in scope_metrics["metrics"]]
            for scope_metrics in each["scopeMetrics"]
        ]
        for each in resource_metrics
    ]


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        # Equal identities merge, wherever they stand.
        ([entry(metric("n", point())), entry(metric("n", point()))], [[[2]]]),
        ([entry(metric("n", point()), metric("n", point()))], [[[2]]]),
        ([entry(metric("n", point()), metric("m", point()))], [[[1, 1]]]),
        ([entry(metric("n", point())), {**entry(metric("n", point())), "resource": None}], [[[2]]]),
        ([{"scopeMetrics": 2 * entry(metric("n", point()))["scopeMetrics"]}], [[[2]]]),
        # A point without environmentId takes the one that was asked for, and is then of the same origin.
        ([entry(metric("n", point(), point(environment=None)))], [[[2]]]),
        # Others do not.
        ([entry(metric("n", point(), point(environment=STAGING)))], [[[1]], [[1]]]),
        (
            [
                entry(metric("n", point())),
                {**entry(metric("n", point())), "resource": {"attributes": [text("a", "b")]}},
            ],
            [[[1]], [[1]]],
        ),
        ([entry(metric("n", point())), entry(metric("n", point()), scope={"name": "x"})], [[[1], [1]]]),
        (
            [
                entry(metric("n", point()), scope={"name": "x", "version": "1"}),
                entry(metric("n", point()), scope={"name": "x", "version": "2"}),
            ],
            [[[1], [1]]],
        ),
        ([entry(metric("n", point())), entry(metric("n", point()), schemaUrl="u")], [[[1], [1]]]),
        ([entry(metric("n", point()), metric("n", point(), unit="1"))], [[[1, 1]]]),
        ([entry(metric("n", point()), metric("n", point(), aggregationTemporality=2))], [[[1, 1]]]),
        ([entry(metric("n", point()), {**metric("n", point()), "description": "d"})], [[[1, 1]]]),
    ],
)
def test_equal_resources_merge_and_others_do_not(given, groups):
    assert shape(conform(given, identity(environments={PRODUCTION: "production"}))) == groups


def test_one_name_as_another_type_stays_a_metric_of_its_own():
    (resource_metrics,) = conform([entry(metric("n", point()), gauge("n", point()))], identity())
    assert [set(one) for one in resource_metrics["scopeMetrics"][0]["metrics"]] == [
        {"name", "unit", "sum"},
        {"name", "unit", "gauge"},
    ]


@pytest.mark.parametrize("scope", [None, {}, {"name": ""}, {"name": None}])
def test_a_scope_without_a_name_gets_ours_without_a_version(scope):
    (resource_metrics,) = conform([entry(metric("n", point()), scope=scope)], identity())
    (scope_metrics,) = resource_metrics["scopeMetrics"]
    assert scope_metrics["scope"] == {"name": "atlassian.forge.app_metrics"}


def test_atlassians_scope_stays_as_it_is():
    scope = {
        "name": "atlassian",
        "version": "1.2",
        "attributes": [text("a", "b")],
        "droppedAttributesCount": 1,
        "future": 1,
    }
    given = entry(metric("n", point()), scope=scope, schemaUrl="https://example.com/1", tomorrow=2)
    (resource_metrics,) = conform([given], identity())
    (scope_metrics,) = resource_metrics["scopeMetrics"]
    del scope_metrics["metrics"]
    assert scope_metrics == {"scope": scope, "schemaUrl": "https://example.com/1", "tomorrow": 2}


@pytest.mark.parametrize(
    "source", [{}, {"schemaUrl": None}, {"schemaUrl": "https://opentelemetry.io/schemas/1.9.0"}]
)
def test_the_resources_schema_has_its_attributes_and_the_scopes_is_not_touched(source):
    (resource_metrics,) = conform([{**entry(metric("n", point())), **source}], identity())
    assert resource_metrics["schemaUrl"] == SCHEMA_URL
    assert "schemaUrl" not in resource_metrics["scopeMetrics"][0]


@pytest.mark.parametrize(
    ("name", "unit", "true_unit"),
    [
        ("forge_api_request_count", "s", "{request}"),
        ("forge_backend_invocation_count", "s", "{invocation}"),
        ("forge_backend_invocation_errors", "s", "{error}"),
        ("service_instance_count", "s", "{instance}"),
        ("service_instance_count", "1", "{instance}"),
        # Should Atlassian put them right one day, theirs is right.
        ("forge_api_request_count", "{request}", "{request}"),
        ("forge_api_request_count", "1", "1"),
        ("forge_api_request_count", "ms", "ms"),
        ("forge_api_request_count", "", ""),
        ("forge_api_request_count", None, None),
        # Real seconds.
        ("forge_api_request_latency", "s", "s"),
        ("forge_backend_invocation_latency", "s", "s"),
        ("forge_backend_invocation_latency_count", "s", "s"),
        ("container_uptime", "s", "s"),
        ("Forge_api_request_count", "s", "s"),
        ("some_new_count", "s", "s"),
        ("some_new_errors", "s", "s"),
        ("", "s", "s"),
    ],
)
@pytest.mark.parametrize("make", [metric, gauge])
def test_units_by_a_list_of_names_with_the_known_wrong_unit(make, name, unit, true_unit):
    assert only_metric(make(name, point(), unit=unit))["unit"] == true_unit


def test_no_unit_is_added():
    given = metric("forge_api_request_count", point())
    del given["unit"]
    assert "unit" not in only_metric(given)


@pytest.mark.parametrize("kind", ["histogram", "exponentialHistogram", "summary"])
@pytest.mark.parametrize("name", ["forge_api_request_latency", "forge_new_latency", "latency_count"])
def test_a_latency_is_never_touched(kind, name):
    given = {"name": name, "unit": "s", kind: {"aggregationTemporality": 1, "dataPoints": [point(count="3")]}}
    assert only_metric(given) == given


@pytest.mark.parametrize(
    "name",
    [
        "forge_api_request_count",
        "forge_backend_invocation_count",
        "forge_backend_invocation_errors",
        "service_instance_count",
        "some_new_count",
        "some_new_errors",
    ],
)
@pytest.mark.parametrize("said", [{}, {"isMonotonic": False}, {"isMonotonic": None}, {"isMonotonic": True}])
@pytest.mark.parametrize("delta", [1, "AGGREGATION_TEMPORALITY_DELTA"])
def test_delta_sums_that_count_are_monotonic(name, said, delta):
    given = metric(name, point(), aggregationTemporality=delta, **said)
    assert only_metric(given)["sum"] == {**given["sum"], "isMonotonic": True}


@pytest.mark.parametrize("said", [{}, {"isMonotonic": False}, {"isMonotonic": None}, {"isMonotonic": True}])
@pytest.mark.parametrize(
    ("name", "temporality"),
    [
        # Not by values, and not by a name that only looks like it.
        ("forge_queue_depth", 1),
        ("some_counts", 1),
        ("count", 1),
        ("errors_of_users", 1),
        ("", 1),
        # Not delta.
        ("some_new_count", 2),
        ("some_new_count", "AGGREGATION_TEMPORALITY_CUMULATIVE"),
        ("some_new_count", 0),
        ("some_new_count", None),
        ("container_status_restarts_total", 2),
    ],
)
def test_other_sums_are_left_alone(name, temporality, said):
    given = metric(name, point(asInt=8), unit="1", aggregationTemporality=temporality, **said)
    assert only_metric(given) == given


@pytest.mark.parametrize("kind", ["gauge", "histogram", "exponentialHistogram", "summary"])
def test_a_metric_that_is_not_a_sum_is_never_monotonic(kind):
    given = {"name": "some_new_count", kind: {"aggregationTemporality": 1, "dataPoints": [point()]}}
    assert only_metric(given) == given


def test_unknown_fields_pass_through():
    extra = {"future": {"a": [1, None, 1.0]}}
    data_point = {**point(asInt=1), **extra}
    data_point["attributes"].append({**text("brandNew", "x"), **extra})
    given = entry({**metric("new.metric", data_point, **extra), **extra}, **extra)
    source = {"attributes": [], "entityRefs": [{"type": "x"}], **extra}
    (resource_metrics,) = conform([{**given, **extra, "resource": source}], identity())

    assert resource_metrics["future"] == extra["future"]
    assert resource_metrics["resource"]["future"] == extra["future"]
    assert resource_metrics["resource"]["entityRefs"] == [{"type": "x"}]
    (scope_metrics,) = resource_metrics["scopeMetrics"]
    assert scope_metrics["future"] == extra["future"]
    assert scope_metrics["metrics"] == given["scopeMetrics"][0]["metrics"]


def test_a_resource_attribute_of_atlassian_passes_through_whole():
    attribute = {**text("brand.new", "x"), "future": {"a": 1}}
    given = {**entry(metric("n", point())), "resource": {"attributes": [attribute]}}
    (resource_metrics,) = conform([given], identity())
    assert attribute in resource_metrics["resource"]["attributes"]


def test_metrics_of_an_unknown_kind_are_neither_merged_nor_dropped():
    sketch = {"name": "n", "unit": "s", "sketch": {"dataPoints": [point()]}}
    resource_metrics = conform([entry(sketch, sketch), entry(sketch)], identity())
    kept = [
        each for entry in resource_metrics for scope in entry["scopeMetrics"] for each in scope["metrics"]
    ]
    assert kept == [sketch] * 3


def test_exact_duplicates_and_overlapping_points_are_kept():
    points = [point(asInt=1, timeUnixNano="5")] * 2 + [
        point(asInt=2, timeUnixNano="5", startTimeUnixNano="3")
    ]
    assert only_metric(metric("n", *points))["sum"]["dataPoints"] == points


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"resource": None, "scopeMetrics": None, "schemaUrl": None},
        {"scopeMetrics": [{"scope": None, "metrics": None}]},
        entry({"name": "n", "sum": {"dataPoints": None}}),
    ],
)
def test_null_equals_a_missing_field_without_points(given):
    message = reference(conform([given], identity()))
    assert not protobuf_points(message)


def test_null_equals_a_missing_field_with_points():
    data_point = {"attributes": None, "asInt": 1, "exemplars": None, "timeUnixNano": None}
    source = {"attributes": None}
    given = {**entry({**metric("n", data_point), "gauge": None}), "resource": source}
    (resource_metrics,) = conform([given], identity(environments={STAGING: None}))
    assert resource_metrics["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"] == [data_point]
    assert attributes(resource_metrics)["service.instance.id"] == STAGING


@exhaustively
@given(given=otlp_json)
def test_no_point_is_lost_added_or_altered(given):
    before = copy.deepcopy(given)
    conformed = conform(given, identity())
    assert given == before
    assert protobuf_points(reference(conformed)) == protobuf_points(reference(before))


@exhaustively
@given(given=otlp_json)
def test_both_protocols_equal_the_result_of_protobufs_own_reader(given):
    conformed = conform(given, identity())
    expected = reference(conformed).SerializeToString()
    assert encode_request(conformed, HTTP_PROTOBUF).body == expected
    sent = json.loads(encode_request(conformed, HTTP_JSON).body)["resourceMetrics"]
    assert reference(sent).SerializeToString() == expected


@exhaustively
@given(given=otlp_json)
def test_each_identity_is_there_once_and_conforming_again_changes_nothing(given):
    conformed = conform(given, identity())
    around = [json.dumps({**entry, "scopeMetrics": None}, sort_keys=True) for entry in conformed]
    assert len(around) == len(set(around))
    again = conform(conformed, identity())
    # Points of equal resources are put together, one resource of the response after the other.
    assert without_order(again) == without_order(conformed)


def without_order(resource_metrics):
    """Return the data with the points of each metric sorted."""
    sorted_ = copy.deepcopy(resource_metrics)
    for resource in sorted_:
        for scope in resource["scopeMetrics"]:
            for each in scope["metrics"]:
                for points in (kind["dataPoints"] for kind in each.values() if "dataPoints" in (kind or ())):
                    points.sort(key=json.dumps)
    return sorted_


@pytest.mark.parametrize("value", ["text", "", 1, -(2**63), 1.5, True, ["a"], [], [1, [2.5]]])
def test_resource_attributes_that_otlp_can_hold(value):
    check_attributes({"key": value})
    for protocol in (HTTP_PROTOBUF, HTTP_JSON):
        who = identity(attributes={"key": value})
        assert encode_request(conform([entry(metric("n", point()))], who), protocol).points == 1


@pytest.mark.parametrize(
    ("attributes", "key"),
    [
        ({"team": None}, "team"),
        ({"team": {"a": "b"}}, "team"),
        ({"team": [None]}, "team"),
        ({"team": object()}, "team"),
        ({"team": 2**63}, "team"),
        ({"team": [-(2**63) - 1]}, "team"),
        ({"team": float("nan")}, "team"),
        ({"team": float("inf")}, "team"),
        ({7: "text"}, "7"),
        ({"": "text"}, "''"),
        ({"team": "\ud800"}, "team"),
        ({"team": ["a", ["\ud800"]]}, "team"),
        ({"team": "a\0"}, "team"),
        ({"\ud800": "text"}, "ud800"),
    ],
)
def test_resource_attributes_that_otlp_cannot_hold_are_named(attributes, key):
    with pytest.raises(ConfigurationError, match=key) as refused:
        check_attributes(attributes)
    assert refused.value.field == "resource_attributes"


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource": []},
        {"resource": {"attributes": {}}, "scopeMetrics": entry(metric("n", point()))["scopeMetrics"]},
        {"scopeMetrics": {}},
        {"scopeMetrics": [{"scope": []}]},
        {"scopeMetrics": [{"metrics": [1]}]},
        entry({"name": "n", "sum": []}),
        entry({"name": "n", "sum": {"dataPoints": {}}}),
        entry(metric("n", {"attributes": "x"})),
    ],
)
def test_malformed(wrong):
    with pytest.raises(MalformedOtlp):
        conform([wrong], identity())
