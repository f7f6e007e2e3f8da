"""The index is read instead of the records, and never says what a record does not."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter

import pytest

from airflow_provider_forge.coverage.coverage import EXPECTED_AFTER, WindowStatus, find_coverage
from airflow_provider_forge.delivery.ledger import Ledger
from airflow_provider_forge.delivery.records import RECORD_SECONDS, record_index
from airflow_provider_forge.delivery.summaries import RecordSummary, page_leases
from airflow_provider_forge.exceptions import PointsRejected
from airflow_provider_forge.windows import RETENTION
from tests.delivery.lines import EPOCH, NOW, SELECTION, BreakableStore, Killed, Line, NoLeases, Spot

FIRST = record_index(EPOCH)
QUARTER = dt.timedelta(minutes=15)
SERVED = [(Spot("requests", site, 60 * minute), 1) for site in "ab" for minute in (1, 6, 11)]
LATE = [*SERVED, (Spot("requests", "late", 60 * 7), 1)]


class CountingStore(BreakableStore):
    """Counts what is read, by kind."""

    def __init__(self, largest: int | None = 65_000) -> None:
        super().__init__(largest=largest)
        self.reads: Counter[str] = Counter()

    def get(self, key: str) -> object:
        self.reads[key.split("/")[2] if "/index/" in key or "/head" in key else "record"] += 1
        return super().get(key)


def ledger_of(store: BreakableStore, now: dt.datetime = NOW) -> Ledger:
    return Ledger(store, "app/where", leases=NoLeases(), now=lambda: now)


def record_windows(ledger: Ledger, start: dt.datetime, end: dt.datetime) -> None:
    with ledger.open_session([], SELECTION, start, end) as session:
        session.record_window()
        session.save()


def look(store: BreakableStore, now: dt.datetime):
    found = find_coverage(ledger_of(store, now), now, keep=RETENTION, expected_after=EXPECTED_AFTER)
    assert found
    return found


def assert_exact(line: Line) -> dict[int, RecordSummary]:
    """Compare what the index says with the records; return the index."""
    records = line.ledger().records
    index = records.index.read()
    assert index == {number: RecordSummary.of(records.load(number)) for number in index}
    return index


# Reads


def test_fourteen_days_are_read_with_few_calls():
    now = NOW + dt.timedelta(minutes=3)
    store = CountingStore()
    record_windows(ledger_of(store, now), NOW - RETENTION, NOW - 2 * QUARTER)
    # A gap, and the windows that are not due: their records have to be read one by one.
    for start in (NOW - dt.timedelta(days=3), NOW - dt.timedelta(days=3) + QUARTER):
        for record in range(3):
            index = record_index(start) + record
            ledger_of(store, now).records.index.remove(index)
            moment = dt.datetime.fromtimestamp(index * RECORD_SECONDS, dt.timezone.utc)
            store.delete(f"app/where/{moment:%Y%m%dT%H%MZ}")
    store.reads.clear()
    found = look(store, now)
    assert [found.count(each) for each in (WindowStatus.MISSING, WindowStatus.PENDING)] == [2, 2]
    assert found.count(WindowStatus.EMPTY) == 14 * 96 - 1 - 4
    assert store.reads["record"] <= 16 + 2 * 3 + 2 * 3
    assert store.reads.total() <= 50


def test_a_page_fits_into_a_value_of_the_store():
    store = CountingStore(largest=9000)
    record_windows(ledger_of(store), NOW - RETENTION, NOW)
    assert max(map(len, store.values.values())) <= 9000
    kept = ledger_of(store).records.index.read()
    assert 0 < len(kept) < 14 * 24 * 12
    assert look(store, NOW).count(WindowStatus.EMPTY) == 14 * 96, "the others are read themselves"


def test_records_of_versions_without_an_index_are_read():
    store = CountingStore()
    record_windows(ledger_of(store), EPOCH, EPOCH + 4 * QUARTER)
    expected = look(store, NOW)
    for key in [key for key in store.values if "/index/" in key]:
        store.delete(key)
    assert look(store, NOW) == expected
    assert expected.count(WindowStatus.EMPTY) == 4


def test_what_is_damaged_is_not_used(caplog):
    store = CountingStore()
    record_windows(ledger_of(store), EPOCH, EPOCH + 4 * QUARTER)
    expected = look(store, NOW)
    first, second, *_ = [key for key in store.values if "/index/" in key]
    store.values[first] = json.dumps({"version": 9})
    page = json.loads(store.values[second])
    name = next(iter(page["records"]))
    page["records"] |= {name: {"points": -1}, "x": {}, "7": {**page["records"][name], "asked": {}}}
    store.values[second] = json.dumps(page)
    assert look(store, NOW) == expected
    assert "of the ledger's index is damaged, and is rebuilt" in caplog.text
    assert "A summary on the page" in caplog.text


def test_summaries_that_are_no_longer_needed_are_dropped():
    store = CountingStore()
    record_windows(ledger_of(store), EPOCH, EPOCH + QUARTER)
    later = EPOCH + dt.timedelta(days=16)
    record_windows(ledger_of(store, later), later, later + QUARTER)
    assert min(ledger_of(store, later).records.index.read()) == record_index(later)


# Exactness


@pytest.mark.parametrize("served", [SERVED, LATE, []])
def test_a_delivery_has_its_summaries(served):
    line = Line()
    line.run(served)
    index = assert_exact(line)
    assert sorted(index) == [FIRST, FIRST + 1, FIRST + 2]
    assert sum(each.points for each in index.values()) == len(served)


@pytest.mark.parametrize("kind", ["late points", "first points", "rejection"])
def test_a_task_killed_at_any_step_leaves_no_wrong_summary(kind):
    before = [] if kind == "first points" else SERVED
    steps = 0
    while True:
        line = Line()
        line.run(before)
        if kind == "rejection":
            line.receiver.failures = [PointsRejected("no", rejected=1)]
        line.fuse.left = steps
        try:
            line.run(LATE)
        except Killed:
            line.fuse.left = None
            assert_exact(line)
            line.receiver.failures = []
            line.run(LATE)
            assert len(assert_exact(line)) == 3
            steps += 1
            continue
        line.fuse.left = None
        break
    assert steps > 10
    assert len(assert_exact(line)) == 3


def test_points_in_flight_have_no_summary():
    line = Line()
    line.run(SERVED)
    line.fuse.left = 10**9
    line.receiver.failures = [Killed()]
    with pytest.raises(Killed):
        line.run(LATE)
    assert sorted(assert_exact(line)) == [FIRST, FIRST + 2]


# What reports are told


def test_late_points_and_attempts_are_told():
    line = Line()
    line.run(SERVED)
    line.now = lambda: NOW + dt.timedelta(hours=1)
    line.run(LATE)
    middle = assert_exact(line)[FIRST + 1]
    assert (middle.points, middle.attempts) == (3, 2)
    assert middle.latest - middle.first == 3600
    first = assert_exact(line)[FIRST]
    assert (first.points, first.attempts, first.latest) == (2, 1, first.first)


def test_a_point_of_a_neighbouring_window_is_not_late():
    line = Line()
    line.run([], 15, 30)
    line.now = lambda: NOW + dt.timedelta(hours=1)
    line.run([(Spot("requests", "edge", 60 * 15), 1)])
    neighbour = assert_exact(line)[FIRST + 3]
    assert (neighbour.points, neighbour.latest, neighbour.attempts) == (1, 0, 1)


def test_tasks_that_write_one_page_have_a_lease_in_common():
    for index in (FIRST, FIRST + 1, FIRST + 2, FIRST + 48):
        assert page_leases([index]) == page_leases([FIRST])
    assert len(page_leases(range(FIRST, FIRST + 48))) == 16
