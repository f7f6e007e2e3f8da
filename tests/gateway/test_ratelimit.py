"""The limiter over both stores, with a clock that moves only when somebody sleeps."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.exceptions import RateLimited, RateLimitUnavailable, RetryableError
from airflow_provider_forge.gateway.budget import (
    BLOCKED_FOR,
    MAX_PAUSE,
    MAX_WAIT,
    Decision,
    Priority,
    Standing,
    distance_of,
    period_of,
)
from airflow_provider_forge.gateway.ratelimit import LimitUsage
from airflow_provider_forge.sandbox import over_limit
from tests.gateway.limiting import (
    LIVE,
    PERIOD,
    SECONDS,
    Machine,
    Process,
    kept,
    make_unused,
    new_file_limiter,
    new_redis_limiter,
    spoil,
)

if TYPE_CHECKING:
    from airflow_provider_forge.gateway.budget import Budget
    from airflow_provider_forge.gateway.ratelimit import RateLimiter


@pytest.fixture(params=["file", "redis"])
def new_limiter(request, tmp_path, machine):
    """Make limiters as each process has one, all over the same store."""
    place = tmp_path / "shared" / "account.json"
    make, place = (
        (new_file_limiter, place)
        if request.param == "file"
        else (new_redis_limiter, request.getfixturevalue("redis_server"))
    )

    def new_limiter(calls: int = 2, seconds: float = SECONDS, machine: Machine = machine) -> RateLimiter:
        limiter = make(place, machine, calls=calls, seconds=seconds)
        make_unused(limiter.store)
        return limiter

    return new_limiter


# One after another


def test_the_budget_is_granted_at_once_and_then_one_slot_a_period_later(new_limiter, machine):
    assert period_of(SECONDS) == PERIOD
    granted = []
    for _ in range(7):
        new_limiter(calls=3).acquire(priority=LIVE)
        granted.append(machine.now - 1000)
    assert granted == [0, 0, 0, PERIOD, PERIOD, PERIOD, 2 * PERIOD]


def test_backfills_spread_their_slots_over_the_period(new_limiter, machine):
    """Or else none would come free between two bursts, and a live window would wait for a whole period."""
    granted = []
    for _ in range(7):
        new_limiter(calls=3).acquire()
        granted.append(machine.now - 1000)
    distance = distance_of(3, PERIOD)
    assert distance == 0.75 * PERIOD / 3
    first = [0, distance, 2 * distance]
    assert granted == pytest.approx([*first, *(PERIOD + at for at in first), 2 * PERIOD])


def test_spreading_costs_nothing_of_the_budget(new_limiter, machine):
    for _ in range(5 * 20):
        new_limiter(calls=5).acquire()
    assert machine.now - 1000 == pytest.approx(19 * PERIOD + 4 * distance_of(5, PERIOD))


def test_a_live_window_keeps_no_distance(new_limiter):
    limiter = new_limiter(calls=2)
    limiter.acquire()
    assert limiter.acquire(priority=LIVE).waited == 0


def test_a_reservation_has_the_time_waited(new_limiter):
    limiter = new_limiter(calls=1)
    assert [limiter.acquire().waited for _ in range(3)] == [0, PERIOD, PERIOD]


def test_idle_time_is_not_saved_up(new_limiter, machine):
    limiter = new_limiter(calls=2)
    limiter.acquire()
    machine.now += 10 * PERIOD
    assert [limiter.acquire(priority=LIVE).waited for _ in range(3)] == [0, 0, PERIOD]


def test_a_use_is_over_exactly_a_period_later(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    machine.now += PERIOD - 1
    assert limiter.acquire().waited == 1
    machine.now += PERIOD
    assert limiter.acquire().waited == 0


def test_a_new_limiter_continues_from_the_last_one(new_limiter):
    new_limiter(calls=1).acquire()
    assert new_limiter(calls=1).acquire().waited == PERIOD


def test_slots_count_from_the_departure_of_the_request(new_limiter, machine):
    limiter = new_limiter(calls=1)
    place = limiter.acquire()
    machine.now += 20
    place.confirm()
    assert limiter.acquire().waited == PERIOD


def test_a_request_that_leaves_late_postpones_sleeping_callers(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=30)
    place = limiter.acquire()
    machine.due[1020.0] = place.confirm
    limiter.acquire()
    assert machine.now == 1020 + limiter.store.period
    assert machine.slept == [limiter.store.period, 20]


def test_a_caller_that_connects_for_too_long_waits_again(new_limiter, machine):
    limiter = new_limiter(calls=1)
    place = limiter.acquire()
    machine.now += 5 * PERIOD
    limiter.acquire()
    machine.now += 1
    place.confirm()
    assert machine.now == 1000 + 6 * PERIOD
    assert limiter.acquire().waited == PERIOD


def test_no_slot_is_reserved_beyond_the_maximum_wait(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    early = Process(limiter, machine)
    assert not early.step()
    assert early.wakes_at == 1000 + PERIOD - MAX_WAIT
    assert len(kept(limiter)["uses"]) == 1
    machine.now = early.wakes_at
    early.step()
    assert early.wakes_at == 1000 + PERIOD
    assert len(kept(limiter)["uses"]) == 2


def test_a_wait_that_begins_with_a_short_one_is_logged(new_limiter, caplog):
    """Such as that of an account's first call: a second until a slot can be reserved, and a minute for it."""
    caplog.set_level(logging.INFO)
    limiter = new_limiter(calls=1, seconds=MAX_WAIT)
    limiter.acquire()
    assert limiter.acquire().waited == period_of(MAX_WAIT)
    assert [record.getMessage() for record in caplog.records if "Waiting" in record.msg] == [
        f"Waiting {MAX_WAIT:.0f} s or more for the rate limit"
    ]


