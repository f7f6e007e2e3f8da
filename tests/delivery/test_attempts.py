from __future__ import annotations

import pytest

from airflow_provider_forge.delivery.attempts import MAX_REFUSALS, Attempts
from airflow_provider_forge.exceptions import ReceiverUnavailable

BUSY = ReceiverUnavailable("busy", transient=True)


class Time:
    """A clock that goes on by what is slept."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def waits(error=BUSY, *, patience=60.0, random=0.0, export_timeout=None, call=0.0) -> list[float]:
    """Return the waits between the calls of a request that fails each time."""
    time = Time()
    attempts = Attempts(patience, time.clock, time.sleep, lambda: random)
    retries = attempts.begin(export_timeout)
    while True:
        time.now += call
        try:
            retries.wait(error)
        except ReceiverUnavailable:
            return time.slept


def test_each_wait_is_twice_the_one_before_for_up_to_a_minute():
    assert waits() == [1, 2, 4, 8, 16]


def test_jitter_shortens_a_wait_by_up_to_half():
    assert waits(random=0.5)[:3] == [0.75, 1.5, 3]


def test_the_time_of_the_calls_counts():
    assert waits(call=15) == [1, 2, 4]


@pytest.mark.parametrize(
    ("retry_after", "expected"), [(7.0, [7.0] * 8), (59.0, [59.0]), (60.0, []), (3600.0, [])]
)
def test_the_receivers_retry_after_is_respected(retry_after, expected):
    assert waits(ReceiverUnavailable("busy", retry_after=retry_after, transient=True)) == expected


def test_many_tasks_do_not_retry_at_the_same_moment():
    assert waits(ReceiverUnavailable("busy", retry_after=50.0, transient=True), random=0.5) == [52.5]


def test_a_retry_after_of_zero_does_not_retry_forever():
    assert waits(ReceiverUnavailable("busy", retry_after=0.0, transient=True)) == [1, 2, 4, 8, 16]


def test_a_lasting_failure_is_not_waited_for():
    assert waits(ReceiverUnavailable("no answer")) == []
    assert waits(patience=0) == []


def test_a_limit_for_the_whole_export_ends_its_retries():
    assert waits(export_timeout=10) == [1, 2, 4]
    attempts = Attempts(60, (time := Time()).clock)
    retries = attempts.begin(10)
    assert retries.seconds_left == 10
    time.now += 12
    assert retries.seconds_left == 0
    assert attempts.begin(None).seconds_left is None


def test_each_request_has_a_minute_of_its_own():
    attempts = Attempts(60, (time := Time()).clock, time.sleep, lambda: 0)
    first = attempts.begin(None)
    first.wait(BUSY)
    time.now += 100
    with pytest.raises(ReceiverUnavailable):
        first.wait(BUSY)
    attempts.begin(None).wait(BUSY)
    assert time.slept == [1, 1]


def test_what_comes_before_a_wait_is_not_done_without_one():
    order = []
    retries = Attempts(60, Time().clock, order.append, lambda: 0).begin(None)
    retries.wait(BUSY, before=lambda: order.append("saved"))
    with pytest.raises(ReceiverUnavailable):
        retries.wait(ReceiverUnavailable("no answer"), before=lambda: order.append("saved"))
    assert order == ["saved", 1]


def test_consecutive_refusals_show_a_receiver_that_refuses_everything():
    attempts = Attempts(refusals=MAX_REFUSALS - 1)
    assert not attempts.exhausted
    attempts.refusals += 1
    assert attempts.exhausted
