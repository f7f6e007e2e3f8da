"""A hard night: whatever fails, dies or is run again, each point is at the receiver once when it is over.

Only what leaves no doubt fails here: a receiver that keeps points and does not say so is the matter of
`test_crashes`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import Fault, OtlpSink, SandboxGateway, Scenario
from airflow_provider_forge.windows import MAX_WINDOW
from demo.api import parse_time
from demo.dagfile import DAG_ID, TASK_ID, install_dag
from demo.waiting import wait_for
from tests.e2e.components import ComponentAirflow
from tests.e2e.dag_runs import connections
from tests.e2e.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_forge.sandbox import Point

pytestmark = pytest.mark.timeout(3000)

RATE = {"rate_limit_calls": 10, "rate_limit_seconds": 3.0}
# The gateway counts arrivals, and everything that dies and starts keeps this machine busy.
RATE_OF_THE_GATEWAY = {**RATE, "rate_limit_seconds": 2.0}
# A few batches for each window.
MAX_BODY_BYTES = 32768
WINDOWS_OF_A_SHORT_NIGHT = 24
# How late the sandbox's points can be.
LATENESS = timedelta(hours=6)
# A dead scheduler's tasks are started anew after half a minute, not after five.
SETTINGS = {"AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5"}
REFUSED_BEFORE_THE_STOP = 5

# Of all calls a tenth each; with these seeds a short night sees most kinds.
GATEWAY_FAULTS = [
    Fault("status", status=503, share=0.0125, seed=46),
    Fault("html", status=502, share=0.0125, seed=47),
    Fault("reset", share=0.0125, seed=48),
    Fault("truncate", share=0.0125, seed=49),
    Fault("errors", share=0.0125, seed=50),
    Fault("query_error", share=0.0125, seed=51),
    Fault("rate_limited", seconds=1.0, share=0.0125, seed=52),
    Fault("null", share=0.0125, seed=53),
]
SINK_FAULTS = [
    Fault("status", status=503, share=0.02, seed=48),
    Fault("status", status=429, retry_after="1", share=0.02, seed=49),
    Fault("html", status=502, share=0.02, seed=50),
    Fault("reset_before", share=0.02, seed=51),
    Fault("hang", seconds=1.0, share=0.02, seed=52),
]

Identity = tuple[Any, ...]


def identity(point: Point) -> Identity:
    """Return what tells a point from others, whatever its value."""
    return (point.metric, point.kind, point.temporality, point.attributes, point.start, point.time)


class Clock:
    """The gateway's clock: late points need hours to appear."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead

    def advance(self, duration: timedelta) -> None:
        self._ahead += duration.total_seconds()


@dataclass
class Night:
    """An Airflow that catches up with many windows while everything around it misbehaves.

    Args:
        windows: How many there are to catch up with.
    """

    airflow: ComponentAirflow
    gateway: SandboxGateway
    sink: OtlpSink
    clock: Clock
    windows: int
    began: float = field(default_factory=time.time)

    def begin(self) -> None:
        for fault in GATEWAY_FAULTS:
            self.gateway.add_fault(fault)
        self._misbehave()
        self.airflow.wait_for_dag(DAG_ID)
        self.airflow.api.pause(DAG_ID, paused=False)

    def wait_until_delivered(self, windows: int) -> None:
        wait_for(
            lambda: self.airflow.api.count_runs(DAG_ID, state="success") >= windows,
            timeout=900,
            what=f"{windows} windows",
        )

    @contextmanager
    def receiver_down(self) -> Iterator[None]:
        """Stop the receiver, with no request half answered: what became of it would be in doubt."""
        self.sink.clear_faults()
        self.sink.add_fault(Fault("status", status=503))
        closed = self.sink.summary()["refused"] + REFUSED_BEFORE_THE_STOP
        wait_for(lambda: self.sink.summary()["refused"] >= closed, timeout=120, what="refused requests")
        self.sink.stop()
        yield
        self.sink.start()
        self._misbehave()

    def run_again(self, start: datetime) -> None:
        """Backfill everything from `start` on with "All Runs"."""
        wait_for(self._no_backfill, timeout=900, what="the end of the backfill before")
        self.airflow.api.backfill(DAG_ID, start, self.end, reprocess="completed")

    def clear_some(self, count: int) -> None:
        """Clear runs that have succeeded."""
        api = self.airflow.api
        runs = [run["dag_run_id"] for run in api.runs(DAG_ID, state="success")]
        for run_id in random.Random(1).sample(runs, count):
            api.clear(DAG_ID, run_id)

    def wait_for_all(self) -> None:
        """Wait until all runs have succeeded."""

        def all_delivered() -> bool:
            states = Counter(run["state"] for run in self.airflow.api.runs(DAG_ID))
            assert not states["failed"], self._last_words()
            return states["success"] >= self.windows and states.keys() == {"success"}

        wait_for(all_delivered, timeout=1500, what="the success of all runs", every=1.0)

    def _misbehave(self) -> None:
        self.sink.clear_faults()
        for fault in SINK_FAULTS:
            self.sink.add_fault(fault)

    def _last_words(self) -> str:
        api = self.airflow.api
        failed = [task for task in api.task_instances(DAG_ID) if task["state"] == "failed"]
        return api.task_log(failed[0])

    def _no_backfill(self) -> bool:
        backfills = self.airflow.api.get("backfills", dag_id=DAG_ID)["backfills"]
        return all(backfill["completed_at"] for backfill in backfills)

    @cached_property
    def first(self) -> datetime:
        """Start of the first window."""
        return min(parse_time(run["data_interval_start"]) for run in self.airflow.api.runs(DAG_ID))

    @property
    def end(self) -> datetime:
        """End of the last window to catch up with."""
        return self.first + self.windows * MAX_WINDOW


