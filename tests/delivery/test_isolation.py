from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_forge.delivery.attempts import MAX_REFUSALS, Attempts
from airflow_provider_forge.exceptions import (
    DeliveryAmbiguous,
    ExportRefused,
    PointsRejected,
    ReceiverUnavailable,
)
from tests.delivery.lines import Killed, Line, Spot, spots
from tests.delivery.test_attempts import Time

METRICS = ("a", "b", "c")
POINTS = [(Spot(metric, f"s{n}", 60 * (n % 10)), n) for metric in METRICS for n in range(20)]


class Picky:
    """A receiver that refuses each request that has one of these points.

    Args:
        line: Whose receiver it becomes.
        bad: The points.
        status: What it answers to them.
    """

    def __init__(self, line: Line, bad, status: int = 400) -> None:
        self.bad = set(bad)
        self.status = status
        self.asked: list[list[tuple[Spot, int]]] = []
        self._export = line.receiver.export
        line.receiver.export = self.export

    def export(self, request, **limits):
        points = spots(request.body)
        self.asked.append(points)
        if self.bad.intersection(points):
            raise ExportRefused(
                f"answered {self.status}", status=self.status, maybe_stored=self.status >= 500
            )
        self._export(request, **limits)


@pytest.mark.parametrize("status", [400, 409, 422, 500, 520])
@given(bad=st.sets(st.sampled_from(POINTS), min_size=1, max_size=4))
def test_all_points_but_the_bad_ones_arrive_once(status, bad):
    line = Line()
    picky = Picky(line, bad, status)
    report = line.run(POINTS)
    assert line.receiver.values == Counter(POINTS) - Counter(bad)
    assert (report.sent, report.points) == (len(POINTS) - len(bad), len(POINTS))
    [problem] = report.problems
    assert f"answered {status}" in str(problem)
    for metric, count in Counter(spot.metric for spot, _ in bad).items():
        assert f"{metric} {count}" in str(problem)
    picky.bad = set()
    # What was left out is pending, and in doubt if it may have been stored.
    after = line.run(POINTS)
    assert (after.sent, after.unchanged) == (len(bad), len(POINTS) - len(bad))
    assert after.ambiguous == (len(bad) if status >= 500 else 0)
    assert line.receiver.values == Counter(POINTS)


@pytest.mark.parametrize("status", [400, 500])
@given(bad=st.sets(st.sampled_from(METRICS), min_size=1, max_size=2))
def test_a_metric_that_is_bad_as_a_whole_costs_few_requests(status, bad):
    line = Line()
    picky = Picky(line, [point for point in POINTS if point[0].metric in bad], status)
    [problem] = line.run(POINTS).problems
    assert line.receiver.values == Counter(point for point in POINTS if point[0].metric not in bad)
    assert all(f"{metric} 20" in str(problem) for metric in bad)
    assert len(picky.asked) <= 1 + len(METRICS) + 14 * len(bad)


@pytest.mark.parametrize("status", [400, 422])
def test_a_receiver_that_refuses_everything_gets_a_few_requests(status):
    line = Line()
    picky = Picky(line, POINTS, status)
    attempts = Attempts()
    with pytest.raises(ExportRefused):
        line.run(POINTS, attempts=attempts)
    assert len(picky.asked) == MAX_REFUSALS
    # The next window of the same task is tried once.
    with pytest.raises(ExportRefused):
        line.run(POINTS, attempts=attempts)
    assert len(picky.asked) == MAX_REFUSALS + 1
    picky.bad = set()
    assert (line.run(POINTS, attempts=attempts).sent, attempts.refusals) == (len(POINTS), 0)


def test_an_outage_with_500_ends_the_task_and_puts_no_more_points_in_doubt():
    line = Line()
    picky = Picky(line, POINTS, 500)
    with pytest.raises(ExportRefused):
        line.run(POINTS)
    assert len(picky.asked) == MAX_REFUSALS
    picky.bad = set()
    assert line.run(POINTS).ambiguous == len(POINTS)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 415, 501, 302, None])
def test_a_refusal_that_concerns_the_connection_costs_one_request(status):
    line = Line()
    line.receiver.failures = [ExportRefused("no", status=status)] * 5
    with pytest.raises(ExportRefused):
        line.run(POINTS)
    assert len(line.receiver.failures) == 4


def test_points_that_may_be_stored_are_sent_in_parts_only_if_configured():
    line = Line()
    picky = Picky(line, POINTS[:1], 500)
    with pytest.raises(ExportRefused):
        line.run(POINTS, on_ambiguous="fail")
    assert len(picky.asked) == 1
    [problem] = line.run(POINTS, on_ambiguous="fail").problems
    assert isinstance(problem, DeliveryAmbiguous)


