from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.delivery import record_store
from airflow_provider_forge.exceptions import (
    DeliveryAmbiguous,
    ExportRefused,
    PointsChanged,
    PointsMalformed,
    PointsRejected,
    ReceiverUnavailable,
    RequestTooLarge,
)
from tests.delivery.lines import NOW, Killed, Line, Spot, named_in_the_log

MINUTES = 20
SOME = [(Spot("requests", site, 60 * minute), minute) for minute in range(15) for site in ("a", "b")]
MANY = [(Spot("requests", f"{site}", 60 * minute), site) for minute in range(5) for site in range(60)]

points = st.builds(
    Spot, st.sampled_from(["requests", "errors"]), st.sampled_from("abc"), st.integers(0, MINUTES * 60 - 1)
)
windows = st.tuples(st.integers(0, MINUTES * 60 - 1), st.integers(1, MINUTES * 60)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], MINUTES * 60))
)
limits = st.sampled_from([1024, 2048, 10**6])


@st.composite
def worlds(draw):
    """What there is to be served, some of it more than once, and the windows that are asked for."""
    there = draw(st.lists(st.tuples(points, st.integers(0, 3)), min_size=1, max_size=25))
    return there, draw(st.lists(windows, min_size=1, max_size=6))


def served(there, window):
    start, end = window
    return [(spot, value) for spot, value in there if start <= spot.seconds < end]


def run(line, there, window, **policy):
    start, end = window
    return line.run(served(there, window), start / 60, end / 60, **policy)


@given(worlds(), limits, st.randoms(use_true_random=False))
def test_with_any_windows_every_served_point_is_sent_once(world, limit, random):
    there, asked = world
    line = Line(max_body_bytes=limit)
    for window in asked:
        random.shuffle(there)
        run(line, there, window)
    inside = [point for point in there if any(start <= point[0].seconds < end for start, end in asked)]
    assert line.receiver.values == Counter(inside)


@given(worlds(), limits, st.lists(st.integers(0, 30), max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_a_killed_task_loses_nothing_and_names_possible_duplicates(world, limit, crashes, random):
    there, asked = world
    line = Line(max_body_bytes=limit)
    todo = list(asked)
    with named_in_the_log() as ambiguous:
        while todo:
            window = todo.pop(0)
            random.shuffle(there)
            line.fuse.left = crashes.pop() if crashes else None
            try:
                run(line, there, window)
            except Killed:
                # Airflow tries again, others may come before.
                todo.insert(random.randint(0, len(todo)), window)
    inside = Counter(spot for spot, _ in there if any(start <= spot.seconds < end for start, end in asked))
    assert not inside - line.receiver.points
    assert (line.receiver.points - inside).total() <= sum(ambiguous)


@given(worlds(), limits, st.integers(0, 40))
def test_every_served_point_is_acknowledged_or_pending(world, limit, crash):
    there, [window, *_] = world
    line = Line(max_body_bytes=limit)
    line.fuse.left = crash
    try:
        run(line, there, window)
    except Killed:
        line.fuse.left = None
    line.fuse.left = None
    answer = Counter(served(there, window))
    sent_before = line.receiver.values
    report = run(line, there, window)
    assert report.unchanged + report.sent == answer.total()
    # What counts as acknowledged has arrived; all else was sent now.
    assert not answer - (sent_before & answer) - (line.receiver.values - sent_before)


def test_a_run_that_finds_nothing_new_sends_and_writes_nothing():
    line = Line()
    assert line.run(SOME).sent == len(SOME)
    writes = line.store.writes
    report = line.run(reversed(SOME))
    assert (report.sent, report.unchanged, report.batches) == (0, len(SOME), 0)
    assert line.store.writes == writes
    assert len(line.receiver.requests) == 1


def test_late_points_are_sent_alone():
    line = Line()
    line.run(SOME[:-3])
    report = line.run(SOME)
    assert (report.sent, report.unchanged) == (3, len(SOME) - 3)
    assert line.receiver.values == Counter(SOME)


def test_equal_points_are_counted():
    line = Line()
    line.run(SOME[:1] * 3)
    assert line.run(SOME[:1] * 4).sent == 1
    assert line.receiver.values == Counter(SOME[:1] * 4)


def changed(points):
    return [(spot, value + 100) for spot, value in points]


def test_a_changed_value_is_skipped_with_a_warning(caplog):
    line = Line()
    line.run(SOME)
    report = line.run([*changed(SOME[:2]), *SOME[2:]])
    assert (report.sent, report.changed, report.problems) == (0, 2, [])
    assert "2 points now have values other than those delivered" in caplog.text
    # The record keeps what the destination has.
    assert line.run(SOME).changed == 0


def test_a_changed_value_is_sent_on_request_and_then_recorded():
    line = Line()
    line.run(SOME)
    raised = [*changed(SOME[:2]), *SOME[2:]]
    assert line.run(raised, on_changed="send").sent == 2
    report = line.run(raised)
    assert (report.changed, report.unchanged) == (0, len(SOME))


def test_a_changed_value_fails_on_request_once_the_rest_is_delivered():
    line = Line()
    line.run(SOME[:4])
    report = line.run([*changed(SOME[:2]), *SOME[2:]], on_changed="fail")
    assert report.sent == len(SOME) - 4
    [problem] = report.problems
    assert isinstance(problem, PointsChanged)
    assert "2 points" in str(problem)


def test_resend_sends_all_and_leaves_the_ledger_unchanged():
    line = Line()
    line.run(SOME)
    record = dict(line.store.values)
    assert line.run(SOME, resend=True).sent == len(SOME)
    assert set(line.receiver.values.values()) == {2}
    assert line.run(SOME).unchanged == len(SOME)
    assert line.store.values.keys() == record.keys()


def test_the_retry_of_a_run_that_resends_does_not_send_again_what_it_has_sent():
    line = Line(max_body_bytes=2000)
    batches = line.run(SOME).batches
    assert batches > 2
    line.receiver.failures = [None, BUSY]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME, resend=True, run="one")
    report = line.run(SOME, resend=True, run="one")
    assert report.sent + report.unchanged == len(SOME)
    assert 0 < report.unchanged < len(SOME)
    assert set(line.receiver.values.values()) == {2}
    # The clear of a run, and any other run, send all again.
    assert line.run(SOME, resend=True, run="two").sent == len(SOME)
    assert line.run(SOME, resend=True).sent == len(SOME)
    assert set(line.receiver.values.values()) == {4}


def test_points_rejected_in_an_earlier_try_of_a_run_that_resends_fail_its_retry():
    line = Line(max_body_bytes=2000)
    line.run(SOME)
    line.receiver.failures = [PointsRejected("no", rejected=1), BUSY]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME, resend=True, run="one", since=NOW.timestamp() - 60)
    report = line.run(SOME, resend=True, run="one", since=NOW.timestamp() - 60)
    assert [type(problem) for problem in report.problems] == [PointsRejected]


