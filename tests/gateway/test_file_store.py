"""The limiter's file: who may use it, and what can be wrong with it."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import stat
from contextlib import contextmanager

import pytest

from airflow_provider_forge.exceptions import ConfigurationError, RateLimitUnavailable
from airflow_provider_forge.files import open_shared
from airflow_provider_forge.gateway import ratelimit_stores as ratelimit_stores_module
from airflow_provider_forge.gateway.ratelimit import RateLimiter
from airflow_provider_forge.gateway.ratelimit_stores import LOCK_TIMEOUT, MIN_TIMEOUT, FileStore
from tests.conftest import limited_file_size, make_old
from tests.gateway.limiting import LIVE, PERIOD, new_file_limiter


@pytest.fixture
def new_limiter(tmp_path, machine):
    """Make limiters as each process has one, all over the same file."""
    path = tmp_path / "shared" / "account.json"
    return lambda calls=2: new_file_limiter(path, machine, calls=calls)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b'{"as_of": NaN, "uses": [], "paused_until": 0, "refusals": {}}', b"x" * 10**5],
)
def test_a_damaged_file_is_logged(new_limiter, content, caplog):
    limiter = new_limiter()
    limiter.acquire()
    limiter.store.path.write_bytes(content)
    assert limiter.acquire().waited == PERIOD
    assert "is damaged" in caplog.text
    assert str(limiter.store.path) in caplog.text


@pytest.mark.parametrize("loss", ["an empty file", "no file", "no directory"])
def test_a_lost_record_counts_as_the_whole_budget_used_now(new_limiter, machine, loss):
    """After a crash or in a cleaned directory: it may have been used this moment."""
    limiter = new_limiter(calls=2)
    assert limiter.acquire(priority=LIVE).waited == PERIOD, "a new directory tells nothing, either"
    assert limiter.acquire(priority=LIVE).waited == 0
    directory = limiter.store.path.parent
    if loss == "an empty file":
        limiter.store.path.write_bytes(b"")
    elif loss == "no file":
        for path in directory.iterdir():
            path.unlink()
    else:
        shutil.rmtree(directory)
    assert [limiter.acquire(priority=LIVE).waited for _ in range(3)] == [PERIOD, 0, PERIOD]


def test_one_name_of_the_file_is_enough_to_know_all(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    machine.now += 50
    limiter.store.path.unlink()
    assert limiter.acquire().waited == PERIOD - 50


def test_an_account_that_certainly_has_not_called_need_not_wait(new_limiter):
    """Had there been a record within the last period, its removal would have changed the directory."""
    limiter = new_limiter()
    make_old(limiter.store.path.parent)
    assert limiter.acquire().waited == 0


def test_other_files_beside_the_record_do_not_make_an_unused_account_wait(new_limiter):
    limiter = new_limiter()
    make_old(limiter.store.path.parent)
    memory = limiter.store.state_store("environments")
    memory.save({"a": 1})
    with memory.lock():
        assert limiter.acquire().waited == 0
    assert limiter.store.state_store("environments").load() == {"a": 1}


def test_a_cache_that_cannot_be_used_counts_as_empty(new_limiter, caplog):
    limiter = new_limiter()
    memory = limiter.store.state_store("environments")
    limiter.store.path.with_name("environments.json").mkdir()
    memory.save({"a": 1})
    assert memory.load() == {}
    assert "nothing is stored there" in caplog.text


def test_a_cache_with_text_that_cannot_be_sent_counts_as_empty(new_limiter):
    memory = new_limiter().store.state_store("environments")
    memory.save({"ids": {"production": "\ud800"}})
    assert memory.load() == {}


@pytest.mark.parametrize("kept", [{}, {"a": 1}])
def test_a_cache_on_a_full_disk_keeps_what_it_has(new_limiter, caplog, kept):
    memory = new_limiter().store.state_store("environments")
    if kept:
        memory.save(kept)
    with limited_file_size(10):
        memory.save({"a": "more than there is space for"})
    assert memory.load() == kept
    assert "nothing is stored there" in caplog.text


def test_a_full_disk_damages_no_record(new_limiter):
    limiter = new_limiter(calls=2)
    assert limiter.acquire().waited == PERIOD
    size = limiter.store.path.stat().st_size
    with limited_file_size(size):
        limiter.block_credentials("a1b2c3")
    assert limiter.blocked_for("a1b2c3") == 0
    assert [limiter.acquire(priority=LIVE).waited for _ in range(2)] == [0, PERIOD]


def test_a_wait_for_lack_of_a_record_is_logged(new_limiter, caplog):
    caplog.set_level(logging.INFO)
    limiter = new_limiter()
    limiter.acquire()
    assert f"no record of the account's calls at {limiter.store.path}" in caplog.text
    assert "61 s" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"as_of": ' + b"9" * 400 + b', "uses": [], "paused_until": 0, "refusals": {}}',
        b'{"as_of": ' + b"9" * 5000 + b', "uses": [], "paused_until": 0, "refusals": {}}',
        b'{"as_of": 1000, "uses": [[1e300, "x", true]], "paused_until": 0, "refusals": {}}',
        b'{"as_of": 1000, "uses": [[9999, "x", true]], "paused_until": 0, "refusals": {}}',
        b'{"as_of": 1000, "uses": [], "paused_until": 1e18, "refusals": {}}',
        b'{"as_of": 1000, "uses": [], "paused_until": 4601, "refusals": {}}',
        b'{"as_of": 1000, "uses": [], "paused_until": 0, "refusals": {"a1b2c3": 1901}}',
        b'{"as_of": -1e300, "uses": [], "paused_until": 0, "refusals": {}}',
        # A difference to such a time is rounded to seconds, or to nothing.
        *(
            b'{"as_of": %s, "uses": [[%s, "x", true]], "paused_until": 0, "refusals": {}}' % (at, at)
            for at in (b"1e300", b"1e20", b"1e15", b"-1e15", b"NaN", b"Infinity", b'"1e15"')
        ),
    ],
)
def test_a_poisoned_file_costs_a_period_and_nothing_else(new_limiter, content, caplog):
    limiter = new_limiter()
    limiter.acquire()
    limiter.store.path.write_bytes(content)
    assert limiter.acquire().waited == PERIOD
    assert limiter.blocked_for("a1b2c3") == 0
    assert "is damaged" in caplog.text


def test_a_file_without_end_is_not_read_to_its_end(new_limiter):
    limiter = new_limiter()
    limiter.acquire()
    os.truncate(limiter.store.path, 1 << 40)
    assert limiter.acquire().waited == PERIOD
    assert limiter.store.path.stat().st_size < 10_000


def test_uses_in_no_order_are_put_in_order(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    uses = [[machine.now, "a", False], [machine.now - 30, "b", False]]
    record = {"as_of": machine.now, "uses": uses, "paused_until": 0, "refusals": {}}
    limiter.store.path.write_text(json.dumps(record))
    assert limiter.acquire().waited == PERIOD


@pytest.mark.parametrize("patience", [0.0, 7.0, None])
def test_a_lock_that_is_not_released_is_an_error_that_names_its_holder(new_limiter, monkeypatch, patience):
    limiter = new_limiter()
    limiter.acquire()
    waited = []
    real = ratelimit_stores_module.open_locked

    def open_locked(path, *, patience, **options):
        waited.append(patience)
        return real(path, patience=0, **options)

    monkeypatch.setattr(ratelimit_stores_module, "open_locked", open_locked)
    held = open_shared(limiter.store.path)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(RateLimitUnavailable, match=rf"locked by process {os.getpid()} of user ") as caught:
        limiter.acquire(patience=patience)
    assert str(limiter.store.path) in str(caught.value)
    assert waited == [{0.0: MIN_TIMEOUT, 7.0: 7.0, None: LOCK_TIMEOUT}[patience]]
    os.close(held)
    assert limiter.acquire(priority=LIVE, patience=patience).waited == 0


def test_a_fifo_in_its_place_is_refused_at_once(new_limiter):
    limiter = new_limiter()
    limiter.acquire()
    for path in limiter.store.path.parent.iterdir():
        path.unlink()
    os.mkfifo(limiter.store.path)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        limiter.acquire()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EIO, errno.EINTR, errno.ESTALE])
def test_a_temporary_failure_of_the_file_system_is_retryable(new_limiter, monkeypatch, code):
    limiter = new_limiter()
    limiter.acquire()

    def fail(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(RateLimitUnavailable, match=os.strerror(code)):
            limiter.acquire()
    assert limiter.acquire(priority=LIVE).waited == 0


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_file_system_that_has_to_be_mended_is_a_final_error(new_limiter, monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    limiter = new_limiter()
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ConfigurationError, match=os.strerror(code)):
        limiter.acquire()


def test_the_file_is_locked_during_a_change_but_not_while_a_caller_sleeps(new_limiter, machine):
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


def test_the_file_has_only_times_random_ids_and_a_short_hash(new_limiter):
    limiter = new_limiter()
    make_old(limiter.store.path.parent)
    limiter.acquire()
    limiter.block_credentials("a1b2c3")
    known = json.loads(limiter.store.path.read_bytes())
    ((at, holder, live),) = known.pop("uses")
    assert (at, live) == (1000, False)
    assert known == {"as_of": 1000, "paused_until": 0, "refusals": {"a1b2c3": 1900}, "clocks": {}}
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


def test_a_file_that_cannot_be_written_may_be_written_later(new_limiter):
    """As on a full disk: the file can be opened, but takes no byte."""
    limiter = new_limiter()
    with limited_file_size(0), pytest.raises(RateLimitUnavailable) as caught:
        limiter.acquire()
    assert str(limiter.store.path) in str(caught.value)
    assert "TMPDIR" in str(caught.value)
    limiter.acquire()


def test_making_a_limiter_touches_no_file(new_limiter):
    assert not new_limiter().store.path.parent.exists()
