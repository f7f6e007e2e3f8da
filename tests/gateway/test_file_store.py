"""The limiter's file: who may use it, and what can be wrong with it."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import stat
from contextlib import contextmanager

import pytest

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.gateway.ratelimit import FileStore, RateLimiter
from tests.gateway.limiting import PERIOD, new_file_limiter


@pytest.fixture
def new_limiter(tmp_path, machine):
    """Make limiters as each process has one, all over the same file."""
    path = tmp_path / "shared" / "account.json"
    return lambda calls=2: new_file_limiter(path, machine, calls=calls)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b'{"as_of": NaN, "uses": [], "paused_until": 0, "refusals": {}}', b"x" * 10**5],
)
def test_a_damaged_file_is_told_of(new_limiter, content, caplog):
    limiter = new_limiter()
    limiter.acquire()
    limiter.store.path.write_bytes(content)
    assert limiter.acquire().waited == PERIOD
    assert "is damaged" in caplog.text
    assert str(limiter.store.path) in caplog.text


def test_an_empty_file_is_an_unused_budget(new_limiter):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    limiter.store.path.write_bytes(b"")
    assert limiter.acquire().waited == 0


def test_the_file_is_locked_while_it_is_changed_and_free_while_somebody_sleeps(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    locked: dict[str, list[bool]] = {"at work": [], "asleep": []}

    def look(when: str) -> None:
        with limiter.store.path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked[when].append(True)
            else:
                locked[when].append(False)

    def clock() -> float:
        look("at work")
        return machine.now

    def sleep(seconds: float) -> None:
        look("asleep")
        machine.sleep(seconds)

    RateLimiter(FileStore(limiter.store.path, calls=1, clock=clock), sleep=sleep).acquire()
    assert any(locked["at work"])
    assert locked["asleep"]
    assert not any(locked["asleep"])


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_every_user_of_the_machine_may_use_the_file(new_limiter, mask):
    limiter = new_limiter()
    with umask(mask):
        limiter.acquire()
    assert stat.S_IMODE(limiter.store.path.stat().st_mode) == 0o666
    assert stat.S_IMODE(limiter.store.path.parent.stat().st_mode) == 0o1777, "and nobody may remove another's"
    names = sorted(each.name for each in limiter.store.path.parent.iterdir())
    assert names == [".account.json", "account.json"]


def test_the_file_tells_nothing_but_times_random_names_and_a_short_hash(new_limiter):
    limiter = new_limiter()
    limiter.acquire()
    limiter.refuse("a1b2c3")
    known = json.loads(limiter.store.path.read_bytes())
    ((at, holder, live),) = known.pop("uses")
    assert (at, live) == (1000, False)
    assert known == {"as_of": 1000, "paused_until": 0, "refusals": {"a1b2c3": 1900}}
    assert len(holder) == 32
    assert int(holder, 16)


@pytest.mark.parametrize("target", ["a file", "a directory", "nothing"])
def test_a_symlink_in_its_place_is_refused(new_limiter, tmp_path, target):
    victim = tmp_path / "victim"
    if target == "a file":
        victim.write_text("[]")
    elif target == "a directory":
        victim.mkdir()
    limiter = new_limiter()
    limiter.store.path.parent.mkdir()
    limiter.store.path.symlink_to(victim)
    with pytest.raises(ConfigurationError) as caught:
        limiter.acquire()
    assert str(limiter.store.path) in str(caught.value)
    if target == "a file":
        assert victim.read_text() == "[]"
    assert victim.exists() == (target != "nothing")


def assert_names_file_and_remedy(error: ConfigurationError, limiter: RateLimiter) -> None:
    assert error.field == "rate limit"
    assert str(limiter.store.path) in str(error)
    assert "TMPDIR" in str(error)


@pytest.mark.parametrize("obstacle", ["a file as directory", "a directory as file", "no parent"])
def test_a_path_that_cannot_be_opened_is_a_configuration_error(new_limiter, obstacle):
    limiter = new_limiter()
    if obstacle == "a file as directory":
        limiter.store.path.parent.write_text("")
    elif obstacle == "a directory as file":
        limiter.store.path.mkdir(parents=True)
    else:
        limiter.store.path = limiter.store.path / "deeper" / "account.json"
    with pytest.raises(ConfigurationError) as caught:
        limiter.acquire()
    assert_names_file_and_remedy(caught.value, limiter)


def test_a_file_that_cannot_be_written_is_a_configuration_error(new_limiter):
    """As on a full disk: the file can be opened, but takes no byte."""
    limiter = new_limiter()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(ConfigurationError) as caught:
            limiter.acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_names_file_and_remedy(caught.value, limiter)


def test_making_a_limiter_touches_no_file(new_limiter):
    assert not new_limiter().store.path.parent.exists()
