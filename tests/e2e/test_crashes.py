"""A task that dies at any step of its way: Airflow tries again, and each point is there once.

But for one moment: between the receiver's answer and its record nobody can know what became of a batch. Its
points are sent again, may be there twice, and the summary says how many they are.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.sandbox import Fault
from demo.waiting import wait_for
from tests.e2e.deliveries import Deliveries, Delivery, deliveries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_forge.sandbox import OtlpSink, Point

pytestmark = pytest.mark.timeout(600)

SETTINGS = {
    # The end of a supervisor is noticed by its silence,
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # and that of a scheduler after thirty seconds of its silence.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
}

NOTHING_UNDER_WAY = ("before the call", "after the call", "after the record")
INTENDED_AND_NOT_SENT = ("within the first intent", "after the intent", "between batches")
# And which batch it is.
SENT_AND_NOT_RECORDED = {
    "after the post and before the record": 0,
    "after the second post and before the record": 1,
}
ALL_STEPS = (*NOTHING_UNDER_WAY, *INTENDED_AND_NOT_SENT, *SENT_AND_NOT_RECORDED)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deliveries]:
    with deliveries(tmp_path_factory.mktemp("crashes"), **SETTINGS) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger")


@pytest.fixture(scope="module")
def airflow_with_files(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Deliveries]:
    """Deliver with the record in files instead of Airflow's own store."""
    ledger = {"ledger_url": files.as_uri()}
    with deliveries(tmp_path_factory.mktemp("crashes"), otlp=ledger, **SETTINGS) as airflow:
        yield airflow


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="task"),
        pytest.param(True, id="task-and-supervisor", marks=pytest.mark.long),
    ],
)
def died(airflow: Deliveries, request: pytest.FixtureRequest) -> dict[str, Delivery]:
    """Deliver windows with tasks that die once, each at another step."""
    return deliver_and_die(airflow, with_supervisor=request.param)


def deliver_and_die(airflow: Deliveries, *, with_supervisor: bool = False) -> dict[str, Delivery]:
    runs = {step: airflow.begin(step, with_supervisor=with_supervisor) for step in ALL_STEPS}
    return {step: airflow.finish(*run) for step, run in runs.items()}


def of_steps(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("step", names, ids=[name.replace(" ", "-") for name in names])


@of_steps(*NOTHING_UNDER_WAY)
def test_with_nothing_under_way_nothing_is_in_doubt(died: dict[str, Delivery], step: str) -> None:
    delivery = died[step]

    assert_died(delivery, times=1)
    assert delivery.received == delivery.generated
    assert delivery.summary["ambiguous"] == 0


@of_steps(*INTENDED_AND_NOT_SENT)
def test_a_batch_that_never_left_is_sent_once(died: dict[str, Delivery], step: str) -> None:
    delivery = died[step]

    assert_died(delivery, times=1)
    assert delivery.received == delivery.generated
    # That it never left is more than the record can tell.
    assert delivery.summary["ambiguous"] > 0


@of_steps(*SENT_AND_NOT_RECORDED)
def test_an_unacknowledged_batch_arrives_twice_and_is_counted_as_ambiguous(
    died: dict[str, Delivery], step: str
) -> None:
    delivery = died[step]

    assert_died(delivery, times=1)
    unrecorded = without_record(delivery, step)
    assert delivery.received == delivery.generated + unrecorded
    assert delivery.summary["ambiguous"] == unrecorded.total()
    assert "one duplicate of each is possible" in delivery.log


@pytest.mark.long
def test_two_crashes_in_a_row(airflow: Deliveries) -> None:
    step = "after the post and before the record"
    delivery = airflow.deliver(step, step)

    assert_died(delivery, times=2)
    batch = without_record(delivery, step)
    assert delivery.received == delivery.generated + batch + batch
    assert delivery.summary["ambiguous"] == batch.total()


@pytest.mark.long
def test_a_task_that_outlives_its_scheduler(airflow: Deliveries) -> None:
    """The next scheduler takes it for dead and starts another one for the same window beside it.

    Until its next heartbeat or record the first one goes on, and so has to be waited for.
    """
    with slow_receiver(airflow.sink, seconds=6):
        run_id, start = airflow.begin()
        wait_for(lambda: airflow.batches(start), timeout=60, what="the first batch")
        airflow.airflow.kill_alone("scheduler")
        airflow.airflow.start("scheduler")
        wait_for(lambda: airflow.tries(run_id) == 2, timeout=120, what="the second task")
    delivery = airflow.finish(run_id, start)

    assert_died(delivery, times=1)
    assert_all_surplus_is_named(delivery)


@pytest.mark.long
def test_an_api_server_that_is_away_when_a_batch_is_to_be_recorded(airflow: Deliveries) -> None:
    """Airflow's record is behind the API server: it is asked again until it is back.

    On a busy machine that can take longer than Airflow has patience with the task: then there is a second.
    """
    with slow_receiver(airflow.sink, seconds=2):
        run_id, start = airflow.begin()
        wait_for(lambda: airflow.batches(start), timeout=60, what="the first batch")
        # The task's supervisor is a child of the scheduler.
        log = airflow.airflow.processes["scheduler"].log
        before = len(log())
        airflow.airflow.kill("api-server")
        wait_for(lambda: "the 2nd time calling it" in log()[before:], timeout=60, what="a request in vain")
        airflow.airflow.start("api-server")
    delivery = airflow.finish(run_id, start)

    assert delivery.tries <= 2
    assert_all_surplus_is_named(delivery)


@pytest.mark.long
def test_a_ledger_in_files_survives_crashes_as_well(airflow_with_files: Deliveries, files: Path) -> None:
    for step, delivery in deliver_and_die(airflow_with_files).items():
        assert_died(delivery, times=1)
        assert delivery.received == delivery.generated + without_record(delivery, step), step
    assert list(files.rglob("*.json"))


def assert_all_surplus_is_named(delivery: Delivery) -> None:
    surplus = delivery.received - delivery.generated
    assert not delivery.generated - delivery.received
    # The batch that was under way when the first task was told to end.
    assert surplus in [Counter(), *delivery.batches]
    assert surplus.total() <= delivery.summary["ambiguous"]


def without_record(delivery: Delivery, step: str) -> Counter[Point]:
    """Return the batch that was sent and not recorded."""
    return delivery.batches[SENT_AND_NOT_RECORDED[step]] if step in SENT_AND_NOT_RECORDED else Counter()


@contextmanager
def slow_receiver(sink: OtlpSink, seconds: float) -> Iterator[None]:
    """Have every batch under way for so long after the receiver has kept it."""
    sink.add_fault(Fault("slow", seconds=seconds))
    yield
    sink.clear_faults()


def assert_died(delivery: Delivery, times: int) -> None:
    assert delivery.tries == times + 1
    # With a single batch most steps would be the same.
    assert len(delivery.batches) >= 3
