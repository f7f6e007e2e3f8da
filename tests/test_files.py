from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager

import pytest

from airflow_provider_forge.files import open_shared


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
            assert list(path.parent.iterdir()) == [path]


def test_nobody_meets_it_with_another_mode(path, monkeypatch):
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


def test_who_comes_second_gets_the_file_of_who_came_first(path, monkeypatch):
    link = os.link

    def link_too_late(fresh, target):
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", link)
            with opened(target) as descriptor:
                os.write(descriptor, b"first")
        link(fresh, target)

    monkeypatch.setattr(os, "link", link_too_late)
    with opened(path) as descriptor:
        assert os.read(descriptor, 10) == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_all_who_come_at_once_get_one_file(path):
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
    assert list(path.parent.iterdir()) == [path]


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
def test_what_cannot_be_opened_is_an_error_of_the_system(path, obstacle):
    if obstacle == "a file as directory":
        path.parent.write_text("")
    elif obstacle == "a directory as file":
        path.mkdir(parents=True)
    else:
        path = path.parent / "deeper" / "account.json"
    with pytest.raises(OSError, match=r"Not a directory|Is a directory|No such file"):
        open_shared(path)


def test_what_fails_half_way_leaves_nothing(path, monkeypatch):
    def refuse(*_):
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
