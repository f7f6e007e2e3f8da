"""What the ledger says of each quarter hour, from records that deliveries have really made."""

from __future__ import annotations

import datetime as dt
import itertools
from types import SimpleNamespace

import pytest

from airflow_provider_forge.coverage.coverage import WindowStatus, find_coverage
from airflow_provider_forge.delivery.leases import FileLeases
from airflow_provider_forge.delivery.ledger import Ledger, Selection
from airflow_provider_forge.delivery.stores import InMemoryStore
from airflow_provider_forge.payload.fingerprints import Fingerprint

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.timezone.utc)
START = dt.datetime(2026, 11, 23, 6, 0, tzinfo=dt.timezone.utc)
QUARTER = dt.timedelta(minutes=15)
EVERYTHING = Selection(["production"], ["COUNT"])
OTHER = Selection(["staging"], ["COUNT"])


@pytest.fixture
def clock():
    return SimpleNamespace(now=NOW)


@pytest.fixture
def ledger(tmp_path, clock):
    leases = FileLeases(tmp_path, "x")
    return Ledger(InMemoryStore(), "app/destination", leases=leases, now=lambda: clock.now)


def point(moment: dt.datetime) -> Fingerprint:
    return Fingerprint("count", int(moment.timestamp() // 60), b"%012d" % moment.timestamp())


@pytest.fixture
def deliver(ledger):
    """Record one window; `points` are the minutes, from its start, that have one."""

    def deliver(start, length=QUARTER, points=(0, 5, 10), selection=EVERYTHING, how="delivered"):
        marks = [point(start + dt.timedelta(minutes=minute)) for minute in points]
        numbers = range(len(marks))
        with ledger.open_session(marks, selection, start, start + length) as page:
            page.mark_in_flight(numbers)
            page.save()
            if how == "killed":
                return
            if how == "refused":
                page.mark_pending(numbers)
                page.record_window(pending=numbers)
            elif how == "half":
                page.mark_acknowledged([0])
                page.record_window(pending=numbers[1:])
            else:
                page.mark_acknowledged(numbers)
                page.record_window(rejected=[0] if how == "rejected" else ())
            page.save()

    return deliver


def forget_index(ledger):
    for key in [key for key in ledger.store._values if "/index/" in key]:
        ledger.store.delete(key)


@pytest.fixture
def outcome(ledger):
    """Return what has become of the quarter hour that begins then."""

    def outcome(start=START, **options):
        coverage = find(ledger, **options)
        (found,) = [quarter.status for quarter in coverage.quarters if quarter.start == start]
        return found

    return outcome


def find(ledger, **options):
    arguments = {"keep": dt.timedelta(days=14), "expected_after": dt.timedelta(minutes=30), **options}
    return find_coverage(ledger, NOW, **arguments)


def test_without_a_ledger_there_is_no_coverage(ledger):
    assert find(ledger) is None


def test_it_is_of_the_whole_quarter_hours_of_14_days(ledger, deliver, clock):
    clock.now -= dt.timedelta(days=1)
    deliver(START)
    coverage = find(ledger)
    assert len(coverage.quarters) == 1344
    assert coverage.quarters[0].start == NOW - dt.timedelta(days=14)
    assert coverage.quarters[-1].end == NOW
    assert (coverage.environments, coverage.metrics) == (("production",), ("COUNT",))


def test_windows_that_expired_before_the_first_delivery_or_soon_after_are_no_gap(ledger, deliver):
    deliver(START)
    coverage = find(ledger)
    assert coverage.quarters[0].start == NOW - dt.timedelta(days=14) + dt.timedelta(minutes=45)
    deliver(NOW - dt.timedelta(days=14) + QUARTER)
    assert [quarter.status for quarter in find(ledger).quarters[:2]] == [
        WindowStatus.DELIVERED,
        WindowStatus.MISSING,
    ]


def test_environments_have_their_names_if_these_are_on_record(ledger, deliver):
    deliver(START, selection=Selection(["uuid-1", "uuid-2"], ["COUNT"], {"uuid-1": "production"}))
    assert find(ledger).environments == ("production", "uuid-2")


def test_a_ledger_without_names_shows_ids(ledger, deliver):
    deliver(START)
    head = ledger.store.get(f"{ledger.name}/head")
    for about in head["selections"].values():
        del about["names"]
    ledger.store.set(f"{ledger.name}/head", head)
    assert find(ledger).environments == ("production",)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("delivered", WindowStatus.DELIVERED),
        ("rejected", WindowStatus.REJECTED),
        ("killed", WindowStatus.FAILED),
        ("half", WindowStatus.FAILED),
        ("refused", WindowStatus.MISSING),
    ],
)
def test_the_status_of_a_delivery(deliver, outcome, how, found):
    deliver(START, how=how)
    deliver(START - dt.timedelta(hours=2))  # so that there is a record
    assert outcome() is found


def test_a_window_without_points_is_empty(deliver, outcome):
    deliver(START, points=())
    assert outcome() is WindowStatus.EMPTY


def test_a_window_with_points_in_one_span_is_delivered(deliver, outcome):
    deliver(START, points=(7,))
    assert outcome() is WindowStatus.DELIVERED


