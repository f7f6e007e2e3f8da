"""Requests that are parts of a window: what some of them cannot deliver, the others do, and once."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from google.protobuf import json_format
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from airflow_provider_forge.exceptions import ReceiverUnavailable
from airflow_provider_forge.sandbox import Fault, OtlpSink, SandboxGateway, Scenario, points_of
from tests.faults.lines import MIDDLE, Line
from tests.faults.receivers import PickySink

# Room for a few points each.
SMALL = {"max_body_bytes": 2048}


@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize(
    ("fault", "unknown", "stored"),
    [
        (Fault("status", status=503), False, False),
        (Fault("status", status=502), True, False),
        (Fault("reset_after"), True, True),
    ],
    ids=["503", "502", "reset after it stored"],
)
def test_batches_before_the_one_that_failed_are_not_sent_again(line, fault, nth, unknown, stored):
    line.connect(otlp=SMALL)
    line.sink.add_fault(replace(fault, calls=frozenset({nth})))
    with pytest.raises(ReceiverUnavailable):
        line.run(MIDDLE)
    assert len(line.sink.requests) == nth - 1 + stored
    acknowledged = sum(len(request.points) for request in line.sink.requests[: nth - 1])
    twice = Counter(line.sink.requests[-1].points) if stored else Counter()
    summary = line.run(MIDDLE)
    assert summary["batches"] > 1
    assert summary["unchanged"] == acknowledged
    assert summary["sent"] == line.generated(MIDDLE).total() - acknowledged
    assert (summary["ambiguous"] > 0) is unknown
    if stored:
        assert summary["ambiguous"] == twice.total()
    assert line.received == line.generated(MIDDLE) + twice
    line.assert_nothing_left(MIDDLE)


@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("repeated", [False, True], ids=["exact copies", "copies with other values"])
def test_copies_of_points_in_several_batches_are_all_sent_once(sink, tmp_path, connect, repeated, nth):
    label = "CONTAINER_CPU_USAGE_PERCENTAGE" if repeated else "FORGE_API_REQUEST_COUNT"
    scenario = Scenario(traffic=0.3, repeated_container_points=repeated)
    with SandboxGateway(scenario, rate_limit_calls=0) as gateway:
        line = Line(gateway, sink, tmp_path, connect)
        line.connect(forge={"metrics": label}, otlp=SMALL)
        generated = line.generated(MIDDLE, metrics=[label])
        if not repeated:
            gateway.add_fault(Fault("duplicate_points", operation="appMetrics"))
            generated += generated
        sink.add_fault(Fault("status", status=503, calls=frozenset({nth})))
        with pytest.raises(ReceiverUnavailable):
            line.run(MIDDLE)
        line.run(MIDDLE)
        assert line.received == generated
        line.assert_nothing_left(MIDDLE)


def test_batches_go_oldest_first(line):
    line.connect(otlp=SMALL)
    line.run()
    spans = [
        (min(point.time for point in request.points), max(point.time for point in request.points))
        for request in line.sink.requests
    ]
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))


@pytest.fixture
def picky(tmp_path, connect, gateway):
    """A line to a receiver that looks at what it is sent."""
    with PickySink() as sink:
        line = Line(gateway, sink, tmp_path, connect)
        line.connect()
        yield line


def test_a_request_that_is_too_large_is_sent_in_halves(picky):
    picky.sink.most_bytes = 4000
    summary = picky.run()
    assert picky.sink.refused
    assert summary["batches"] == len(picky.sink.requests) > 3
    assert picky.received == picky.generated()
    picky.assert_nothing_left()


def test_a_request_that_is_too_large_compressed_is_not_sent_before_it_is_halved(picky):
    picky.connect(otlp={"max_compressed_bytes": 1024})
    assert picky.run()["batches"] > 3
    assert all(int(request.headers["content-length"]) <= 1024 for request in picky.sink.requests)
    assert picky.received == picky.generated()
    picky.assert_nothing_left()


def test_a_request_is_cut_in_two_eight_times_at_most(tmp_path, connect):
    with SandboxGateway(rate_limit_calls=0) as gateway, PickySink(most_bytes=0) as sink:
        line = Line(gateway, sink, tmp_path, connect)
        line.connect()
        # Enough points for a ninth time.
        assert line.generated(MIDDLE).total() > 2**8
        with pytest.raises(AirflowFailException, match="even single points are too large"):
            line.run(MIDDLE)
        assert len(sink.refused) == 1 + 8
        sink.most_bytes = None
        assert line.run(MIDDLE)["ambiguous"] == 0
        assert line.received == line.generated(MIDDLE)


def test_a_large_request_that_a_collector_answers_with_400_is_sent_in_halves(gateway, tmp_path, connect):
    points = [
        {
            "asInt": str(number),
            "timeUnixNano": str(int(MIDDLE.start.timestamp()) * 10**9),
            "attributes": [{"key": "url", "value": {"stringValue": f"{number}" * 400_000}}],
        }
        for number in range(4)
    ]
    metric = {"name": "wordy", "sum": {"aggregationTemporality": 1, "dataPoints": points}}
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    body = json.dumps({"data": {"ecosystem": {"forgeMetrics": {"appMetrics": metrics}}}})
    gateway.add_fault(Fault("body", body=body, operation="appMetrics"))
    with OtlpSink(max_body_bytes=1024 * 1024) as sink:
        line = Line(gateway, sink, tmp_path, connect)
        line.connect()
        line.run(MIDDLE)
        assert (sink.summary()["refused"], len(sink.requests)) == (1, 2)
        published = json_format.ParseDict(metrics, MetricsData())
        assert line.received == Counter(points_of(published.resource_metrics))
        line.assert_nothing_left(MIDDLE)


POISON = "forge_api_request_count"


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("otlp", [{}, SMALL], ids=["one batch", "many batches"])
def test_a_metric_that_is_refused_does_not_hold_back_the_others(picky, otlp, status):
    picky.connect(otlp=otlp)
    picky.sink.poison, picky.sink.status = POISON, status
    poisoned = Counter({point: count for point, count in picky.generated().items() if point.metric == POISON})
    assert poisoned
    with pytest.raises(
        AirflowFailException, match=f"refuses {POISON}, and accepted everything else: .*{status}"
    ):
        picky.run()
    assert picky.received == picky.generated() - poisoned
    picky.sink.poison = None
    summary = picky.run()
    in_doubt = poisoned.total() if status == 500 else 0
    assert (summary["sent"], summary["ambiguous"]) == (poisoned.total(), in_doubt)
    assert picky.received == picky.generated()
    picky.assert_nothing_left()
