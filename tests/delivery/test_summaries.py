"""The index is read instead of the records, and never says what a record does not."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter

import pytest

from airflow_provider_forge.coverage.coverage import EXPECTED_AFTER, WindowStatus, find_coverage
from airflow_provider_forge.delivery.ledger import Ledger
from airflow_provider_forge.delivery.records import record_index
from airflow_provider_forge.delivery.summaries import RecordSummary, page_leases
from airflow_provider_forge.exceptions import PointsRejected
from airflow_provider_forge.payload.fingerprints import Fingerprint
from airflow_provider_forge.windows import RETENTION
from tests.delivery.lines import EPOCH, NOW, SELECTION, BreakableStore, Killed, Line, NoLeases, Spot

FIRST = record_index(EPOCH)
QUARTER = dt.timedelta(minutes=15)
DAY = dt.timedelta(days=1)
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


def record_windows(ledger: Ledger, start: dt.datetime, end: dt.datetime, *, every: int = 1) -> None:
    """Record windows at once; with `every`, one of so many quarter hours."""
    with ledger.open_session([], SELECTION, start, end) as session:
        session._window = {i: span for i, span in session._window.items() if i // 3 % every == 0}
        session.record_window()
        session.save()


def look(store: BreakableStore, now: dt.datetime = NOW):
    found = find_coverage(ledger_of(store, now), now, keep=RETENTION, expected_after=EXPECTED_AFTER)
    assert found
    return found


def in_index(store: BreakableStore) -> dict[int, RecordSummary]:
    """Return the summaries that the pages of the index have."""
    pages = [json.loads(value) for key, value in sorted(store.values.items()) if "/index/" in key]
    return {
        int(name): RecordSummary.from_json(each) for page in pages for name, each in page["records"].items()
    }


def opened(store: BreakableStore) -> set[int]:
    pages = [json.loads(value) for key, value in store.values.items() if "/index/" in key]
    return {index for page in pages for index in page["open"]}


def without_index(store: BreakableStore) -> BreakableStore:
    """Return a copy of the store as versions without an index have left it."""
    copy = BreakableStore(values={key: text for key, text in store.values.items() if "/index/" not in key})
    head = json.loads(copy.values["app/where/head"])
    head.pop("blank", None)
    copy.values["app/where/head"] = json.dumps(head)
    return copy


def assert_exact(line: Line) -> dict[int, RecordSummary]:
    """Compare what is read by way of the index with the records; return the index."""
    records = line.ledger().records
    around = range(FIRST - 6, FIRST + 12)
    assert records.index.read(around) == {number: RecordSummary.of(records.load(number)) for number in around}
    return in_index(line.store)


# Reads


@pytest.mark.parametrize(
    ("start", "every", "delivered"),
    [
        (NOW - RETENTION, 1, 14 * 96),
        (NOW - QUARTER, 1, 1),
        (NOW - RETENTION / 2, 1, 7 * 96),
        (NOW - RETENTION, 2, 7 * 96),
    ],
    ids=["all", "one", "half", "alternating"],
)
def test_fourteen_days_are_read_with_few_calls(start, every, delivered):
    store = CountingStore()
    record_windows(ledger_of(store), start, NOW, every=every)
    store.reads.clear()
    found = look(store)
    assert store.reads.total() <= 17
    assert found == look(without_index(store))
    assert found.count(WindowStatus.EMPTY) == delivered


def test_windows_that_were_refused_are_read_with_few_calls():
    store = CountingStore()
    for day in range(14):
        start = NOW - RETENTION + dt.timedelta(days=day)
        minutes = range(0, 1440, 5)
        points = [
            Fingerprint("count", int(start.timestamp()) // 60 + minute, b"x" * 12) for minute in minutes
        ]
        with ledger_of(store).open_session(points, SELECTION, start, start + DAY) as session:
            session.mark_in_flight(range(len(points)))
            session.save()
            session.mark_pending(range(len(points)))
            session.record_window(pending=range(len(points)))
            session.save()
    store.reads.clear()
    found = look(store)
    assert store.reads.total() <= 17
    assert found.count(WindowStatus.MISSING) + found.count(WindowStatus.PENDING) == 14 * 96
    assert found == look(without_index(store))


@pytest.mark.parametrize("lost", ["whole", "one page", "a damaged page", "a damaged summary"])
def test_an_index_that_was_lost_is_complete_again_after_four_hours(lost):
    store = CountingStore()
    record_windows(ledger_of(store), NOW - 3 * DAY, NOW - 2 * DAY)
    key = "app/where/index/3"
    if lost == "whole":
        store.values = dict(without_index(store).values)
    elif lost == "one page":
        del store.values[key]
    elif lost == "a damaged page":
        store.values[key] = json.dumps({"version": 9})
    elif lost == "a damaged summary":
        page = json.loads(store.values[key])
        page["records"].popitem()
        page["records"]["x"] = {}
        store.values[key] = json.dumps(page)
    assert look(store) == look(without_index(store))
    assert store.reads.total() > 250
    for number in range(16):
        record_windows(ledger_of(store), NOW - DAY + number * QUARTER, NOW - DAY + (number + 1) * QUARTER)
    store.reads.clear()
    found = look(store)
    assert store.reads.total() <= 17
    assert found == look(without_index(store))


def test_a_page_fits_into_a_value_of_the_store():
    store = CountingStore(largest=9000)
    record_windows(ledger_of(store), NOW - RETENTION, NOW)
    assert max(map(len, store.values.values())) <= 9000
    assert 0 < len(in_index(store)) < 14 * 24 * 12
    assert len(in_index(store)) + len(opened(store)) == 14 * 24 * 12
    assert look(store).count(WindowStatus.EMPTY) == 14 * 96, "the others are read themselves"


def test_what_is_damaged_is_not_used(caplog):
    store = CountingStore()
    record_windows(ledger_of(store), EPOCH, EPOCH + 4 * QUARTER)
    expected = look(store)
    first, second, *_ = [key for key in store.values if "/index/" in key]
    store.values[first] = json.dumps({"version": 9})
    page = json.loads(store.values[second])
    name = next(iter(page["records"]))
    page["records"] |= {name: {"points": -1}, "x": {}, "7": {**page["records"][name], "asked": {}}}
    store.values[second] = json.dumps(page)
    assert look(store) == expected
    assert "of the ledger's index is damaged, and is rebuilt" in caplog.text
    assert "A summary on the page" in caplog.text


def test_summaries_that_are_no_longer_needed_are_dropped():
    store = CountingStore()
    record_windows(ledger_of(store), EPOCH, EPOCH + QUARTER)
    later = EPOCH + dt.timedelta(days=16)
    record_windows(ledger_of(store, later), later, later + QUARTER)
    assert min(in_index(store)) == record_index(later)


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
            assert not opened(line.store)
            steps += 1
            continue
        line.fuse.left = None
        break
    assert steps > 10
    assert len(assert_exact(line)) == 3


def test_points_in_flight_are_in_the_summary():
    line = Line()
    line.run(SERVED)
    line.fuse.left = 10**9
    line.receiver.failures = [Killed()]
    with pytest.raises(Killed):
        line.run(LATE)
    assert sorted(assert_exact(line)) == [FIRST, FIRST + 1, FIRST + 2]
    assert [each.begun for each in in_index(line.store).values()] == [False, True, False]


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
