from __future__ import annotations

import copy
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.otlp.messages import (
    MalformedOtlp,
    any_value,
    attribute,
    canonical,
    count_points,
    data_points,
    decode,
    entries,
    kind_of,
    nanoseconds,
    object_at,
    points_of,
    select,
)
from tests.otlp.building import KINDS, almost_otlp, entry, exhaustively, gauge, metric, otlp_json, point, text


@pytest.mark.parametrize(
    ("given", "decoded"),
    [
        (b"[]", []),
        (b"null", []),
        (b" [ {} ] ", [{}]),
        (b'[{"future": [1, 1.0, 18446744073709551615, "\\u00fc"]}]', [{"future": [1, 1.0, 2**64 - 1, "ü"]}]),
    ],
)
def test_decode(given, decoded):
    assert decode(given) == decoded


def test_decode_distinguishes_whole_numbers_from_others():
    (decoded,) = decode(b'[{"a": 1, "b": 1.0, "c": 9007199254740993}]')
    assert [(type(value), value) for value in decoded.values()] == [
        (int, 1),
        (float, 1.0),
        (int, 9007199254740993),
    ]


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"[",
        b"[{}] []",
        b"{}",
        b"[[]]",
        b"[null]",
        b'"text"',
        b"1",
        b"[{\xff}]",
        b'[{"a": NaN}]',
        b'[{"a": 1e999}]',
        b"[" * 100_000,
    ],
)
def test_a_value_that_is_not_an_array_of_objects_is_malformed(given):
    with pytest.raises(MalformedOtlp, match="resourceMetrics"):
        decode(given)


@pytest.mark.parametrize("left_out", [{}, {"field": None}])
def test_null_equals_a_missing_field(left_out):
    assert entries(left_out, "field") == []
    assert object_at(left_out, "field") == {}
    assert nanoseconds(left_out, "field") == 0


@pytest.mark.parametrize("wrong", [{}, "text", 1, True, [1], [None], [{}, []]])
def test_a_repeated_field_is_an_array_of_objects(wrong):
    with pytest.raises(MalformedOtlp, match="field"):
        entries({"field": wrong}, "field")


@pytest.mark.parametrize("wrong", [[], "text", 0, False])
def test_a_message_field_is_an_object(wrong):
    with pytest.raises(MalformedOtlp, match="field"):
        object_at({"field": wrong}, "field")


@pytest.mark.parametrize("kind", KINDS)
def test_kind_of(kind):
    others = dict.fromkeys(set(KINDS) - {kind})
    assert kind_of({"name": "n", kind: {}}) == kind
    assert kind_of({"name": "n", **others, kind: {}}) == kind


