"""The whole stack in a Docker Engine becomes healthy, delivers, and loses nothing to a service that dies.

The images are stand-ins: see images/Dockerfile. This proves that Compose and an engine accept the file, and
that our Dockerfiles, mounts, users, volumes, networks, health checks, dependencies, restarts and limits work.
It proves nothing about the real images' entrypoints, or about Grafana.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_forge.windows import MAX_WINDOW
from demo.api import parse_time
from demo.dagfile import DAG_ID
from demo.waiting import wait_for
from tests.compose import images
from tests.compose.engine import Engine, require_engine
from tests.compose.stack import CATCHUP, Stack
from tests.deploy.compose import SANDBOX, project
from tests.e2e.stored import APP, Stored, generated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.api import AirflowApi

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

KILLED = ("postgres", "redis", "airflow-worker", "otel-collector")
AT_ONCE = 3
"""Windows under way when a service dies: as many as tasks run at once."""

AWAY = (httpx.HTTPError, RuntimeError)
"""Errors of Airflow's API and its client while a service is away."""

Json = dict[str, Any]


class Scene:
    """The stack, with all services healthy, and the DAG unpaused."""

    def __init__(self, stack: Stack, api: AirflowApi) -> None:
        self.stack = stack
        self.api = api
        wait_for(lambda: api.has_dag(DAG_ID), timeout=300, what="the DAG", every=1.0)
        api.pause(DAG_ID, paused=False)

    @property
    def stored(self) -> Stored:
        """The Prometheus of the stack."""
        return Stored(self.stack.url(9090))

    def start_runs(self) -> list[str]:
        """Ask for windows older than all before, and wait until one is under way; return the runs' ids."""
        dated = [run for run in self.api.runs(DAG_ID) if run["logical_date"]]
        oldest = min(parse_time(run["logical_date"]) for run in dated)
        started = [self.api.trigger(DAG_ID, oldest - n * MAX_WINDOW) for n in range(1, AT_ONCE + 1)]
        under_way = {"logical_date_lt": oldest.isoformat(), "state": "running"}
        wait_for(lambda: self.api.count_task_instances(DAG_ID, **under_way), timeout=180, what="a task")
        return started

    def wait_for_runs(self, count: int) -> None:
        """Wait until all runs, and at least so many, have succeeded."""

        def all_delivered() -> bool:
            try:
                runs = self.api.runs(DAG_ID)
            except AWAY:
                return False
            states = [run["state"] for run in runs]
            assert "failed" not in states
            return len(states) >= count and set(states) == {"success"}

        wait_for(all_delivered, timeout=600, what="all windows", every=1.0)

    def delivered(self) -> list[Json]:
        """Return the tasks of all runs, once none is under way."""
        self.wait_for_runs(CATCHUP)
        return self.api.task_instances(DAG_ID)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, healthy, and nothing of it left afterwards."""
    require_engine()
    directory = tmp_path_factory.mktemp("engine")
    with Engine(directory) as engine:
        images.build(engine, directory / "context")
        stack = Stack(engine, directory / "repository")
        try:
            stack.up()
            yield stack
        finally:
            stack.down("--volumes", "--remove-orphans")


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    with closing(stack.api()) as api:
        yield Scene(stack, api)


def test_all_services_are_healthy(stack: Stack) -> None:
    states = {name: each["State"]["Health"]["Status"] for name, each in stack.services().items()}

    assert set(states) == project(**SANDBOX)["services"].keys() - {"airflow-migrate"}
    assert set(states.values()) == {"healthy"}
    assert stack.values["FORGE_APP_ID"] == APP


def test_points_arrive_in_prometheus(scene: Scene) -> None:
    scene.wait_for_runs(CATCHUP)
    expected = generated(scene.api, scene.delivered())

    assert expected
    assert {name: scene.stored.total(name) for name in expected} == expected


@pytest.mark.parametrize("service", KILLED)
def test_a_service_that_is_killed_comes_back_and_the_windows_under_way_arrive(
    scene: Scene, service: str
) -> None:
    before = len(scene.api.runs(DAG_ID))
    scene.start_runs()
    scene.stack.kill(service)
    scene.wait_for_runs(before + AT_ONCE)


def test_the_windows_under_way_survive_down_and_up(scene: Scene) -> None:
    before = len(scene.api.runs(DAG_ID))
    scene.start_runs()
    scene.stack.down()
    assert not scene.stack.services()
    scene.stack.up()
    scene.wait_for_runs(before + AT_ONCE)


def test_prometheus_has_each_point_of_all_windows_once(scene: Scene) -> None:
    delivered = scene.delivered()
    expected = generated(scene.api, delivered)
    stored = {name: scene.stored.total(name) for name in expected}
    print(f"{len(delivered)} windows, tries {sorted(task['try_number'] for task in delivered)}")
    for name, total in sorted(stored.items()):
        print(f"{name}: {total.samples} samples, sum {total.value:g}; generated {expected[name]}")

    assert len(delivered) >= CATCHUP
    assert stored == expected
