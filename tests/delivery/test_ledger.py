from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections import Counter

import pytest

from airflow_provider_forge.delivery.ledger import Selection
from airflow_provider_forge.delivery.record_store import RECORD_RETENTION
from airflow_provider_forge.exceptions import (
    DeliveryAmbiguous,
    ExportRefused,
    LedgerUnavailable,
    PointsChanged,
    PointsRejected,
    ReceiverUnavailable,
)
from tests.delivery.lines import EPOCH, NOW, SELECTION, Line, Memory, Spot, at

SOME = [(Spot("requests", "a", 60 * minute), minute) for minute in range(15)]


def once_the_window_is_open(ledger, act):
    """Let `act` happen when the ledger has read its three records, and before it writes any."""
    load, loaded = ledger.records.load, []

    def load_and_act(record):
        if len(loaded) == 3:
            act()
        loaded.append(record)
        return load(record)

    ledger.records.load = load_and_act


def records(line):
    return sorted(key for key in line.store.values if re.search(r"/\d+T\d+Z$", key))


def head(line):
    return json.loads(line.store.values["app/where/head"])


def test_there_is_one_record_for_each_five_minutes_with_any_window():
    line = Line()
    line.run(SOME[3:8], 3, 8)
    line.run(SOME[:1], 0, 1)
    assert records(line) == ["app/where/20261123T0500Z", "app/where/20261123T0505Z"]


def test_covered_spans_are_recorded_by_selection():
    line = Line()
    line.run(SOME[3:8], 3, 8.5)
    [name] = head(line)["selections"]
    assert head(line)["selections"][name] == {
        "environments": ["production"],
        "metrics": ["FORGE_API_REQUEST_COUNT"],
        "names": {},
        "begun": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
        "lost_before": None,
    }
    first, second = (json.loads(line.store.values[key])["asked"][name] for key in records(line))
    now = int(NOW.timestamp())
    assert first == [[180.0, 300.0, "delivered", now]]
    assert second == [[0.0, 210.0, "delivered", now]]


def test_selections_are_identified_by_their_content():
    one, other = Selection(["a", "b"], ["c", "d"]), Selection(["b", "a"], ["d", "c"])
    assert one.name == other.name
    assert one.name != Selection(["a"], ["b", "c", "d"]).name
    assert one.name == Selection(["a", "b"], ["c", "d"], {"a": "production"}).name


def test_records_that_are_too_old_are_deleted_as_new_ones_are_written():
    line = Line()
    line.run(SOME)
    line.now = lambda: NOW + RECORD_RETENTION
    later = [(Spot("requests", "a", 60 * (60 * 24 * 15 + 120)), 1)]
    line.run(later, 60 * 24 * 15 + 120, 60 * 24 * 15 + 135)
    assert all(key > f"app/where/{EPOCH + dt.timedelta(days=14):%Y%m%dT%H%MZ}" for key in records(line)[:1])
    assert head(line)["oldest"] * 300 >= (EPOCH + dt.timedelta(minutes=15)).timestamp()


