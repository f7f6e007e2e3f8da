"""What one call tells all others of the account: that there were too many, and that a token is refused."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from airflow_provider_forge.exceptions import (
    CredentialsBlocked,
    CredentialsRefused,
    RateLimited,
    WindowExpired,
)
from airflow_provider_forge.gateway.budget import BLOCKED_FOR, MAX_PAUSE, MAX_WAIT
from airflow_provider_forge.gateway.client import ATTEMPTS
from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.gateway.ratelimit import RateLimiter
from airflow_provider_forge.gateway.ratelimit_stores import FileStore
from airflow_provider_forge.sandbox import Fault, Scenario
from tests.gateway.limiting import LIVE, PERIOD, kept, make_unused, new_file_limiter, new_redis_limiter
from tests.gateway.limiting import ask as ask_store

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
PRODUCTION = Environment("8cb293d5-be08-47ae-a75c-95b89da5ad1d", "production")
COUNT = "FORGE_BACKEND_INVOCATION_COUNT"


@pytest.fixture(params=["file", "redis"])
def new_limiter(request, tmp_path, machine):
    """Make limiters as each process has one, all over the same store."""
    make, place = (
        (new_file_limiter, tmp_path / "account.json")
        if request.param == "file"
        else (new_redis_limiter, request.getfixturevalue("redis_server"))
    )

    def new_limiter(calls: int = 5) -> RateLimiter:
        limiter = make(place, machine, calls=calls)
        make_unused(limiter.store)
        return limiter

    return new_limiter


@pytest.fixture
def ask(connect, window):
    """Ask a gateway for metrics, as a task does: with a client of its own."""

    def ask(gateway, limiter, **options):
        return connect(gateway, limiter=limiter, **options).app_metrics(APP, window, [PRODUCTION], [COUNT])

    return ask


# Too many calls


@pytest.mark.parametrize(
    ("fault", "length"),
    [
        (Fault("status", status=429, retry_after="17", first=1), 17),
        (Fault("status", status=429, retry_after="Tue, 10 Mar 2026 20:00:30 GMT", first=1), 20),
        (Fault("status", status=429, retry_after="2026-03-10T20:01Z", first=1), 50),
        (Fault("status", status=429, rate_limit_reset="2026-03-10T20:01Z", first=1), 50),
        (Fault("errors", status_code=429, retry_after="17", first=1), 17),
        (
            Fault("errors_with_data", status_code=None, error_type="RATE_LIMITED", retry_after="17", first=1),
            17,
        ),
        (Fault("query_error", status_code=429, retry_after="17", first=1), 17),
        # Where it does not say, or says that the moment has passed.
        (Fault("status", status=429, first=1), PERIOD),
        (Fault("status", status=429, retry_after="0", first=1), PERIOD),
        (Fault("query_error", status_code=429, first=1), PERIOD),
    ],
)
def test_a_throttled_call_is_repeated_after_the_gateways_retry_after(
    gateway, ask, new_limiter, machine, caplog, fault, length
):
    gateway.add_fault(fault)
    answer = ask(gateway, new_limiter())
    assert [call.outcome for call in gateway.calls] == [f"fault:{fault.kind}", "ok"]
    assert answer.resource_metrics != b"[]"
    assert answer.waited == machine.now - 1000 == pytest.approx(length)
    assert "All tasks of the account wait" in caplog.text


def test_a_pause_holds_for_all_clients(gateway, ask, new_limiter, machine):
    gateway.add_fault(Fault("status", status=429, retry_after="17", first=1))
    machine.due[1001.0] = lambda: waited.append(ask_store(new_limiter().store, "another", LIVE).seconds)
    waited: list[float] = []
    ask(gateway, new_limiter())
    assert waited == [pytest.approx(16)]


def test_a_throttled_look_up_is_repeated_too(gateway, connect, new_limiter, machine):
    gateway.add_fault(Fault("status", status=429, retry_after="17", first=1))
    assert connect(gateway, limiter=new_limiter()).environments(APP)
    assert machine.now == pytest.approx(1017)


@pytest.mark.parametrize("channel", ["seconds", "http_date", "iso", "reset", "query_error", "errors"])
def test_a_gateway_that_others_keep_busy_admits_us_at_the_promised_time(
    start_gateway, connect, ask, clock, machine, new_limiter, channel
):
    """The gateway's own limit, with the time that the limiter sleeps passing at the gateway, too."""
    gateway = start_gateway(Scenario(rate_limit_channel=channel), rate_limit_calls=1)
    connect(gateway).environments(APP)
    limiter = new_limiter()
    limiter._sleep = lambda seconds: (machine.sleep(seconds), clock.advance(seconds=seconds))
    assert ask(gateway, limiter).resource_metrics != b"[]"
    assert [call.outcome for call in gateway.calls] == ["ok", "refused", "ok"]


def test_a_gateway_that_always_throttles_is_an_error_in_the_end(gateway, ask, new_limiter, machine):
    gateway.add_fault(Fault("status", status=429, retry_after="17"))
    with pytest.raises(RateLimited) as caught:
        ask(gateway, new_limiter())
    assert len(gateway.calls) == ATTEMPTS
    assert caught.value.retry_after == 17
    assert new_limiter().acquire().waited == pytest.approx(17), "and the pause holds after it"


