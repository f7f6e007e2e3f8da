from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.connections.ledger import LARGEST
from airflow_provider_forge.delivery.record_store import MAX_CHUNKS, ChunkedStore
from airflow_provider_forge.delivery.records import CoveredSpan, LedgerRecord, SpanStatus
from airflow_provider_forge.payload.fingerprints import HASH_BYTES
from tests.delivery.lines import BreakableStore, Killed, Line, Spot, named_in_the_log
from tests.delivery.test_records import ANY_RECORD, START, point_hash
from tests.otlp.building import exhaustively

thoroughly = settings(exhaustively, max_examples=80)

KEY = "app/where/20261123T0500Z"
MANY = [(Spot("requests", f"{site}", 60 * minute), site) for minute in range(5) for site in range(60)]


def record_of(sizes, *, offset=0, metric="count"):
    """Return a record with so many points in each minute."""
    numbers = iter(range(offset, 10**9))
    return LedgerRecord(
        acknowledged={
            (metric, START + minute): Counter(point_hash(next(numbers) << 32) for _ in range(size))
            for minute, size in enumerate(sizes)
            if size
        },
        covered={"c0ffee": [CoveredSpan(0.0, 300.0, SpanStatus.DELIVERED, 5)]},
        version=(3, "w"),
    )


def read(store):
    return LedgerRecord.from_json(ChunkedStore(store).get(KEY), START)


def parts(store):
    return sorted(key for key in store.values if key != KEY)


@thoroughly
@given(record=ANY_RECORD, largest=st.integers(250, 900))
def test_a_record_is_read_as_it_was_written_with_any_size_limit(record, largest):
    store = BreakableStore(largest=largest)
    ChunkedStore(store).set(KEY, record.to_json(START))
    assert read(store) == record
    for key in parts(store):
        content = json.loads(store.values[key])
        groups = [
            group for kind in content.values() for minutes in kind.values() for group in minutes.values()
        ]
        assert len(json.dumps(content)) <= largest or len(groups) == 1


@pytest.mark.parametrize(("sizes", "written"), [([5], 1), ([100, 100, 100, 100, 100], 6), ([0, 250], 3)])
def test_a_small_record_is_one_value_and_a_large_one_has_a_chunk_per_minute(sizes, written):
    store = BreakableStore(largest=2500)
    ChunkedStore(store).set(KEY, record_of(sizes).to_json(START))
    assert len(store.values) == store.writes == written


def test_a_late_point_costs_one_chunk_and_the_record():
    store = BreakableStore(largest=2500)
    chunked = ChunkedStore(store)
    chunked.set(KEY, record_of([100] * 5).to_json(START))
    before, written = set(store.values), store.writes
    later = record_of([100] * 5)
    later.acknowledged["count", START + 3][point_hash(1)] += 1
    assert chunked.get(KEY) is not None
    chunked.set(KEY, later.to_json(START))
    assert store.writes - written == 2
    assert len(set(store.values) ^ before) == 2, "the part that is no longer named is gone"
    assert read(store) == later


def test_a_record_that_shrinks_is_one_value_again():
    store = BreakableStore(largest=2500)
    chunked = ChunkedStore(store)
    chunked.set(KEY, record_of([100] * 5).to_json(START))
    chunked.set(KEY, record_of([3]).to_json(START))
    assert list(store.values) == [KEY]


def test_a_deleted_record_leaves_no_chunk():
    store = BreakableStore(largest=2500)
    ChunkedStore(store).set(KEY, record_of([100] * 5).to_json(START))
    ChunkedStore(store).delete(KEY)
    assert store.values == {}


def test_a_task_killed_at_any_step_leaves_the_old_record_or_the_new_one():
    one, other = record_of([100] * 5), record_of([100, 120, 140, 160, 180], offset=50)
    step, ended = 0, False
    while not ended:
        store = BreakableStore(largest=2500)
        chunked = ChunkedStore(store)
        chunked.set(KEY, one.to_json(START))
        store.fuse.left = step
        try:
            chunked.set(KEY, other.to_json(START))
            ended = True
        except Killed:
            step += 1
        store.fuse.left = None
        assert read(store) in (one, other)
    assert step > 10


@pytest.mark.parametrize("harm", ["missing", "another's", "empty", "of another form"])
@pytest.mark.parametrize("which", [0, 2, 4])
def test_a_torn_record_keeps_its_existing_chunks_and_is_reported(harm, which):
    store = BreakableStore(largest=2500)
    record = record_of([100] * 5)
    ChunkedStore(store).set(KEY, record.to_json(START))
    name = json.loads(store.values[KEY])["parts"][which]
    others = json.loads(store.values[KEY])["parts"]
    harmed = {
        "another's": store.values[f"{KEY}-{others[which - 1]}"],
        "empty": "{}",
        "of another form": json.dumps({"acknowledged": 5}),
    }
    store.values.pop(f"{KEY}-{name}")
    if harm in harmed:
        store.values[f"{KEY}-{name}"] = harmed[harm]
    found = read(store)
    assert found.damaged
    assert found.lost
    assert found.covered == {}
    expected = copy.deepcopy(record.acknowledged)
    del expected["count", START + which]
    assert found.acknowledged == expected