def test_points_that_may_be_stored_are_named_and_counted_once(caplog):
    line = Line()
    Picky(line, POINTS[:1], 500)
    assert line.run(POINTS).ambiguous == len(POINTS)
    assert "so one duplicate of each is possible" in caplog.text


def test_a_metric_is_delivered_oldest_first():
    line = Line()
    Picky(line, POINTS[7:8])
    line.run(POINTS)
    requests = [[spot.seconds for spot, _ in each if spot.metric == "a"] for each in line.receiver.requests]
    requests = [times for times in requests if times]
    assert len(requests) > 2
    assert all(max(earlier) <= min(later) for earlier, later in itertools.pairwise(requests))


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("bad", [slice(1), slice(500), slice(300, 301), slice(999, None)])
def test_a_bad_point_in_a_large_metric_is_not_mistaken_for_an_outage(status, bad):
    points = [(Spot("a", f"s{n}", 60 * (n // 100)), n) for n in range(1000)]
    line = Line()
    picky = Picky(line, points[bad], status)
    [problem] = line.run(points).problems
    assert f"Points left out: a {len(points[bad])}" in str(problem)
    assert line.receiver.values == Counter(points) - Counter(points[bad])
    assert len(picky.asked) < 80


# ---- retries


@pytest.fixture
def patient():
    """A task that waits a minute, in which no time passes."""
    time = Time()
    return Attempts(60, time.clock, time.sleep, lambda: 0), time


def busy(**more) -> ReceiverUnavailable:
    return ReceiverUnavailable("busy", transient=True, **more)


def test_a_receiver_that_is_away_for_a_moment_costs_no_try_of_the_task(patient, caplog):
    attempts, time = patient
    line = Line()
    line.receiver.failures = [busy(), busy(retry_after=7.0)]
    report = line.run(POINTS, attempts=attempts)
    assert (report.sent, report.ambiguous, time.slept) == (len(POINTS), 0, [1, 7])
    assert line.receiver.values == Counter(POINTS)
    assert "busy. This task sends the request again in 1.0 s" in caplog.text


def test_one_that_is_away_for_longer_is_airflows_turn(patient):
    attempts, time = patient
    line = Line()
    line.receiver.failures = [busy(retry_after=25.0)] * 9
    with pytest.raises(ReceiverUnavailable) as raised:
        line.run(POINTS, attempts=attempts)
    assert (raised.value.retry_after, time.slept) == (25, [25, 25])
    line.receiver.failures.clear()
    assert line.run(POINTS).ambiguous == 0


@pytest.mark.parametrize("on_ambiguous", ["resend", "fail"])
def test_points_that_may_be_stored_are_sent_again_only_if_configured(patient, on_ambiguous):
    attempts, time = patient
    line = Line()
    line.receiver.failures = [busy(maybe_stored=True), busy()]
    if on_ambiguous == "fail":
        with pytest.raises(ReceiverUnavailable):
            line.run(POINTS, on_ambiguous="fail", attempts=attempts)
        assert time.slept == []
    else:
        report = line.run(POINTS, attempts=attempts)
        assert (report.sent, report.ambiguous) == (len(POINTS), len(POINTS))


def test_ambiguity_outlives_a_failed_retry(patient):
    attempts, _ = patient
    line = Line()
    line.receiver.failures = [busy(maybe_stored=True), busy(), ReceiverUnavailable("away")]
    with pytest.raises(ReceiverUnavailable):
        line.run(POINTS, attempts=attempts)
    assert line.run(POINTS).ambiguous == len(POINTS)


def test_a_task_that_is_killed_while_it_waits_leaves_nothing_in_doubt():
    line = Line()

    def killed(_: float) -> None:
        line.fuse.left = 0
        raise Killed

    line.receiver.failures = [busy()]
    with pytest.raises(Killed):
        line.run(POINTS, attempts=Attempts(60, Time().clock, killed))
    line.fuse.left = None
    assert line.run(POINTS).ambiguous == 0


def test_words_beside_a_success_are_counted():
    line = Line()
    export = line.receiver.export

    def says(request, **limits):
        export(request, **limits)
        return "deprecated"

    line.receiver.export = says
    assert line.run(POINTS).warnings == 1


def test_a_partial_success_of_a_part_is_not_a_refusal():
    line = Line()
    line.receiver.failures = [
        ExportRefused("bad", status=400),
        PointsRejected("rejected", rejected=2),
    ]
    report = line.run(POINTS)
    assert (report.rejected, report.sent) == (2, len(POINTS) - 2)
