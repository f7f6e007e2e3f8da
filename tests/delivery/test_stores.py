from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_forge.delivery.stores import InMemoryStore, ObjectStore, ValueReplaced
from airflow_provider_forge.exceptions import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.delivery.stores import Store

VALUE = {
    "version": 1,
    "acknowledged": {"größe": {"0": "AAAA"}},
    "asked": [[0.0, 300.0, "empty", 2**40]],
    "no": None,
}
KEY = "8ce114f4/5e1f/20261123T0500Z"


@pytest.fixture
def memory() -> Iterator[Any]:
    """A place in fsspec's memory, which stands for a bucket."""
    attach("memory", fs=MemoryFileSystem())  # which Airflow before 3.2 does not know by itself
    path = ObjectStoragePath(f"memory://{uuid.uuid4().hex}/ledger")
    yield path
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(params=["path", "plain path of Airflow's", "file://", "memory://", "none"])
def store(request, tmp_path, memory) -> Store:
    roots = {
        "path": tmp_path / "ledger",
        "plain path of Airflow's": ObjectStoragePath(str(tmp_path / "ledger")),
        "file://": ObjectStoragePath(f"file://{tmp_path}/ledger"),
        "memory://": memory,
    }
    return ObjectStore(roots[request.param]) if request.param in roots else InMemoryStore()


@pytest.fixture(params=["path", "file://"])
def local(request, tmp_path) -> ObjectStore:
    """A store in local files, below `tmp_path`."""
    return ObjectStore(
        tmp_path / "ledger" if request.param == "path" else ObjectStoragePath(f"file://{tmp_path}/ledger")
    )


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


# What every store does


def test_there_is_nothing_before_it_is_put_there(store):
    assert store.get(KEY) is None
    store.set("other", VALUE)
    assert store.get(KEY) is None


def test_a_stored_value_can_be_read(store):
    store.set(KEY, VALUE)
    assert store.get(KEY) == VALUE
    assert store.get(KEY) == VALUE


def test_a_value_replaces_the_previous_one(store):
    store.set(KEY, VALUE)
    for value in ({}, {"shorter": 1}, {"longer": "x" * 100_000}, VALUE):
        store.set(KEY, value)
        assert store.get(KEY) == value


def test_values_do_not_get_in_each_others_way(store):
    keys = ["a/head", "a/b/head", "b/head", "a/20261123T0500Z", "a/20261123T0505Z"]
    for number, key in enumerate(keys):
        store.set(key, {"number": number})
    assert [store.get(key) for key in keys] == [{"number": number} for number in range(5)]
    store.delete(keys[0])
    assert [store.get(key) for key in keys] == [None, *({"number": number} for number in range(1, 5))]


def test_a_deleted_value_is_gone(store):
    store.set(KEY, VALUE)
    store.delete(KEY)
    assert store.get(KEY) is None
    store.set(KEY, {"again": True})
    assert store.get(KEY) == {"again": True}


def test_nothing_can_be_deleted_as_well(store):
    store.delete(KEY)
    store.set("8ce114f4/5e1f/head", VALUE)
    store.delete(KEY)
    assert store.get("8ce114f4/5e1f/head") == VALUE


def test_a_store_has_a_name_and_room_for_any_value(store):
    assert store.name
    assert store.largest is None


# Files


def test_two_stores_of_one_directory_have_the_same_values(tmp_path, memory):
    for root in (ObjectStoragePath(f"file://{tmp_path}/ledger"), memory):
        ObjectStore(root).set(KEY, VALUE)
        assert ObjectStore(ObjectStoragePath(str(root))).get(KEY) == VALUE


def test_a_transient_store_is_of_one_task():
    InMemoryStore().set(KEY, VALUE)
    assert InMemoryStore().get(KEY) is None


def test_the_name_is_the_location(tmp_path, memory):
    assert ObjectStore(tmp_path).name == str(tmp_path)
    assert ObjectStore(ObjectStoragePath(f"file://{tmp_path}")).name == f"file://{tmp_path}"
    assert ObjectStore(memory).name == str(memory)


def test_making_a_store_makes_no_file(local, tmp_path):
    assert local.get(KEY) is None
    local.delete(KEY)
    assert not (tmp_path / "ledger").exists()
    assert files(tmp_path) == []


def test_a_value_is_one_json_file_and_nothing_else(local, tmp_path):
    for value in ({}, VALUE):
        local.set(KEY, value)
    assert files(tmp_path) == [f"ledger/{KEY}.json"]
    assert json.loads((tmp_path / "ledger" / f"{KEY}.json").read_bytes()) == VALUE
    local.delete(KEY)
    assert files(tmp_path) == []


