"""The fast payload and its fallback have the same result for any payload."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF, PROTOCOLS
from airflow_provider_forge.otlp.messages import MalformedOtlp
from airflow_provider_forge.payload.conform import Identity
from airflow_provider_forge.payload.dict_payload import DictPayload
from airflow_provider_forge.payload.fast_payload import FastPayload
from airflow_provider_forge.payload.fingerprints import HASH_BYTES, KEY_BYTES
from airflow_provider_forge.payload.passthrough_payload import PassthroughPayload
from airflow_provider_forge.payload.payload import ReadOptions
from airflow_provider_forge.payload.reader import read
from airflow_provider_forge.payload.structs import REFUSALS
from tests.delivery.recorded import ENVIRONMENTS, MINUTE, RECORDED, in_words
from tests.delivery.requests import said
from tests.otlp.building import (
    APP,
    KINDS,
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
    usual,
)

IDENTITY = Identity(APP, environments={PRODUCTION: "production"}, attributes={"team": "a"})


def source(content, protocol=HTTP_PROTOBUF, identity=IDENTITY) -> tuple[bytes, ReadOptions]:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return raw, ReadOptions([PRODUCTION, STAGING], 29_923_500, identity, protocol)


def outcome(make, part):
    """Return all results of a payload; MalformedOtlp if it is malformed."""
    try:
        content = make()
        everything = range(len(content.fingerprints))
        requests = [said(content.build_request(numbers)) for numbers in (everything, everything[part])]
    except MalformedOtlp:
        return MalformedOtlp
    return content.fingerprints, content.count, content.anomalies, content.left_out, requests


parts = st.sampled_from([slice(0, None, 2), slice(None, None, -3), slice(1, None)])
"""Selections of a payload's points."""


