from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import socket
import stat
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_provider_forge import files
from airflow_provider_forge.files import (
    is_permanent,
    make_private,
    missing_for,
    open_locked,
    open_shared,
    read_at_most,
    write_all,
)
from tests.conftest import limited_file_size


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def opened(path):
    descriptor = open_shared(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shared" / "account.json"


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


NAMES = [".account.json", "account.json"]
"""The two names of one file."""


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_empty_and_can_be_read_and_written(path):
    with opened(path) as descriptor:
        assert os.read(descriptor, 10) == b""
        os.write(descriptor, b"content")
    assert path.read_bytes() == b"content"


def test_a_file_that_is_there_is_opened_as_it_is(path):
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"content")
    path.chmod(0o600)
    before = path.stat()
    with opened(path) as descriptor:
        assert os.read(descriptor, 10) == b"content"
        os.pwrite(descriptor, b"C", 0)
    assert path.read_bytes() == b"Content"
    assert (path.stat().st_ino, mode(path), mode(path.parent)) == (before.st_ino, 0o600, 0o700)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_every_user_of_the_machine_may_use_it(path, mask):
    with umask(mask), opened(path):
        pass
    assert mode(path) == 0o666
    assert mode(path.parent) == 0o1777, "and nobody may remove another's"


def test_the_directory_of_others_is_left_as_it_is(path):
    path.parent.mkdir()
    path.parent.chmod(0o755)
    with opened(path):
        assert mode(path.parent) == 0o755


def test_nothing_is_left_beside_it(path):
    for _ in range(2):
        with opened(path):
            assert names(path.parent) == NAMES


def test_no_process_sees_it_with_another_mode(path, monkeypatch):
    """What is made and then changed can be opened by nobody else in between."""
    seen = []
    chmod = type(path).chmod

    def look_and_chmod(self, *arguments):
        seen.append(path.exists())
        chmod(self, *arguments)

    monkeypatch.setattr(type(path), "chmod", look_and_chmod)
    with umask(0o077), opened(path):
        assert seen
        assert not any(seen)


def test_the_second_process_gets_the_file_of_the_first(path, monkeypatch):
    link = os.link

    def link_too_late(fresh, target, **options):
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", link)
            with opened(path) as descriptor:
                os.write(descriptor, b"first")
        link(fresh, target, **options)

    monkeypatch.setattr(os, "link", link_too_late)
    with opened(path) as descriptor:
        assert os.read(descriptor, 10) == b"first"
    assert names(path.parent) == NAMES


def test_concurrent_processes_get_one_file(path):
    path.parent.mkdir()
    start = threading.Barrier(8)
    found: list[int] = []

    def open_it() -> None:
        start.wait(20)
        with opened(path) as descriptor:
            found.append(os.fstat(descriptor).st_ino)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [path.stat().st_ino] * 8
    assert names(path.parent) == NAMES


@pytest.mark.parametrize("target", ["a file", "a directory", "nothing"])
def test_a_symlink_in_its_place_is_refused(path, tmp_path, target):
    victim = tmp_path / "victim"
    if target == "a file":
        victim.write_text("precious")
    elif target == "a directory":
        victim.mkdir()
    path.parent.mkdir()
    path.symlink_to(victim)
    with pytest.raises(OSError, match=r"symbolic link|exists"):
        open_shared(path)
    assert victim.exists() == (target != "nothing")
    if target == "a file":
        assert victim.read_text() == "precious"
        assert mode(victim) != 0o666
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("obstacle", ["a file as directory", "a directory as file", "no parent"])
def test_a_file_that_cannot_be_opened_is_an_oserror(path, obstacle):
    if obstacle == "a file as directory":
        path.parent.write_text("")
    elif obstacle == "a directory as file":
        path.mkdir(parents=True)
    else:
        path = path.parent / "deeper" / "account.json"
    with pytest.raises(OSError, match=r"Not a directory|Is a directory|No such file"):
        open_shared(path)