def test_points_of_others_in_a_record_are_not_forgotten_by_a_run_that_resends():
    line = Line()
    line.run(SOME)
    line.receiver.failures = [BUSY]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME[:8], 0, 15, resend=True)
    report = line.run(SOME)
    assert (report.sent, report.unchanged) == (8, len(SOME) - 8)


BUSY = ReceiverUnavailable("busy", maybe_stored=False)
SILENT = ReceiverUnavailable("no answer", maybe_stored=True)


def test_a_refused_request_leaves_no_ambiguity():
    line = Line()
    line.receiver.failures = [BUSY]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME)
    report = line.run(SOME, on_ambiguous="fail")
    assert (report.sent, report.ambiguous, report.problems) == (len(SOME), 0, [])


def test_a_lost_acknowledgement_is_named_and_sent_again(caplog):
    line = Line()
    line.receiver.failures = [SILENT]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME)
    report = line.run(SOME)
    assert (report.sent, report.ambiguous) == (len(SOME), len(SOME))
    assert "one duplicate of each is possible" in caplog.text
    assert line.run(SOME).ambiguous == 0


def test_a_lost_acknowledgement_fails_on_request_and_stays_pending():
    line = Line()
    line.receiver.failures = [SILENT]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME[:4])
    for _ in range(2):
        report = line.run(SOME, on_ambiguous="fail")
        [problem] = report.problems
        assert isinstance(problem, DeliveryAmbiguous)
        assert report.ambiguous == 4
    assert line.receiver.values == Counter(SOME[4:])
    assert line.run(SOME, resend=True).sent == len(SOME)
    assert line.run(SOME, on_ambiguous="fail").problems == []


def test_a_value_that_changed_without_a_known_response_is_ambiguous():
    line = Line()
    line.receiver.failures = [SILENT]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME[:1])
    assert line.run(changed(SOME[:1])).ambiguous == 1
    assert line.run(changed(SOME[:1])).unchanged == 1


