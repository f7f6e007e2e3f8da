"""What tasks of a real Airflow tell about themselves: to the receiver, and to Airflow's own metrics."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from demo.dagfile import DAG_ID
from demo.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.timeout(600)

ENOUGH = 5


@pytest.fixture(scope="module")
def telling(deployment: Deployment) -> Deployment:
    """Wait until a few windows have been delivered."""
    wait_for(lambda: deployment.successes() >= ENOUGH, timeout=300, what="a few windows")
    return deployment


def told(deployment: Deployment, dag_id: str = DAG_ID) -> Iterator[tuple[str, str, Any]]:
    """Yield each point of a DAG: its metric, its outcome or error, and itself."""
    for request in deployment.sink.telemetry:
        for point in request.telemetry:
            attributes = dict(point.attributes)
            if attributes.pop("forge.exporter.dag.id") == dag_id:
                yield point.metric, "".join(map(str, attributes.values())), point


def total(deployment: Deployment, metric: str, label: str = "", dag_id: str = DAG_ID) -> float:
    values = [point.data() for name, had, point in told(deployment, dag_id) if (name, had) == (metric, label)]
    return sum(value.as_int + value.as_double for value in values)


def test_the_counted_points_equal_the_received_ones(telling: Deployment) -> None:
    """New ones go on coming, each task's before what the task tells of them."""
    wait_for(
        lambda: total(telling, "forge.exporter.points", "sent") == len(telling.sink.points) > 0,
        timeout=120,
        what="a moment between two windows",
    )


def test_each_task_that_ended_is_a_heartbeat_at_a_moment_of_its_own(telling: Deployment) -> None:
    def beats() -> list[int]:
        return [point.time for metric, _, point in told(telling) if metric == "forge.exporter.heartbeat"]

    def ended() -> int:
        tasks = telling.airflow.api.task_instances(DAG_ID)
        return sum(task["state"] == "success" for task in tasks)

    wait_for(lambda: len(beats()) == ended(), timeout=120, what="a moment between two tasks")
    assert len({*beats()}) == len(beats())


def test_the_calls_it_counts_are_those_that_the_gateway_got(telling: Deployment) -> None:
    def calls_of_tasks() -> int:
        return sum(total(telling, "forge.exporter.calls", dag_id=dag_id) for dag_id in dag_ids(telling))

    def dag_ids(deployment: Deployment) -> set[str]:
        points = [point for request in deployment.sink.telemetry for point in request.telemetry]
        return {str(dict(point.attributes)["forge.exporter.dag.id"]) for point in points}

    wait_for(
        lambda: calls_of_tasks() == len(telling.gateway.calls),
        timeout=120,
        what="a moment between two calls",
    )


def test_the_newest_window_is_the_one_that_was_delivered_last(telling: Deployment) -> None:
    def newest() -> float:
        points = [point for metric, _, point in told(telling) if metric == "forge.exporter.window.end"]
        return max(point.data().as_int for point in points)

    wait_for(
        lambda: newest() == max(call.end for call in telling.metrics_calls()).timestamp(),
        timeout=120,
        what="a moment between two windows",
    )


def test_airflow_s_own_metrics_have_the_same_numbers(telling: Deployment) -> None:
    statsd = telling.statsd
    wait_for(
        lambda: statsd.total("airflow.forge.points.sent") == len(telling.sink.points) > 0,
        timeout=120,
        what="a moment between two windows",
    )
    kinds = {name: kind for name, kind in statsd.kinds().items() if name.startswith("airflow.forge.")}
    assert (
        kinds.items()
        >= {
            "airflow.forge.windows": "c",
            "airflow.forge.points.sent": "c",
            "airflow.forge.wait": "ms",
            "airflow.forge.lag": "g",
        }.items()
    )


def test_a_log_has_a_group_and_a_line_for_each_window(telling: Deployment) -> None:
    [run, *_] = [run for run in telling.dated_runs() if run["state"] == "success"]
    [task] = telling.airflow.api.task_instances(DAG_ID, run["dag_run_id"])
    events = [line["event"] for line in json.loads(telling.airflow.api.task_log(task))["content"]]
    begun = next(n for n, event in enumerate(events) if re.match(r"::group::\d+ \w{3} ", event))
    ended = events.index("::endgroup::", begun)
    title = events[begun].removeprefix("::group::")
    assert events[ended + 1].startswith(f"{title}: ")
    assert Counter(event.partition(":")[0] for event in events)["Summary"] == 1