@pytest.mark.parametrize(("asked", "length"), [(600, 600), (23 * 3600, MAX_PAUSE)])
def test_a_caller_without_patience_does_not_sleep_through_a_long_pause(
    gateway, ask, new_limiter, machine, asked, length
):
    gateway.add_fault(Fault("status", status=429, retry_after=str(asked), first=1))
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            ask(gateway, new_limiter(), patience=30)
        assert caught.value.retry_after == pytest.approx(length - MAX_WAIT)
        assert len(gateway.calls) == 1
    assert machine.slept == []
    machine.now += caught.value.retry_after
    ask(gateway, new_limiter(), patience=30)
    assert machine.now == pytest.approx(1000 + length)


def test_a_window_that_expires_during_a_pause_is_not_fetched_again(gateway, ask, new_limiter, machine, clock):
    gateway.add_fault(Fault("status", status=429, retry_after="17", first=1))
    machine.due[1001.0] = lambda: clock.advance(days=15)
    with pytest.raises(WindowExpired):
        ask(gateway, new_limiter())
    assert len(gateway.calls) == 1


# Refused credentials


def test_refused_credentials_are_not_tried_again_for_a_quarter_of_an_hour(
    gateway, ask, new_limiter, machine, clock
):
    with pytest.raises(CredentialsRefused) as first:
        ask(gateway, new_limiter(), api_token="expired-token")
    assert first.value.request_id == gateway.calls[0].request_id
    clock.advance(minutes=5)
    machine.now += 300
    with pytest.raises(CredentialsBlocked) as second:
        ask(gateway, new_limiter(), api_token="expired-token")
    assert len(gateway.calls) == 1
    assert second.value.retry_after == BLOCKED_FOR - 300
    # It is 20:00:10 when the gateway refuses them.
    for words in ("refused the credentials at 20:00:10", "before 20:15:10", "password", "login", "at once"):
        assert words in second.value.message
    assert "expired-token" not in second.value.message
    machine.now += BLOCKED_FOR - 300
    with pytest.raises(CredentialsRefused):
        ask(gateway, new_limiter(), api_token="expired-token")
    assert len(gateway.calls) == 2


def test_a_changed_connection_is_tried_at_once(gateway, ask, connect, new_limiter):
    for change in ({"api_token": "expired-token"}, {"email": "another@example.com"}):
        with pytest.raises(CredentialsRefused):
            connect(gateway, limiter=new_limiter(), **change).environments(APP)
    assert ask(gateway, new_limiter()).resource_metrics != b"[]"
    assert len(gateway.calls) == 3


@pytest.mark.parametrize("kind", ["errors", "errors_with_data", "query_error"])
def test_every_form_of_a_refusal_of_credentials_counts(gateway, ask, new_limiter, kind):
    gateway.add_fault(Fault(kind, status_code=401, first=1))
    for error in (CredentialsRefused, CredentialsBlocked, CredentialsBlocked):
        with pytest.raises(error):
            ask(gateway, new_limiter())
    assert len(gateway.calls) == 1


def test_a_call_with_blocked_credentials_uses_no_slot(gateway, ask, new_limiter):
    for error in (CredentialsRefused, *[CredentialsBlocked] * 9):
        with pytest.raises(error):
            ask(gateway, new_limiter(), api_token="expired-token")
    assert [new_limiter().acquire(priority=LIVE).waited for _ in range(4)] == [0] * 4


def test_forty_queued_windows_make_five_bad_calls_at_most(gateway, ask, tmp_path, machine):
    """All at once; whoever sleeps does so until the first of them has been refused."""
    count = 40
    start, refused, moving = threading.Barrier(count), threading.Event(), threading.Lock()
    errors: list[type[BaseException]] = []
    make_unused(new_file_limiter(tmp_path / "account.json", machine, calls=5).store)

    def sleep(seconds: float) -> None:
        assert refused.wait(60)
        with moving:
            machine.now += seconds

    def window() -> None:
        store = FileStore(tmp_path / "account.json", calls=5, clock=machine.clock)
        start.wait()
        try:
            ask(gateway, RateLimiter(store, sleep=sleep), api_token="expired-token")
        except Exception as error:  # noqa: BLE001 - of whatever kind, the test is to show it
            errors.append(type(error))
            refused.set()

    tasks = [threading.Thread(target=window) for _ in range(count)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert Counter(errors) == {
        CredentialsRefused: len(gateway.calls),
        CredentialsBlocked: count - len(gateway.calls),
    }
    assert 1 <= len(gateway.calls) <= 5


def test_the_stored_hash_of_a_token_is_too_short_to_recover_it(gateway, ask, new_limiter):
    with pytest.raises(CredentialsRefused):
        ask(gateway, new_limiter(), api_token="expired-token")
    (name,) = kept(new_limiter())["refusals"]
    assert len(bytes.fromhex(name)) == 3
