from __future__ import annotations

import json

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from airflow_provider_forge.sandbox import Scenario, encode, points_of
from airflow_provider_forge.sandbox.catalogue import METRICS
from airflow_provider_forge.sandbox.environments import DEFAULT_APP, Directory
from airflow_provider_forge.sandbox.traffic import samples_of_minute
from tests.sandbox.asking import START, export_request


@pytest.mark.parametrize("shape", ["histogram", "exponential_histogram", "summary", "gauge"])
def test_json_and_protobuf_have_the_same_points(shape):
    environments = Directory().of(DEFAULT_APP)
    minute = int(START.timestamp()) // 60
    samples = [
        sample
        for environment in environments
        for offset in range(5)
        for sample in samples_of_minute(Scenario(), DEFAULT_APP, environment, minute + offset)
    ]
    assert {sample.label for sample in samples} == set(METRICS)
    parsed = json.loads(json.dumps(encode.to_json(samples, shape)))
    assert [ParseDict(each, ResourceMetrics()) for each in parsed] == [encode.to_message(samples, shape)]


def one_point(change=lambda request: None, value=1):
    request = export_request(points=1, value=value)
    change(request)
    (point,) = points_of(request.resource_metrics)
    return point


def metric_of(request):
    return request.resource_metrics[0].scope_metrics[0].metrics[0]


def data_point_of(request):
    return metric_of(request).sum.data_points[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda request: setattr(metric_of(request), "name", "another"),
        lambda request: setattr(metric_of(request).sum, "aggregation_temporality", 2),
        lambda request: setattr(data_point_of(request), "as_int", 2),
        lambda request: setattr(data_point_of(request), "as_double", 1.0),
        lambda request: setattr(data_point_of(request), "flags", 1),
        lambda request: setattr(data_point_of(request), "start_time_unix_nano", 61),
        lambda request: setattr(data_point_of(request), "time_unix_nano", 121),
        lambda request: data_point_of(request).attributes.add(key="more"),
        lambda request: setattr(data_point_of(request).attributes[0].value, "int_value", 0),
    ],
)
def test_changes_that_make_another_point(change):
    assert one_point(change) != one_point()


@pytest.mark.parametrize(
    "change",
    [
        lambda request: setattr(metric_of(request), "unit", "{request}"),
        lambda request: setattr(metric_of(request), "description", "Requests"),
        lambda request: setattr(metric_of(request).sum, "is_monotonic", True),
        lambda request: request.resource_metrics[0].resource.ClearField("attributes"),
        lambda request: request.resource_metrics[0].scope_metrics[0].ClearField("scope"),
    ],
)
def test_changes_that_an_exporter_may_make(change):
    assert one_point(change) == one_point()
    assert hash(one_point(change)) == hash(one_point())


def test_attributes_have_no_order():
    def add(*keys):
        def change(request):
            for key in keys:
                data_point_of(request).attributes.add(key=key).value.string_value = key

        return change

    assert one_point(add("a", "z")) == one_point(add("z", "a")) != one_point(add("a"))


def test_a_point_gives_its_content_back():
    point = one_point(value=2.5)
    assert point.data().as_double == 2.5
    assert point.to_json() == {
        "metric": "forge_api_request_count",
        "kind": "sum",
        "temporality": 1,
        "attributes": {"index": "0"},
        "start": "60",
        "time": "120",
        "value": {"asDouble": 2.5},
    }


def test_a_metric_without_data_has_no_points():
    assert points_of([ResourceMetrics(scope_metrics=[{"metrics": [{"name": "nothing"}]}])]) == []
