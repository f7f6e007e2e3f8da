"""The limiter, with a clock that moves only when somebody sleeps, and once against a gateway that judges."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.gateway.ratelimit import MARGIN, MAX_WAIT, FileRateLimiter
from airflow_provider_forge.sandbox import SandboxGateway, over_limit

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60.0
PERIOD = 61.0
"""What a limiter keeps as a distance where 60 s are allowed: a margin is added for the way to the gateway."""


class Machine:
    """One machine's clock; what is due in the meantime happens while somebody sleeps."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self.due: dict[float, Callable[[], None]] = {}

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        end = self.now + seconds
        for moment in sorted(moment for moment in self.due if moment <= end):
            self.now = moment
            self.due.pop(moment)()
        self.now = end


class Process:
    """A process at the limiter, one step at a time, as `FileRateLimiter.wait` takes them.

    `wait` asks, sleeps, and asks again; here a test decides when the sleeper wakes, if at all.
    """

    _numbers = count()

    def __init__(self, limiter: FileRateLimiter, machine: Machine) -> None:
        self._limiter, self._machine = limiter, machine
        self.holder = f"holder-{next(self._numbers)}"
        self.wakes_at: float | None = None
        self.granted_at: float | None = None

    def step(self) -> bool:
        """Ask for the place; tell whether it is granted."""
        wait = self._limiter._ask(self.holder)
        self.wakes_at = self._machine.now + wait
        self.granted_at = None if wait else self._machine.now
        return not wait


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def new_limiter(tmp_path, machine):
    """Make limiters as each process has one, all over the same file."""

    def new_limiter(calls: int = 2, seconds: float = SECONDS, machine: Machine = machine) -> FileRateLimiter:
        return FileRateLimiter(
            tmp_path / "shared" / "account.json",
            calls=calls,
            seconds=seconds,
            clock=machine.clock,
            sleep=machine.sleep,
        )

    return new_limiter


# One after another


def test_the_budget_is_given_at_once_and_then_one_place_a_period_later(new_limiter, machine):
    assert SECONDS * (1 + MARGIN) == PERIOD
    granted = []
    for _ in range(7):
        new_limiter(calls=3).acquire()
        granted.append(machine.now - 1000)
    assert granted == [0, 0, 0, PERIOD, PERIOD, PERIOD, 2 * PERIOD]


def test_a_place_says_how_long_it_was_waited_for(new_limiter):
    limiter = new_limiter(calls=1)
    assert [limiter.acquire().waited for _ in range(3)] == [0, PERIOD, PERIOD]


def test_idle_time_is_not_saved_up(new_limiter, machine):
    limiter = new_limiter(calls=2)
    limiter.acquire()
    machine.now += 10 * PERIOD
    assert [limiter.acquire().waited for _ in range(3)] == [0, 0, PERIOD]


def test_a_use_is_over_exactly_a_period_later(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    machine.now += PERIOD - 1
    assert limiter.acquire().waited == 1
    machine.now += PERIOD
    assert limiter.acquire().waited == 0


def test_a_new_limiter_goes_on_where_the_last_one_ended(new_limiter):
    new_limiter(calls=1).acquire()
    assert new_limiter(calls=1).acquire().waited == PERIOD


def test_places_count_from_when_the_request_left(new_limiter, machine):
    limiter = new_limiter(calls=1)
    place = limiter.acquire()
    machine.now += 20
    place.use()
    assert limiter.acquire().waited == PERIOD


def test_a_request_that_leaves_late_holds_back_those_who_sleep_already(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=30)
    place = limiter.acquire()
    machine.due[1020.0] = place.use
    limiter.acquire()
    assert machine.now == 1020 + limiter.period
    assert machine.slept == [limiter.period, 20]


def test_who_connects_so_long_that_another_went_ahead_waits_again(new_limiter, machine):
    limiter = new_limiter(calls=1)
    place = limiter.acquire()
    machine.now += 5 * PERIOD
    limiter.acquire()
    machine.now += 1
    place.use()
    assert machine.now == 1000 + 6 * PERIOD
    assert limiter.acquire().waited == PERIOD


def test_nobody_is_put_on_the_list_for_longer_than_the_longest_wait(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    early = Process(limiter, machine)
    assert not early.step()
    assert early.wakes_at == 1000 + PERIOD - MAX_WAIT
    assert len(json.loads(limiter.path.read_bytes())) == 1
    machine.now = early.wakes_at
    early.step()
    assert early.wakes_at == 1000 + PERIOD
    assert len(json.loads(limiter.path.read_bytes())) == 2


def test_the_list_does_not_grow(new_limiter, machine):
    limiter = new_limiter(calls=3)
    for _ in range(50):
        limiter.acquire()
    assert len(json.loads(limiter.path.read_bytes())) <= 2 * 3


# Several at once


def test_who_comes_first_is_served_first(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=15)
    processes = [Process(limiter, machine) for _ in range(4)]
    for process in processes:
        process.step()
        machine.now += 1
    assert [process.wakes_at for process in processes[1:]] == [1000 + n * limiter.period for n in (1, 2, 3)]
    # Whoever wakes too early is told to sleep on, and nobody overtakes him.
    assert not any(process.step() for process in reversed(processes[1:]))
    late_comer = Process(limiter, machine)
    late_comer.step()
    for process in processes[1:]:
        machine.now = process.wakes_at
        assert process.step()
        assert not late_comer.step()


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, MemoryError])
def test_who_dies_while_waiting_wastes_one_place(new_limiter, machine, end):
    limiter = new_limiter(calls=1, seconds=15)
    limiter.acquire()

    def die() -> None:
        raise end

    machine.due[1001.0] = die
    with pytest.raises(end):
        limiter.acquire()
    assert new_limiter(calls=1, seconds=15).acquire().waited == 2 * limiter.period - 1
    assert limiter.acquire().waited == limiter.period


