"""The limiter's Redis: its clock, what it may forget, and what becomes of it when it is not there."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import threading
import time
import traceback
from itertools import count
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge import redis_client as redis_client_module
from airflow_provider_forge.exceptions import ConfigurationError, RateLimitUnavailable, RetryableError
from airflow_provider_forge.gateway import ratelimit_stores as ratelimit_stores_module
from airflow_provider_forge.gateway.clocks import MachineClock
from airflow_provider_forge.gateway.ratelimit import RateLimiter
from airflow_provider_forge.gateway.ratelimit_stores import RedisStore
from demo.processes import free_ports
from tests.gateway.limiting import (
    LIVE,
    PERIOD,
    ClockedRedisStore,
    Machine,
    Process,
    ask,
    make_unused,
    new_redis_limiter,
)
from tests.redis_program import Redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "c4n4ry/p4ss word"


@pytest.fixture
def quick(monkeypatch) -> None:
    """Do not wait for long for a server that is not there."""
    monkeypatch.setattr(redis_client_module, "TIMEOUT", 0.3)


# The clock is the server's


def test_the_clock_is_the_servers(redis_server, monkeypatch):
    """Else a machine whose clock goes wrong would take everybody's places."""
    store = RedisStore(redis_server.url, "account", seconds=3)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    RateLimiter(store).block_credentials("a1b2c3")
    seconds, microseconds = redis_server.client.time()
    record = json.loads(redis_server.client.get(store.key))
    assert 0 <= seconds + microseconds / 1e6 - float(record["as_of"]) < 10


def test_times_keep_their_microseconds(redis_server):
    machine = Machine(now=1_800_000_000.123456)
    ask(new_redis_limiter(redis_server, machine, calls=1).store, "a")
    ((at, _, _),) = json.loads(redis_server.client.get("airflow-provider-forge:account"))["uses"]
    assert at == 1800000000.123456


def test_a_record_of_an_earlier_version_is_read(redis_server):
    """It had its times as text."""
    store = ClockedRedisStore(redis_server, Machine(), calls=1)
    record = {
        "run": "this",
        "as_of": "1000.000000",
        "uses": [["990.000000", "a", True]],
        "paused_until": "0.000000",
    }
    redis_server.client.set(store.key, json.dumps({**record, "refusals": {"a1b2c3": "1100.000000"}}))
    assert RateLimiter(store).blocked_for("a1b2c3") == 100
    # Lua writes an empty table as an object.
    redis_server.client.set(store.key, json.dumps({**record, "uses": {}, "refusals": {}}))
    assert ask(store, "b", LIVE).granted


def new_machines(redis_server, machine, **limits) -> list[ClockedRedisStore]:
    """Return the stores of two machines, which were started at different times."""
    stores = [ClockedRedisStore(redis_server, machine, **limits) for _ in range(2)]
    stores[1]._clock = MachineClock("another machine", lambda: machine.now - 500)
    make_unused(stores[0])
    for store in stores:
        assert RateLimiter(store).blocked_for("a1b2c3") == 0
    return stores


def set_clock(stores, seconds) -> None:
    for store in stores:
        store.ahead += seconds


@pytest.mark.parametrize("seconds", [0.6, 7, 62, 3600, 1e9])
def test_a_clock_that_is_set_forward_makes_no_call_older(redis_server, machine, caplog, seconds):
    stores = new_machines(redis_server, machine, calls=2)
    assert [ask(stores[0], owner, LIVE).granted for owner in "ab"] == [True, True]
    machine.now += 10
    set_clock(stores, seconds)
    assert [ask(store, "c", LIVE).granted for store in reversed(stores)] == [False, False]
    [warning] = caplog.messages
    assert f"was set forward by {seconds:.1f} s" in warning, "and once, not for each machine"
    machine.now += 60.9
    assert not ask(stores[0], "c", LIVE).granted
    machine.now += 0.2
    assert [ask(stores[0], owner, LIVE).granted for owner in "cde"] == [True, True, False]


@pytest.mark.parametrize("seconds", [0.4, -0.4, -7, -3600, -1e9])
def test_a_clock_that_is_set_back_or_moves_a_little_costs_no_call(redis_server, machine, caplog, seconds):
    stores = new_machines(redis_server, machine, calls=2)
    assert ask(stores[0], "a", LIVE).granted
    set_clock(stores, seconds)
    assert [ask(stores[1], owner, LIVE).granted for owner in "bc"] == [True, False]
    machine.now += 62
    assert ask(stores[1], "c", LIVE).granted
    assert caplog.messages == []


