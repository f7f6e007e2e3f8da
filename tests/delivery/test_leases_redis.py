"""Leases in a Redis: as those in files, but that a killed holder's end by themselves."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge import redis_client as redis_server_module
from airflow_provider_forge.delivery.leases import LEASE_SECONDS, PATIENCE, RedisLeases
from airflow_provider_forge.exceptions import ConfigurationError, DeliveryBusy, LedgerUnavailable
from demo.processes import free_ports
from demo.waiting import wait_for
from tests.redis_program import Redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME = "8ce114f4-5e1f"


@pytest.fixture
def new_leases(redis_server) -> Callable[..., RedisLeases]:
    """Make leases as each process has them, of the same ledger unless another is named."""
    return lambda name=NAME, **options: RedisLeases(redis_server.url, name, **options)


@pytest.fixture
def free(new_leases) -> Callable[..., bool]:
    """Tell whether nobody holds any of the records at this moment."""

    def free(records: Iterable[int], name: str = NAME) -> bool:
        try:
            with new_leases(name, patience=0).hold(records):
                return True
        except DeliveryBusy:
            return False

    return free


# Who excludes whom


@pytest.mark.parametrize("others", [[5], [4, 5], [5, 6, 7], [0, 5, 47]])
def test_one_task_at_a_time_holds_a_lease(new_leases, free, others):
    with new_leases().hold([5]):
        assert not free(others)
    assert free(others)


@pytest.mark.parametrize("others", [[4], [6, 7], [0, 47], [53]])
def test_other_records_are_free(new_leases, free, others):
    with new_leases().hold([5, 5]):
        assert free(others)


def test_another_ledger_is_free(new_leases, free):
    with new_leases().hold([5]):
        assert free([5], name="8ce114f4-0000")


def test_the_same_process_does_not_hold_a_lease_twice(new_leases):
    leases = new_leases(patience=0)
    with leases.hold([5]), pytest.raises(DeliveryBusy), leases.hold([5]):
        pass


def test_an_empty_set_of_leases_is_not_an_error(new_leases):
    with new_leases().hold([]):
        pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_releases_the_lease(new_leases, free, error):
    with pytest.raises(error), new_leases().hold([5, 6]):
        raise error
    assert free([5, 6])


def test_a_postponed_task_holds_no_lease(new_leases, free):
    with new_leases().hold([7]):
        with pytest.raises(DeliveryBusy), new_leases(patience=0).hold([5, 6, 7, 8]):
            pass
        assert free([5, 6, 8])


def test_nothing_is_left_behind(new_leases, redis_server):
    threads = threading.active_count()
    with new_leases().hold([5, 6]):
        assert len(redis_server.client.keys()) == 2
    assert redis_server.client.keys() == []
    assert threading.active_count() == threads


# Waiting


def test_a_task_that_waits_too_long_is_postponed(new_leases):
    now, slept = [1000.0], []
    leases = new_leases(
        clock=lambda: now[0],
        sleep=lambda seconds: (slept.append(seconds), now.__setitem__(0, now[0] + seconds)),
    )
    with new_leases().hold([5]), pytest.raises(DeliveryBusy, match="60 s") as caught, leases.hold([5]):
        pass
    assert PATIENCE <= now[0] - 1000 < PATIENCE + 1
    assert max(slept) <= 1, "it looks again and again"
    assert caught.value.retry_after == PATIENCE


def test_a_waiting_task_continues_when_the_lease_is_free(new_leases, free):
    held = contextlib.ExitStack()
    held.enter_context(new_leases().hold([5]))
    with new_leases(sleep=lambda _: held.close()).hold([5]):
        assert not free([5])


# How long it lasts

HOLDER = """
import sys
from airflow_provider_forge.delivery.leases import RedisLeases