@pytest.mark.parametrize("identity", [IDENTITY, None], ids=["conform", "raw"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@exhaustively
@given(content=st.one_of(otlp_json.map(usual), otlp_json, almost_otlp()), part=parts)
def test_both_ways_have_one_outcome(protocol, identity, content, part):
    given = source(content, protocol, identity)
    complete = outcome(lambda: DictPayload(*given), part)
    assert outcome(lambda: read(*given), part) == complete
    try:
        FastPayload(*given)
    except REFUSALS:
        return
    assert outcome(lambda: FastPayload(*given), part) == complete


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fingerprints_are_those_of_the_first_version(protocol, sample):
    ways = set()
    for answer in RECORDED["answers"]:
        given = answer["resourceMetrics"].encode(), ReadOptions(ENVIRONMENTS, MINUTE, IDENTITY, protocol)
        content = read(*given)
        recorded = answer["points"]
        if recorded is None:  # one bad value made the first version find all of it malformed
            assert content.left_out
            continue
        assert content.fingerprints == DictPayload(*given).fingerprints
        if content.left_out:  # points of which the first version took fingerprints, and could not send them
            assert all(each in recorded for each in in_words(content.fingerprints))
            continue
        # To it, a metric of an unknown kind was a point, with zeros for its value. Protobuf cannot hold it.
        known = [each for each in recorded if protocol == HTTP_JSON or not each[2].endswith("0" * 8)]
        assert in_words(content.fingerprints) == known, answer["resourceMetrics"]
        ways.add((type(content), bool(content.fingerprints)))
    assert (FastPayload, True) in ways


def test_the_sample_is_read_by_the_fast_payload(sample):
    text = json.loads(sample)["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]["resourceMetrics"]
    content = read(json.dumps(text).encode(), ReadOptions(ENVIRONMENTS, MINUTE, IDENTITY, HTTP_PROTOBUF))
    assert isinstance(content, FastPayload)
    assert in_words(content.fingerprints) == RECORDED["sample"]


_few_points = st.lists(
    st.builds(
        lambda site, start, time, value, name, form: (
            name,
            form,
            point(environment=site, startTimeUnixNano=start, timeUnixNano=time, asInt=value),
        ),
        st.sampled_from([PRODUCTION, STAGING]),
        st.integers(0, 3),
        st.integers(0, 4),
        st.integers(1, 2),
        st.sampled_from("nm"),
        st.sampled_from([metric] * 4 + [gauge, lambda *a: metric(*a, aggregationTemporality=2)]),
    ),
    max_size=4,
)


@settings(exhaustively, max_examples=500)
@given(points=_few_points)
def test_no_oddity_escapes_a_glance(points):
    content = source([entry(*(form(name, each) for name, form, each in points))])
    assert FastPayload(*content).anomalies == DictPayload(*content).anomalies


EDGES = {
    "gauge": {"asDouble": "NaN"},
    "sum": {"asInt": str(-(2**63)), "flags": 2**32 - 1},
    "histogram": {
        "count": 2**64 - 1,
        "sum": "-Infinity",
        "bucketCounts": [0, "1", str(2**64 - 1)],
        "explicitBounds": [-0.0, 5e-324],
        "min": 7,
        "max": "Infinity",
    },
    "exponentialHistogram": {
        "count": "3",
        "sum": 1.5,
        "scale": -(2**31),
        "zeroCount": "1",
        "zeroThreshold": 0.25,
        "positive": {"offset": 2**31 - 1, "bucketCounts": ["1", str(2**64 - 1), "300"]},
        "negative": {"offset": -1, "bucketCounts": []},
        "min": 0.0,
        "max": 1e308,
    },
    "summary": {"count": "2", "sum": 3.0, "quantileValues": [{"quantile": 0.5, "value": "NaN"}, {}]},
}
ATTRIBUTES = [
    text("ünïcode \0", "\u2028 \U0001f600"),
    {"key": "", "value": {"arrayValue": {"values": [{"intValue": "-1"}, {"boolValue": False}, {}]}}},
    {"key": "bytes", "value": {"bytesValue": "AAE="}},
    {"key": "no value"},
]


def with_point(kind, **fields):
    given = point(timeUnixNano=str(2**64 - 1), **{**EDGES[kind], **fields})
    return [entry({"name": "forge_x_count", "unit": "s", kind: {"dataPoints": [given, point()]}})]


@pytest.mark.parametrize("identity", [IDENTITY, None], ids=["conform", "raw"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_payload_supports_every_kind_of_metric_and_edge_values(kind, protocol, identity):
    content = with_point(kind)
    content[0]["scopeMetrics"][0]["metrics"][0][kind]["dataPoints"][0]["attributes"] += ATTRIBUTES
    given = source(content, protocol, identity)
    assert isinstance(read(*given), FastPayload)
    assert outcome(lambda: FastPayload(*given), slice(1)) == outcome(lambda: DictPayload(*given), slice(1))


@pytest.mark.parametrize(
    "content",
    [
        [{**entry(metric("n", point())), "future": 1}],
        [entry(metric("n", point()), future=1)],
        [entry({**metric("n", point()), "future": 1})],
        [entry(metric("n", point(), future=1))],
        [entry(metric("n", point(future=1)))],
        [entry(metric("n", {"attributes": [{**text("a", "b"), "future": 1}]}))],
        [entry(metric("n", {"attributes": [{"key": "a", "value": {"futureValue": 1}}]}))],
        [entry(metric("n", point()), scope={"future": 1})],
        [{**entry(metric("n", point())), "resource": {"future": 1}}],
        [entry(metric("n", point()), {"name": "m", "sketch": {"dataPoints": [point()]}})],
        [entry(metric("n", point()), {"name": "m"})],
        [entry({**metric("n", point()), **gauge("n", point())})],
        [entry(metric("n", point(asInt=None)))],
        [entry(metric("n", point(asInt=1, asDouble=1.0)))],
        [entry(metric("n", point(asInt="05 ")))],
        [entry(metric("n", point(asInt=2**63)))],
        [entry(metric("n", point(exemplars=[{"asInt": 1, "spanId": "00f067aa0ba902b7"}])))],
        with_point("histogram", bucketCounts=["1,2", "3"]),
        with_point("histogram", bucketCounts=["1", " 2"]),
        with_point("histogram", bucketCounts=["-1"]),
        with_point("histogram", explicitBounds=[1.0] * 2000),
        with_point("exponentialHistogram", scale=2**31),
    ],
)
def test_an_unusual_shape_makes_only_its_point_or_its_surroundings_slow(content):
    given = source(content)
    assert isinstance(read(*given), FastPayload)
    assert outcome(lambda: read(*given), slice(1)) == outcome(lambda: DictPayload(*given), slice(1))
    as_json = source(content, HTTP_JSON)
    assert outcome(lambda: read(*as_json), slice(1)) == outcome(lambda: DictPayload(*as_json), slice(1))


@pytest.mark.parametrize(
    ("content", "protocol"),
    [
        ([entry(metric("n", point()), {"name": "m", "sketch": {"dataPoints": [point()]}})], HTTP_JSON),
        ([entry(metric("n", [point(), point()]))], HTTP_PROTOBUF),
        ([entry({"name": "n", "sum": {"data_points": [point()]}})], HTTP_PROTOBUF),
        ([[entry(metric("n", point()))]], HTTP_PROTOBUF),
        ([{"resourceMetrics": [entry(metric("n", point()))]}], HTTP_PROTOBUF),
        (
            b'[{"scopeMetrics":[{"metrics":[{"name":"n","sum":{"dataPoints":[{"asDouble":NaN}]}}]}]}]',
            HTTP_JSON,
        ),
    ],
)
def test_a_shape_that_cannot_be_taken_apart_is_read_by_the_fallback(content, protocol, caplog):
    given = source(content, protocol)
    with caplog.at_level(logging.INFO):
        assert isinstance(read(*given), DictPayload)
    assert "a slower reader is used" in caplog.text
    assert outcome(lambda: read(*given), slice(1)) == outcome(lambda: DictPayload(*given), slice(1))


UNUSUAL_POINTS = {
    "null": {"flags": None},
    "null attributes and times": {"attributes": None, "startTimeUnixNano": None, "timeUnixNano": None},
    "unknown": {"future": {"count": 1, "sum": 2}},
    "unknown in place of a value": {"asInt": None, "count": None, "future": 1},
    "no exemplars": {"exemplars": []},
    "exemplar": {"exemplars": [{"asDouble": 1, "spanId": "00f067aa0ba902b7", "timeUnixNano": "7"}]},
    "exemplar to be repaired": {
        "exemplars": [{"asInt": "x"}, {"asInt": "1", "spanId": "8Gf6qQupArc="}, None]
    },
    "null among exemplars": {"exemplars": [None, {"asInt": "1"}]},
    "snake case": {"time_unix_nano": None, "start_time_unix_nano": "1"},
    "repaired": {"timeUnixNano": "1970-01-01T00:01:00Z"},
    "invalid": {"timeUnixNano": "soon"},
    "unknown kind of attribute": {"attributes": [{"key": "a", "value": {"futureValue": 1}}, None]},
}


@pytest.mark.parametrize(
    ("protocol", "identity"), [(HTTP_PROTOBUF, IDENTITY), (HTTP_JSON, None)], ids=["conform", "raw"]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", UNUSUAL_POINTS.values(), ids=UNUSUAL_POINTS)
def test_an_unusual_point_among_others_has_one_outcome_in_both_ways(fields, kind, protocol, identity):
    content = with_point(kind)
    points = content[0]["scopeMetrics"][0]["metrics"][0][kind]["dataPoints"]
    points.insert(1, {**points[0], **fields})
    # Alone in its metric as well, and twice, so that anomalies are looked for.
    content.append(entry({"name": "alone", kind: {"dataPoints": [points[1]]}}))
    content.append(entry({"name": "twice", "unit": None, kind: {"dataPoints": [points[1], points[1]]}}))
    given = source(content, protocol, identity)
    assert isinstance(read(*given), FastPayload)
    assert outcome(lambda: read(*given), slice(1, None)) == outcome(
        lambda: DictPayload(*given), slice(1, None)
    )


def test_a_field_that_protobuf_does_not_have_is_named(caplog):
    content = [{**entry(metric("n", point(asInt="1", future=1), point())), "later": 1}]
    assert read(*source(content)).count == 2
    assert "Protobuf has no field for NumberDataPoint.future, ResourceMetrics.later" in caplog.text
    caplog.clear()
    assert read(*source(content, HTTP_JSON)).count == 2
    assert not caplog.text


def holding(*lists: bytes, name: bytes = b'"name":"n"', gap: bytes = b"") -> bytes:
    """Return a metric that has a field `gauge` for each list of points, spelled with gaps or without."""
    gauges = b",".join(b'"gauge":%b{"dataPoints":%b[%b]}' % (gap, gap, points) for points in lists)
    return b"{%b,%b}" % (name, gauges)


def timed(*minutes: int) -> bytes:
    """Return the texts of points."""
    return b",".join(
        b'{"asInt":"%d","timeUnixNano":"%d"}' % (each, each * 60_000_000_000) for each in minutes
    )


ONE, TWO = timed(29_923_500), timed(29_923_501, 29_923_502)
REPEATED = {
    "lists of points": b'[{"scopeMetrics":[{"metrics":[{"name":"n","gauge":'
    b'{"dataPoints":[%b],"dataPoints":[%b]}}]}]}]' % (ONE, TWO),
    "a long list before a short one": b'[{"scopeMetrics":[{"metrics":[{"name":"n","gauge":'
    b'{"dataPoints":[%b],"dataPoints":[%b]}}]}]}]' % (TWO, ONE),
    "an empty list at the end": b'[{"scopeMetrics":[{"metrics":[{"name":"n","gauge":'
    b'{"dataPoints":[%b,%b],"dataPoints":[]}}]}]}]' % (ONE, TWO),
    "gauges": b'[{"scopeMetrics":[{"metrics":[%b]}]}]' % holding(ONE, TWO),
    "gauges, the last without points": b'[{"scopeMetrics":[{"metrics":[{"name":"n","gauge":'
    b'{"dataPoints":[%b,%b]},"gauge":{}}]}]}]' % (ONE, TWO),
    "gauges with white space": b'[{"scopeMetrics":[{"metrics":[%b]}]}]' % holding(ONE, TWO, gap=b"  "),
    "metrics": b'[{"scopeMetrics":[{"metrics":[%b],"metrics":[%b]}]}]' % (holding(ONE), holding(TWO)),
    "scopes": b'[{"scopeMetrics":[{"metrics":[%b]}],"scopeMetrics":[{"metrics":[%b]}]}]'
    % (holding(ONE), holding(TWO)),
    "beside a metric without points": b'[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{}},%b]}]}]'
    % holding(ONE, TWO),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("text", REPEATED.values(), ids=REPEATED)
def test_no_points_of_a_field_that_is_there_twice_are_lost(text, protocol, caplog):
    """JSON allows it, and a decoder keeps the last."""
    content = read(*source(text, protocol, None))
    assert content.count == 3
    assert {each.minute for each in content.fingerprints} == {29_923_500, 29_923_501, 29_923_502}
    assert not content.left_out
    assert content.build_request(range(3)).points == 3
    assert "twice in one object" in caplog.text


def test_a_value_that_is_there_twice_is_the_last_as_json_has_it():
    text = b'[{"scopeMetrics":[{"metrics":[{"name":"m","name":"n","gauge":{"dataPoints":[%b]}}]}]}]' % ONE
    assert [each.metric for each in DictPayload(*source(text)).fingerprints] == ["n"]
    assert [each.metric for each in read(*source(text)).fingerprints] == ["n"]


@pytest.mark.parametrize("spelled", ["compact", "with white space"])
def test_a_text_without_repeats_is_read_in_the_fast_way(spelled):
    separators = (",", ":") if spelled == "compact" else (" , ", " : ")
    metrics = [metric("n", point(), point()), metric("m", point())]
    text = json.dumps([entry(*metrics)], separators=separators).encode()
    assert isinstance(read(*source(text)), FastPayload)


def test_parts_of_a_passed_through_payload_lose_nothing_either():
    for raw in REPEATED.values():
        content = read(*passed_through(raw))
        if isinstance(content, PassthroughPayload):
            assert content.build_request(range(content.count)).body == b'{"resourceMetrics":%b}' % raw
            content.count += 1
            with pytest.raises(MalformedOtlp, match="twice in one object"):
                content.build_request([])


@pytest.mark.parametrize(
    "counts", [b'["1", "2"]', b"[1,2]", b'[ "1","2"]', b'["1",2]', b'["01","2"]', b"[]", b'["1"]']
)
def test_bucket_counts_in_any_spelling(counts):
    raw = json.dumps(with_point("histogram", bucketCounts="X")).encode().replace(b'"X"', counts)
    for protocol in PROTOCOLS:
        given = source(raw, protocol)
        assert outcome(lambda: read(*given), slice(1)) == outcome(lambda: DictPayload(*given), slice(1))  # noqa: B023


def passed_through(raw: bytes, minute: int = 0) -> tuple[bytes, ReadOptions]:
    return raw, ReadOptions([PRODUCTION], minute, None, HTTP_JSON, recorded=False)


def test_an_unchanged_and_unrecorded_text_is_passed_through():
    raw = (
        b' [ {"scopeMetrics":[{"metrics":[{"name":"\\u00fc","sum":{"dataPoints":[{"asInt":1.0,"x":1}]}}]}]}]'
    )
    content = read(*passed_through(raw))
    assert isinstance(content, PassthroughPayload)
    assert content.build_request([0]).body == b'{"resourceMetrics":%b}' % raw
    assert said(content.build_request([0])) == said(DictPayload(*passed_through(raw)).build_request([0]))


def test_points_of_a_passthrough_payload_are_slices_of_its_bytes():
    points = [b'{ "asInt":1.0,"future":[%d] }' % number for number in range(3)]
    raw = b'[{"scopeMetrics":[{"metrics":[{"name":"n","sum":{"dataPoints":[%b]}}]}]}]' % b" , ".join(points)
    part = read(*passed_through(raw)).build_request([2, 0])
    assert part.body == b'{"resourceMetrics":%b}' % raw.replace(b" , ".join(points), b",".join(points[::2]))
    assert part.points == 2


@exhaustively
@given(content=otlp_json.map(usual), part=parts)
def test_a_passed_through_payload_is_unchanged(content, part):
    given = passed_through(json.dumps(content).encode())
    through, complete = read(*given), DictPayload(*given)
    assert through.count == complete.count
    assert [each[:2] for each in through.fingerprints] == [each[:2] for each in complete.fingerprints]
    numbers = range(len(complete.fingerprints))
    assert said(through.build_request(numbers)) == said(complete.build_request(numbers))
    assert said(through.build_request(numbers[part])) == said(complete.build_request(numbers[part]))


def test_fingerprints_of_a_passthrough_payload_are_unique():
    raw = json.dumps([entry(metric("n", point(), point()))]).encode()
    marks = [each.point_hash for minute in (1, 2) for each in read(*passed_through(raw, minute)).fingerprints]
    assert len(set(marks)) == len({mark[:KEY_BYTES] for mark in marks}) == 4
    assert {len(mark) for mark in marks} == {HASH_BYTES}


GOOD_POINT = b'{"asInt":1,"timeUnixNano":"60000000000"}'


def around(*points: bytes) -> bytes:
    metric = b'{"name":"n","sum":{"aggregationTemporality":1,"dataPoints":[%b]}}' % b",".join(points)
    return b'[{"scopeMetrics":[{"metrics":[%b]}]}]' % metric


@pytest.mark.parametrize(
    "broken", [b'{"asInt":01}', b"{}]", b'{"asInt":1', b"{'asInt':1}", b'{"note":"\\x"}']
)
def test_a_passthrough_payload_must_be_json(broken):
    with pytest.raises(MalformedOtlp):
        read(*passed_through(around(broken))).build_request([0])


@pytest.mark.parametrize(
    "broken",
    [
        b'"\xff"',
        b'{"timeUnixNano":"today"}',
        b'{"startTimeUnixNano":"today"}',
        b'{"timeUnixNano":-1}',
        b"[1]",
    ],
)
def test_an_invalid_point_is_cut_out_of_a_passthrough_payload(broken):
    content = read(*passed_through(around(GOOD_POINT, broken, GOOD_POINT)))
    assert content.left_out.total() == 1
    assert content.count == 2
    body = content.build_request(range(2)).body
    assert body == b'{"resourceMetrics":%b}' % around(GOOD_POINT, GOOD_POINT)


def test_an_invalid_character_is_repaired_in_a_passthrough_payload():
    content = read(*passed_through(around(b'{"asInt":1,"note":"\xff"}')))
    assert not content.left_out
    assert json.loads(content.build_request([0]).body)["resourceMetrics"] == json.loads(
        around('{"asInt":1,"note":"\ufffd"}'.encode())
    )