DAMAGED = [
    b"",
    b"{",
    b"nonsense",
    bytes(100),
    b'{"a": 1} {}',
    b'{"a": NaN}',
    b'{"a": "\xff"}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:20]))
def test_a_damaged_value_is_an_empty_object_and_can_be_replaced(local, tmp_path, content):
    """To take it for nothing would be to send everything again; to fail would be to fail for good."""
    local.set(KEY, VALUE)
    path = tmp_path / "ledger" / f"{KEY}.json"
    path.write_bytes(content)
    assert local.get(KEY) == {}
    assert path.read_bytes() == content
    local.set(KEY, VALUE)
    assert local.get(KEY) == VALUE


def test_a_damaged_object_of_a_bucket_is_one_as_well(memory):
    (memory / "head.json").write_bytes(b'{"cut o')
    store = ObjectStore(memory)
    assert store.get("head") == {}
    store.set("head", VALUE)
    assert store.get("head") == VALUE


@pytest.mark.parametrize("obstacle", ["directory", "pipe", "socket", "sparse file"])
def test_a_foreign_file_counts_as_damaged_and_is_replaced(local, tmp_path, caplog, obstacle):
    path = tmp_path / "ledger" / f"{KEY}.json"
    path.parent.mkdir(parents=True)
    if obstacle == "directory":
        (path / "in the way").mkdir(parents=True)
    elif obstacle == "pipe":
        os.mkfifo(path)
    elif obstacle == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    assert local.get(KEY) == {}
    assert str(path) in caplog.text
    local.set(KEY, VALUE)
    assert local.get(KEY) == VALUE


def test_a_directory_in_place_of_an_old_value_is_not_deleted(local, tmp_path):
    path = tmp_path / "ledger" / f"{KEY}.json"
    (path / "in the way").mkdir(parents=True)
    local.delete(KEY)
    assert path.is_dir()


def test_a_value_is_on_the_disk_before_it_has_its_name(local, monkeypatch):
    """A file system may write the name first, and after a loss of power the file is empty."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(descriptor: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def log_replace(source: Any, target: Any, **options: Any) -> None:
        done.append("rename")
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", log_fsync)
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, log_replace)
    local.set(KEY, VALUE)
    assert done == ["file", "rename", "directory"]


# Two writers


def test_a_value_that_was_read_is_not_put_over_a_newer_one(local, tmp_path):
    other = ObjectStore(tmp_path / "ledger")
    for before in (None, VALUE):
        assert local.get(KEY) == before
        other.set(KEY, {"newer": before})
        with pytest.raises(ValueReplaced, match=KEY):
            local.set(KEY, {"older": True})
        assert local.get(KEY) == {"newer": before}
        local.set(KEY, VALUE)
        assert other.get(KEY) == VALUE


def test_each_thread_has_read_for_itself(local):
    local.set(KEY, VALUE)
    local.get(KEY)
    thread = threading.Thread(target=lambda: (local.get(KEY), local.set(KEY, {"b": 1})))
    thread.start()
    thread.join()
    with pytest.raises(ValueReplaced):
        local.set(KEY, {"a": 1})


def test_counting_together_loses_nothing(tmp_path):
    def count() -> None:
        store = ObjectStore(tmp_path)
        for _ in range(25):
            while True:
                value = store.get(KEY) or {"n": 0}
                try:
                    store.set(KEY, {"n": value["n"] + 1})
                except ValueReplaced:
                    continue
                break

    counters = [threading.Thread(target=count) for _ in range(4)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join()
    assert ObjectStore(tmp_path).get(KEY) == {"n": 100}


@pytest.mark.parametrize("content", [b"[1]", b"null", b'"text"', b"5"])
def test_a_value_that_is_not_an_object_counts_as_damaged(local, tmp_path, content):
    local.set(KEY, VALUE)
    (tmp_path / "ledger" / f"{KEY}.json").write_bytes(content)
    assert local.get(KEY) == {}


# A writer that fails, or dies


@contextlib.contextmanager
def full_disk():
    """Every file is full after ten bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_half_way_leaves_the_value_before_it(local):
    local.set(KEY, VALUE)
    with pytest.raises(LedgerUnavailable, match="cannot be written") as caught, full_disk():
        local.set(KEY, {"new": "x" * 1000})
    assert f"{KEY}.json" in str(caught.value)
    assert "File too large" in str(caught.value)
    assert local.get(KEY) == VALUE


def test_a_file_that_cannot_be_replaced_atomically_is_not_replaced(local, monkeypatch):
    """`shutil.move` would copy it then, byte by byte."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    local.set(KEY, VALUE)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(LedgerUnavailable, match="not permitted"):
        local.set(KEY, {"new": True})
    assert local.get(KEY) == VALUE


def test_a_write_that_fails_half_way_leaves_no_draft(local, tmp_path):
    for _ in range(2):
        with pytest.raises(LedgerUnavailable), full_disk():
            local.set(KEY, VALUE)
    assert files(tmp_path) == []


WRITER = """
import resource, signal, sys
from pathlib import Path
from airflow_provider_forge.delivery.stores import ObjectStore

store = ObjectStore(Path(sys.argv[1]))
store.set("head", {"old": "x" * 1000})
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # kills the process in the middle of the file
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
store.set("head", {"new": "y" * 10_000})
"""


def test_a_writer_that_is_killed_half_way_leaves_the_value_before_it(tmp_path):
    ended = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], capture_output=True, check=False)
    assert ended.returncode < 0, ended.stderr
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert 5000 in sizes, "it was killed in the middle"
    store = ObjectStore(tmp_path)
    assert store.get("head") == {"old": "x" * 1000}
    store.set("head", VALUE)
    assert store.get("head") == VALUE


def test_a_reader_sees_the_old_value_or_the_new_one(local):
    values = [{"value": letter * 50_000} for letter in "ab"]
    local.set(KEY, values[0])
    done = threading.Event()
    unfit: list[Any] = []

    def read() -> None:
        while not done.is_set():
            try:
                if (found := local.get(KEY)) not in values:
                    unfit.append(found)
            except LedgerUnavailable as error:
                unfit.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        local.set(KEY, values[number % 2])
    done.set()
    reader.join()
    assert unfit == []


def test_two_writers_at_once_leave_one_value_whole(local, tmp_path):
    values = [{"value": letter * 20_000} for letter in "abcd"]
    failed: list[Exception] = []

    def write(value: dict[str, str]) -> None:
        try:
            for _ in range(30):
                local.set(KEY, value)
        except LedgerUnavailable as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(value,)) for value in values]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    assert local.get(KEY) in values
    assert files(tmp_path) == [f"ledger/{KEY}.json"]


# What the file system says


@pytest.mark.parametrize(
    ("verb", "word"),
    [
        ("get", "read"),
        ("set", "written"),
    ],
)
def test_errors_of_the_disk(local, tmp_path, verb, word):
    path = tmp_path / "ledger" / f"{KEY}.json"
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("a file in the place of a directory")
    with pytest.raises(LedgerUnavailable, match=f"cannot be {word}") as caught:
        getattr(local, verb)(KEY, *([VALUE] if verb == "set" else []))
    assert str(path) in str(caught.value)
    assert "ledger_url" in str(caught.value), "it says what to look at"


class Forbidden(Exception):
    """What a client of a bucket raises is no OSError."""


@pytest.mark.parametrize(
    "error",
    [
        Forbidden("403"),
        PermissionError("403"),
        TimeoutError("403"),
        # What a server answers, whatever it is.
        Forbidden("403\n::group::\x1b[31m" + "<html>" * 10_000),
    ],
    ids=lambda error: repr(error)[:40],
)
@pytest.mark.parametrize(("verb", "word"), [("get", "read"), ("set", "written"), ("delete", "deleted")])
def test_errors_of_a_bucket(memory, monkeypatch, verb, word, error):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    store = ObjectStore(memory)
    store.set(KEY, VALUE)
    for method in ("cat_file", "open", "_open", "pipe_file", "rm", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, method, fail)
    with pytest.raises(LedgerUnavailable, match=f"cannot be {word} at memory://.*403") as caught:
        getattr(store, verb)(KEY, *([VALUE] if verb == "set" else []))
    assert f"{KEY}.json" in str(caught.value)
    assert type(error).__name__ in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert "ledger_url" in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_ends_the_task_is_not_an_error_of_the_store(tmp_path, monkeypatch, end):
    def stop(*_: Any, **__: Any) -> None:
        raise end

    for holder, method in ((os, "open"), (Path, "open"), (Path, "unlink")):
        monkeypatch.setattr(holder, method, stop)
    store = ObjectStore(tmp_path)
    for ask in (lambda: store.get(KEY), lambda: store.set(KEY, VALUE), lambda: store.delete(KEY)):
        with pytest.raises(end):
            ask()


def test_an_overlay_does_not_write_to_the_store_below(store):
    store.set(KEY, VALUE)
    store.set("kept", {"a": 1})
    over = InMemoryStore(store)
    assert (over.name, over.largest) == (store.name, store.largest)
    assert over.get(KEY) == VALUE
    over.set(KEY, {"b": 2})
    over.set("new", {"c": 3})
    over.delete("kept")
    assert [over.get(key) for key in (KEY, "new", "kept", "none")] == [{"b": 2}, {"c": 3}, None, None]
    assert [store.get(key) for key in (KEY, "new", "kept")] == [VALUE, None, {"a": 1}]