def test_the_list_does_not_grow(new_limiter, machine):
    limiter = new_limiter(calls=3)
    for _ in range(50):
        limiter.acquire()
    assert len(kept(limiter)["uses"]) <= 2 * 3


# Several at once


def test_the_first_caller_is_served_first(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=15)
    processes = [Process(limiter, machine) for _ in range(4)]
    for process in processes:
        process.step()
        machine.now += 1
    assert [process.wakes_at for process in processes[1:]] == [
        1000 + n * limiter.store.period for n in (1, 2, 3)
    ]
    # Whoever wakes too early is told to sleep on, and nobody overtakes him.
    assert not any(process.step() for process in reversed(processes[1:]))
    late_comer = Process(limiter, machine)
    late_comer.step()
    for process in processes[1:]:
        machine.now = process.wakes_at
        assert process.step()
        assert not late_comer.step()


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, MemoryError])
def test_a_process_that_dies_while_waiting_wastes_one_slot(new_limiter, machine, end):
    limiter = new_limiter(calls=1, seconds=15)
    limiter.acquire()

    def die() -> None:
        raise end

    machine.due[1001.0] = die
    with pytest.raises(end):
        limiter.acquire()
    assert new_limiter(calls=1, seconds=15).acquire().waited == 2 * limiter.store.period - 1
    assert limiter.acquire().waited == limiter.store.period


def test_a_process_that_dies_before_sending_wastes_one_slot(new_limiter):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    # It is not asked for any more, and nobody gives it back.
    assert limiter.acquire().waited == PERIOD


def test_a_caller_that_wakes_after_its_slot_expired_gets_a_new_one(new_limiter, machine):
    """A machine that was suspended, or a process that was stopped, wakes long after its moment."""
    limiter = new_limiter(calls=2, seconds=30)
    used = []
    for _ in range(2):
        limiter.acquire(priority=LIVE)
    slow, frozen, third, fourth = (Process(limiter, machine, priority=LIVE) for _ in range(4))
    slow.step(), frozen.step()
    machine.now = slow.wakes_at
    assert slow.step()
    third.step(), fourth.step()
    machine.now += 20
    if slow.step():  # connecting took 20 s
        used.append(machine.now)
    machine.now = third.wakes_at
    assert third.step()
    used.append(machine.now)
    machine.now += 1
    if frozen.step():
        used.append(machine.now)
    assert over_limit(used, 2, 30) == 0


def test_a_request_that_leaves_late_holds_back_those_behind_a_dead_process(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=20)
    limiter.acquire()
    late, dead, third = (Process(limiter, machine) for _ in range(3))
    assert not any(process.step() for process in (late, dead, third))
    # It wakes 15 s late, and then takes 15 s to connect: less than a period each, more together.
    machine.now = late.wakes_at + 15
    assert late.step()
    machine.now += 15
    assert late.step()
    used = [machine.now]
    while not third.step():
        machine.now = max(machine.now, third.wakes_at)
    used.append(machine.now)
    assert over_limit(used, 1, 20) == 0
    assert machine.now == pytest.approx(used[0] + 2 * limiter.store.period), "the dead one wastes its place"


# Live windows first


