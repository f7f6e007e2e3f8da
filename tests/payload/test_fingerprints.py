from __future__ import annotations

import base64
import copy
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.otlp.messages import KINDS, MalformedOtlp, count_points, decode
from airflow_provider_forge.payload.conform import Identity, conform
from airflow_provider_forge.payload.fingerprints import HASH_BYTES, KEY_BYTES, Fingerprint, fingerprint_points
from tests.delivery.recorded import ENVIRONMENTS, RECORDED, in_words
from tests.delivery.recorded import MINUTE as WINDOW
from tests.otlp.building import (
    APP,
    PRODUCTION,
    STAGING,
    almost_otlp,
    entry,
    exhaustively,
    gauge,
    metric,
    otlp_json,
    point,
    text,
)

thoroughly = settings(exhaustively, max_examples=80)

MINUTE = 60 * 10**9
START, TIME = 29_923_500 * MINUTE, 29_923_501 * MINUTE - 1
TIMES = {"startTimeUnixNano": str(START), "timeUnixNano": str(TIME)}

# Of each kind, the fields that are a point's value, with another value for each.
VALUES: dict[str, dict[str, tuple[Any, Any]]] = {
    "gauge": {"asDouble": (1.5, 1.25), "flags": (0, 1)},
    "sum": {"asInt": ("7", "8")},
    "histogram": {
        "count": ("3", "4"),
        "sum": (1.5, 2.5),
        "min": (0.5, 0.25),
        "max": (1.0, 2.0),
        "bucketCounts": (["1", "2"], ["2", "1"]),
        "explicitBounds": ([0.1], [0.2]),
    },
    "exponentialHistogram": {
        "count": ("3", "4"),
        "scale": (3, 4),
        "zeroCount": ("1", "0"),
        "zeroThreshold": (0.0, 0.1),
        "positive": ({"offset": 1, "bucketCounts": ["2"]}, {"offset": 2, "bucketCounts": ["2"]}),
        "negative": ({"offset": 1, "bucketCounts": ["2"]}, {"offset": 1, "bucketCounts": ["1", "1"]}),
    },
    "summary": {
        "count": ("3", "4"),
        "sum": (1.5, 2.5),
        "quantileValues": ([{"quantile": 0.5, "value": 1.0}], [{"quantile": 0.5, "value": 2.0}]),
    },
}
FIELDS = [(kind, field) for kind, fields in VALUES.items() for field in fields]


def of(
    data_point: dict[str, Any],
    *,
    name: str = "latency",
    kind: str = "sum",
    environments: tuple[str, ...] = (PRODUCTION,),
) -> Fingerprint:
    """Return the fingerprint of the only point of a payload."""
    answer = [entry({"name": name, kind: {"dataPoints": [data_point]}})]
    (only,) = fingerprint_points(answer, environments=environments, minute=0)
    return only


def of_all(resource_metrics: list[dict[str, Any]]) -> Counter[Fingerprint]:
    return Counter(fingerprint_points(resource_metrics, environments=[PRODUCTION, STAGING], minute=5))


def whole_point(kind: str) -> dict[str, Any]:
    return point(**TIMES, **{field: value for field, (value, _) in VALUES[kind].items()})


def assert_same_point_of_another_value(one: Fingerprint, other: Fingerprint) -> None:
    assert (one.metric, one.minute, one.key) == (other.metric, other.minute, other.key)
    assert one.point_hash[:KEY_BYTES] == other.point_hash[:KEY_BYTES]
    assert one.point_hash[KEY_BYTES:] != other.point_hash[KEY_BYTES:]


# What it is


def test_it_is_the_same_for_good():
    """A changed fingerprint would send every recorded point again."""
    data_point = point(**TIMES, asInt="8")
    data_point["attributes"].append(text("contextAri", "ari:cloud:compass::site/1"))
    unknown = {"name": "load", "sketch": {"dataPoints": [{"asInt": "1"}]}}
    answer = [entry(metric("forge_api_request_count", data_point), unknown)]
    known = fingerprint_points(answer, environments=[PRODUCTION], minute=7)
    assert [(found.metric, found.minute, found.point_hash.hex()) for found in known] == [
        ("forge_api_request_count", 29_923_500, "9abfac921390a7306cd825a0"),
        ("load", 7, "4cf858582ede732300000000"),
    ]


