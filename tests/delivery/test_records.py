from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.delivery.records import (
    RECORD_MINUTES,
    RECORD_SECONDS,
    CoveredSpan,
    Digest,
    Group,
    LedgerRecord,
    PointHashes,
    SpanStatus,
)
from airflow_provider_forge.payload.fingerprints import HASH_BYTES
from tests.otlp.building import any_json, exhaustively

thoroughly = settings(exhaustively, max_examples=80)

START = 29_923_500
"""The record that all these are of, in minutes of the epoch."""


def point_hash(number: int) -> bytes:
    return number.to_bytes(HASH_BYTES, "big")


def text_of(record: LedgerRecord, start: int = START) -> bytes:
    return msgspec.json.encode(record.to_json(start))


def read(text: bytes, start: int = START) -> LedgerRecord:
    return LedgerRecord.from_json(msgspec.json.decode(text), start)


def size_of(record: LedgerRecord) -> int:
    """Return how large Airflow says that it is: its JSON has spaces and no letters but those of ASCII."""
    return len(json.dumps(record.to_json(START)))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
MARKS = st.one_of(st.integers(0, 3).map(point_hash), st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES))
COUNTERS = st.lists(MARKS, min_size=1, max_size=6).map(Counter)
DIGESTS = st.builds(Digest, st.integers(0, 10**6), st.integers(0, 2 ** (8 * HASH_BYTES) - 1))
GROUPS: st.SearchStrategy[Group] = st.tuples(
    st.one_of(st.sampled_from(("a", "b")), TEXTS), st.integers(START, START + RECORD_MINUTES - 1)
)
TIMES = st.one_of(
    st.integers(0, RECORD_SECONDS * 1000).map(lambda time: time / 1000), st.sampled_from([0.0, 300.0])
)
ASKED = st.builds(
    lambda times, state, at: CoveredSpan(*sorted(times), state, at),
    st.lists(TIMES, min_size=2, max_size=2, unique=True),
    st.sampled_from(SpanStatus),
    st.integers(0, 2**40),
)