class Outcome:
    """What there was to be delivered, and what arrived."""

    def __init__(self, night: Night) -> None:
        api, gateway = night.airflow.api, night.gateway
        self.night = night
        self.points = night.sink.points
        self.received = Counter(map(identity, self.points))
        self.runs = api.runs(DAG_ID, state="success")
        self.tries = Counter(task["try_number"] for task in api.task_instances(DAG_ID))
        self.summaries = [api.xcom(DAG_ID, run["dag_run_id"], TASK_ID) for run in self.runs]
        self.failed_calls = sum(call.outcome.startswith("fault:") for call in gateway.calls)
        self._answers = {
            call.request_id: self.visible(call.start, call.end, call.received_at)
            for call in gateway.calls
            if call.operation == "appMetrics" and call.outcome == "ok"
        }

    def visible(self, start: datetime, end: datetime, at: float) -> list[Point]:
        """Return what a call at that time sees."""
        moment = datetime.fromtimestamp(at, timezone.utc)
        chosen = {"environments": ["production"], "metrics": DEFAULT_METRICS}
        return self.night.gateway.visible(start, end, moment, **chosen)

    def answers_to(self, summary: dict[str, Any]) -> list[Point]:
        """Return the points that the last try of a task got from the gateway."""
        return [point for request_id in summary["request_ids"] for point in self._answers[request_id]]

    @cached_property
    def visible_from_the_beginning(self) -> set[Identity]:
        """The points that nobody had to wait for."""
        return set(map(identity, self.visible(self.night.first, self.night.end, self.night.began)))

    @cached_property
    def reported(self) -> set[Identity]:
        """The points that a task has said to be delivered."""
        return {identity(point) for summary in self.summaries for point in self.answers_to(summary)}

    @cached_property
    def answered(self) -> set[Point]:
        """All that the gateway has ever answered with, values that were raised later among them."""
        return {point for answer in self._answers.values() for point in answer}


@contextmanager
def night(home: Path, windows: int) -> Iterator[Night]:
    """Start everything, with the DAG as it is shipped but for its retries and how far it goes back."""
    install_dag(
        home / "dags",
        operator={"live_first": False},
        retry_delay=timedelta(seconds=1),
        retention=(windows + 1) * MAX_WINDOW,
        settle=timedelta(0),
    )
    clock = Clock()
    with (
        SandboxGateway(Scenario(lateness=True), clock=clock, **RATE_OF_THE_GATEWAY) as gateway,
        OtlpSink() as sink,
        postgres() as database,
    ):
        partners = connections(gateway, sink.url, forge=RATE, max_body_bytes=MAX_BODY_BYTES)
        with ComponentAirflow(home, database, **SETTINGS, **partners) as airflow:
            yield Night(airflow, gateway, sink, clock, windows)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(WINDOWS_OF_A_SHORT_NIGHT, id="short"),
        pytest.param(96, id="whole", marks=pytest.mark.long),
    ],
)
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Live through a night of so many windows; in a short one nobody dies, and catchup is left alone."""
    windows = request.param
    with night(tmp_path_factory.mktemp("night"), windows) as hard:
        hard.begin()
        hard.wait_until_delivered(windows // 4)
        if windows > WINDOWS_OF_A_SHORT_NIGHT:
            with hard.receiver_down():
                hard.airflow.kill("scheduler")
                hard.airflow.start("scheduler")
            hard.wait_until_delivered(windows // 2)
            # While catchup goes on.
            hard.run_again(hard.first)
            hard.wait_until_delivered(windows // 2)
        hard.clear_some(windows // 9)
        hard.wait_for_all()
        # In the morning points appear that were late.
        hard.clock.advance(LATENESS / 2)
        hard.run_again(hard.end - LATENESS / 2)
        hard.wait_for_all()
        # No live window is to begin while the outcome is looked at.
        hard.airflow.stop("scheduler")
        return Outcome(hard)


def test_each_window_has_one_run(outcome: Outcome) -> None:
    starts = sorted(parse_time(run["data_interval_start"]) for run in outcome.runs)

    assert len(starts) >= outcome.night.windows
    assert starts == [starts[0] + n * MAX_WINDOW for n in range(len(starts))]


def test_no_point_arrives_twice(outcome: Outcome) -> None:
    assert set(outcome.received.values()) == {1}


def test_every_point_that_could_be_seen_arrives(outcome: Outcome) -> None:
    """What came too late for the last task that asked is no matter of this night."""
    received = outcome.received.keys()

    assert outcome.visible_from_the_beginning
    assert outcome.visible_from_the_beginning <= received
    assert outcome.reported <= received
    assert received <= set(map(identity, outcome.answered))


def test_each_point_has_a_value_that_the_gateway_gave_it(outcome: Outcome) -> None:
    assert set(outcome.points) <= outcome.answered


def test_the_summaries_account_for_each_point(outcome: Outcome) -> None:
    arrived = {identity(point): point for point in outcome.points}
    for summary in outcome.summaries:
        answers = outcome.answers_to(summary)
        other_value = [point for point in answers if arrived[identity(point)] != point]

        assert summary["points"] == len(answers)
        assert summary["points"] == summary["sent"] + summary["unchanged"] + summary["changed"]
        assert summary["changed"] == len(other_value)
        assert summary["rejected"] == summary["expired"] == 0


def test_the_night_was_hard(outcome: Outcome) -> None:
    night = outcome.night

    assert outcome.failed_calls
    assert night.sink.summary()["refused"]
    assert max(outcome.tries) > 1
    assert outcome.received.keys() - outcome.visible_from_the_beginning
    assert night.gateway.violations == 0