def fail_once(line, *, after, error):
    """Have the receiver fail one request, after so many that it took."""
    export = line.receiver.export

    def failing(request, **limits):
        if len(line.receiver.requests) == after:
            line.receiver.export = export
            raise error
        export(request, **limits)

    line.receiver.export = failing


def test_points_acknowledged_before_a_failure_are_not_sent_again():
    line = Line(max_body_bytes=1024)
    fail_once(line, after=2, error=BUSY)
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME)
    before = line.receiver.points.total()
    report = line.run(SOME)
    assert (report.unchanged, report.ambiguous) == (before, 0)
    assert before
    assert line.receiver.values == Counter(SOME)


def test_batches_do_not_depend_on_the_order():
    one, other = Line(max_body_bytes=1024), Line(max_body_bytes=1024)
    one.run(SOME)
    other.run(list(reversed(SOME)))
    assert [sorted(request) for request in one.receiver.requests] == [
        sorted(request) for request in other.receiver.requests
    ]
    assert len(one.receiver.requests) > 2
    latest = [max(spot.seconds for spot, _ in request) for request in one.receiver.requests]
    assert latest == sorted(latest)


def test_too_large_a_request_is_halved():
    line = Line()
    line.receiver.failures = [RequestTooLarge("large", status=413)] * 3
    report = line.run(SOME)
    assert line.receiver.values == Counter(SOME)
    assert report.batches == 4
    assert line.run(SOME, on_ambiguous="fail").problems == []


def test_halving_ends():
    line = Line()
    line.receiver.failures = [RequestTooLarge("large", status=413)] * 100
    with pytest.raises(RequestTooLarge):
        line.run(MANY)
    assert 100 - len(line.receiver.failures) == 9


def test_a_point_that_is_too_large_by_itself_does_not_hold_back_the_others():
    line = Line()
    export = line.receiver.export

    def refuse_large(request, **limits):
        if "large" in request.metrics:
            raise RequestTooLarge("too large", status=413)
        export(request, **limits)

    line.receiver.export = refuse_large
    report = line.run([*SOME, (Spot("large", "a", 60), 1)])
    [problem] = report.problems
    assert "refuses large, and accepted everything else" in str(problem)
    assert line.receiver.values == Counter(SOME)


def test_one_poisoned_metric_does_not_hold_back_the_others():
    line = Line()
    export = line.receiver.export

    def refuse_poison(request, **limits):
        if "poison" in request.metrics:
            raise ExportRefused("bad metric", status=400)
        export(request, **limits)

    line.receiver.export = refuse_poison
    poisoned = [(Spot("poison", "a", 60), 1), (Spot("errors", "a", 60), 1)]
    report = line.run([*SOME, *poisoned])
    [problem] = report.problems
    assert "poison" in str(problem)
    assert "errors" not in str(problem)
    assert line.receiver.values == Counter([*SOME, poisoned[1]])
    line.receiver.export = export
    assert line.run([*SOME, *poisoned]).sent == 1


def test_the_error_quotes_a_receiver_that_refuses_everything():
    line = Line()
    refusal = ExportRefused("wrong protocol", status=400)
    line.receiver.failures = [refusal] * 10
    report = line.run([*SOME, (Spot("errors", "a", 60), 1)])
    assert report.problems == [refusal]


def test_any_other_refusal_ends_it_at_once():
    line = Line()
    line.receiver.failures = [ExportRefused("no such path", status=404)] * 2
    with pytest.raises(ExportRefused):
        line.run(SOME)
    assert len(line.receiver.failures) == 1
    line.receiver.failures.clear()
    assert line.run(SOME, on_ambiguous="fail").ambiguous == 0


def test_rejected_points_count_as_acknowledged():
    line = Line()
    line.receiver.failures = [PointsRejected("too old", rejected=2)]
    report = line.run(SOME)
    assert (report.sent, report.rejected) == (len(SOME) - 2, 2)
    assert [type(problem) for problem in report.problems] == [PointsRejected]
    assert line.run(SOME).sent == 0


def test_a_rejection_fails_the_run_in_whichever_of_its_tries():
    line = Line(max_body_bytes=1024)
    line.receiver.failures = [PointsRejected("too old", rejected=2), BUSY]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME, since=NOW.timestamp() - 60)
    again = line.run(SOME, since=NOW.timestamp() - 60)
    assert [type(problem) for problem in again.problems] == [PointsRejected]
    assert again.sent > 0
    # A run that begins later has nothing to do with it, and does not hide it from who reads the record.
    assert line.run(SOME, since=NOW.timestamp() + 60).problems == []
    assert '"rejected"' in line.store.values["app/where/20261123T0500Z"]
    assert line.run(SOME, resend=True, since=NOW.timestamp() - 60).problems == []
    assert '"rejected"' not in line.store.values["app/where/20261123T0500Z"]


