from __future__ import annotations

import pytest

from airflow_provider_forge.otlp.model import (
    MalformedOtlp,
    any_value,
    attribute,
    canonical,
    count_points,
    decode,
    entries,
    kind_of,
    nanoseconds,
    object_at,
    points_of,
)
from tests.otlp.building import KINDS, entry, gauge, metric, point, text


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


def test_decode_tells_whole_numbers_from_others():
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
def test_what_is_no_array_of_objects_is_malformed(given):
    with pytest.raises(MalformedOtlp, match="resourceMetrics"):
        decode(given)


@pytest.mark.parametrize("left_out", [{}, {"field": None}])
def test_null_is_as_good_as_left_out(left_out):
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
def test_a_kind_that_is_no_object_is_malformed_and_names_the_metric(kind):
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
def test_what_otlp_has_no_type_for(value):
    with pytest.raises(TypeError):
        any_value(value)


@pytest.mark.parametrize("value", [1698720900000000000, "1698720900000000000"])
def test_nanoseconds_come_as_number_or_text_and_stay_exact(value):
    assert nanoseconds({"timeUnixNano": value}, "timeUnixNano") == 1698720900000000000


# fixed64 holds whole numbers from 0 to 2**64 - 1.
@pytest.mark.parametrize("value", ["soon", "1e18", [1], {"a": 1}, -1, "-1", 1.5, 2**64, 1e300, True])
def test_what_is_no_time_is_malformed(value):
    with pytest.raises(MalformedOtlp, match="timeUnixNano"):
        nanoseconds({"timeUnixNano": value}, "timeUnixNano")


def test_canonical_knows_no_order_of_fields_but_one_of_entries():
    assert canonical({"a": 1, "b": {"c": 2, "d": 3}}) == canonical({"b": {"d": 3, "c": 2}, "a": 1})
    assert canonical({"a": [1, 2]}) != canonical({"a": [2, 1]})
    assert canonical({"a": 1}) != canonical({"a": "1"})