@pytest.mark.parametrize("back", [7, 62, 3600])
@pytest.mark.parametrize("passed", [0, 5])
def test_a_clock_that_one_machine_sees_set_back_and_another_forward_again(
    redis_server, machine, caplog, back, passed
):
    stores = new_machines(redis_server, machine, calls=1)
    assert ask(stores[0], "a", LIVE).granted
    RateLimiter(stores[0]).pause(600)
    machine.now += passed
    set_clock(stores, -back)
    assert not ask(stores[0], "b", LIVE).granted
    machine.now += 1
    set_clock(stores, back)
    assert not ask(stores[1], "c", LIVE).granted
    assert RateLimiter(stores[1]).standing().paused >= 599 - passed
    assert len(caplog.messages) == 1


def test_a_clock_that_is_set_forward_ends_no_pause(redis_server, machine):
    stores = new_machines(redis_server, machine, calls=2)
    RateLimiter(stores[0]).pause(600)
    RateLimiter(stores[0]).block_credentials("a1b2c3")
    machine.now += 10
    set_clock(stores, 3600)
    assert RateLimiter(stores[1]).blocked_for("a1b2c3") == pytest.approx(900, abs=11)
    assert RateLimiter(stores[1]).standing().paused == pytest.approx(590, abs=11)


def test_those_who_sleep_while_the_clock_is_set_forward_go_on(redis_server, machine):
    stores = new_machines(redis_server, machine, calls=1)
    sleepers = [Process(RateLimiter(store), machine, priority=LIVE) for store in stores]
    assert [sleeper.step() for sleeper in sleepers] == [True, False]
    machine.now += 30
    set_clock(stores, 3600)
    for _ in range(9):
        if sleepers[1].step():
            break
        machine.now = sleepers[1].wakes_at
    assert 1030 + PERIOD <= machine.now < 1100 + PERIOD


def test_a_machine_that_is_new_to_the_record_trusts_the_clock(redis_server, machine):
    """It has nothing to compare with, and the others must not wait for each new machine."""
    stores = new_machines(redis_server, machine, calls=1)
    assert ask(stores[0], "a", LIVE).granted
    machine.now += 62
    stores[1]._clock = MachineClock("a new machine", lambda: 5.0)
    assert ask(stores[1], "b", LIVE).granted


# What it keeps


def test_an_account_has_one_key_with_times_random_ids_and_short_hashes(redis_server):
    store = new_redis_limiter(redis_server, Machine()).store
    Process(RateLimiter(store), store.machine).step()
    RateLimiter(store).block_credentials("a1b2c3")
    assert set(redis_server.client.keys()) == {"clock", "airflow-provider-forge:account"}
    record = json.loads(redis_server.client.get(store.key))
    assert set(record) == {"run", "as_of", "uses", "paused_until", "refusals", "clocks"}


def test_accounts_have_budgets_of_their_own(redis_server):
    machine = Machine()
    one, other = (ClockedRedisStore(redis_server, machine, calls=1) for _ in range(2))
    other.key += "-2"
    make_unused(one)
    make_unused(other)
    assert ask(one, "a").granted
    assert ask(other, "b").granted
    assert not ask(one, "c").granted


@pytest.mark.parametrize(
    "event",
    [
        lambda store: ask(store, "a"),
        lambda store: RateLimiter(store).pause(100),
        lambda store: RateLimiter(store).block_credentials("a1b2c3"),
    ],
)
def test_it_never_expires(redis_server, event):
    """A missing key is one that was lost, and nothing evicts it before all those that expire."""
    store = ClockedRedisStore(redis_server, Machine())
    event(store)
    assert redis_server.client.pttl(store.key) == -1


def test_a_key_that_is_gone_counts_as_the_whole_budget_used_now(redis_server):
    """Evicted, flushed, or not yet on the replica that took over."""
    store = ClockedRedisStore(redis_server, Machine(), calls=2)
    make_unused(store)
    assert [ask(store, owner, LIVE).granted for owner in "abc"] == [True, True, False]
    redis_server.client.delete(store.key)
    assert [ask(store, owner, LIVE).granted for owner in "def"] == [False, False, False]
    store.machine.now += store.period
    assert [ask(store, owner, LIVE).granted for owner in "def"] == [True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, "x" * 3_000_000, '{"run": "this", "as_of": 1e999}', "[]", "5"),
        *(b"\xff\xfe\x00", "{}".encode("utf-16"), b'"\xed\xa0\x80"'),
    ],
)
def test_a_poisoned_record_costs_a_period_and_nothing_else(redis_server, text):
    store = ClockedRedisStore(redis_server, Machine(), calls=1)
    redis_server.client.set(store.key, text)
    assert ask(store, "a").seconds == pytest.approx(1)
    store.machine.now += store.period
    assert ask(store, "a").granted


