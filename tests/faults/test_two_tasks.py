"""Two tasks that deliver the same minutes at the same time: on one machine, and on two."""

from __future__ import annotations

import fcntl
import functools
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_forge.connections import ledger
from airflow_provider_forge.delivery import leases
from airflow_provider_forge.delivery.stores import ObjectStore
from airflow_provider_forge.sandbox import SandboxGateway, Scenario
from airflow_provider_forge.windows import Window
from tests.faults.lines import MIDDLE, Line
from tests.faults.receivers import PATIENCE, HoldingSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Their points are in one entry of the ledger, so that each task goes there five times: it reads the entry,
# then writes what it is about to send and what was acknowledged, and each write reads the entry first.
MINUTES = Window(MIDDLE.start.add(minutes=1), MIDDLE.start.add(minutes=3))


class Machine:
    """Runs tasks in a thread of its own, which has the machine's name.

    Args:
        name: One letter.
        line: What its tasks run.
    """

    def __init__(self, name: str, line: Line) -> None:
        self._line = line
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    def start(self, interval: Window = MINUTES, **arguments: Any) -> Future[dict[str, Any]]:
        """Begin a task."""
        return self._pool.submit(self._line.run, interval, **arguments)

    def run(self, interval: Window = MINUTES, **arguments: Any) -> dict[str, Any]:
        """Do a task from its beginning to its end."""
        return self.start(interval, **arguments).result()

    def stop(self) -> None:
        """End the thread."""
        self._pool.shutdown()


def machine_name() -> str:
    """Return on which machine this is called."""
    return threading.current_thread().name.partition("_")[0]


class Script:
    """The order in which two machines get to the ledger's entries.

    Args:
        order: Names of machines, one for each read and each write; thereafter there is no order.
    """

    def __init__(self, order: str) -> None:
        self._order = deque(order.replace(" ", ""))
        self._changed = threading.Condition()

    def wrap(self, access: Callable[..., Any]) -> Callable[..., Any]:
        """Return a store's method that waits for its turn."""

        @functools.wraps(access)
        def ordered(store: ObjectStore, key: str, *arguments: Any) -> Any:
            if key.endswith("/head") or "/index/" in key:
                return access(store, key, *arguments)
            with self._changed:
                assert self._changed.wait_for(self._is_my_turn, PATIENCE), self._order
                result = access(store, key, *arguments)
                if self._order:
                    self._order.popleft()
                self._changed.notify_all()
            return result

        return ordered

    def _is_my_turn(self) -> bool:
        return not self._order or self._order[0] == machine_name()


@pytest.fixture
def line(tmp_path, connect) -> Iterator[Line]:
    # So much traffic that two minutes of staging have points, too.
    with SandboxGateway(Scenario(traffic=3), rate_limit_calls=0) as gateway, HoldingSink() as sink:
        made = Line(gateway, sink, tmp_path, connect)
        made.connect()
        # Both would look environments up and begin the ledger, which these tests are not about.
        made.run(Window(MIDDLE.end, MIDDLE.end.add(minutes=1)))
        sink.clear()
        yield made


@pytest.fixture
def machines(line) -> Iterator[tuple[Machine, Machine]]:
    both = Machine("a", line), Machine("b", line)
    yield both
    line.sink.let_go()
    for machine in both:
        machine.stop()


@pytest.fixture
def play(machines, tmp_path, monkeypatch):
    """Return a function that runs two tasks by a script, on machines that share no leases."""
    monkeypatch.setattr(ledger, "shared_directory", lambda: tmp_path / machine_name())

    def play(order: str, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None):
        script = Script(order)
        with monkeypatch.context() as patch:
            for verb in ("get", "set"):
                patch.setattr(ObjectStore, verb, script.wrap(getattr(ObjectStore, verb)))
            tasks = [machine.start(**(own or {})) for machine, own in zip(machines, (a, b), strict=True)]
            return [task.exception() or task.result() for task in tasks]

    return play


@pytest.fixture
def turned_away(monkeypatch) -> threading.Event:
    """Set once a task has found a lease taken."""
    event, flock = threading.Event(), fcntl.flock

    def listening(*arguments: Any) -> None:
        try:
            flock(*arguments)
        except BlockingIOError:
            event.set()
            raise

    monkeypatch.setattr(fcntl, "flock", listening)
    return event