def test_who_dies_before_sending_wastes_one_place(new_limiter):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    # It is not asked for any more, and nobody gives it back.
    assert limiter.acquire().waited == PERIOD


def test_who_wakes_after_its_place_has_passed_comes_anew(new_limiter, machine):
    """A machine that was suspended, or a process that was stopped, wakes long after its moment."""
    limiter = new_limiter(calls=2, seconds=30)
    used = []
    for _ in range(2):
        limiter.acquire()
    slow, frozen, third, fourth = (Process(limiter, machine) for _ in range(4))
    slow.step(), frozen.step()
    machine.now = slow.wakes_at
    assert slow.step()
    third.step(), fourth.step()
    machine.now += 20
    if slow.step():  # connecting took 20 s
        used.append(machine.now)
    machine.now = fourth.wakes_at
    assert fourth.step()
    used.append(machine.now)
    machine.now += 1
    if frozen.step():
        used.append(machine.now)
    assert over_limit(used, 2, 30) == 0


def test_a_request_that_leaves_late_holds_back_those_behind_a_dead_process(new_limiter, machine):
    limiter = new_limiter(calls=1, seconds=20)
    limiter.acquire()
    late, dead, third = (Process(limiter, machine) for _ in range(3))
    assert not any(process.step() for process in (late, dead, third))
    # It wakes 15 s late, and then takes 15 s to connect: less than a period each, more together.
    machine.now = late.wakes_at + 15
    assert late.step()
    machine.now += 15
    used = [machine.now] if late.step() else []
    for process in (third, late):
        while process.granted_at is None:
            machine.now = max(machine.now, process.wakes_at)
            process.step()
        used.append(process.granted_at)
    assert over_limit(used, 1, 20) == 0


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.sampled_from(["step", "step", "step", "step", "die"]),
        # What passes before: the time to the process's own moment, or so many seconds.
        st.sampled_from(["its moment", "its moment", 0.0, 0.0, 0.1, 5.0, 20.0, 45.0]),
    ),
    min_size=20,
    max_size=80,
)


class Simulation:
    """Processes that come, wake as late as they like, take as long to connect as they like, and die."""

    def __init__(self, limiter: FileRateLimiter, machine: Machine) -> None:
        self.limiter, self.machine = limiter, machine
        self.living: dict[int, Process] = {}
        self.uses: list[float] = []

    def use(self, number: int) -> None:
        """Let the request leave, which asks once more; it may have to wait again."""
        if self.living[number].step():
            del self.living[number]
            self.uses.append(self.machine.now)

    def let_pass(self, number: int, delta: float | str) -> None:
        if delta != "its moment":
            self.machine.now += delta
        elif number in self.living and self.living[number].granted_at is None:
            self.machine.now = max(self.machine.now, self.living[number].wakes_at)

    def step(self, number: int) -> None:
        process = self.living.get(number)
        if process is None:
            self.living[number] = Process(self.limiter, self.machine)
            self.living[number].step()
        elif process.granted_at is not None:
            self.use(number)
        elif self.machine.now >= process.wakes_at:
            process.step()

    def die(self, number: int) -> None:
        self.living.pop(number, None)


@settings(deadline=None, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, calls=st.integers(1, 4))
def test_no_span_ever_holds_more_uses_than_allowed(tmp_path_factory, events, calls):
    machine = Machine()
    path = tmp_path_factory.mktemp("limiter") / "account.json"
    simulation = Simulation(FileRateLimiter(path, calls=calls, seconds=30.0, clock=machine.clock), machine)
    for number, event, delta in events:
        simulation.let_pass(number, delta)
        getattr(simulation, event)(number)
    assert over_limit(simulation.uses, calls, 30.0) == 0


# The file


@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b"nonsense", b"5", b"null", b"[1]", b"[[1]]", b'[["soon", "x"]]', b'[[null, "x"]]'),
        *(b'{"a": 1}', b"\xff\xfe\x00", b"[[1000.0, "),
    ],
)
def test_a_damaged_file_counts_as_the_whole_budget_used_now(new_limiter, machine, caplog, content):
    limiter = new_limiter(calls=2)
    limiter.acquire()
    limiter.path.write_bytes(content)
    machine.now += 30
    assert [limiter.acquire().waited for _ in range(3)] == [PERIOD, 0, PERIOD]
    assert "is damaged" in caplog.text
    assert str(limiter.path) in caplog.text


