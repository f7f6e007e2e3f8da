"""The stack of docker-compose.yaml delivers the oldest windows, once, and warns of the end of its token."""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from demo.api import AirflowApi
from demo.dagfile import DAG_ID
from demo.processes import ManagedProcess
from demo.waiting import wait_for
from tests.deploy.compose import SANDBOX, filled_in, project
from tests.e2e.stack import Stack
from tests.e2e.stored import APP, Stored, generated
from tests.receivers.programs import installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

# At five calls a minute more would take minutes.
WINDOWS = 2
UNDER_WAY = ("queued", "running", "deferred", "up_for_retry")
COVERAGE = "forge_metrics_coverage"
# As near as one alert of the coverage DAG asks for.
TOKEN_DAYS = 20


@dataclass(frozen=True)
class Worked:
    """A stack that has delivered some windows and is at rest.

    Args:
        values: The secrets that its user has put into the env file.
        redis: Every command that Redis has got, a line each, with the number of its database in brackets.
    """

    stack: Stack
    values: dict[str, str]
    api: AirflowApi
    redis: ManagedProcess

    @cached_property
    def delivered(self) -> list[dict[str, Any]]:
        """The task instances that have succeeded; Airflow closes no run of a DAG that is paused."""
        return [ti for ti in self.api.task_instances(DAG_ID) if ti["state"] == "success"]

    @cached_property
    def stored(self) -> Stored:
        """What is in Prometheus."""
        return Stored(self.stack.url("prometheus", 9090))


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worked]:
    """Start the stack, switch the DAG on as its user would, and wait for some windows."""
    values = {**filled_in(), "FORGE_APP_ID": APP}
    last_day = datetime.now(timezone.utc) + timedelta(days=TOKEN_DAYS)
    services = project(**values, **SANDBOX, FORGE_TOKEN_EXPIRES_ON=f"{last_day:%F}")["services"]
    # Nobody has a Grafana as a package.
    del services["grafana"]
    with ExitStack() as exits:
        stack = exits.enter_context(Stack(tmp_path_factory.mktemp("stack"), services))
        url = stack.url("airflow-api-server", 8080)
        api = AirflowApi(url, "admin", values["AIRFLOW_ADMIN_PASSWORD"])
        exits.callback(api.close)
        redis = exits.enter_context(monitor(stack, tmp_path_factory.mktemp("redis")))
        wait_for(lambda: api.has_dag(DAG_ID), timeout=120, what="the DAG", every=0.5)
        api.pause(DAG_ID, paused=False)
        wait_for(lambda: count(api, "success") >= WINDOWS, timeout=240, what="the first windows", every=1.0)
        api.pause(DAG_ID)
        wait_for(lambda: not count(api, *UNDER_WAY), timeout=120, what="the end of all tasks", every=0.5)
        yield Worked(stack, values, api, redis)


def monitor(stack: Stack, directory: Path) -> ManagedProcess:
    """Return what writes down all that the stack's Redis is told."""
    port = urlsplit(stack.url("redis", 6379)).port
    command = [installed("redis-cli"), "-p", str(port), "monitor"]
    # The password is in the environment.
    return ManagedProcess(command, env=stack.environment("redis"), log_file=directory / "monitor.log")


def count(api: AirflowApi, *states: str) -> int:
    return api.count_task_instances(DAG_ID, state=states)


def test_prometheus_has_each_point_of_the_oldest_windows_once(worked: Worked) -> None:
    expected = generated(worked.api, worked.delivered)

    assert expected
    assert {name: worked.stored.total(name) for name in expected} == expected


def test_the_workers_share_limit_and_leases_through_redis(worked: Worked) -> None:
    told = [line for line in worked.redis.log().splitlines() if " [2 " in line]

    assert any('"airflow-provider-forge:lease:' in line for line in told)
    assert any(re.search(r'"airflow-provider-forge:(?!lease:)', line) for line in told)
    # And nothing of it through files.
    assert not [*worked.stack.path("airflow-worker", "/tmp/airflow-provider-forge").glob("*")]


def test_the_coverage_dag_warns_of_the_end_of_the_token(worked: Worked) -> None:
    def ended() -> list[dict[str, Any]]:
        return [ti for ti in worked.api.task_instances(COVERAGE) if ti["state"] in {"failed", "success"}]

    worked.api.pause(COVERAGE, paused=False)
    wait_for(ended, timeout=120, what="a look at what is delivered", every=0.5)
    worked.api.pause(COVERAGE)

    ti = min(ended(), key=lambda ti: ti["start_date"])
    assert ti["state"] == "failed"
    assert "The API token of forge_default" in worked.api.task_log(ti)
    # What ForgeTokenExpiring looks at; the token lasts to the end of its day, and it may be midnight now.
    left = worked.stored.value("min(last_over_time(forge_exporter_token_expiry_seconds[1h]))")
    assert TOKEN_DAYS - 1 < left / 86400 <= TOKEN_DAYS + 1


def test_the_ledger_is_in_its_volume(worked: Worked) -> None:
    ledger = worked.stack.path("airflow-worker", "/opt/airflow/ledger")

    assert [path for path in ledger.rglob("*") if path.is_file()]


def test_the_commands_work_in_the_worker(worked: Worked) -> None:
    environment = worked.stack.environment("airflow-worker")
    command = ["airflow", "forge", "coverage", "--json"]

    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)

    # There are gaps, of course.
    assert done.returncode == 1, done.stderr
    assert '"delivered"' in done.stdout


def test_a_task_can_be_read_in_the_ui(worked: Worked) -> None:
    assert "Summary: " in worked.api.task_log(worked.delivered[0])


def test_no_service_prints_a_secret(worked: Worked) -> None:
    of_tasks = list(worked.stack.path("airflow-worker", "/opt/airflow/logs").rglob("attempt=*.log"))
    texts = [*worked.stack.logs().values(), *(path.read_text() for path in of_tasks)]
    secrets = {
        key: value for key, value in worked.values.items() if re.search("KEY|PASSWORD|SECRET|TOKEN", key)
    }

    assert len(of_tasks) >= WINDOWS
    assert not [key for key, value in secrets.items() if any(value in text for text in texts)]
