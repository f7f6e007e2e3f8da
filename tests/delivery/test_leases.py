"""Leases: files are locked per open file, so two holders in one process are as good as two processes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.delivery import leases as leases_module
from airflow_provider_forge.delivery.leases import LOCK_FILES, PATIENCE, FileLeases
from airflow_provider_forge.exceptions import (
    ConfigurationError,
    DeliveryBusy,
    LedgerUnavailable,
    RetryableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME = "8ce114f4-5e1f"


class Machine:
    """A clock that moves only when somebody sleeps; what is due happens in the meantime."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.due: dict[float, Callable[[], None]] = {}

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds
        for moment in sorted(moment for moment in self.due if moment <= self.now):
            self.due.pop(moment)()


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def new_leases(tmp_path, machine):
    """Make leases as each process has them, of the same ledger unless another is named."""

    def new_leases(name: str = NAME, **options: float) -> FileLeases:
        return FileLeases(tmp_path / "leases", name, clock=machine.clock, sleep=machine.sleep, **options)

    return new_leases


@pytest.fixture
def free(new_leases):
    """Tell whether nobody holds any of the records at this moment."""

    def free(records: Iterable[int], name: str = NAME) -> bool:
        try:
            with new_leases(name, patience=0).hold(records):
                return True
        except DeliveryBusy:
            return False

    return free


# Who excludes whom


@pytest.mark.parametrize("others", [[5], [4, 5], [5, 6, 7], [0, 5, 47], [5 + LOCK_FILES], [5 - LOCK_FILES]])
def test_one_task_at_a_time_holds_a_lease(new_leases, free, others):
    with new_leases().hold([5]):
        assert not free(others)
    assert free(others)


@pytest.mark.parametrize("others", [[], [4], [6, 7], [0, 47], [*range(5), *range(6, LOCK_FILES)]])
def test_other_records_are_free(new_leases, free, others):
    with new_leases().hold([5]):
        assert free(others)