def test_a_live_window_goes_before_the_backfills_that_still_sleep(new_limiter, machine):
    limiter = new_limiter(calls=2, seconds=15)
    for _ in range(2):
        limiter.acquire(priority=LIVE)
    backfills = [Process(limiter, machine) for _ in range(4)]
    assert not any(process.step() for process in backfills)
    live = [Process(limiter, machine, priority=LIVE) for _ in range(3)]
    assert not any(process.step() for process in live)
    period = limiter.store.period
    assert [process.wakes_at - 1000 for process in live] == [period, period, 2 * period]
    served = []
    waiting = [*backfills, *live]
    while waiting:
        machine.now = min(process.wakes_at for process in waiting)
        for process in [process for process in waiting if process.wakes_at <= machine.now]:
            if process.step():
                served.append(process)
                waiting.remove(process)
    assert served[:2] == live[:2]
    assert set(served[2:4]) == {live[2], backfills[0]}
    assert served[4:] == backfills[1:], "equals keep their order"


def test_a_live_window_does_not_overtake_a_slot_that_is_due(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    machine.now += 1
    backfill, live = Process(limiter, machine), Process(limiter, machine, priority=LIVE)
    backfill.step()
    machine.now = backfill.wakes_at
    assert not live.step()
    assert backfill.step()
    assert not live.step()


def test_a_caller_that_a_live_window_overtakes_keeps_its_slot(new_limiter, machine):
    """Even where it now has to sleep for longer than anybody is put down for."""
    limiter = new_limiter(calls=1)
    limiter.acquire()
    machine.now += 1
    backfill = Process(limiter, machine)
    backfill.step()
    Process(limiter, machine, priority=LIVE).step()
    assert not backfill.step()
    assert backfill.placed
    assert backfill.wakes_at == 1000 + 2 * PERIOD


def test_acquire_passes_the_priority_on(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    machine.now += 1
    Process(limiter, machine).step()
    assert limiter.acquire(priority=LIVE).waited == PERIOD - 1


# Patience


def test_without_patience_nothing_is_reserved_and_the_error_has_a_retry_after(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    before = kept(limiter)["uses"]
    with pytest.raises(RateLimited) as caught:
        limiter.acquire(patience=0)
    assert caught.value.retry_after == pytest.approx(PERIOD - MAX_WAIT)
    assert isinstance(caught.value, RetryableError)
    assert (kept(limiter)["uses"], machine.slept) == (before, [])
    machine.now += caught.value.retry_after
    assert limiter.acquire(patience=0).waited == MAX_WAIT


@pytest.mark.parametrize(("patience", "patient"), [(10.0, False), (62.0, True), (None, True)])
def test_patience_limits_the_time_until_a_slot_is_reserved(new_limiter, machine, patience, patient):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    machine.now += 1
    Process(limiter, machine).step()
    # The next place is free in 121 s, so it can be taken in 61 s.
    if patient:
        assert limiter.acquire(patience=patience).waited == pytest.approx(2 * PERIOD - 1)
    else:
        with pytest.raises(RateLimited, match="61 s"):
            limiter.acquire(patience=patience)


def test_a_caller_that_others_overtake_is_not_more_patient_than_it_was_asked_to_be(
    new_limiter, machine, monkeypatch
):
    limiter = new_limiter()
    monkeypatch.setattr(limiter, "_ask", lambda _: Decision(10.0, placed=False))
    with pytest.raises(RateLimited, match="10 s"):
        limiter.acquire(patience=25.0)
    assert machine.slept == [10.0, 10.0]


# A pause, because the gateway counted too many calls


@pytest.mark.parametrize(("seconds", "length"), [(17, 17), (0, 0), (None, PERIOD), (1e9, MAX_PAUSE)])
def test_a_pause_holds_for_all_callers_of_the_account(new_limiter, machine, seconds, length):
    new_limiter(calls=2).pause(seconds)
    assert new_limiter(calls=2).acquire().waited == pytest.approx(length)


def test_a_shorter_pause_does_not_end_a_longer_one(new_limiter):
    limiter = new_limiter()
    limiter.pause(50)
    limiter.pause(10)
    assert limiter.acquire().waited == 50


def test_a_pause_postpones_sleeping_callers_and_keeps_their_order(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=10)
    limiter.acquire()
    processes = [Process(limiter, machine) for _ in range(3)]
    assert not any(process.step() for process in processes)
    limiter.pause(40)
    assert not any(process.step() for process in processes)
    period = limiter.store.period
    assert [each.wakes_at for each in processes] == pytest.approx([1040 + n * period for n in range(3)])
    for process in processes:
        machine.now = process.wakes_at
        assert process.step()


def test_a_caller_does_not_sleep_through_a_long_pause(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=10)
    limiter.acquire()
    process = Process(limiter, machine)
    process.step()
    limiter.pause(600)
    assert not process.step()
    assert not process.placed
    assert process.wakes_at == 1000 + 600 - MAX_WAIT
    assert [use[1] for use in kept(limiter)["uses"]] != [process.owner]
    machine.now = process.wakes_at
    assert not process.step()
    assert process.placed
    assert process.wakes_at == 1600


def test_a_granted_slot_waits_for_a_pause_that_begins_before_its_use(new_limiter, machine):
    limiter = new_limiter(calls=2)
    place = limiter.acquire()
    limiter.pause(30)
    place.confirm()
    assert (machine.now, place.waited) == (1030, 30)


# Requests that are slow on their way


def slow_call(limiter: RateLimiter, machine: Machine, seconds: float) -> None:
    """Make a call whose answer begins so many seconds after it left."""
    place = limiter.acquire(priority=LIVE)
    place.confirm()
    machine.now += seconds
    place.settle()


def test_a_request_that_was_slow_on_its_way_counts_from_when_it_may_have_arrived(new_limiter, machine):
    limiter = new_limiter(calls=1)
    slow_call(limiter, machine, 10)
    place = limiter.acquire()
    assert machine.now == 1000 + 10 + SECONDS
    assert place.waited == SECONDS


def test_a_response_within_the_margin_costs_no_transaction(new_limiter, machine):
    limiter = new_limiter(calls=1)
    before = []
    place = limiter.acquire()
    before.append(kept(limiter))
    machine.now += PERIOD - SECONDS
    place.settle()
    assert [kept(limiter)] == before
    limiter.acquire()
    assert machine.now == 1000 + PERIOD


def test_a_slow_request_postpones_sleeping_callers(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=30)
    place = limiter.acquire()
    machine.due[1020.0] = place.settle
    limiter.acquire()
    assert machine.now == 1020 + 30


def test_a_request_that_arrives_after_a_period_still_counts(new_limiter, machine):
    limiter = new_limiter(calls=1)
    slow_call(limiter, machine, 5 * PERIOD)
    assert limiter.acquire().waited == SECONDS


def test_requests_that_arrive_in_another_order_than_they_left_keep_the_limit(new_limiter, machine):
    limiter = new_limiter(calls=2)
    arrived = []
    slow, quick = (limiter.acquire(priority=LIVE) for _ in range(2))
    for place, moment in ((quick, 1005.0), (slow, 1040.0)):
        machine.now = moment
        place.settle()
        arrived.append(moment)
    for _ in range(4):
        limiter.acquire(priority=LIVE)
        arrived.append(machine.now)
    assert over_limit(arrived, 2, SECONDS) == 0
    assert arrived[2:4] == pytest.approx([1005 + SECONDS, 1040 + SECONDS])


@pytest.mark.parametrize(
    "share",
    [
        lambda _, reservation: reservation.settle(),
        lambda limiter, _: limiter.pause(7),
        lambda limiter, _: limiter.block_credentials("me"),
    ],
    ids=["settle", "pause", "block"],
)
def test_a_store_that_fails_once_the_call_was_made_does_not_fail_the_call(
    new_limiter, machine, monkeypatch, caplog, share
):
    limiter = new_limiter(calls=1)
    place = limiter.acquire()
    machine.now += 30

    def fail(*_, **__):
        raise RateLimitUnavailable("not there")

    monkeypatch.setattr(type(limiter.store), "transact", fail)
    share(limiter, place)
    assert "not there" in caplog.text


# Refused credentials


def test_refused_credentials_are_blocked_for_all_for_a_quarter_of_an_hour(new_limiter, machine):
    new_limiter().block_credentials("a1b2c3")
    assert new_limiter().blocked_for("a1b2c3") == BLOCKED_FOR == 15 * 60
    assert new_limiter().blocked_for("d4e5f6") == 0
    machine.now += BLOCKED_FOR - 1
    assert new_limiter().blocked_for("a1b2c3") == 1
    machine.now += 1
    assert new_limiter().blocked_for("a1b2c3") == 0
    assert not kept(new_limiter())["refusals"]


def test_refused_credentials_of_two_connections_are_both_blocked(new_limiter):
    limiter = new_limiter()
    limiter.block_credentials("a1b2c3")
    limiter.block_credentials("d4e5f6")
    assert [limiter.blocked_for(name) for name in ("a1b2c3", "d4e5f6")] == [BLOCKED_FOR] * 2


def test_a_refused_call_uses_no_slot(new_limiter):
    limiter = new_limiter(calls=1)
    limiter.block_credentials("a1b2c3")
    limiter.blocked_for("a1b2c3")
    assert limiter.acquire().waited == 0


# What is on record


@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b"nonsense", b"5", b"null", b"[1]", b"[]", b"{}", b'[[1000.0, "x"]]', b'{"uses": []}'),
        *(b'{"as_of": 1, "uses": [["soon", "x", false]], "paused_until": 0, "refusals": {}}', b"[[1000.0, "),
        b'{"as_of": 1, "uses": [[1]], "paused_until": 0, "refusals": {}}',
        b'{"as_of": 1, "uses": 5, "paused_until": 0, "refusals": {}}',
        b'{"as_of": null, "uses": [], "paused_until": 0, "refusals": {}}',
        b'{"as_of": 1, "uses": [], "paused_until": "never", "refusals": {}}',
        b'{"as_of": 1, "uses": [], "paused_until": 0, "refusals": {"a1b2c3": "x"}}',
    ],
)
def test_a_damaged_record_counts_as_the_whole_budget_used_now(new_limiter, machine, content):
    limiter = new_limiter(calls=2)
    limiter.acquire()
    spoil(limiter, content)
    machine.now += 30
    assert [limiter.acquire(priority=LIVE).waited for _ in range(3)] == [PERIOD, 0, PERIOD]


