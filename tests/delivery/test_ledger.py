from __future__ import annotations

import datetime as dt
import json
import logging
from collections import Counter

import pytest

from airflow_provider_forge.delivery.ledger import KEEP, Selection
from airflow_provider_forge.exceptions import DeliveryAmbiguous
from tests.delivery.lines import EPOCH, NOW, SELECTION, Line, Memory, Spot, at

SOME = [(Spot("requests", "a", 60 * minute), minute) for minute in range(15)]


def cells(line):
    return sorted(key for key in line.store.values if not key.endswith("/head"))


def head(line):
    return json.loads(line.store.values["app/where/head"])


def test_there_is_one_entry_for_each_five_minutes_whatever_was_asked():
    line = Line()
    line.run(SOME[3:8], 3, 8)
    line.run(SOME[:1], 0, 1)
    assert cells(line) == ["app/where/20261123T0500Z", "app/where/20261123T0505Z"]


def test_what_was_asked_for_is_noted_by_its_selection():
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
    first, second = (json.loads(line.store.values[key])["asked"][name] for key in cells(line))
    now = int(NOW.timestamp())
    assert first == [[180.0, 300.0, "delivered", now]]
    assert second == [[0.0, 210.0, "delivered", now]]


def test_selections_go_by_what_is_in_them():
    one, other = Selection(["a", "b"], ["c", "d"]), Selection(["b", "a"], ["d", "c"])
    assert one.name == other.name
    assert one.name != Selection(["a"], ["b", "c", "d"]).name
    assert one.name == Selection(["a", "b"], ["c", "d"], {"a": "production"}).name


def test_entries_that_are_too_old_go_away_as_new_ones_come():
    line = Line()
    line.run(SOME)
    line.now = lambda: NOW + KEEP
    line.run([], end=15, start=0)
    later = [(Spot("requests", "a", 60 * (60 * 24 * 15 + 120)), 1)]
    line.run(later, 60 * 24 * 15 + 120, 60 * 24 * 15 + 135)
    assert all(key > f"app/where/{EPOCH + dt.timedelta(days=14):%Y%m%dT%H%MZ}" for key in cells(line)[:1])
    assert head(line)["oldest"] * 300 >= (EPOCH + dt.timedelta(minutes=15)).timestamp()


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


def test_a_lost_ledger_says_so_and_what_may_have_been_delivered_is_ambiguous(caplog):
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


def test_it_knows_a_window_that_was_asked_for():
    line = Line()
    ledger = line.ledger()
    assert not ledger.knows(at(0), at(15))
    line.run(SOME[:10], 0, 10)
    assert ledger.knows(at(0), at(10))
    assert not ledger.knows(at(0), at(15))


def test_a_damaged_entry_counts_as_lost_and_says_so(caplog):
    line = Line()
    line.run(SOME)
    line.store.values["app/where/20261123T0500Z"] = json.dumps({"version": 99})
    report = line.run(SOME)
    assert (report.sent, report.ambiguous) == (5, 5)
    assert "20261123T0500Z is damaged" in caplog.text
    assert line.run(SOME).ambiguous == 0


def test_what_another_machine_delivers_between_the_look_and_the_intent_is_not_sent():
    line, other = Line(), Line()
    other.store = line.store
    ledger = line.ledger()
    load, loaded = ledger.load, []

    def load_and_let_the_other_deliver(cell):
        if len(loaded) == 3:
            other.run(SOME)
        loaded.append(cell)
        return load(cell)

    ledger.load = load_and_let_the_other_deliver
    report = line.run(SOME, ledger=ledger)
    assert (report.sent, report.unchanged, report.contended) == (0, len(SOME), True)
    assert line.receiver.requests == []


def test_two_writers_without_a_common_lease_see_each_other_and_add_up():
    """Each reads before the other writes; a line's own leases hand out everything to everyone."""
    line = Line()
    other = Line()
    other.store = line.store
    inner = line.receiver.export

    def export_while_the_other_delivers(request):
        line.receiver.export = inner
        second = other.run(SOME)
        assert second.ambiguous == len(SOME)
        inner(request)

    line.receiver.export = export_while_the_other_delivers
    first = line.run(SOME)
    assert first.contended
    again = line.run(SOME)
    assert (again.unchanged, again.ambiguous) == (len(SOME), 0)


def test_neighbours_in_one_entry_do_not_overwrite_each_other():
    line = Line()
    one, other = line.ledger(), line.ledger()
    line.run(SOME[:2], 0, 2, ledger=one)
    line.run(SOME[2:5], 2, 5, ledger=other)
    assert line.run(SOME[:5], 0, 5).unchanged == 5
    assert line.receiver.values == Counter(SOME[:5])


@pytest.mark.parametrize("metric", ["ünï/cøde \N{SNOWMAN}", "", "a" * 300])
def test_any_name_of_a_metric_can_be_kept(metric):
    line = Line()
    points = [(Spot(metric, "a", 0), 1)]
    line.run(points)
    assert line.run(points).unchanged == 1


def test_times_are_utc_in_the_keys():
    line = Line()
    line.run([], 0, 5)
    assert cells(line) == [f"app/where/{at(0):%Y%m%dT%H%MZ}"]
