from __future__ import annotations

import pytest

from airflow_provider_forge.otlp.messages import MalformedOtlp
from airflow_provider_forge.payload.anomalies import Anomalies, find_anomalies
from tests.otlp.building import entry, gauge, metric, text

MINUTE = 60_000_000_000
START = 1_698_720_840_000_000_000


def at(minute: float, *, length: float | None = 1, value: int = 8, url: str = "/a") -> dict:
    """Return a point that ends at this minute, and begins `length` minutes earlier."""
    time = START + int(minute * MINUTE)
    times = {"timeUnixNano": str(time)}
    if length is not None:
        times["startTimeUnixNano"] = str(time - int(length * MINUTE))
    return {"asInt": value, "attributes": [text("url", url), text("remote", "jira")], **times}


@pytest.mark.parametrize(
    ("points", "odd"),
    [
        ([], Anomalies()),
        ([at(1)], Anomalies()),
        # Intervals are (start, time]: neighbours touch.
        ([at(1), at(2), at(3)], Anomalies()),
        ([at(3), at(1), at(2)], Anomalies()),
        ([at(1), at(3)], Anomalies()),
        ([at(1), at(1, url="/b")], Anomalies()),
        ([at(1), at(1)], Anomalies(duplicates=1)),
        ([at(1), at(1), at(1)], Anomalies(duplicates=2)),
        ([at(1), at(1), at(1, url="/b"), at(1, url="/b")], Anomalies(duplicates=2)),
        # The published container sample: equal attributes and times, other values.
        ([at(1, value=value) for value in range(4)], Anomalies(overlaps=3)),
        ([at(1), at(1.5)], Anomalies(overlaps=1)),
        ([at(2, length=2), at(1)], Anomalies(overlaps=1)),
        ([at(1), at(1), at(1.5)], Anomalies(duplicates=1, overlaps=1)),
        ([at(1, length=None), at(2, length=None)], Anomalies()),
    ],
)
def test_delta_points(points, odd):
    assert find_anomalies([entry(metric("forge_api_request_count", *points))]) == odd


@pytest.mark.parametrize(
    ("points", "odd"),
    [
        # A cumulative series begins anew with every point at the same start.
        ([at(1, length=1), at(2, length=2), at(3, length=3)], Anomalies()),
        ([at(2, value=1), at(2, value=2)], Anomalies(overlaps=1)),
        ([at(2), at(2)], Anomalies(duplicates=1)),
    ],
)
def test_cumulative_points(points, odd):
    assert find_anomalies([entry(metric("restarts", *points, aggregationTemporality=2))]) == odd


def test_gauges_have_no_interval():
    assert find_anomalies([entry(gauge("cpu", at(1, length=None), at(2, length=None)))]) == Anomalies()


def test_histograms_of_delta_temporality_have_one():
    points = [
        {"count": "1", "timeUnixNano": str(START + end), "startTimeUnixNano": str(START)} for end in (5, 9)
    ]
    histogram = {"aggregationTemporality": 1, "dataPoints": points}
    assert find_anomalies([entry({"name": "latency", "histogram": histogram})]) == Anomalies(overlaps=1)


def test_the_order_of_attributes_makes_no_other_series():
    turned = at(1, value=9)
    turned["attributes"].reverse()
    assert find_anomalies([entry(metric("n", at(1), turned))]) == Anomalies(overlaps=1)


def test_a_series_continues_in_another_entry():
    assert find_anomalies([entry(metric("n", at(1))), entry(metric("n", at(1)))]) == Anomalies(duplicates=1)


def test_other_metrics_are_other_series():
    assert find_anomalies([entry(metric("a", at(1)), metric("b", at(1)))]) == Anomalies()


@pytest.mark.parametrize("value", ["1", "2"])
def test_an_attribute_that_came_twice_in_a_point_stops_nothing(value):
    twice = [text("k", "1"), text("k", value)]
    assert find_anomalies([entry(metric("n", {"attributes": twice}))]) == Anomalies()


@pytest.mark.parametrize(
    ("metrics", "conflicts"),
    [
        ([metric("n"), metric("n")], ()),
        ([metric("n"), gauge("n")], ("n",)),
        ([metric("n", unit="s"), metric("n", unit="1")], ("n",)),
        ([metric("b"), gauge("b"), metric("a"), gauge("a"), metric("c")], ("a", "b")),
        ([metric("n"), {"name": "n", "unit": "s", "sketch": {}}], ("n",)),
        # In protobuf, a unit that is left out, null or empty is one and the same.
        ([metric("n", unit=""), {"name": "n", "sum": {}}, {"name": "n", "unit": None, "sum": {}}], ()),
    ],
)
def test_conflicts(metrics, conflicts):
    assert find_anomalies([entry(*metrics)]) == Anomalies(conflicts=conflicts)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (Anomalies(), ""),
        (Anomalies(duplicates=2), "2 duplicate points"),
        (Anomalies(overlaps=3), "3 points overlap others of their series"),
        (
            Anomalies(1, 2, ("a", "b")),
            (
                "1 duplicate points; 2 points overlap others of their series;"
                " conflicting types or units of a, b"
            ),
        ),
    ],
)
def test_in_words(odd, words):
    assert str(odd) == words


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopeMetrics": {}},
        {"scopeMetrics": [{"metrics": [{"sum": 1}]}]},
        entry(metric("n", {"attributes": "x"}, {"attributes": "x"})),
        entry(metric("n", {"timeUnixNano": "x"}, {"timeUnixNano": "y"})),
    ],
)
def test_malformed(wrong):
    with pytest.raises(MalformedOtlp):
        find_anomalies([wrong])