def test_after_a_restart_of_the_machine_the_whole_budget_counts_as_used_now(new_limiter):
    """The monotonic clock begins anew, and all times on record are far in the future."""
    before = new_limiter(calls=2, machine=Machine(now=5_000_000.0))
    before.acquire()
    before.acquire()
    before.pause(70)
    before.block_credentials("a1b2c3")
    after = new_limiter(calls=2, machine=Machine(now=7.0))
    assert after.blocked_for("a1b2c3") == BLOCKED_FOR
    assert [after.acquire(priority=LIVE).waited for _ in range(3)] == pytest.approx([70, 0, PERIOD])


@pytest.mark.parametrize("now", [0.2, 0.7, 2.4])
def test_no_rounding_makes_a_call_before_a_restart_one_that_is_yet_to_be_made(new_limiter, now):
    """A live window would go before it."""
    assert now < 5_000_000.1 + (now - 5_000_000.1)
    new_limiter(calls=1, machine=Machine(now=5_000_000.1)).acquire()
    after = new_limiter(calls=1, machine=Machine(now=now))
    assert after.acquire(priority=LIVE).waited == pytest.approx(PERIOD)


def test_a_clock_that_is_put_back_a_little_costs_as_little(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    machine.now -= 0.5
    assert limiter.acquire().waited == PERIOD


def test_reserved_slots_are_not_mistaken_for_times_before_a_restart(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    waiting = Process(limiter, machine)
    machine.now += 1
    waiting.step()
    assert [Process(limiter, machine).step() for _ in range(2)] == [False, False]
    assert waiting.wakes_at == 1000 + PERIOD
    machine.now = waiting.wakes_at
    assert waiting.step()


def test_the_usage_has_the_time_slept_and_the_throttled_calls(new_limiter):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    limiter.acquire()
    assert limiter.usage == LimitUsage(calls=0, throttles=0, waited=PERIOD)
    limiter.pause(600)
    with pytest.raises(RateLimited):
        limiter.acquire(patience=15)
    assert limiter.usage == LimitUsage(calls=0, throttles=1, waited=PERIOD)


def test_it_tells_who_has_used_the_budget_and_who_waits(new_limiter, machine):
    limiter = new_limiter(calls=2)
    for _ in range(2):
        limiter.acquire(priority=LIVE)
    machine.now += 30
    for owner, priority in {"sleeper": Priority.BACKFILL, "newest": LIVE}.items():
        limiter.store.transact(functools.partial(ask, owner, priority))
    assert limiter.standing() == Standing(used=2, live=1, backfill=1, paused=0)
    limiter.pause(30)
    assert limiter.standing().paused == 30


def ask(owner: str, priority: Priority, budget: Budget, now: float) -> None:
    budget.ask(owner, now, priority=priority)
