"""An invalid value affects only itself, and nothing is lost silently."""

from __future__ import annotations

import json

import pytest

from airflow_provider_forge.otlp.endpoint import HTTP_PROTOBUF
from airflow_provider_forge.otlp.messages import MalformedOtlp, count_points
from airflow_provider_forge.otlp.requests import encode_request
from airflow_provider_forge.payload.salvage import NO_NAME, salvage
from tests.otlp.building import entry, gauge, metric, point, text

GOOD = point(asInt="1", timeUnixNano="60000000000")


def salvaged(resource_metrics, *, protobuf=True):
    raw = resource_metrics if isinstance(resource_metrics, bytes) else json.dumps(resource_metrics).encode()
    return salvage(raw, protobuf=protobuf)


def attribute(value) -> dict:
    return {"attributes": [*GOOD["attributes"], {"key": "a", "value": value}]}


def nested(depth: int) -> dict:
    value = {"stringValue": "x"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


BAD = [
    ("sum", {"asInt": str(2**63)}),
    ("sum", {"asInt": 2**63}),
    ("sum", {"asInt": 1.5}),
    ("sum", {"asInt": "1.5"}),
    ("sum", {"asInt": ""}),
    ("sum", {"asInt": "9" * 5000}),
    ("sum", {"asInt": True}),
    ("sum", {"asInt": [1]}),
    ("sum", {"asDouble": 1.0}),
    ("gauge", {"asInt": None, "asDouble": "many"}),
    ("gauge", {"asInt": None, "asDouble": "1e999"}),
    ("gauge", {"asInt": None, "asDouble": True}),
    ("gauge", {"asInt": None, "asDouble": 10**400}),
    ("sum", {"flags": -1}),
    ("sum", {"flags": 2**32}),
    ("sum", {"timeUnixNano": "soon"}),
    ("sum", {"timeUnixNano": -1}),
    ("sum", {"timeUnixNano": 1.5}),
    ("sum", {"timeUnixNano": 2**64}),
    ("sum", {"timeUnixNano": "2026-11-27T16:00:00"}),
    ("sum", {"timeUnixNano": "1969-12-31T23:59:59Z"}),
    ("sum", {"timeUnixNano": "2026-13-27T16:00:00Z"}),
    ("sum", {"startTimeUnixNano": "2026-02-30T16:00:00Z"}),
    ("sum", {"startTimeUnixNano": [1]}),
    ("sum", attribute({"intValue": str(2**63)})),
    ("sum", attribute({"intValue": 1, "stringValue": "x"})),
    ("sum", attribute({"bytesValue": "!!!"})),
    ("sum", attribute({"boolValue": 7})),
    ("sum", attribute({"arrayValue": {"values": {}}})),
    ("sum", attribute(2**63)),
    ("sum", attribute(nested(300))),
    ("sum", attribute(nested(60))),
    ("sum", {"attributes": {"a": "b"}}),
    ("sum", {"attributes": [{"key": 1}]}),
    ("sum", {"attributes": ["bare"]}),
    ("sum", {"exemplars": {}}),
    ("sum", {"asInt": None, "value": 5}),
    ("histogram", {"count": -1}),
    ("histogram", {"count": 2**64}),
    ("histogram", {"sum": "much"}),
    ("histogram", {"bucketCounts": ["1", None]}),
    ("histogram", {"bucketCounts": ["1", str(2**64)]}),
    ("histogram", {"bucketCounts": "1"}),
    ("histogram", {"explicitBounds": [1, "x"]}),
    ("exponentialHistogram", {"scale": 2**31}),
    ("exponentialHistogram", {"zeroCount": "-1"}),
    ("exponentialHistogram", {"positive": {"bucketCounts": [1.5]}}),
    ("exponentialHistogram", {"negative": []}),
    ("summary", {"quantileValues": [{"quantile": "half"}]}),
    ("summary", {"quantileValues": {}}),
]


@pytest.mark.parametrize("protobuf", [True, False])
@pytest.mark.parametrize(("kind", "fields"), BAD)
def test_an_invalid_point_is_left_out_alone(kind, fields, protobuf):
    good = GOOD if kind in ("sum", "gauge") else point(count="1", timeUnixNano="60000000000")
    given = [entry({"name": "n", kind: {"dataPoints": [good, {**good, **fields}, good]}}, metric("m", GOOD))]
    found = salvaged(given, protobuf=protobuf)
    assert {name: count for (name, _), count in found.left_out.items()} == {"n": 1}
    (reason,) = (reason for _, reason in found.left_out)
    assert 5 < len(reason) < 200
    assert found.resource_metrics == [
        entry({"name": "n", kind: {"dataPoints": [good, good]}}, metric("m", GOOD))
    ]
    assert encode_request(found.resource_metrics, HTTP_PROTOBUF).points == 3


REPAIRED = [
    ({"asInt": " 5 "}, {"asInt": "5"}),
    ({"asInt": "+5"}, {"asInt": "5"}),
    ({"asInt": "1e3"}, {"asInt": "1000"}),
    ({"asInt": "9007199254740993.0"}, {"asInt": "9007199254740993"}),
    ({"asInt": None, "asDouble": "inf"}, {"asInt": None, "asDouble": "Infinity"}),
    ({"asInt": None, "asDouble": "nan"}, {"asInt": None, "asDouble": "NaN"}),
    ({"timeUnixNano": 6e10}, {"timeUnixNano": "60000000000"}),
    ({"timeUnixNano": "6e10"}, {"timeUnixNano": "60000000000"}),
    ({"timeUnixNano": "1970-01-01T00:01:00Z"}, {"timeUnixNano": "60000000000"}),
    ({"timeUnixNano": "1970-01-01T01:01:00.5+01:00"}, {"timeUnixNano": "60500000000"}),
    ({"start_time_unix_nano": "1"}, {"startTimeUnixNano": "1"}),
    (attribute("b"), attribute({"stringValue": "b"})),
    (attribute(True), attribute({"boolValue": True})),
    (attribute({"boolValue": "true"}), attribute({"boolValue": True})),
    (attribute({"string_value": "b"}), attribute({"stringValue": "b"})),
    (attribute({"arrayValue": {"values": [None]}}), attribute({"arrayValue": {"values": [{}]}})),
    ({"attributes": [None, *GOOD["attributes"], None]}, {"attributes": GOOD["attributes"]}),
    (
        {"exemplars": [{"asInt": "1", "traceId": "W47/95gDgQPSabYzgT/GDA=="}, {"asInt": "x"}, None]},
        {"exemplars": [{"asInt": "1", "traceId": "5b8efff798038103d269b633813fc60c"}]},
    ),
]


@pytest.mark.parametrize(("given", "right"), REPAIRED)
def test_a_value_with_a_single_meaning_is_repaired(given, right):
    found = salvaged([entry(metric("n", GOOD | given))])
    assert found.resource_metrics == [entry(metric("n", GOOD | right))]
    assert not found.left_out
    assert found.repairs
    assert salvaged(found.resource_metrics).repairs == {}


@pytest.mark.parametrize("protobuf", [True, False])
@pytest.mark.parametrize("spelled", [7, 7.0, "7", -0.0])
def test_values_that_protobufs_reader_accepts_stay_unchanged(spelled, protobuf):
    given = [entry(metric("n", GOOD | {"asInt": spelled, "flags": 1.0}), isMonotonic=None)]
    found = salvaged(given, protobuf=protobuf)
    assert (found.resource_metrics, found.left_out, found.repairs) == (given, {}, {})


UNKNOWN = {"metrics": [metric("n", GOOD, GOOD)]}


@pytest.mark.parametrize(
    "given",
    [
        [{"resource": {}, "instrumentationLibraryMetrics": [{"metrics": [metric("n", GOOD, GOOD)]}]}],
        [
            {
                "instrumentation_library_metrics": [
                    {"instrumentation_library": {"name": "l"}, "metrics": [metric("n", GOOD, GOOD)]}
                ]
            }
        ],
        [{"resource": {}, "scope_metrics": [UNKNOWN]}],
        [{"scopeMetrics": [], "scope_metrics": [UNKNOWN]}],
        [{"scopeMetrics": None, "instrumentationLibraryMetrics": [UNKNOWN]}],
        [entry({"name": "n", "gauge": {}, "sum": {"dataPoints": [GOOD, GOOD]}})],
        [entry({"name": "n", "gauge": {"dataPoints": []}, "sum": {"data_points": [GOOD, GOOD]}})],
        [entry({"name": "n", "exponential_histogram": {"data_points": [{"count": 1}, {"zero_count": "1"}]}})],
        [entry({"name": "n", "sum": {"dataPoints": [[GOOD, GOOD]]}})],
        [[entry(metric("n", GOOD, GOOD))]],
        [{"resourceMetrics": [entry(metric("n", GOOD, GOOD))]}],
    ],
)
@pytest.mark.parametrize("protobuf", [True, False])
def test_points_in_another_unambiguous_shape_are_found(given, protobuf):
    found = salvaged(given, protobuf=protobuf)
    assert count_points(found.resource_metrics) == 2
    assert not found.left_out
    assert encode_request(found.resource_metrics, HTTP_PROTOBUF).points == 2


@pytest.mark.parametrize(
    ("given", "name", "points"),
    [
        ([{"libraryMetrics": [UNKNOWN]}], "n", 2),
        ([entry(later=[metric("n", GOOD, GOOD)])], "n", 2),
        ([entry({"name": "n", "sum": {"points": [GOOD]}})], NO_NAME, 1),
        ([entry({"name": "n", "sum": [{"dataPoints": [GOOD, GOOD]}]})], "n", 2),
        ([entry({"name": "n", "sum": {"dataPoints": {"values": [GOOD]}}})], "n", 1),
        ([entry({**metric("n", GOOD, GOOD), **gauge("n", GOOD)})], "n", 3),
        ([entry({**metric("n", GOOD), "name": 1})], "1", 1),
        ([entry({**metric("n", GOOD), "unit": 1})], "n", 1),
        ([entry(metric("n", GOOD, aggregationTemporality="DELTA"))], "n", 1),
        ([entry(metric("n", GOOD, isMonotonic=1))], "n", 1),
        ([entry(metric("n", GOOD), scope={"name": 1})], "n", 1),
        ([{**entry(metric("n", GOOD)), "resource": {"attributes": "x"}}], "n", 1),
        ([{"scopeMetrics": [1], "scope_metrics": "x"}], NO_NAME, 1),
        ([entry(metric("n", None))], "n", 1),
        ([entry(None)], NO_NAME, 1),
        ([{"scopeMetrics": {"metrics": [metric("n", GOOD, GOOD)]}}], "n", 2),
        ([None], NO_NAME, 1),
        (["x"], NO_NAME, 1),
        ([{"later": {"a": [1]}}], NO_NAME, 1),
    ],
)
@pytest.mark.parametrize("protobuf", [True, False])
def test_points_that_cannot_be_attributed_are_reported(given, name, points, protobuf):
    found = salvaged([*given, entry(metric("m", GOOD))] if name != NO_NAME else given, protobuf=protobuf)
    counts = {}
    for (metric_name, _), count in found.left_out.items():
        counts[metric_name] = counts.get(metric_name, 0) + count
    assert counts == {name: points}
    assert count_points(found.resource_metrics) == (name != NO_NAME)


def test_an_unknown_kind_is_sent_as_json_only():
    given = [entry({"name": "load", "sketch": {"dataPoints": [GOOD, GOOD]}}, metric("n", GOOD))]
    as_json = salvaged(given, protobuf=False)
    assert (as_json.resource_metrics, as_json.left_out, as_json.unknown_kinds) == (given, {}, ["load"])
    found = salvaged(given)
    assert found.resource_metrics == [entry(metric("n", GOOD))]
    assert found.left_out == {("load", "protobuf has no field for sketch"): 2}


@pytest.mark.parametrize(
    "empty",
    [[], [{}], [entry()], [entry({"name": "n"})], [entry(gauge("n"))], [entry({"name": "n", "sum": None})]],
)
def test_an_empty_payload_stays_empty(empty):
    found = salvaged(empty)
    assert (count_points(found.resource_metrics), found.left_out, found.repairs) == (0, {}, {})


def test_unknown_fields_beside_points_leave_nothing_out():
    given = [{**entry(metric("n", GOOD | {"confidence": 0.5})), "later": {"a": [1]}}]
    found = salvaged(given)
    assert (found.resource_metrics, found.left_out) == (given, {})


def test_an_invalid_description_is_left_out_alone():
    found = salvaged([entry({**metric("n", GOOD), "description": 1, "metadata": [text("a", "b"), "c"]})])
    assert found.resource_metrics == [entry(metric("n", GOOD))]
    assert not found.left_out
    assert len(found.repairs) == 2


@pytest.mark.parametrize("broken", [b"", b"[", b"{}", b"null", b'"[]"', b"[1,]"])
def test_other_values_than_an_array_are_malformed(broken):
    with pytest.raises(MalformedOtlp):
        salvaged(broken)