def test_a_kind_from_after_this_was_written_is_none():
    assert kind_of({"name": "n", "sketch": {"dataPoints": [{}]}}) is None
    assert points_of({"name": "n", "sketch": {"dataPoints": [{}]}}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_not_an_object_is_malformed_and_names_the_metric(kind):
    with pytest.raises(MalformedOtlp, match=f"{kind} of 'latency'"):
        kind_of({"name": "latency", kind: []})


def test_count_points():
    resource_metrics = [
        entry(metric("a", point(), point()), gauge("b", point())),
        {"resource": None, "scopeMetrics": None},
        {"scopeMetrics": [{"metrics": None}, {"metrics": [{"name": "c", "sum": {"dataPoints": None}}]}]},
        entry(metric("d", point())),
    ]
    assert count_points(resource_metrics) == 4


thoroughly = settings(exhaustively, max_examples=80)
UNKNOWN = {"name": "load", "sketch": {"dataPoints": [{"asInt": 1}, {"asInt": 2}]}}


def test_data_points_are_those_of_known_kinds_and_metrics_of_others():
    one, other, third = point(asInt="1"), point(asInt="2"), point(asInt="3")
    a, b = metric("a", one, other), gauge("b", third)
    answer = [entry(a, UNKNOWN), {}, {"scopeMetrics": None}, entry(metric("none")), entry(b)]
    assert list(data_points(answer)) == [(a, one), (a, other), (UNKNOWN, None), (b, third)]


def with_unknown(resource_metrics: list) -> list:
    """Return the same with metrics of an unknown kind before, between and after the others."""
    return [entry(UNKNOWN), *resource_metrics, entry(metric("a", point()), UNKNOWN, gauge("b", point()))]


ANY_OTLP = st.one_of(otlp_json, otlp_json.map(with_unknown))


@thoroughly
@given(resource_metrics=ANY_OTLP)
def test_data_points_are_as_many_as_there_are(resource_metrics):
    found = list(data_points(resource_metrics))
    assert sum(one is not None for _, one in found) == count_points(resource_metrics)
    assert all(
        any(one is each for each in points_of(its_metric)) for its_metric, one in found if one is not None
    )
    assert all(its_metric is UNKNOWN for its_metric, one in found if one is None)


def without_empty_parts(resource_metrics: list) -> list:
    """Return OTLP/JSON without metrics that have no point, scopes that have no metric, and so on."""

    def left(metrics: list | None) -> list:
        return [each for each in metrics or () if points_of(each) or kind_of(each) is None]

    return [
        {**resource, "scopeMetrics": scopes}
        for resource in resource_metrics
        if (
            scopes := [
                {**scope, "metrics": metrics}
                for scope in resource.get("scopeMetrics") or ()
                if (metrics := left(scope.get("metrics")))
            ]
        )
    ]


@thoroughly
@given(resource_metrics=ANY_OTLP)
def test_selecting_all_points_only_drops_empty_messages(resource_metrics):
    everything = range(len(list(data_points(resource_metrics))))
    assert select(resource_metrics, everything) == without_empty_parts(resource_metrics)


@thoroughly
@given(resource_metrics=ANY_OTLP, data=st.data())
def test_exactly_the_chosen_points_are_selected(resource_metrics, data):
    before = copy.deepcopy(resource_metrics)
    found = list(data_points(resource_metrics))
    chosen = data.draw(st.sets(st.sampled_from(range(len(found)))) if found else st.just(set()))
    others = set(range(len(found))) - chosen

    selected = select(resource_metrics, chosen)
    assert [one for _, one in data_points(selected)] == [found[number][1] for number in sorted(chosen)]
    # What is around them is as it was: with the rest beside it, there is everything.
    assert without_empty_parts(selected) == selected
    assert whole(selected) + whole(select(resource_metrics, others)) == whole(resource_metrics)
    assert resource_metrics == before


def whole(resource_metrics: list) -> Counter[str]:
    """Return each point with its resource, scope and metric."""
    found = []
    for resource in resource_metrics:
        for scope in resource.get("scopeMetrics") or ():
            for each in scope.get("metrics") or ():
                kind = kind_of(each)
                around = (
                    {key: value for key, value in resource.items() if key != "scopeMetrics"},
                    {key: value for key, value in scope.items() if key != "metrics"},
                    each if kind is None else {**each, kind: {**each[kind], "dataPoints": None}},
                )
                found += [json.dumps([around, one]) for one in (points_of(each) if kind else [None])]
    return Counter(found)


def test_selected_points_stay_in_order_if_chosen_in_any_order():
    points = [point(asInt=str(number)) for number in range(5)]
    answer = [entry(metric("a", *points[:3])), entry(metric("a", *points[3:]))]
    for chosen in ([4, 0, 2], (2, 4, 0), {0, 2, 4}, frozenset([0, 2, 4])):
        assert [one for _, one in data_points(select(answer, chosen))] == [points[0], points[2], points[4]]


def test_nothing_selected_is_nothing():
    assert select([entry(metric("a", point()), UNKNOWN)], ()) == []
    assert select([entry(metric("a", point()), UNKNOWN)], {2, 17, -1}) == []


def test_an_unknown_kind_is_selected_whole_or_not_at_all():
    answer = [entry(metric("a", point()), UNKNOWN, gauge("b", point()))]
    assert select(answer, {1}) == [entry(UNKNOWN)]
    assert select(answer, {0, 2}) == [entry(metric("a", point()), gauge("b", point()))]


@thoroughly
@given(almost=almost_otlp())
def test_almost_otlp_is_either_selected_from_or_malformed(almost):
    try:
        answer = decode(json.dumps(almost).encode())
        found = list(data_points(answer))
        selected = select(answer, range(len(found)))
    except MalformedOtlp:
        return
    assert [one for _, one in data_points(selected)] == [one for _, one in found]


@pytest.mark.parametrize(
    "malformed",
    [
        [{"scopeMetrics": {}}],
        [{"scopeMetrics": [{"metrics": "a"}]}],
        [{"scopeMetrics": [{"metrics": [{"sum": []}]}]}],
        [{"scopeMetrics": [{"metrics": [{"sum": {"dataPoints": [1]}}]}]}],
    ],
)
def test_malformed_metrics_cannot_be_selected_from(malformed):
    with pytest.raises(MalformedOtlp):
        list(data_points(malformed))
    with pytest.raises(MalformedOtlp):
        select(malformed, {0})


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ([text("a", "x"), text("b", "y")], "y"),
        ([text("b", "")], ""),
        ([text("a", "x")], None),
        ([{"key": "b", "value": {"intValue": "1"}}], None),
        ([{"key": "b", "value": None}], None),
        ([{"key": "b"}], None),
        (None, None),
    ],
)
def test_attribute(attributes, value):
    assert attribute({"attributes": attributes}, "b") == value


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("text", {"stringValue": "text"}),
        (True, {"boolValue": True}),
        (7, {"intValue": "7"}),
        (-(2**63), {"intValue": "-9223372036854775808"}),
        (1.5, {"doubleValue": 1.5}),
        (["a", 1], {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}]}}),
        ((), {"arrayValue": {"values": []}}),
    ],
)
def test_any_value(value, encoded):
    assert any_value(value) == encoded


@pytest.mark.parametrize("value", [None, {"a": 1}, b"bytes", ["a", None], object()])
def test_values_without_an_otlp_type(value):
    with pytest.raises(TypeError):
        any_value(value)


@pytest.mark.parametrize("value", [1698720900000000000, "1698720900000000000"])
def test_nanoseconds_as_number_or_text_stay_exact(value):
    assert nanoseconds({"timeUnixNano": value}, "timeUnixNano") == 1698720900000000000


# fixed64 holds whole numbers from 0 to 2**64 - 1.
@pytest.mark.parametrize(
    "value",
    ["soon", "1e18", [1], {"a": 1}, -1, "-1", 1.5, 2**64, 1e300, True, "1" * 5000],
    ids=lambda value: str(value)[:20],
)
def test_a_value_that_is_not_a_time_is_malformed(value):
    with pytest.raises(MalformedOtlp, match="timeUnixNano"):
        nanoseconds({"timeUnixNano": value}, "timeUnixNano")


def test_canonical_ignores_the_order_of_fields_but_not_of_entries():
    assert canonical({"a": 1, "b": {"c": 2, "d": 3}}) == canonical({"b": {"d": 3, "c": 2}, "a": 1})
    assert canonical({"a": [1, 2]}) != canonical({"a": [2, 1]})
    assert canonical({"a": 1}) != canonical({"a": "1"})