def test_all_leases_are_acquired_and_released(new_leases, free):
    records = [29_923_500 // 5 + record for record in range(4)]
    with new_leases().hold(records):
        assert [free([record]) for record in records] == [False] * 4
        assert free([records[-1] + 1])
    assert free(records)


def test_another_ledger_is_free(new_leases, free):
    with new_leases().hold([5]):
        assert free([5], name="8ce114f4-0000")


def test_the_same_process_does_not_hold_a_lease_twice(new_leases):
    leases = new_leases(patience=0)
    with leases.hold([5]):
        with pytest.raises(DeliveryBusy), leases.hold([5]):
            pass
        with leases.hold([6]):
            pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_releases_the_lease(new_leases, free, error):
    with pytest.raises(error), new_leases().hold([5, 6]):
        raise error
    assert free([5, 6])


def test_records_that_share_a_file_can_be_held_together(new_leases):
    with new_leases(patience=0).hold([5, 5, 5 + LOCK_FILES, 5 + 2 * LOCK_FILES]):
        pass


def test_no_more_lock_files_are_ever_left(new_leases, tmp_path):
    for day in range(3):
        with new_leases().hold(range(day * 288, (day + 1) * 288)):
            pass
    assert len({path.stat().st_ino for path in (tmp_path / "leases").iterdir()}) == LOCK_FILES


def test_making_leases_touches_no_file(new_leases, tmp_path):
    new_leases()
    assert not (tmp_path / "leases").exists()


# Waiting


@pytest.mark.parametrize("patience", [PATIENCE, 5.0])
def test_a_task_that_waits_too_long_is_postponed(new_leases, machine, patience):
    leases = new_leases(patience=patience)
    with (
        new_leases().hold([5]),
        pytest.raises(DeliveryBusy, match=f"{patience:g} s") as caught,
        leases.hold([5]),
    ):
        pass
    assert patience <= machine.now - 1000 < patience + 1
    assert max(machine.slept) <= 1, "it looks again and again"
    assert caught.value.retry_after == patience
    assert isinstance(caught.value, RetryableError)


def test_a_task_without_patience_does_not_sleep(new_leases, machine):
    with new_leases().hold([5]), pytest.raises(DeliveryBusy), new_leases(patience=0).hold([5]):
        pass
    assert machine.slept == []


def test_a_waiting_task_continues_when_the_lease_is_free(new_leases, machine, free):
    held = contextlib.ExitStack()
    held.enter_context(new_leases().hold([5]))
    machine.due[1030.0] = held.close
    with new_leases().hold([5]):
        assert 30 <= machine.now - 1000 < 31
        assert not free([5])


def test_free_leases_are_acquired_without_sleeping(new_leases, machine):
    with new_leases().hold(range(LOCK_FILES)):
        assert machine.slept == []


def test_patience_is_for_all_records_together(new_leases, machine):
    """Else a task that waits for many could wait as many minutes."""
    with contextlib.ExitStack() as stack:
        for record in (5, 6, 7):
            held = contextlib.ExitStack()
            held.enter_context(new_leases().hold([record]))
            stack.push(held)
            machine.due[1000.0 + 25 * (record - 4)] = held.close
        with pytest.raises(DeliveryBusy), new_leases().hold([5, 6, 7]):
            pass
    assert machine.now - 1000 < PATIENCE + 1


def test_a_postponed_task_holds_no_lease(new_leases, free):
    with new_leases().hold([7]):
        with pytest.raises(DeliveryBusy), new_leases().hold([5, 6, 7, 8]):
            pass
        assert free([5, 6, 8])


# Many at once


@pytest.mark.parametrize("records", [[8, 3, 47], [47, 8, 3], {3, 47, 8}, [51, 8, 47], [95, 56, 3]])
def test_leases_are_acquired_in_one_order(new_leases, monkeypatch, tmp_path, records):
    asked = []
    real = leases_module.open_locked

    def open_locked(path, **options):
        asked.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(leases_module, "open_locked", open_locked)
    with new_leases().hold(records):
        assert asked == [f"{NAME}-{number}.lease" for number in (3, 8, 47)]


def test_many_random_sets_at_once_neither_meet_nor_stick(tmp_path):
    occupied: list[set[int]] = []
    errors: list[BaseException] = []
    start = threading.Barrier(2)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        leases = FileLeases(
            tmp_path / "leases", NAME, patience=10, sleep=lambda _: time.sleep(chance.random() / 5000)
        )
        try:
            start.wait(20)
            for _ in range(300):
                records = chance.sample((0, 1, 8, 9, 16, 17, 24, 40), chance.randint(1, 5))
                with leases.hold(records):
                    mine = set(records)
                    assert all(mine.isdisjoint(theirs) for theirs in occupied)
                    occupied.append(mine)
                    time.sleep(0)
                    occupied.remove(mine)
        except BaseException as error:  # noqa: BLE001 - of whatever kind, the test is to show it
            errors.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []


HOLDER = """
import sys
from pathlib import Path
from airflow_provider_forge.delivery.leases import FileLeases

with FileLeases(Path(sys.argv[1]), sys.argv[2]).hold([5, 6]):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Start another process that holds records 5 and 6 until it is told to let go."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "leases"), NAME]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_holds_the_leases_until_it_releases_them(holder, free):
    assert not free([6])
    assert free([7])
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "free\n"
    assert free([5, 6])


def test_the_lease_of_a_process_that_was_killed_is_free_at_once(holder, free):
    assert not free([5])
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert free([5, 6])


def test_a_child_process_does_not_keep_the_lease(new_leases, free):
    """As a program that a task leaves behind, which may run for hours."""
    command = [sys.executable, "-c", "print('up', flush=True); input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with new_leases().hold([5]):
        child = subprocess.Popen(command, text=True, close_fds=False, **pipes)
    try:
        assert child.stdout.readline() == "up\n"
        assert free([5])
    finally:
        child.communicate("\n")


# Files


def assert_names_file_and_remedy(error: ConfigurationError, path: object) -> None:
    assert error.field == "lease"
    assert str(path) in str(error)
    assert "TMPDIR" in str(error)


@pytest.mark.parametrize("obstacle", ["a file as directory", "a directory as file", "a symlink", "no parent"])
def test_files_that_cannot_be_used_are_a_configuration_error(new_leases, free, tmp_path, obstacle):
    path = tmp_path / "leases" / f"{NAME}-5.lease"
    leases = new_leases()
    if obstacle == "a file as directory":
        path.parent.write_text("")
    elif obstacle == "a directory as file":
        path.mkdir(parents=True)
    elif obstacle == "a symlink":
        path.parent.mkdir()
        path.symlink_to(tmp_path / "victim")
    else:
        leases = FileLeases(tmp_path / "not" / "there", NAME)
        path = tmp_path / "not" / "there" / path.name
    with pytest.raises(ConfigurationError) as caught, leases.hold([5]):
        pass
    assert_names_file_and_remedy(caught.value, path)
    assert not (tmp_path / "victim").exists()


def test_leases_acquired_before_an_error_are_released(new_leases, free, tmp_path):
    (tmp_path / "leases" / f"{NAME}-5.lease").mkdir(parents=True)
    with pytest.raises(ConfigurationError), new_leases().hold([3, 4, 5]):
        pass
    assert free([3, 4])


def test_no_file_stays_open(new_leases):
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts the one it needs itself, always

    before = open_files()
    with new_leases().hold([1, 2, 3]):
        assert open_files() == before + 3
        for _ in range(3):
            with pytest.raises(DeliveryBusy), new_leases(patience=0).hold([0, 1]):
                pass
    assert open_files() == before


def test_a_lease_whose_file_was_removed_is_still_held(new_leases, free, tmp_path):
    with new_leases().hold([5]):
        (tmp_path / "leases" / f"{NAME}-5.lease").unlink()
        assert not free([5])
    assert free([5])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EIO])
def test_a_temporary_failure_of_the_file_system_is_retryable(new_leases, monkeypatch, code):
    def fail(path, **_):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(leases_module, "open_locked", fail)
    with pytest.raises(LedgerUnavailable, match=os.strerror(code)), new_leases().hold([5]):
        pass