with RedisLeases(sys.argv[1], sys.argv[2], duration=float(sys.argv[3])).hold([5, 6]):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def holder(redis_server: Redis, lasts: float):
    """Run another process that holds records 5 and 6 until it is told to let go."""
    command = [sys.executable, "-c", HOLDER, redis_server.url, NAME, str(lasts)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_renews_the_leases_until_it_releases_them(redis_server, free):
    with holder(redis_server, lasts=1.0) as process:
        for _ in range(20):
            assert not free([6])
            time.sleep(0.1)
        assert free([7])
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "free\n"
        assert free([5, 6])


def test_the_lease_of_a_process_that_was_killed_ends_when_it_has_lasted(redis_server, new_leases, free):
    with holder(redis_server, lasts=2.0) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not free([5])
        began = time.monotonic()
        with new_leases(patience=10).hold([5, 6]):
            assert time.monotonic() - began <= 2.5


def test_that_is_within_a_minute(new_leases, redis_server):
    with new_leases().hold([5]):
        (key,) = redis_server.client.keys()
        assert LEASE_SECONDS - 5 < redis_server.client.pttl(key) / 1000 <= LEASE_SECONDS < PATIENCE


def test_a_task_that_lost_its_lease_does_not_release_anothers(redis_server, new_leases, free, caplog):
    with new_leases(duration=0.4).hold([5]):
        # As if it had stood still for longer than that.
        (key,) = redis_server.client.keys()
        redis_server.client.set(key, "another task's", px=60_000)
        wait_for(lambda: "Another task has taken the lease" in caplog.text, timeout=20, what="a warning")
    assert redis_server.client.get(key) == "another task's"
    assert not free([5])


# What is no lease


@pytest.mark.parametrize("made", ["a list", "a list that expires", "a text that never expires", "no UTF-8"])
def test_a_key_that_is_no_lease_is_replaced(new_leases, redis_server, free, made):
    """Nothing else would remove it, and these minutes would never be delivered."""
    key, client = f"airflow-provider-forge:lease:{{{NAME}}}:5", redis_server.client
    if made.startswith("a list"):
        client.rpush(key, "x")
        if made.endswith("expires"):
            client.pexpire(key, 60_000)
    else:
        client.set(key, b"\xff" if made == "no UTF-8" else "x")
    with new_leases().hold([4, 5]):
        assert not free([5])
    assert client.keys() == []


def test_a_lease_that_becomes_something_else_is_left_alone(new_leases, redis_server):
    with new_leases().hold([5]):
        (key,) = redis_server.client.keys()
        redis_server.client.delete(key)
        redis_server.client.rpush(key, "x")
    assert redis_server.client.type(key) == "list"


# A server that is not there


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(redis_server_module, "TIMEOUT", 0.3)


def test_a_server_that_is_not_there(quick):
    [port] = free_ports(1)
    with pytest.raises(LedgerUnavailable) as caught, RedisLeases(f"redis://127.0.0.1:{port}", NAME).hold([5]):
        pass
    for words in (f"127.0.0.1:{port}", "leases", "ConnectionError", "rate_limit_store"):
        assert words in caught.value.message


def test_a_server_that_goes_away_spoils_no_delivery(tmp_path, quick, caplog):
    with Redis(tmp_path) as server, RedisLeases(server.url, NAME, duration=0.4).hold([5]):
        server.stop()
        wait_for(lambda: "was not renewed" in caplog.text, timeout=20, what="a warning")
    assert "expires by itself" in caplog.text


def test_a_password_is_never_shown(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with Redis(tmp_path, password="s3cret") as server:
        leases = RedisLeases(f"redis://:c4n4ry@{server.address}", NAME)
        with pytest.raises(LedgerUnavailable) as caught, leases.hold([5]):
            pass
    assert "c4n4ry" not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_a_url_that_cannot_be_used_is_not_repeated():
    with pytest.raises(ConfigurationError) as caught:
        RedisLeases("redis://:c4n4ry@host:port", NAME)
    assert "c4n4ry" not in str(caught.value)