def test_an_empty_file_is_an_unused_budget(new_limiter):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    limiter.path.write_bytes(b"")
    assert limiter.acquire().waited == 0


def test_after_a_restart_of_the_machine_the_whole_budget_counts_as_used_now(new_limiter):
    """The monotonic clock begins anew, and all times in the file are far in the future."""
    before = new_limiter(calls=2, machine=Machine(now=5_000_000.0))
    before.acquire()
    before.acquire()
    after = new_limiter(calls=2, machine=Machine(now=7.0))
    assert [after.acquire().waited for _ in range(3)] == [PERIOD, 0, PERIOD]


def test_waiting_places_are_not_taken_for_times_before_a_restart(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    waiting = Process(limiter, machine)
    machine.now += 1
    waiting.step()
    assert [Process(limiter, machine).step() for _ in range(2)] == [False, False]
    assert waiting.wakes_at == 1000 + PERIOD
    machine.now = waiting.wakes_at
    assert waiting.step()


def test_the_file_is_locked_while_it_is_changed_and_free_while_somebody_sleeps(new_limiter, machine):
    limiter = new_limiter(calls=1)
    limiter.acquire()
    locked: dict[str, list[bool]] = {"at work": [], "asleep": []}

    def look(when: str) -> None:
        with limiter.path.open("rb") as file:
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

    FileRateLimiter(limiter.path, calls=1, clock=clock, sleep=sleep).acquire()
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
    assert stat.S_IMODE(limiter.path.stat().st_mode) == 0o666
    assert stat.S_IMODE(limiter.path.parent.stat().st_mode) == 0o1777, "and nobody may remove another's"
    assert [each.name for each in limiter.path.parent.iterdir()] == ["account.json"]


def test_the_file_tells_nothing_but_times_and_random_names(new_limiter):
    limiter = new_limiter()
    limiter.acquire()
    ((at, holder),) = json.loads(limiter.path.read_bytes())
    assert at == 1000
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
    limiter.path.parent.mkdir()
    limiter.path.symlink_to(victim)
    with pytest.raises(ConfigurationError) as caught:
        limiter.acquire()
    assert str(limiter.path) in str(caught.value)
    if target == "a file":
        assert victim.read_text() == "[]"
    assert victim.exists() == (target != "nothing")


def assert_names_file_and_remedy(error: ConfigurationError, limiter: FileRateLimiter) -> None:
    assert error.field == "rate limit"
    assert str(limiter.path) in str(error)
    assert "TMPDIR" in str(error)


@pytest.mark.parametrize("obstacle", ["a file as directory", "a directory as file", "no parent"])
def test_a_path_that_cannot_be_opened_is_a_configuration_error(new_limiter, obstacle):
    limiter = new_limiter()
    if obstacle == "a file as directory":
        limiter.path.parent.write_text("")
    elif obstacle == "a directory as file":
        limiter.path.mkdir(parents=True)
    else:
        limiter.path = limiter.path / "deeper" / "account.json"
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
    assert not new_limiter().path.parent.exists()


# In earnest

CONTESTANT = """
import sys
from pathlib import Path
from airflow_provider_forge.gateway.client import GatewayClient
from airflow_provider_forge.gateway.ratelimit import FileRateLimiter

url, email, token, app_id, path, calls, seconds, turns = sys.argv[1:]
limiter = FileRateLimiter(Path(path), calls=int(calls), seconds=float(seconds))
client = GatewayClient(url, email, token, limiter=limiter)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(turns)):
    client.environments(app_id)
"""


@pytest.mark.parametrize(
    ("allowed", "seconds", "turns"),
    [
        # A busy machine may take a tenth of a second between two lines, so the short run keeps more distance.
        (1.0, 1.25, 2),
        pytest.param(3.0, 3.0, 8, marks=[pytest.mark.long, pytest.mark.timeout(180)]),
    ],
)
def test_eight_processes_at_once_never_exceed_the_limit(tmp_path, allowed, seconds, turns):
    calls, processes = 5, 8
    with SandboxGateway(rate_limit_calls=calls, rate_limit_seconds=allowed) as gateway:
        arguments = (gateway.url, gateway.email, gateway.api_token, gateway.app_id.rpartition("/")[2])
        limit = (tmp_path / "account.json", calls, seconds, turns)
        command = [sys.executable, "-c", CONTESTANT, *map(str, (*arguments, *limit))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        contestants = [subprocess.Popen(command, text=True, **pipes) for _ in range(processes)]
        for contestant in contestants:
            assert contestant.stdout.readline() == "ready\n"
        for contestant in contestants:
            contestant.stdin.write("go\n")
            contestant.stdin.flush()
        errors = [contestant.communicate(timeout=60)[1] for contestant in contestants]
        assert errors == [""] * processes
        assert len(gateway.calls) == processes * turns
        assert gateway.violations == 0
        assert gateway.over_limit() == 0