def test_a_changed_value_on_its_way_is_ambiguous():
    line = Line()
    line.run(SOME)
    line.receiver.failures = [SILENT]
    with pytest.raises(ReceiverUnavailable):
        line.run(changed(SOME), on_changed="send")
    assert line.run(changed(SOME), on_changed="send", on_ambiguous="fail").ambiguous == len(SOME)


def test_no_traffic_is_a_state_of_its_own():
    line = Line()
    report = line.run([])
    assert (report.points, report.sent) == (0, 0)
    assert line.receiver.requests == []
    assert '"empty"' in line.store.values["app/where/20261123T0500Z"]
    line.run(SOME)
    assert '"delivered"' in line.store.values["app/where/20261123T0500Z"]
    assert '"empty"' not in line.store.values["app/where/20261123T0500Z"]


@pytest.fixture
def few_parts(monkeypatch):
    """No entry has room for more than two values."""
    monkeypatch.setattr(record_store, "MAX_CHUNKS", 1)


@pytest.mark.usefixtures("few_parts")
def test_too_many_points_for_the_store_are_recorded_by_a_digest():
    line = Line(largest=700)
    report = line.run(MANY)
    assert report.digested
    assert all(len(value) <= 700 for value in line.store.values.values())
    report = line.run(list(reversed(MANY)))
    assert (report.sent, report.unchanged) == (0, len(MANY))
    # Of a larger set nobody can tell which points are new: none is lost, and it is said.
    report = line.run([*MANY, (Spot("requests", "late", 60), 5)])
    assert (report.sent, report.ambiguous) in [(1, 0), (61, 61)]
    # All others are known as before.
    assert report.unchanged >= len(MANY) - 60


@pytest.mark.usefixtures("few_parts")
def test_changed_values_of_points_in_a_digest_are_skipped():
    line = Line(largest=700)
    line.run(MANY)
    report = line.run(changed(MANY))
    assert (report.sent, report.changed) == (0, len(MANY))


@pytest.mark.usefixtures("few_parts")
def test_a_crash_between_batches_and_a_late_point_lose_nothing_in_a_digest():
    line = Line(largest=700, max_body_bytes=4096)
    fail_once(line, after=3, error=BUSY)
    with pytest.raises(ReceiverUnavailable):
        line.run(MANY)
    late = [*MANY, *((Spot("requests", f"late {n}", 60), n) for n in range(5))]
    line.run(late)
    assert not Counter(spot for spot, _ in late) - line.receiver.points


@pytest.mark.usefixtures("few_parts")
def test_a_digest_survives_a_crash_between_batches():
    line = Line(largest=700, max_body_bytes=4096)
    fail_once(line, after=3, error=BUSY)
    with pytest.raises(ReceiverUnavailable):
        line.run(MANY)
    assert 0 < line.receiver.points.total() < len(MANY)
    report = line.run(MANY)
    assert (report.changed, report.ambiguous) == (0, 0)
    assert line.receiver.values == Counter(MANY)


def test_a_point_that_is_not_otlp_is_left_out_and_leaves_its_window_open():
    line = Line()
    spot = Spot("errors", "a", 60)
    report = line.run([*SOME, (spot, 1.5)])
    [problem] = report.problems
    assert isinstance(problem, PointsMalformed)
    assert re.search(
        r"1 points that are not OTLP: 1 of errors \(asInt is 1\.5, not a whole number\)", str(problem)
    )
    assert line.receiver.values == Counter(SOME)
    assert (report.points, report.sent) == (len(SOME) + 1, len(SOME))
    assert '"delivered"' not in "".join(line.store.values.values())
    # Asked for again, Atlassian may give it a value: then it is all that is sent.
    report = line.run([*SOME, (spot, 2)])
    assert (report.sent, report.unchanged, report.problems) == (1, len(SOME), [])
    assert '"delivered"' in line.store.values["app/where/20261123T0500Z"]


def test_a_window_of_nothing_but_points_that_are_not_otlp_is_not_empty():
    line = Line()
    report = line.run([(Spot("errors", "a", 60), "")])
    assert (report.points, report.sent, len(report.problems)) == (1, 0, 1)
    assert '"empty"' not in "".join(line.store.values.values())