@pytest.mark.parametrize(
    "first_window",
    [MIDDLE, Window(MIDDLE.start, MIDDLE.start.add(minutes=9))],
    ids=["same window", "minutes in common"],
)
def test_the_second_task_of_a_machine_waits_and_sends_nothing_twice(
    line, machines, turned_away, first_window
):
    held = line.sink.hold_next()
    one = machines[0].start(first_window)
    held.await_arrival()
    two = machines[1].start(MIDDLE)
    assert turned_away.wait(PATIENCE)
    assert not two.done()
    assert line.sink.requests == []
    held.open()
    first, second = one.result(), two.result()
    assert first["sent"] == second["unchanged"] == line.generated(first_window).total()
    assert second["sent"] == (line.generated(MIDDLE) - line.generated(first_window)).total()
    assert not any(summary["ambiguous"] or summary["contended"] for summary in (first, second))
    assert line.received == line.generated(MIDDLE)


def test_a_task_that_waits_too_long_is_deferred_without_using_a_retry(line, machines, monkeypatch):
    held = line.sink.hold_next()
    one = machines[0].start()
    held.await_arrival()
    monkeypatch.setattr(leases, "FileLeases", functools.partial(leases.FileLeases, patience=0))
    with pytest.raises(TaskDeferred) as deferred:
        machines[1].run()
    assert deferred.value.method_name == "execute_complete"
    held.open()
    assert one.result()["sent"] == machines[1].run()["unchanged"]
    assert line.received == line.generated(MINUTES)


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ("aaa bbbbb aa", ["contended", "ambiguous"]),
        ("aaa bbb aa bb", ["contended", "contended and ambiguous"]),
        ("ab aa bb aa bb", ["contended", "contended and ambiguous"]),
        ("ab aa bb bb aa", ["contended", "contended and ambiguous"]),
        # Both have read when one of them writes: the other one must not write over it, and reads again.
        ("ab aa bb ab ab", ["contended", "contended and ambiguous"]),
        ("ab ab ab bb aa", ["contended", "contended and ambiguous"]),
        ("ab ab ab ab ab", ["contended", "contended and ambiguous"]),
    ],
)
def test_two_machines_report_points_that_both_have_sent(line, play, caplog, order, named):
    summaries = play(order)
    assert [
        " and ".join(name for name in ("contended", "ambiguous") if summary[name]) for summary in summaries
    ] == named
    points = line.generated(MINUTES)
    assert all(summary["ambiguous"] in (0, points.total()) for summary in summaries)
    assert caplog.text.count("points of both may have been sent twice") == str(named).count("contended")
    assert line.received == points + points
    line.assert_nothing_left(MINUTES)


@pytest.mark.parametrize("order", ["a bbbbb aaaa", "ba ba ba bb aa"])
def test_a_machine_does_not_send_points_delivered_before_its_intent(line, play, order):
    first, second = play(order)
    assert (first["sent"], first["unchanged"], first["contended"]) == (0, first["points"], True)
    assert second["sent"] == second["points"]
    assert line.received == line.generated(MINUTES)
    line.assert_nothing_left(MINUTES)


def test_a_task_can_withhold_points_in_flight_from_another_machine(line, play):
    first, second = play("aaa b aa", b={"on_ambiguous": "fail"})
    assert isinstance(second, AirflowFailException)
    assert "sent before, and it is not known whether they arrived" in str(second)
    assert first["sent"] == line.generated(MINUTES).total()
    assert line.received == line.generated(MINUTES)
    line.assert_nothing_left(MINUTES)


def test_another_task_is_reported_before_anything_is_sent(line, play, caplog):
    """Whoever is killed after its request, or fails, has said it."""
    play("ab aa bb aa bb")
    said = "\n".join(record.getMessage() for record in caplog.records if record.threadName.startswith("b"))
    before, request, _ = said.partition("The receiver accepted a request")
    assert request
    assert "points of both may have been sent twice" in before


@pytest.mark.parametrize("order", ["aaa bbbbb aa", "a bbbbb aaaa", "ab aa bb aa bb", "ab aa bb bb aa"])
@pytest.mark.parametrize(
    "other",
    [{"environments": "staging"}, {"metrics": "FORGE_API_REQUEST_COUNT"}],
    ids=["environment", "metric"],
)
def test_points_delivered_by_another_machine_stay_on_record(line, play, order, other):
    """Other points of the same minutes: they are in the same entry of the ledger."""
    own = {} if "environments" in other else {"metrics": "FORGE_API_REQUEST_LATENCY"}
    for summary in play(order, a=own, b=other):
        assert summary["ambiguous"] == 0
        assert summary["sent"] == summary["points"]
    received = line.received
    for arguments in (own, other):
        again = line.run(MINUTES, **arguments)
        assert (again["sent"], again["unchanged"]) == (0, again["points"])
    assert line.received == received