def test_records_that_a_replay_writes_are_kept_for_15_days_after_that():
    line = Line()
    old = dt.timedelta(days=400)
    line.now = lambda: NOW + old
    line.run(SOME)
    replayed = records(line)
    assert replayed
    assert [each[2] for each in head(line)["replayed"]] == [(NOW + old).timestamp() // 86400]

    def deliver_at(days):
        """Deliver the window of a later day, which deletes what is too old."""
        line.now = lambda: NOW + old + dt.timedelta(days=days)
        start = 60 * 24 * (400 + days)
        line.run([(Spot("requests", "a", 60 * start), 1)], start, start + 15)

    for days in (1, 14, 15):
        deliver_at(days)
        assert set(replayed) <= set(records(line))
    # A whole day of records is noted, and at most 24 of them are deleted after each window.
    for _ in range(13):
        deliver_at(16)
    assert not set(replayed) & set(records(line))
    assert head(line)["replayed"] == []


def test_a_record_that_is_replayed_again_is_kept_for_longer():
    line = Line()
    for days in (400, 410):
        line.now = lambda days=days: NOW + dt.timedelta(days=days)
        line.run([*SOME, (Spot("more", str(days), 60), 1)])
    replayed = records(line)
    line.now = lambda: NOW + dt.timedelta(days=416)
    for number in range(13):
        start = 60 * 24 * 416 + 15 * number
        line.run([(Spot("requests", "a", 60 * start), 1)], start, start + 15)
    assert set(replayed) <= set(records(line))
    assert len(head(line)["replayed"]) == 1


def test_another_run_reads_the_head_only_once():
    line = Line()
    line.run(SOME)
    ledger = line.ledger()
    line.run(SOME, ledger=ledger)
    line.store.values["app/where/head"] = "never read"
    line.run(SOME, ledger=ledger)


def warnings_in(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_new_ledger_is_not_a_lost_one(caplog):
    line = Line()
    report = line.run(SOME, on_ambiguous="fail")
    assert (report.ambiguous, report.problems, warnings_in(caplog)) == (0, [], [])
    assert [sentinel.content["store"] for sentinel in line.sentinels.values()] == [line.store.name]


def test_a_lost_ledger_is_reported_and_makes_its_points_ambiguous(caplog):
    line = Line()
    line.run(SOME)
    line.store.values.clear()
    report = line.run(SOME)
    assert (report.sent, report.ambiguous) == (len(SOME), len(SOME))
    assert "it was lost, or is kept elsewhere" in caplog.text
    assert line.run(SOME).unchanged == len(SOME)


def test_a_lost_ledger_fails_on_request():
    line = Line()
    line.run(SOME)
    line.store.values.clear()
    report = line.run(SOME, on_ambiguous="fail")
    assert report.sent == 0
    assert [type(problem) for problem in report.problems] == [DeliveryAmbiguous]
    # What comes after the loss cannot have been delivered before it.
    later = [(Spot("requests", "a", 3 * 3600), 1)]
    assert line.run(later, 180, 195, on_ambiguous="fail").problems == []


def test_a_ledger_begun_by_another_task_at_the_same_time_is_not_a_lost_one(caplog):
    line = Line()

    class BegunMeanwhile(Memory):
        def load(self):
            line.sentinels.clear()
            line.run(SOME)
            return line.sentinel(SELECTION.name).content

    line.sentinels[SELECTION.name] = BegunMeanwhile()
    assert line.run(SOME).ambiguous == 0
    assert warnings_in(caplog) == []


def test_the_halves_of_a_lost_window_are_both_ambiguous():
    """The first writes an entry that the second falls into, too."""
    line = Line()
    line.run(SOME)
    line.store.values.clear()
    assert line.run(SOME[:7], 0, 7).ambiguous == 7
    assert line.run(SOME[7:], 7, 15).ambiguous == 8
    late = [*SOME, (Spot("requests", "late", 0), 1)]
    report = line.run(late)
    assert (report.sent, report.ambiguous) == (1, 0)


def test_another_selection_has_lost_nothing():
    """As that of a DAG for another environment, whose Connections are others, too."""
    line = Line()
    line.run(SOME)
    line.store.values.clear()
    other = Selection(["staging"], SELECTION.metrics)
    staging = [(Spot("requests", "of staging", 0), 1)]
    assert line.run(staging, selection=other).ambiguous == 0


def test_a_fetched_window_is_on_record():
    line = Line()
    ledger = line.ledger()
    assert not ledger.has_records(at(0), at(15))
    line.run(SOME[:10], 0, 10)
    assert ledger.has_records(at(0), at(10))
    assert not ledger.has_records(at(0), at(15))


def test_a_damaged_record_counts_as_lost_and_is_reported(caplog):
    line = Line()
    line.run(SOME)
    line.store.values["app/where/20261123T0500Z"] = json.dumps({"version": 99})
    report = line.run(SOME)
    assert (report.sent, report.ambiguous) == (5, 5)
    assert "20261123T0500Z is damaged" in caplog.text
    assert line.run(SOME).ambiguous == 0


def test_points_another_machine_delivers_before_the_intent_are_not_sent():
    line, other = Line(), Line()
    other.store = line.store
    ledger = line.ledger()
    once_the_window_is_open(ledger, lambda: other.run(SOME))
    report = line.run(SOME, ledger=ledger)
    assert (report.sent, report.unchanged, report.contended) == (0, len(SOME), True)
    assert line.receiver.requests == []


@pytest.mark.parametrize("on_changed", ["skip", "fail"])
def test_points_another_machine_delivers_with_other_values_are_reported(on_changed, caplog):
    """A refused batch that is sent again in parts counts them once."""
    line, other = Line(), Line()
    other.store = line.store
    line.receiver.failures = [ExportRefused("bad point", status=400)]
    changed = [(spot, value + 1) for spot, value in SOME[:5]]
    ledger = line.ledger()
    once_the_window_is_open(ledger, lambda: other.run(changed))
    report = line.run(SOME, ledger=ledger, on_changed=on_changed)
    assert (report.sent, report.unchanged, report.changed, report.contended) == (10, 0, 5, True)
    assert [type(problem) for problem in report.problems] == [PointsChanged] * (on_changed == "fail")
    assert ("5 points now have values other than those delivered: not sent" in caplog.text) is (
        on_changed == "skip"
    )


def test_two_writers_without_a_common_lease_see_each_other_and_add_up():
    """Each reads before the other writes; a line's own leases hand out everything to everyone."""
    line = Line()
    other = Line()
    other.store = line.store
    inner = line.receiver.export

    def export_while_the_other_delivers(request, **more):
        line.receiver.export = inner
        second = other.run(SOME)
        assert second.ambiguous == len(SOME)
        return inner(request, **more)

    line.receiver.export = export_while_the_other_delivers
    first = line.run(SOME)
    assert first.contended
    again = line.run(SOME)
    assert (again.unchanged, again.ambiguous) == (len(SOME), 0)


def test_tasks_of_one_record_do_not_overwrite_each_other():
    line = Line()
    one, other = line.ledger(), line.ledger()
    line.run(SOME[:2], 0, 2, ledger=one)
    line.run(SOME[2:5], 2, 5, ledger=other)
    assert line.run(SOME[:5], 0, 5).unchanged == 5
    assert line.receiver.values == Counter(SOME[:5])


@pytest.mark.parametrize("metric", ["ünï/cøde \N{SNOWMAN}", "", "a" * 300])
def test_any_name_of_a_metric_can_be_recorded(metric):
    line = Line()
    points = [(Spot(metric, "a", 0), 1)]
    line.run(points)
    assert line.run(points).unchanged == 1


def test_times_are_utc_in_the_keys():
    line = Line()
    line.run([], 0, 5)
    assert records(line) == [f"app/where/{at(0):%Y%m%dT%H%MZ}"]


def test_points_of_a_damaged_record_are_ambiguous_for_other_selections_too():
    """Also after the first has written the entry anew."""
    line = Line()
    other = Selection(["staging"], SELECTION.metrics)
    staging = [(Spot("requests", "of staging", 60), 1)]
    line.run(SOME)
    line.run(staging, selection=other)
    line.store.values["app/where/20261123T0500Z"] = "{}"
    assert line.run(SOME).ambiguous == 5
    assert line.run(staging, selection=other).ambiguous == 1
    assert line.run(staging, selection=other).ambiguous == 0
    assert line.run(SOME).ambiguous == 0


def test_a_record_damaged_during_a_delivery_keeps_the_points_of_that_task():
    line = Line()
    line.run(SOME[:2], 0, 2)
    inner = line.receiver.export

    def export_while_the_file_is_torn(request, **more):
        line.store.values["app/where/20261123T0500Z"] = "{}"
        return inner(request, **more)

    line.receiver.export = export_while_the_file_is_torn
    assert line.run(SOME[:5], 0, 5).contended
    line.receiver.export = inner
    assert line.run(SOME[:5], 0, 5).unchanged == 5


def test_a_record_removed_during_a_delivery_is_written_again():
    line = Line()
    line.run(SOME[:2], 0, 2)
    inner = line.receiver.export

    def export_while_the_file_is_removed(request, **more):
        del line.store.values["app/where/20261123T0500Z"]
        return inner(request, **more)

    line.receiver.export = export_while_the_file_is_removed
    line.run(SOME[:5], 0, 5)
    line.receiver.export = inner
    assert line.run(SOME[:5], 0, 5).unchanged == 5


def test_a_slow_write_is_reported_as_slow_and_not_as_another_writer(caplog):
    """Another machine may have written the same entry in the meantime, but none was seen."""
    line, times = Line(), iter(range(0, 1000, 30))
    line.clock = lambda: float(next(times))
    assert not line.run(SOME).contended
    assert "took 30.0 s. If a task on a machine without a shared lease wrote it" in caplog.text
    assert "sent twice" not in caplog.text
    caplog.clear()
    line.clock = lambda: 0.0
    line.run(SOME)
    assert "Writing the ledger" not in caplog.text


def test_a_failed_write_before_anything_was_sent_makes_nothing_ambiguous():
    line, calls = Line(), []
    write = line.store.set

    def fail_third(key, value):
        calls.append(key)
        if len(calls) == 4:  # of the head, the selection, and the first of three entries
            raise LedgerUnavailable("busy")
        write(key, value)

    line.store.set = fail_third
    with pytest.raises(LedgerUnavailable):
        line.run(SOME)
    assert line.receiver.requests == []
    report = line.run(SOME, on_ambiguous="fail")
    assert (report.sent, report.ambiguous, report.contended) == (len(SOME), 0, False)


def test_a_failed_write_that_arrived_is_not_mistaken_for_another_writer():
    line, write = Line(), None
    write = line.store.set

    def lose_the_answer(key, value):
        write(key, value)
        if not key.endswith("/head") and "selections" not in key:
            line.store.set = write
            raise LedgerUnavailable("no answer")

    line.store.set = lose_the_answer
    with pytest.raises(LedgerUnavailable):
        line.run(SOME)
    report = line.run(SOME, on_ambiguous="fail")
    assert (report.sent, report.ambiguous, report.contended) == (len(SOME), 0, False)


def test_points_in_flight_from_another_machine_can_be_withheld():
    """It is seen only as this one says what it is about to send."""
    line, other = Line(), Line()
    other.store = line.store
    other.receiver.failures = [ReceiverUnavailable("no answer", maybe_stored=True)]
    ledger = line.ledger()

    def fail_to_send():
        with pytest.raises(ReceiverUnavailable):
            other.run(SOME)

    once_the_window_is_open(ledger, fail_to_send)
    report = line.run(SOME, ledger=ledger, on_ambiguous="fail")
    assert (report.sent, report.ambiguous, report.contended) == (0, len(SOME), True)
    assert [type(problem) for problem in report.problems] == [DeliveryAmbiguous]
    assert line.run(SOME).ambiguous == len(SOME)


BOTH = Selection(["production", "staging"], SELECTION.metrics)


@pytest.mark.parametrize(("first", "second"), [(SELECTION, BOTH), (BOTH, SELECTION)])
def test_points_without_an_environment_are_recognized_across_selections(first, second):
    """As those of containers; an environment is added to the list, or removed."""
    line = Line()
    line.run(SOME, selection=first)
    for selection in (second, first, second):
        report = line.run(SOME, selection=selection)
        assert (report.sent, report.unchanged) == (0, len(SOME))
    late = [*SOME, (Spot("requests", "late", 60), 1)]
    assert line.run(late, selection=second).sent == 1
    other_values = [(spot, value + 100) for spot, value in SOME]
    assert line.run(other_values, selection=first).changed == len(SOME)


def test_points_of_another_environment_are_others():
    line = Line()
    line.run(SOME)
    assert line.run(SOME, selection=Selection(["staging"], SELECTION.metrics)).sent == len(SOME)


def test_points_on_their_way_under_another_list_are_ambiguous():
    line = Line()
    line.receiver.failures = [ReceiverUnavailable("no answer", maybe_stored=True)]
    with pytest.raises(ReceiverUnavailable):
        line.run(SOME)
    assert line.run(SOME, selection=BOTH).ambiguous == len(SOME)
    assert line.run(SOME).unchanged == len(SOME)


def test_a_request_whose_points_were_rejected_is_not_logged_as_accepted(caplog):
    caplog.set_level(logging.INFO)
    line = Line()
    line.receiver.failures = [PointsRejected("1 is rejected", rejected=1)]
    assert line.run(SOME).sent == len(SOME) - 1
    assert "1 is rejected" in caplog.text
    assert "The receiver accepted" not in caplog.text