@pytest.mark.parametrize("answer", RECORDED["answers"])
def test_fingerprints_equal_those_of_the_first_version(answer):
    try:
        found = fingerprint_points(
            decode(answer["resourceMetrics"].encode()), environments=ENVIRONMENTS, minute=WINDOW
        )
    except MalformedOtlp:
        found = None
    assert (found and in_words(found)) == answer["points"]


def test_fingerprints_of_the_sample_equal_those_of_the_first_version(sample):
    answer = json.loads(sample)["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]["resourceMetrics"]
    found = fingerprint_points(answer, environments=ENVIRONMENTS, minute=WINDOW)
    assert in_words(found) == RECORDED["sample"]


def test_a_point_hash_is_16_characters_in_base64_without_padding():
    letters = base64.b64encode(of(point()).point_hash)
    assert HASH_BYTES == len(of(point()).point_hash) == 12
    assert len(letters) == 16
    assert b"=" not in letters


def test_those_of_the_published_sample_are_all_different(sample):
    answer = json.loads(sample)["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]["resourceMetrics"]
    found = fingerprint_points(answer, environments=[PRODUCTION], minute=0)
    assert len(found) == count_points(answer) > 0
    assert len({(each.metric, each.minute, each.key) for each in found}) == len(found)


def test_fingerprints_are_in_the_order_of_the_points():
    points = [point(timeUnixNano=str(minute * MINUTE), asInt="1") for minute in (3, 1, 2)]
    answer = [entry(metric("b", *points[:2]), gauge("a", points[2])), entry(metric("b", points[0]))]
    found = fingerprint_points(answer, environments=[PRODUCTION], minute=0)
    assert [(each.metric, each.minute) for each in found] == [("b", 3), ("b", 1), ("a", 2), ("b", 3)]


# What they do not depend on


@st.composite
def regrouped(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return OTLP/JSON, and its points in another order, each alone in a metric, a scope and a resource."""
    before = draw(otlp_json)
    after = []
    for resource in before:
        for scope in resource.get("scopeMetrics") or ():
            for one in scope.get("metrics") or ():
                (kind,) = (kind for kind in KINDS if one.get(kind) is not None)
                for data_point in one[kind].get("dataPoints") or ():
                    attributes = draw(st.permutations(data_point.get("attributes") or ()))
                    alone = {
                        **one,
                        kind: {**one[kind], "dataPoints": [{**data_point, "attributes": attributes}]},
                    }
                    after.append({**entry(alone), "schemaUrl": draw(st.text(max_size=3))})
    return before, draw(st.permutations(after))


@thoroughly
@given(pair=regrouped())
def test_neither_order_nor_grouping_matters(pair):
    before, after = pair
    assert of_all(before) == of_all(after)


@thoroughly
@given(resource_metrics=otlp_json)
def test_conform_changes_none_of_them(resource_metrics):
    identity = Identity(APP, environments={PRODUCTION: "production", STAGING: None}, attributes={"team": "a"})
    given_, before = copy.deepcopy(resource_metrics), of_all(resource_metrics)
    right = conform(resource_metrics, identity)
    assert resource_metrics == given_
    assert of_all(resource_metrics) == of_all(right) == before


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("sum", {"asInt": "7"}, {"asInt": 7}),
        ("sum", {"asInt": "-9223372036854775808"}, {"asInt": -9223372036854775808}),
        ("sum", {"asDouble": 1}, {"asDouble": 1.0}),
        ("gauge", {"asDouble": 0}, {"asDouble": 0.0}),
        ("histogram", {"count": "3", "sum": 2}, {"count": 3, "sum": 2.0}),
        ("histogram", {"min": 0, "max": 4}, {"min": 0.0, "max": 4.0}),
        ("histogram", {"bucketCounts": ["1", "2"]}, {"bucketCounts": [1, 2]}),
        ("histogram", {"bucketCounts": ["1", 2]}, {"bucketCounts": [1, "2"]}),
        ("histogram", {"explicitBounds": [1, 2.5]}, {"explicitBounds": [1.0, 2.5]}),
        ("exponentialHistogram", {"count": 3, "zeroCount": "1"}, {"count": "3", "zeroCount": 1}),
        ("exponentialHistogram", {"zeroThreshold": 0}, {"zeroThreshold": 0.0}),
        ("exponentialHistogram", {"positive": {"bucketCounts": ["1"]}}, {"positive": {"bucketCounts": [1]}}),
        ("exponentialHistogram", {"negative": {"bucketCounts": ["1"]}}, {"negative": {"bucketCounts": [1]}}),
        ("summary", {"count": "3", "sum": 1}, {"count": 3, "sum": 1.0}),
        (
            "summary",
            {"quantileValues": [{"quantile": 1, "value": 2}]},
            {"quantileValues": [{"quantile": 1.0, "value": 2.0}]},
        ),
    ],
)
def test_a_number_may_be_spelt_in_two_ways(kind, one, other):
    assert of({**point(**TIMES), **one}, kind=kind) == of({**point(**TIMES), **other}, kind=kind)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"timeUnixNano": str(TIME)}, {"timeUnixNano": TIME}),
        ({"startTimeUnixNano": str(START)}, {"startTimeUnixNano": START}),
        ({"startTimeUnixNano": "0"}, {"startTimeUnixNano": None}),
        ({"startTimeUnixNano": 0}, {}),
        ({"attributes": []}, {"attributes": None}),
        ({"attributes": [text("a", "b"), text("c", "d")]}, {"attributes": [text("c", "d"), text("a", "b")]}),
        (
            {"attributes": [{"key": "a", "value": {"stringValue": "b"}}]},
            {"attributes": [{"value": {"stringValue": "b"}, "key": "a"}]},
        ),
        ({"exemplars": [{"asInt": "1"}]}, {"exemplars": []}),
        ({"exemplars": None}, {}),
    ],
)
def test_equivalent_spellings_of_a_point_have_the_same_fingerprint(one, other):
    assert of({"asInt": "1", **one}) == of({"asInt": "1", **other})


# What they do depend on


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_another_value_is_the_same_point(kind, field):
    before = whole_point(kind)
    assert_same_point_of_another_value(
        of(before, kind=kind), of({**before, field: VALUES[kind][field][1]}, kind=kind)
    )


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_a_value_left_out_is_another_value(kind, field):
    before = whole_point(kind)
    without = {name: value for name, value in before.items() if name != field}
    assert_same_point_of_another_value(of(before, kind=kind), of(without, kind=kind))


def test_a_field_of_the_future_is_a_value():
    assert_same_point_of_another_value(of(point(mean=1)), of(point(mean=2)))


@pytest.mark.parametrize(
    ("one", "other"), [({"asInt": "1"}, {"asDouble": 1.0}), ({"count": "1"}, {"sum": 1})]
)
def test_a_whole_number_is_not_a_fraction(one, other):
    assert_same_point_of_another_value(of(point(**one)), of(point(**other)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        {"startTimeUnixNano": str(START + 1)},
        {"startTimeUnixNano": None},
        # In the same minute, and swapped.
        {"timeUnixNano": str(TIME - 1)},
        {"startTimeUnixNano": str(TIME), "timeUnixNano": str(START)},
        {"attributes": []},
        {"attributes": point(environment=STAGING)["attributes"]},
        {"attributes": [*point()["attributes"], text("region", "eu")]},
        {"attributes": [*point()["attributes"], {"key": "region"}]},
        {"attributes": point()["attributes"] * 2},
    ],
    ids=str,
)
def test_times_and_attributes_make_another_point_of_the_same_value(kind, change):
    before, after = of(whole_point(kind), kind=kind), of({**whole_point(kind), **change}, kind=kind)
    assert before.minute == after.minute
    assert before.key != after.key
    assert before.point_hash[KEY_BYTES:] == after.point_hash[KEY_BYTES:]


def test_all_that_differs_in_an_attribute_makes_another_point():
    values = [{"stringValue": "1"}, {"intValue": "1"}, {"doubleValue": 1.5}, {"boolValue": True}, {}, None]
    attributes = [{"key": key, "value": value} for key in ("a", "b") for value in values]
    assert len({of({"attributes": [each]}).key for each in attributes}) == len(attributes)


def test_the_metric_makes_another_point():
    one, other = of(point(), name="latency"), of(point(), name="errors")
    assert (one.metric, other.metric) == ("latency", "errors")
    assert one.key != other.key
    assert one.point_hash[KEY_BYTES:] == other.point_hash[KEY_BYTES:]


@pytest.mark.parametrize("environment", [None, ""])
def test_points_without_an_environment_are_distinguished_by_the_queried_ones(environment):
    def key(*environments: str) -> bytes:
        return of(point(environment=environment, **TIMES), environments=environments).key

    assert len({key(), key(PRODUCTION), key(STAGING), key(PRODUCTION, STAGING)}) == 4
    assert key(PRODUCTION, STAGING) == key(STAGING, PRODUCTION)


def test_points_with_an_environment_do_not_depend_on_the_queried_ones():
    asked = [(), (PRODUCTION,), (STAGING,), (STAGING, PRODUCTION)]
    assert len({of(point(**TIMES), environments=environments) for environments in asked}) == 1


# Minutes


@pytest.mark.parametrize(
    ("nanoseconds", "minute"),
    [
        (1, 0),
        (MINUTE - 1, 0),
        (MINUTE, 1),
        (TIME, 29_923_500),
        (TIME + 1, 29_923_501),
        (2**64 - 1, 307_445_734),
    ],
)
def test_the_minute_is_that_of_the_points_time(nanoseconds, minute):
    for spelt in (nanoseconds, str(nanoseconds)):
        assert of(point(startTimeUnixNano=START, timeUnixNano=spelt)).minute == minute


@pytest.mark.parametrize("time", [{}, {"timeUnixNano": None}, {"timeUnixNano": "0"}])
def test_a_point_without_a_time_belongs_to_the_queried_minute(time):
    """Otherwise equal points of different windows would share a record and count as delivered."""
    (only,) = fingerprint_points(
        [entry(metric("n", point(**time)))], environments=[PRODUCTION], minute=29_923_500
    )
    assert only.minute == 29_923_500


# What is not known, and what is wrong


def test_a_metric_of_an_unknown_kind_is_one_point_and_has_no_value():
    def found(minute: int = 7, **sketch: Any) -> Fingerprint:
        unknown = {"name": "load", **sketch}
        (only,) = fingerprint_points([entry(unknown)], environments=[PRODUCTION], minute=minute)
        return only

    one = found(sketch={"dataPoints": [{"asInt": 1}, {"asInt": 2}]}, unit="s")
    assert (one.metric, one.minute) == ("load", 7)
    assert one.point_hash[KEY_BYTES:] == bytes(HASH_BYTES - KEY_BYTES)
    assert one == found(unit="s", sketch={"dataPoints": [{"asInt": 1}, {"asInt": 2}]})
    assert one.key != found(sketch={"dataPoints": [{"asInt": 1}, {"asInt": 3}]}, unit="s").key
    assert found(minute=8).minute == 8


def test_a_metric_without_points_has_none():
    assert of_all([entry(metric("n"), gauge("m")), {"scopeMetrics": None}, {}]) == Counter()


@pytest.mark.parametrize("nameless", [{}, {"name": None}])
def test_a_metric_without_a_name_has_fingerprints(nameless):
    (found,) = of_all([entry({**nameless, "sum": {"dataPoints": [point()]}})])
    assert isinstance(found.metric, str)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeUnixNano": "soon"},
        {"timeUnixNano": -1},
        {"timeUnixNano": 2**64},
        {"startTimeUnixNano": 1.5},
        {"attributes": {"a": "b"}},
        {"attributes": ["a"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_malformed_points_are_refused(kind, wrong):
    with pytest.raises(MalformedOtlp):
        of({**point(**TIMES), **wrong}, kind=kind)


@pytest.mark.parametrize("field", ["asDouble", "sum", "min", "max"])
def test_a_number_that_no_double_can_hold_is_malformed(field):
    """JSON has numbers of any size, and the decoder takes them where they are whole."""
    answer = decode(
        b'[{"scopeMetrics": [{"metrics": [{"sum": {"dataPoints": [{"%s": 1%s}]}}]}]}]'
        % (field.encode(), b"0" * 400)
    )
    with pytest.raises(MalformedOtlp, match=field):
        fingerprint_points(answer, environments=[], minute=0)


@thoroughly
@given(resource_metrics=almost_otlp())
def test_almost_otlp_either_has_fingerprints_or_is_malformed(resource_metrics):
    try:
        answer = decode(json.dumps(resource_metrics).encode())
        found = fingerprint_points(answer, environments=[PRODUCTION], minute=0)
    except MalformedOtlp:
        return
    assert all(len(each.point_hash) == HASH_BYTES for each in found)