def test_a_change_that_another_process_overtakes_is_made_again(redis_server):
    store, other = (ClockedRedisStore(redis_server, Machine(), calls=2) for _ in range(2))
    make_unused(store)
    overtaken = []

    def action(budget, now):
        overtaken.append(now)
        if len(overtaken) < 3:
            RateLimiter(other).block_credentials(f"a{len(overtaken)}")
        return budget.block_credentials("b", now)

    slept = []
    store._sleep = slept.append
    store.transact(action)
    assert (len(overtaken), len(slept)) == (3, 2)
    assert slept[0] < slept[1] * 1.6
    assert all(RateLimiter(store).blocked_for(name) > 0 for name in ("a1", "a2", "b"))


def test_a_change_that_is_always_overtaken_is_an_error_in_the_end(redis_server, monkeypatch):
    monkeypatch.setattr(ratelimit_stores_module, "CONFLICT_TIMEOUT", 0.0)
    store, other = (ClockedRedisStore(redis_server, Machine(), calls=2) for _ in range(2))
    numbers = count()

    def action(budget, now):
        RateLimiter(other).block_credentials(f"a{next(numbers)}")
        return budget.block_credentials("b", now)

    with pytest.raises(RateLimitUnavailable, match="Too many tasks"):
        store.transact(action)


def test_a_record_of_another_type_counts_as_the_whole_budget_used_now(redis_server):
    store = ClockedRedisStore(redis_server, Machine(), calls=1)
    redis_server.client.lpush(store.key, "x")
    assert ask(store, "a").seconds == pytest.approx(1)
    assert redis_server.client.type(store.key) == "string"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "{}".encode("utf-16"), "5", ["a list"]])
def test_a_cache_that_cannot_be_read_counts_as_empty(redis_server, content):
    cache = RedisStore(redis_server.url, "account").state_store("environments")
    key = "airflow-provider-forge:environments"
    if isinstance(content, list):
        redis_server.client.lpush(key, *content)
    else:
        redis_server.client.set(key, content)
    assert cache.load() == {}
    cache.save({"a": "\u00e9"})
    assert cache.load() == {"a": "\u00e9"}


# A server that was started again, or replaced


@pytest.fixture
def own_server(tmp_path) -> Iterator[Redis]:
    with Redis(tmp_path) as server:
        yield server


def test_a_restarted_server_may_lack_the_latest_calls(own_server):
    """So the whole budget counts as used then, and nobody goes over the limit because Redis crashed."""
    store = RedisStore(own_server.url, "account", calls=2, seconds=60)
    verdict = ask(store, "a")
    assert not verdict.granted
    # It is 61 s from the first time that somebody asked.
    assert not verdict.placed
    assert verdict.seconds == pytest.approx(1, abs=0.1)
    assert ask(store, "a").seconds <= verdict.seconds, "and not from each time"


def test_a_record_from_another_run_of_the_server_may_lack_the_last_uses(redis_server):
    store = ClockedRedisStore(redis_server, Machine(), calls=2)
    make_unused(store)
    ask(store, "a", LIVE)
    record = json.loads(redis_server.client.get(store.key))
    redis_server.client.set(store.key, json.dumps({**record, "run": "another"}))
    assert [ask(store, owner, LIVE).granted for owner in "bc"] == [False, False]
    store.machine.now += store.period
    assert [ask(store, owner, LIVE).granted for owner in "bcd"] == [True, True, False]


# One that is not there


def test_a_missing_server_does_not_lift_the_limit(quick):
    [port] = free_ports(1)
    limiter = RateLimiter(RedisStore(f"redis://127.0.0.1:{port}", "account"))
    for use in (limiter.acquire, limiter.standing, lambda: limiter.blocked_for("a1b2c3")):
        with pytest.raises(RateLimitUnavailable) as caught:
            use()
        assert isinstance(caught.value, RetryableError)
        for words in (f"127.0.0.1:{port}", "rate limit", "ConnectionError", "rate_limit_store"):
            assert words in caught.value.message


def test_a_server_that_does_not_answer(quick):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}", "account")
        began = time.monotonic()
        with pytest.raises(RateLimitUnavailable, match="TimeoutError"):
            ask(store, "a")
        assert time.monotonic() - began < 10


@pytest.fixture
def new_impostor() -> Iterator[Callable[[bytes], str]]:
    """Start servers that answer everything with the same reply, and return their URLs."""
    with contextlib.ExitStack() as running:

        def new_impostor(reply: bytes) -> str:
            server = running.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=answer, args=(server, reply), daemon=True).start()
            return f"redis://127.0.0.1:{server.getsockname()[1]}"

        yield new_impostor