def marks_of(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[PointHashes]:
    return st.dictionaries(GROUPS, st.one_of(*kinds), max_size=5)


def records(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[LedgerRecord]:
    return st.builds(
        LedgerRecord,
        acknowledged=marks_of(*kinds),
        in_flight=marks_of(*kinds),
        covered=st.dictionaries(TEXTS, st.lists(ASKED, min_size=1, max_size=3), max_size=3),
        version=st.tuples(st.integers(0, 2**40), TEXTS),
    )


ANY_RECORD = records(COUNTERS, DIGESTS)


# JSON


@thoroughly
@given(record=ANY_RECORD)
def test_a_record_is_read_as_it_was_written(record):
    assert read(text_of(record)) == record
    # Airflow's store goes by another encoder and other spaces.
    assert LedgerRecord.from_json(json.loads(json.dumps(record.to_json(START))), START) == record


def test_the_format_of_a_record():
    """A ledger lives longer than a version of this package: what was written must be read."""
    record = LedgerRecord(
        acknowledged={
            ("count", START): Counter({point_hash(2): 1, point_hash(1): 2}),
            ("count", START + 4): Digest(5211, 255),
            ("errors", START + 1): Counter([point_hash(3)]),
        },
        in_flight={("count", START + 1): Counter([point_hash(4)])},
        covered={"c0ffee": [CoveredSpan(0.0, 300.0, SpanStatus.DELIVERED, 1795410000)]},
        version=(3, "9f1c"),
    )
    assert json.loads(text_of(record)) == {
        "version": 1,
        "revision": 3,
        "writer": "9f1c",
        "acknowledged": {
            "count": {"0": "AAAAAAAAAAAAAAABAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAC", "4": [5211, "ff"]},
            "errors": {"1": "AAAAAAAAAAAAAAAD"},
        },
        "in_flight": {"count": {"1": "AAAAAAAAAAAAAAAE"}},
        "asked": {"c0ffee": [[0.0, 300.0, "delivered", 1795410000]]},
    }


@thoroughly
@given(record=ANY_RECORD, data=st.data())
def test_equal_records_are_equal_texts(record, data):
    def shuffled(mapping: dict) -> dict:
        return dict(data.draw(st.permutations(list(mapping.items()))))

    def shuffled_hashes(point_hashes: PointHashes) -> PointHashes:
        return {
            group: Counter(shuffled(some)) if isinstance(some, Counter) else some
            for group, some in shuffled(point_hashes).items()
        }

    twin = LedgerRecord(
        acknowledged=shuffled_hashes(record.acknowledged),
        in_flight=shuffled_hashes(record.in_flight),
        covered=shuffled(record.covered),
        version=record.version,
    )
    assert twin == record
    assert text_of(twin) == text_of(record)


@thoroughly
@given(one=ANY_RECORD, other=ANY_RECORD)
def test_different_records_are_different_texts(one, other):
    assert (text_of(one) == text_of(other)) == (one == other)


@thoroughly
@given(record=ANY_RECORD, later=st.integers(-START, 10**6))
def test_the_text_does_not_depend_on_the_index_of_the_record(record, later):
    def moved(point_hashes: PointHashes) -> PointHashes:
        return {(metric, minute + later): some for (metric, minute), some in point_hashes.items()}

    elsewhere = LedgerRecord(
        moved(record.acknowledged), moved(record.in_flight), record.covered, record.version
    )
    assert text_of(elsewhere, START + later) == text_of(record)
    assert read(text_of(record), START + later) == elsewhere


@pytest.mark.parametrize("field", ["acknowledged", "in_flight"])
def test_empty_groups_of_point_hashes_are_not_written(field):
    assert text_of(LedgerRecord(**{field: {("count", START): Counter()}})) == text_of(LedgerRecord())
    assert read(text_of(LedgerRecord())) == LedgerRecord()


@thoroughly
@given(point_hashes=st.lists(MARKS, min_size=1, max_size=50))
def test_a_point_more_is_16_letters_more(point_hashes):
    def size(some: list[bytes]) -> int:
        return len(text_of(LedgerRecord(acknowledged={("count", START): Counter(some)})))

    assert size(point_hashes) - size(point_hashes[:1]) == 16 * (len(point_hashes) - 1)


def content(**changes: Any) -> dict[str, Any]:
    """Return a record as JSON with something else in one of its fields."""
    record = LedgerRecord(acknowledged={("count", START): Counter([point_hash(1)])}, version=(1, "w"))
    return {**record.to_json(START), **changes}


@pytest.mark.parametrize(
    "damaged",
    [
        *(None, [], "record", 5, {}, {"version": 1}),
        *(content(version=version) for version in (0, 2, "1", None)),
        *(content(revision=revision) for revision in (None, "x", [], {})),
        *(
            content(acknowledged=point_hashes)
            for point_hashes in (None, [], "count", 5, {"count": None}, {"count": []})
        ),
        *(content(acknowledged={"count": {"x": "AAAAAAAAAAAAAAAD"}}),),
        *(
            content(in_flight={"count": {"0": group}})
            for group in (
                *(None, 5, 1.5, True, {}, [], [1], [1, 2], [1, "ff", 3], ["x", "ff"], [1, "x"], [None, "ff"]),
                # Cut off, with a letter of no alphabet, and with bytes that are no whole mark.
                *(
                    "AAAAAAAAAAAAAAA",
                    "AAAAAAAA!AAAAAAAA",
                    "AAAAAAAAAAAAAAA\u00e9",
                    "AAAA",
                    "AAAAAAAAAAAAAAADAAAA",
                ),
            )
        ),
        *(content(asked=asked) for asked in (None, [], "c0ffee", {"c0ffee": None}, {"c0ffee": 5})),
        *(
            content(asked={"c0ffee": [part]})
            for part in (
                *(None, 5, [], [0.0, 300.0, "delivered"], [0.0, 300.0, "lost", 5], [0.0, 300.0, None, 5]),
                *(["x", 300.0, "delivered", 5], [0.0, None, "delivered", 5], [[], {}, "delivered", 5]),
                *([10**400, 300.0, "delivered", 5], [0.0, 300.0, "delivered", "soon"]),
            )
        ),
    ],
    ids=lambda damaged: json.dumps(damaged)[-60:],
)
def test_a_damaged_text_is_not_a_record(damaged):
    with pytest.raises(ValueError, match=r"\w"):
        LedgerRecord.from_json(damaged, START)


def test_a_record_of_another_version_is_refused_by_its_number():
    with pytest.raises(ValueError, match="version 2"):
        LedgerRecord.from_json(content(version=2), START)


@thoroughly
@given(record=ANY_RECORD, other=any_json, data=st.data())
def test_any_other_json_in_it_is_refused_or_can_be_worked_with(record, other, data):
    """What is read in spite of the damage must not fail later, where nobody expects it."""
    root = {"": msgspec.json.decode(text_of(record))}
    holder, key = root, ""
    while isinstance(holder[key], (dict, list)) and holder[key] and data.draw(st.integers(0, 9)):
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    holder[key] = other
    try:
        found = LedgerRecord.from_json(root[""], START)
    except ValueError:
        return
    for selection in (*found.covered, "c0ffee"):
        found.cover(selection, CoveredSpan(10.0, 20.0, SpanStatus.DELIVERED, 5))
    found.compress(0, START)
    assert read(text_of(found))


# Digests


@thoroughly
@given(point_hashes=st.lists(MARKS, max_size=8), data=st.data())
def test_a_digest_does_not_depend_on_the_order(point_hashes, data):
    assert Digest.of(data.draw(st.permutations(point_hashes))) == Digest.of(point_hashes)
    step_by_step = Digest()
    for one in point_hashes:
        step_by_step = step_by_step.plus(one)
    assert step_by_step == Digest.of(point_hashes)
    assert step_by_step.count == len(point_hashes)


HASHES = st.integers(0, 5).map(
    lambda number: hashlib.blake2b(point_hash(number), digest_size=HASH_BYTES).digest()
)


@thoroughly
@given(one=st.lists(HASHES, max_size=6), other=st.lists(HASHES, max_size=6))
def test_other_point_hashes_have_another_digest(one, other):
    assert (Digest.of(one) == Digest.of(other)) == (Counter(one) == Counter(other))


def test_a_digest_counts_repeated_point_hashes():
    assert Digest.of([point_hash(1)]) != Digest.of([point_hash(1), point_hash(1)])
    assert Digest.of([point_hash(0)]) != Digest.of([])


def test_a_digest_is_as_small_as_a_point_hash():
    largest = point_hash(2 ** (8 * HASH_BYTES) - 1)
    assert Digest.of([largest] * 1000).total < 2 ** (8 * HASH_BYTES)
    assert Digest.of([largest, point_hash(1)]) == Digest(2, 0)


@pytest.mark.parametrize(
    ("record", "digested"),
    [
        (LedgerRecord(), False),
        (LedgerRecord(acknowledged={("a", START): Counter([point_hash(1)])}), False),
        (LedgerRecord(acknowledged={("a", START): Digest(1, 1)}), True),
        (
            LedgerRecord(acknowledged={("a", START): Counter([point_hash(1)]), ("b", START): Digest(1, 1)}),
            True,
        ),
        # What was on its way is sent again or not, all of it: there is nothing to tell apart.
        (LedgerRecord(in_flight={("a", START): Digest(1, 1)}), False),
    ],
)
def test_a_record_shows_whether_it_has_digests(record, digested):
    assert record.digested is digested


# Compressing


@thoroughly
@given(
    record=records(st.lists(MARKS, min_size=1, max_size=20).map(Counter), DIGESTS),
    largest=st.integers(0, 1000),
)
def test_it_is_compressed_until_it_fits(record, largest):
    before = copy.deepcopy(record)
    record.compress(largest, START)
    left = []
    for field in ("acknowledged", "in_flight"):
        was, is_ = getattr(before, field), getattr(record, field)
        assert was.keys() == is_.keys()
        for group, point_hashes in was.items():
            if is_[group] != point_hashes:
                assert is_[group] == Digest.of(point_hashes.elements())
            elif isinstance(point_hashes, Counter):
                left.append(point_hashes.total())
    assert size_of(record) <= max(largest, size_of(before))
    if size_of(record) > largest:
        assert max(left, default=0) <= 2, "what is left is shorter than its digest"


def large_record(*sizes: int) -> LedgerRecord:
    """Return a record with a metric for each number of points."""
    numbers = iter(range(sum(sizes)))
    return LedgerRecord(
        acknowledged={
            (f"metric_{which}", START): Counter(point_hash(next(numbers) << 64) for _ in range(size))
            for which, size in enumerate(sizes)
        }
    )


@pytest.mark.parametrize(("largest", "digested"), [(12000, 0), (9000, 1), (5500, 2), (2000, 3)])
def test_the_largest_groups_go_first_and_no_more_than_needed(largest, digested):
    record = large_record(100, 300, 50, 200)
    record.compress(largest, START)
    by_size = [1, 3, 0, 2]
    assert [isinstance(record.acknowledged[f"metric_{which}", START], Digest) for which in by_size] == [
        place < digested for place in range(4)
    ]
    assert size_of(record) <= largest


def test_a_record_that_fits_is_not_compressed():
    record = large_record(100, 300)
    before = copy.deepcopy(record)
    record.compress(size_of(record), START)
    assert record == before
    record.compress(size_of(record) - 1, START)
    assert record.digested


def test_points_in_flight_are_compressed_as_well():
    record = LedgerRecord(in_flight=large_record(500).acknowledged)
    record.compress(1000, START)
    assert record.in_flight["metric_0", START] == Digest.of(point_hash(number << 64) for number in range(500))
    assert size_of(record) <= 1000


def test_compressing_never_makes_it_larger():
    """A group of one or two marks is shorter than its digest."""
    record = large_record(*[1] * 50)
    before = size_of(record)
    record.compress(before - 1, START)
    assert size_of(record) <= before


# What was asked for


def painted(parts: list[CoveredSpan]) -> dict[int, tuple[SpanStatus, int]]:
    """Return what became of each second, and when."""
    found = {}
    for part in parts:
        for second in range(int(part.start), int(part.end)):
            assert second not in found, "no two parts cover the same second"
            found[second] = (part.status, part.at)
    return found


PARTS = st.lists(
    st.tuples(st.sets(st.integers(0, 8), min_size=2, max_size=2).map(sorted), st.sampled_from(SpanStatus)),
    min_size=1,
    max_size=10,
)


@thoroughly
@given(parts=PARTS)
def test_each_second_has_its_latest_status(parts):
    record, expected = LedgerRecord(), {}
    for at, ((first, last), state) in enumerate(parts):
        before = list(record.covered.get("c0ffee", ()))
        part = CoveredSpan(float(first), float(last), state, at)
        if news := not record.covers("c0ffee", part[:2], state):
            record.cover("c0ffee", part)
        after = record.covered["c0ffee"]
        if news:
            expected.update(dict.fromkeys(range(first, last), (state, at)))
        else:
            assert after == before
            assert all(expected[second][0] is state for second in range(first, last))
        assert painted(after) == expected
        assert all(one.end <= other.start for one, other in pairwise(after)), "in order"
        assert all(part.start < part.end for part in after), "nothing empty"


D, E, R = SpanStatus.DELIVERED, SpanStatus.EMPTY, SpanStatus.REJECTED


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        ([], (0, 300, D), [(0, 300, D, 2)]),
        # Covering, covered, overlapping on either side, adjacent, apart.
        ([(60, 120, E)], (0, 300, D), [(0, 300, D, 2)]),
        ([(0, 60, E), (120, 180, R)], (0, 180, D), [(0, 180, D, 2)]),
        ([(0, 300, E)], (60, 120, D), [(0, 60, E, 1), (60, 120, D, 2), (120, 300, E, 1)]),
        ([(0, 120, D)], (60, 180, D), [(0, 60, D, 1), (60, 180, D, 2)]),
        ([(60, 180, D)], (0, 120, D), [(0, 120, D, 2), (120, 180, D, 1)]),
        ([(0, 60, D), (120, 180, D)], (30, 150, R), [(0, 30, D, 1), (30, 150, R, 2), (150, 180, D, 1)]),
        ([(0, 60, D)], (60, 120, D), [(0, 60, D, 1), (60, 120, D, 2)]),
        ([(60, 120, D)], (0, 60, D), [(0, 60, D, 2), (60, 120, D, 1)]),
        ([(0, 60, D)], (180, 240, E), [(0, 60, D, 1), (180, 240, E, 2)]),
        # The same part in another state, or with one end moved.
        ([(0, 300, E)], (0, 300, D), [(0, 300, D, 2)]),
        ([(0, 300, D)], (0, 300, E), [(0, 300, E, 2)]),
        ([(0, 300, E)], (0, 120, D), [(0, 120, D, 2), (120, 300, E, 1)]),
        ([(0, 300, E)], (120, 300, D), [(0, 120, E, 1), (120, 300, D, 2)]),
    ],
)
def test_a_covered_span_replaces_those_it_overlaps(before, asked, after):
    record = LedgerRecord(
        covered={"c0ffee": [CoveredSpan(first, last, state, 1) for first, last, state in before]}
    )
    first, last, state = asked
    assert not record.covers("c0ffee", (first, last), state)
    record.cover("c0ffee", CoveredSpan(first, last, state, 2))
    assert record.covered["c0ffee"] == [CoveredSpan(*part) for part in after]


@pytest.mark.parametrize("part", [(0, 300), (0, 120), (60, 120), (120, 300)])
@pytest.mark.parametrize("state", SpanStatus)
def test_merging_a_known_record_changes_nothing(part, state):
    record = LedgerRecord(covered={"c0ffee": [CoveredSpan(0, 300, state, 1)]})
    assert record.covers("c0ffee", part, state)


def test_each_selection_has_spans_of_its_own():
    record = LedgerRecord()
    for selection in ("one", "other"):
        assert not record.covers(selection, (0, 300))
        record.cover(selection, CoveredSpan(0, 300, D, 1))
    record.cover("one", CoveredSpan(0, 300, E, 2))
    assert record.covered == {"one": [CoveredSpan(0, 300, E, 2)], "other": [CoveredSpan(0, 300, D, 1)]}


def test_a_point_hash_in_the_text_is_the_whole_hash():
    packed = json.loads(text_of(LedgerRecord(acknowledged={("n", START): Counter([b"exactly 12 b"])})))
    assert base64.b64decode(packed["acknowledged"]["n"]["0"]) == b"exactly 12 b"
