"""The limiter over both stores, whatever happens to whom and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_forge.gateway.budget import Budget, Priority
from airflow_provider_forge.gateway.clocks import MachineClock
from airflow_provider_forge.sandbox import over_limit
from tests.gateway.limiting import (
    Machine,
    Process,
    ask,
    kept,
    make_unused,
    new_file_limiter,
    new_redis_limiter,
)

if TYPE_CHECKING:
    from airflow_provider_forge.gateway.ratelimit import RateLimiter

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.sampled_from([*["step"] * 8, *["die"] * 2, "pause briefly", "pause long"]),
        # What passes before: the time to the process's own moment, or so many seconds.
        st.sampled_from(["its moment", "its moment", 0.0, 0.0, 0.1, 5.0, 20.0, 45.0]),
    ),
    min_size=20,
    max_size=80,
)


class Simulation:
    """Processes that come, wake as late as they like, take as long to connect as they like, and die.

    Attributes:
        unnoticed: Seconds by which a clock may be set forward unnoticed. A pause can be that much shorter;
            a period has a margin for it.
    """

    def __init__(self, machine: Machine, *limiters: RateLimiter, unnoticed: float = 0.0) -> None:
        self.machine, self.limiters, self.unnoticed = machine, limiters, unnoticed
        self.living: dict[int, Process] = {}
        self.uses: list[float] = []
        self.paused_until = 0.0

    def let_pass(self, number: int, delta: float | str) -> None:
        if delta != "its moment":
            self.machine.now += delta
        elif number in self.living and self.living[number].granted_at is None:
            self.machine.now = max(self.machine.now, self.living[number].wakes_at)

    def act(self, number: int, event: str) -> None:
        process = self.living.get(number)
        limiter = self.limiters[number % len(self.limiters)]
        if event == "die":
            self.living.pop(number, None)
        elif event.startswith("pause"):
            length = {"pause briefly": 7.0, "pause long": 100.0}[event]
            limiter.pause(length)
            self.paused_until = max(self.paused_until, self.machine.now + length)
        elif process is None:
            priority = Priority.LIVE if number >= 4 else Priority.BACKFILL
            self.living[number] = Process(limiter, self.machine, priority=priority)
            self.living[number].step()
        elif process.granted_at is not None:
            self.use(number)
        elif self.machine.now >= process.wakes_at:
            process.step()

    def use(self, number: int) -> None:
        """Let the request leave, which asks once more; it may have to wait again."""
        if self.living[number].step():
            del self.living[number]
            assert self.machine.now >= self.paused_until - self.unnoticed
            self.uses.append(self.machine.now)


@pytest.mark.parametrize("store", ["file", "redis"])
@settings(deadline=None, database=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(events=EVENTS, calls=st.integers(1, 4))
def test_no_span_ever_holds_more_uses_than_allowed(tmp_path_factory, redis_of_all, store, events, calls):
    machine = Machine()
    limits = {"calls": calls, "seconds": 30.0}
    if store == "file":
        limiter = new_file_limiter(tmp_path_factory.mktemp("limiter") / "account.json", machine, **limits)
    else:
        redis_of_all.client.flushall()
        limiter = new_redis_limiter(redis_of_all, machine, **limits)
    make_unused(limiter.store)
    simulation = Simulation(machine, limiter)
    for number, event, delta in events:
        simulation.let_pass(number, delta)
        simulation.act(number, event)
        if "step" in event and number in simulation.living:
            moments = [float(use[0]) for use in kept(limiter)["uses"]]
            assert moments == sorted(moments)
    assert over_limit(simulation.uses, calls, 30.0) == 0


STEPS = st.sampled_from([*[0.0] * 6, 0.3, 5.0, 30.0, 62.0, 3600.0, -5.0, -62.0, -3600.0])


@settings(deadline=None, database=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(events=EVENTS, steps=st.lists(STEPS, min_size=80, max_size=80), calls=st.integers(1, 4))
def test_the_limit_holds_however_the_servers_clock_is_set(redis_of_all, events, steps, calls):
    redis_of_all.client.flushall()
    machine = Machine(now=1_800_000_000.0)
    limiters = [new_redis_limiter(redis_of_all, machine, calls=calls, seconds=60.0) for _ in range(2)]
    limiters[1].store._clock = MachineClock("another machine", lambda: machine.now - 500)
    make_unused(limiters[0].store)
    for limiter in limiters:
        limiter.standing()
    simulation = Simulation(machine, *limiters, unnoticed=limiters[0].store.margin)
    for (number, event, delta), step in zip(events, steps, strict=False):
        for limiter in limiters:
            limiter.store.ahead += step
        simulation.let_pass(number, delta)
        simulation.act(number, event)
    assert over_limit(simulation.uses, calls, 60.0) == 0


VERBS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from("abcdef"), st.sampled_from(Priority)),
    st.tuples(st.just("ask"), st.sampled_from("abcdef"), st.sampled_from(Priority)),
    st.tuples(st.just("pause"), st.sampled_from([None, 0, 3.5, 59, 61, 500, 1e6])),
    st.tuples(st.just("block_credentials"), st.sampled_from("xy")),
    st.tuples(st.just("blocked_for"), st.sampled_from("xy")),
    st.tuples(st.just("settle"), st.sampled_from("abcdef")),
)
DELTAS = st.sampled_from([0.0, 0.0, 0.25, 3.0, 15.0, 30.5, 61.0, 300.0, -0.5, -900.0])


@settings(deadline=None, database=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.tuples(VERBS, DELTAS), max_size=60), calls=st.integers(1, 4))
def test_the_store_agrees_with_the_budget(redis_of_all, steps, calls):
    redis_of_all.client.flushall()
    machine = Machine(now=1_800_000_000.0)
    store = new_redis_limiter(redis_of_all, machine, calls=calls, seconds=30.0).store
    make_unused(store)
    budget = Budget(calls, store.period)
    for (verb, *what), delta in steps:
        machine.now += delta
        if verb == "ask":
            owner, priority = what
            expected, said = budget.ask(owner, machine.now, priority=priority), ask(store, owner, priority)
            assert said.placed == expected.placed
            assert said.seconds == pytest.approx(expected.seconds, abs=1e-5)
        elif verb == "settle":
            budget.settle(*what, machine.now - store.margin, machine.now)
            store.transact(lambda stored, now, what=what: stored.settle(*what, now - store.margin, now))
        else:
            expected = getattr(budget, verb)(*what, machine.now)
            said = store.transact(lambda stored, now, verb=verb, what=what: getattr(stored, verb)(*what, now))
            assert said == pytest.approx(expected, abs=1e-5)
        # However often it is written and read again, nothing is lost.
        budget = Budget.from_json(budget.to_json(), calls, store.period)