def answer(server: socket.socket, reply: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                while connection.recv(65536):
                    connection.sendall(reply)


@pytest.mark.parametrize(
    "reply",
    [
        *(
            b"+OK\r\n",
            b":1\r\n",
            b":abc\r\n",
            b"*0\r\n",
            b"*2\r\n+1\r\n+ff\r\n",
            b"#t\r\n",
            b"_\r\n",
            b">0\r\n",
        ),
        b"*1\r\n" * 3000,
        # The current time, the server's run, and the record.
        *(b"*3\r\n%s\r\n+ff\r\n+\r\n" % now for now in (b"+soon", b"+nan", b"+inf", b"+1e15", b"*0")),
        *(b"*3\r\n+5\r\n%s\r\n" % rest for rest in (b"+\xff\r\n+", b":5\r\n+", b"+ff\r\n:5")),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_a_server_that_is_no_redis_does_not_lift_the_limit(new_impostor, quick, reply):
    store = RedisStore(new_impostor(reply), "account")
    with pytest.raises(RateLimitUnavailable, match="rate limit"):
        ask(store, "a", LIVE)
    assert store.state_store("environments").load() == {}


def test_a_server_that_goes_away_while_a_caller_sleeps(tmp_path, quick):
    with Redis(tmp_path) as server:
        limiter = RateLimiter(
            RedisStore(server.url, "account", calls=1, seconds=1),
            sleep=lambda seconds: (server.stop(), time.sleep(seconds)),
        )
        with pytest.raises(RateLimitUnavailable):
            limiter.acquire()


def test_a_server_that_stands_still_for_a_moment_is_waited_for(own_server, monkeypatch):
    monkeypatch.setattr(redis_client_module, "TIMEOUT", 1.0)
    store = RedisStore(own_server.url, "account")
    ask(store, "a")
    os.kill(own_server.pid, signal.SIGSTOP)
    threading.Timer(1.3, os.kill, (own_server.pid, signal.SIGCONT)).start()
    assert RateLimiter(store).blocked_for("a1b2c3") == 0


def test_connections_that_the_server_has_closed_are_reopened(redis_server):
    store = RedisStore(redis_server.url, "account")
    RateLimiter(store).block_credentials("a1b2c3")
    redis_server.client.client_kill_filter(_type="normal")
    assert RateLimiter(store).blocked_for("a1b2c3") > 0


def test_scripts_that_the_server_has_forgotten_are_sent_again(redis_server):
    store = RedisStore(redis_server.url, "account")
    RateLimiter(store).block_credentials("a1b2c3")
    redis_server.client.script_flush()
    assert RateLimiter(store).blocked_for("a1b2c3") > 0


# Passwords


@pytest.mark.parametrize("password", ["wrong c4n4ry", ""])
def test_a_password_is_never_shown(tmp_path, password, caplog):
    from urllib.parse import quote

    caplog.set_level(logging.DEBUG)
    with Redis(tmp_path, password="s3cret") as server:
        url = f"redis://{f':{quote(password)}@' * bool(password)}{server.address}"
        store = RedisStore(url, "account")
        with pytest.raises(RateLimitUnavailable) as caught:
            ask(store, "a")
        assert RateLimiter(RedisStore(server.url, "account", seconds=1)).blocked_for("a1b2c3") == 0
    printed = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + caplog.text
    assert "c4n4ry" not in printed
    assert server.address in caught.value.message
    # Older clients leave it to the server, which finds the script too long for somebody without a password.
    assert re.search("AuthenticationError|unauthenticated", caught.value.message)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@host:port/0",
        f"http://:{PASSWORD}@host",
        f"redis://:{PASSWORD}@[host",
        f"redis://:{PASSWORD}@host?nonsense=1",
        f"redis://:{PASSWORD}@host?socket_timeout=soon",
        "",
    ],
)
def test_a_url_that_cannot_be_used_is_not_repeated(url):
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url, "account")
    assert caught.value.field == "rate_limit_store"
    assert "redis://host:6379/0" in str(caught.value)
    assert "c4n4ry" not in "".join(traceback.format_exception(caught.value))


def test_tls_is_spoken_to_rediss(quick):
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = RedisStore(f"rediss://127.0.0.1:{server.getsockname()[1]}", "account")
        first = []

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                first.append(connection.recv(1))

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RateLimitUnavailable):
            ask(store, "a")
        thread.join()
    assert first == [b"\x16"], "the first byte of a TLS handshake"


def test_without_redis_py_the_error_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"airflow-provider-forge\[redis\]"):
        RedisStore("redis://host", "account")


def test_making_a_store_connects_to_nothing():
    RedisStore("redis://nowhere.invalid", "account")