def test_a_window_that_was_never_fetched_is_missing(deliver, outcome):
    deliver(START)
    assert outcome(START + QUARTER) is WindowStatus.MISSING


def test_a_point_on_the_edge_does_not_cover_the_next_window(ledger, deliver, outcome):
    deliver(START, points=(0, 15))
    assert outcome(START + QUARTER) is WindowStatus.MISSING
    following = START + QUARTER
    [found] = [quarter for quarter in find(ledger).quarters if quarter.start == following]
    assert found.points == 0, "nor does it look as if that had been fetched"
    deliver(following, points=())
    assert outcome(following) is WindowStatus.EMPTY
    [found] = [quarter for quarter in find(ledger).quarters if quarter.start == following]
    assert found.points == 0


def test_smaller_windows_make_a_whole_one(deliver, outcome):
    cuts = [0, 2, 7, 8, 15]
    for first, last in itertools.pairwise(cuts):
        length = dt.timedelta(minutes=last - first)
        deliver(START + dt.timedelta(minutes=first), length, points=(0,))
        assert outcome() is (WindowStatus.DELIVERED if last == 15 else WindowStatus.FAILED)


def test_half_of_one_is_failed(deliver, outcome):
    deliver(START, dt.timedelta(minutes=7))
    assert outcome() is WindowStatus.FAILED


def test_a_damaged_record_counts_as_failed(ledger, deliver, outcome):
    deliver(START)
    (key,) = [key for key in ledger.store._values if key.endswith("T0600Z")]
    ledger.store.set(key, {"version": 99})
    assert outcome() is WindowStatus.DELIVERED, "its summary in the index still says so"
    forget_index(ledger)
    assert outcome() is WindowStatus.FAILED


def test_the_young_are_not_missed_yet(deliver, outcome):
    deliver(START)
    assert outcome(NOW - QUARTER) is WindowStatus.PENDING
    assert outcome(NOW - 2 * QUARTER) is WindowStatus.PENDING
    assert outcome(NOW - 3 * QUARTER) is WindowStatus.MISSING
    deliver(NOW - QUARTER)
    assert outcome(NOW - QUARTER) is WindowStatus.DELIVERED


def test_a_selection_fetched_by_hand_is_not_mistaken_for_the_schedules(ledger, deliver):
    for number in range(8):
        deliver(START + number * QUARTER)
    deliver(START, 6 * QUARTER, selection=OTHER)
    assert find(ledger).environments == ("production",)
    assert find(ledger).count(WindowStatus.DELIVERED) == 8


def test_a_new_selection_replaces_an_old_one_within_a_day(ledger, deliver):
    for number in range(40):
        deliver(START - dt.timedelta(days=3) + number * QUARTER)
    assert find(ledger).environments == ("production",)
    for number in range(3):
        deliver(START + number * QUARTER, selection=OTHER)
    assert find(ledger).environments == ("staging",)


def test_of_two_equal_ones_it_is_the_one_that_covers_more_or_began_last(ledger, deliver, monkeypatch):
    deliver(START)
    monkeypatch.setattr(ledger.records, "_now", lambda: NOW + dt.timedelta(minutes=1))
    deliver(START, selection=OTHER)
    assert find(ledger).environments == ("staging",)
    deliver(START - dt.timedelta(days=3))
    assert find(ledger).environments == ("production",)


def test_gaps_are_consecutive_missing_windows(ledger, deliver):
    for number in range(4 * 24):
        if number not in (3, 4, 9):
            deliver(NOW - dt.timedelta(days=1) + number * QUARTER)
    deliver(NOW - dt.timedelta(days=1) + 4 * QUARTER, how="killed")
    coverage = find(ledger, keep=dt.timedelta(days=1))
    first, second = coverage.gaps()
    assert [quarter.status for quarter in first.quarters] == [WindowStatus.MISSING, WindowStatus.FAILED]
    assert (first.start, first.end) == (NOW - dt.timedelta(hours=23.25), NOW - dt.timedelta(hours=22.75))
    assert len(second.quarters) == 1
    assert first.expires == NOW + dt.timedelta(hours=0.75)
    assert coverage.expiring(NOW, dt.timedelta(hours=1)) == [first]
    assert coverage.expiring(NOW, dt.timedelta(hours=3)) == [first, second]
    assert coverage.expiring_hours(NOW, dt.timedelta(hours=0.75)) == {first.start.replace(minute=0)}
    assert len(coverage.expiring_hours(NOW, dt.timedelta(hours=3))) == 3
    assert (coverage.count(WindowStatus.MISSING), coverage.count(WindowStatus.DELIVERED)) == (2, 93)


def test_an_hour_is_as_good_as_its_worst_quarter(ledger, deliver):
    for number, how in enumerate(("delivered", "rejected", "delivered", "killed")):
        deliver(START + number * QUARTER, how=how)
    for number in range(4):
        deliver(START + dt.timedelta(hours=1) + number * QUARTER, points=() if number else (1,))
    hours = find(ledger).hours()
    assert hours[START] is WindowStatus.FAILED
    assert hours[START + dt.timedelta(hours=1)] is WindowStatus.DELIVERED
    assert hours[START + dt.timedelta(hours=2)] is WindowStatus.MISSING
    assert len(hours) == 14 * 24