@pytest.mark.parametrize("names", [None, 5, "text", {}, [5], [None], [["a"]], ["no such part"]])
def test_a_malformed_list_of_chunks_is_a_torn_record(names):
    store = BreakableStore(largest=2500)
    ChunkedStore(store).set(KEY, record_of([100] * 5).to_json(START))
    store.values[KEY] = json.dumps({**json.loads(store.values[KEY]), "parts": names})
    assert read(store).damaged
    ChunkedStore(store).set(KEY, record_of([100] * 5).to_json(START))
    assert not read(store).damaged
    ChunkedStore(store).delete(KEY)


def test_chunks_replaced_by_another_task_are_not_damage():
    store = BreakableStore(largest=2500)
    chunked = ChunkedStore(store)
    chunked.set(KEY, record_of([100] * 5).to_json(START))
    get, later = store.get, record_of([100, 101, 102, 103, 104], offset=7)

    def get_and_let_the_other_write(key):
        value = get(key)
        store.get = get
        chunked.get(KEY)
        chunked.set(KEY, later.to_json(START))
        return value

    store.get = get_and_let_the_other_write
    assert read(store) == later


# The whole line


def test_a_late_point_of_a_large_app_is_the_only_one_that_is_sent():
    line = Line(largest=2500)
    line.run(MANY, 0, 5)
    for late in ("late", "later"):
        served = [*MANY, (Spot("requests", late, 60), 5)]
        report = line.run(served, 0, 5)
        assert (report.sent, report.ambiguous, report.digested) == (1, 0, False)
        assert report.unchanged == len(MANY)
    assert all(len(value) <= 2500 for value in line.store.values.values())


def test_a_hundred_thousand_points_in_five_minutes_are_exact_in_airflows_store():
    groups = {(f"forge_metric_{metric}", minute): Counter() for metric in range(10) for minute in range(5)}
    for number, group in zip(range(100_000), itertools.cycle(groups)):
        groups[group][number.to_bytes(HASH_BYTES, "big")] += 1
    record = LedgerRecord(acknowledged=groups)
    record.compress(MAX_CHUNKS * LARGEST, 0)
    assert not record.digested
    store = BreakableStore(largest=LARGEST)
    chunked = ChunkedStore(store)
    chunked.set(KEY, record.to_json(0))
    assert max(map(len, store.values.values())) <= LARGEST < 2**16
    groups["forge_metric_0", 2][b"a late point"] += 1
    before = dict(store.values)
    chunked.set(KEY, record.to_json(0))
    assert len(store.values.items() - before.items()) == 2
    assert LedgerRecord.from_json(ChunkedStore(store).get(KEY), 0) == record


def test_kills_at_any_step_lose_nothing_and_double_nothing_unnamed():
    line = Line(largest=2500, max_body_bytes=8192)
    for step in range(0, 120, 3):
        line = Line(largest=2500, max_body_bytes=8192)
        line.fuse.left = step
        with contextlib.suppress(Killed):
            line.run(MANY, 0, 5)
        line.fuse.left = None
        with named_in_the_log() as named:
            line.run(MANY, 0, 5)
        doubled = sum(line.receiver.points.values()) - len(MANY)
        assert set(line.receiver.points) == {spot for spot, _ in MANY}
        assert doubled <= sum(named)
        assert line.run(MANY, 0, 5).unchanged == len(MANY)


def test_old_records_with_digests_and_single_values_stay_readable():
    line = Line(largest=2500)
    line.run(MANY[:20], 0, 5)
    key = "app/where/20261123T0500Z"
    entry = json.loads(line.store.values[key])
    assert entry["version"] == 1
    assert "parts" not in entry
    record = LedgerRecord.from_json(entry, START)
    record.compress(0, START)
    line.store.values[key] = json.dumps(record.to_json(START))
    report = line.run(MANY[:20], 0, 5)
    assert (report.unchanged, report.digested) == (20, True)


def test_a_warning_precedes_the_replacement_of_points_by_a_digest(monkeypatch, caplog):
    from airflow_provider_forge.delivery import record_store

    monkeypatch.setattr(record_store, "MAX_CHUNKS", 2)
    line = Line(largest=2500)
    with caplog.at_level(logging.WARNING):
        line.run(MANY[:100], 0, 5)
        assert caplog.text == ""
        assert not line.run(MANY[:270], 0, 5).digested
        assert "almost as many points" in caplog.text
        assert "ledger_url" in caplog.text


def test_old_records_are_deleted_with_their_chunks():
    from airflow_provider_forge.delivery.record_store import RECORD_RETENTION
    from tests.delivery.lines import NOW

    line = Line(largest=2500)
    line.run(MANY, 0, 5)
    assert any("T0500Z-" in key for key in line.store.values)
    line.now = lambda: NOW + RECORD_RETENTION
    minute = 60 * 24 * 15 + 120
    line.run([(Spot("requests", "a", 60 * minute), 1)], minute, minute + 5)
    assert not any("20261123T0500Z" in key for key in line.store.values)