def test_a_failure_half_way_leaves_no_file(path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(PermissionError):
        open_shared(path)
    assert list(path.parent.iterdir()) == []


def test_a_child_does_not_inherit_it(path):
    with opened(path) as descriptor:
        assert not os.get_inheritable(descriptor)
    with opened(path) as descriptor:
        assert not os.get_inheritable(descriptor)


def test_a_file_whose_name_was_removed_is_found_again_with_its_content(path):
    with opened(path) as descriptor:
        os.write(descriptor, b"content")
    path.unlink()
    with opened(path) as descriptor:
        assert os.read(descriptor, 10) == b"content"
    path.with_name(".account.json").unlink()
    with opened(path) as descriptor:
        assert os.read(descriptor, 10) == b"content"


def test_a_new_file_is_never_seen_without_its_first_content(path, monkeypatch):
    seen = []
    link = os.link

    def look_and_link(fresh, target, **options):
        seen.append(fresh.read_bytes())
        link(fresh, target, **options)

    monkeypatch.setattr(os, "link", look_and_link)
    os.close(open_shared(path, lambda: b"first"))
    assert seen == [b"first"] * 2
    os.close(open_shared(path, lambda: b"another"))
    assert path.read_bytes() == b"first"


# What is found in the place of a file


@pytest.fixture
def neighbour(path):
    """Another file beside it, so that the directory is there."""
    with opened(path.with_name("neighbour")):
        pass


@pytest.mark.parametrize("kind", ["FIFO", "socket"])
def test_only_a_regular_file_is_opened_and_nothing_is_waited_for(path, neighbour, kind):
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as server, within(path.parent):
            server.bind(path.name)
    with pytest.raises(OSError, match=r"not a regular file|No such device") as caught:
        open_locked(path, patience=0)
    assert is_permanent(caught.value)


@contextmanager
def within(directory):
    """Change the directory: the path of a socket has to be short."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.mark.parametrize(("size", "content"), [(5, None), (6, b"123456"), (7, b"123456")])
def test_no_more_is_read_than_is_expected(path, size, content):
    with opened(path) as descriptor:
        os.write(descriptor, b"123456")
        assert read_at_most(descriptor, size) == content


@pytest.mark.parametrize("content", [b"much more than there was before", b"less", b"as many", b""])
def test_the_content_is_replaced(path, content):
    with opened(path) as descriptor:
        write_all(descriptor, b"content")
        write_all(descriptor, content)
    assert path.read_bytes() == content


def test_content_for_which_there_is_no_space_replaces_nothing(path):
    with opened(path) as descriptor, limited_file_size(10):
        write_all(descriptor, b"content")
        with pytest.raises(OSError, match="large"):
            write_all(descriptor, b"much more than there was before")
        assert path.read_bytes() == b"content"


def test_a_sparse_file_uses_no_memory(path):
    with opened(path) as descriptor:
        os.ftruncate(descriptor, 1 << 40)
        assert read_at_most(descriptor, 1000) is None


# Locks


class Machine:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.due:
            self.due.pop()()


def test_a_lock_is_waited_for_with_a_time_out_that_names_its_holder(path):
    machine = Machine()
    held = open_locked(path, patience=0)
    with pytest.raises(TimeoutError, match=rf"process {os.getpid()} of user ") as caught:
        open_locked(path, patience=30, clock=machine.clock, sleep=machine.sleep)
    assert not is_permanent(caught.value)
    assert caught.value.filename == str(path)
    assert 30 <= machine.now < 31
    machine.due.append(lambda: os.close(held))
    os.close(open_locked(path, patience=30, clock=machine.clock, sleep=machine.sleep))
    assert machine.now < 62


def test_a_lock_on_a_file_whose_name_was_removed_still_excludes_others(path):
    held = open_locked(path, patience=0)
    path.unlink()
    with pytest.raises(TimeoutError):
        open_locked(path, patience=0)
    os.close(held)
    os.close(open_locked(path, patience=0))


def test_a_file_that_is_replaced_before_it_is_locked_is_opened_again(path, monkeypatch):
    """A lock on a file without a name excludes nobody."""
    lock = fcntl.flock

    def replace_and_lock(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        for name in NAMES:
            path.with_name(name).unlink()
        lock(descriptor, how)

    with opened(path):
        monkeypatch.setattr(fcntl, "flock", replace_and_lock)
        descriptor = open_locked(path, patience=10, sleep=lambda _: None)
        assert os.path.samestat(os.fstat(descriptor), path.stat())
        os.close(descriptor)


def test_a_file_in_use_does_not_look_old(path):
    os.close(open_locked(path, patience=0))
    os.utime(path, (0, 0))
    os.close(open_locked(path, patience=0))
    assert path.stat().st_mtime > 0


def test_how_long_a_file_has_been_missing_for_certain(path):
    assert missing_for(path) == 0, "nor is its directory there"
    with opened(path.with_name("neighbour")):
        assert missing_for(path) < 100
        os.utime(path.parent, (0, time.time() - 1000))
        assert 1000 <= missing_for(path) < 1100
        path.with_name("neighbour").unlink()
        assert missing_for(path) < 100
        os.utime(path.parent, (0, time.time() + 1000))
        assert missing_for(path) == 0, "the clock was put back"


def stat_of_process(tmp_path, age: float):
    """Make a /proc/1/stat of a process of that age in seconds."""
    ticks = int((time.clock_gettime(time.CLOCK_BOOTTIME) - age) * os.sysconf("SC_CLK_TCK"))
    file = tmp_path / "stat"
    file.write_text(f"1 (a (b) c) S 0 1 1 0 -1 {' '.join('0' * 13)} {ticks} 0 0")
    return file


def test_another_new_file_does_not_make_a_file_missing_for_a_shorter_time(path):
    path.parent.mkdir()
    changed = time.time() - 1000
    os.utime(path.parent, (changed, changed))
    for name in ("b.json", "c.json"):
        with opened(path.with_name(name)):
            assert 1000 <= missing_for(path) < 1100
    path.with_name("b.json").unlink()
    with opened(path.with_name("d.json")):
        assert missing_for(path) < 100, "it was possibly removed, too"


def test_a_file_has_not_been_missing_for_longer_than_the_container_runs(path, tmp_path, monkeypatch):
    path.parent.mkdir()
    os.utime(path.parent, (0, time.time() - 1000))
    young = files._system_age(stat_of_process(tmp_path, 30))
    monkeypatch.setattr(files, "_system_age", lambda: young)
    assert 30 <= missing_for(path) < 100


@pytest.mark.parametrize(
    ("content", "age"), [(None, math.inf), ("", 0), ("1 (init) S 0 1", 0), ("1 (init) x " + "y " * 30, 0)]
)
def test_an_age_that_the_system_does_not_tell(tmp_path, content, age):
    file = tmp_path / "stat"
    if content is not None:
        file.write_text(content)
    assert files._system_age(file) == age


def test_a_new_directory_is_as_old_as_the_last_change_of_its_parent(path, tmp_path):
    os.utime(tmp_path, (0, time.time() - 1000))
    os.close(open_shared(path))
    path.with_name(f".{path.name}").unlink()
    for _ in range(2):
        shutil.rmtree(path.parent)
        os.close(open_shared(path.with_name("neighbour")))
        assert missing_for(path) < 100, "its parent was changed when it was removed"


@pytest.mark.parametrize("private", [True, False])
def test_a_directory_that_was_never_there_is_known_not_to_have_been_there(path, tmp_path, private):
    os.utime(tmp_path, (0, time.time() - 1000))
    if private:
        make_private(path.parent)
    else:
        files._create_directory(path.parent)
    assert 1000 <= missing_for(path) < 1100


# What passes, and what does not


@pytest.mark.parametrize(
    "code",
    [
        errno.ENOSPC,
        errno.EMFILE,
        errno.ENFILE,
        errno.EIO,
        errno.EINTR,
        errno.ESTALE,
        errno.EDQUOT,
        errno.EFBIG,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ENOLCK,
        errno.EBUSY,
    ],
)
def test_temporary_errors(code):
    assert not is_permanent(OSError(code, os.strerror(code)))


@pytest.mark.parametrize(
    "code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP, errno.EISDIR]
)
def test_permanent_errors(code):
    assert is_permanent(OSError(code, os.strerror(code)))


# Private directories


def test_a_private_directory_is_for_one_user(path):
    for mask in (0o000, 0o077):
        with umask(mask):
            make_private(path.parent)
        assert mode(path.parent) == 0o700
    path.parent.chmod(0o777)
    make_private(path.parent)
    assert mode(path.parent) == 0o700


@pytest.mark.parametrize("obstacle", ["a file", "a symbolic link"])
def test_a_foreign_directory_is_refused(path, tmp_path, obstacle):
    if obstacle == "a file":
        path.parent.write_text("")
    else:
        path.parent.symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        make_private(path.parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a directory of another user")
def test_the_directory_of_another_user_is_refused(path):
    path.parent.mkdir()
    os.chown(path.parent, 65533, 65533)
    with pytest.raises(PermissionError, match="belongs to user 65533"):
        make_private(path.parent)
