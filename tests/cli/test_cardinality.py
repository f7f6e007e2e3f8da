from __future__ import annotations

import json
from types import SimpleNamespace

from airflow_provider_forge.cli.fetch import _concatenate, cardinalities
from tests.otlp.building import entry, gauge, metric, text


def point(time: str, *attributes):
    return {"timeUnixNano": time, "attributes": list(attributes)}


def test_a_series_is_a_set_of_attributes_in_any_order():
    url, status = text("url", "/a"), text("status", "2xx")
    (one,) = cardinalities(
        [entry(metric("m", point("1", url, status), point("2", status, url), point("1", url)))]
    )
    assert (one.name, one.kind, one.unit, one.points, len(one.series)) == ("m", "sum", "s", 3, 2)


def test_values_are_counted_by_attribute_the_most_first():
    points = [point("1", text("url", f"/{n}"), text("app", "a"), text("b", "b")) for n in range(3)]
    (one,) = cardinalities([entry(metric("m", *points))])
    assert list(one.by_attribute().items()) == [("url", 3), ("app", 1), ("b", 1)]


def test_the_metric_with_the_most_series_comes_first():
    many = [point("1", text("url", f"/{n}")) for n in range(3)]
    answer = [entry(gauge("few", point("1")), metric("many", many[0])), entry(metric("many", *many[1:]))]
    assert [(one.name, len(one.series)) for one in cardinalities(answer)] == [("many", 3), ("few", 1)]


def test_a_metric_of_an_unknown_kind_is_included():
    (one,) = cardinalities([entry({"name": "new", "newKind": {"dataPoints": [{}]}})])
    assert (one.name, one.kind, one.points, len(one.series)) == ("new", "?", 0, 0)


def test_no_metrics():
    assert cardinalities([]) == []


def test_bytes_that_are_not_utf8_are_still_json():
    answers = [
        SimpleNamespace(resource_metrics=b'[{"name": "m\xff"}]'),
        SimpleNamespace(resource_metrics=b"[]"),
    ]
    assert json.loads(_concatenate(answers)) == [{"name": "m\ufffd"}]
    assert json.loads(_concatenate(answers[:1])) == [{"name": "m\ufffd"}]
