"""Coverage in a real Airflow: gaps are told of once, and healed by the printed command and by `heal`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pendulum
import pytest

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import Fault, OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW, Window, ceil
from demo.airflow import StandaloneAirflow
from demo.api import parse_time
from demo.dagfile import DAG_ID, SHIPPED, install_dag
from demo.waiting import wait_for
from tests.e2e.dag_runs import connections
from tests.e2e.deployment import interval_end
from tests.e2e.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.sandbox import Point

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SHIPPED_COVERAGE = SHIPPED.with_name("forge_metrics_coverage.py")
COVERAGE, HEALING = "forge_metrics_coverage", "healing_coverage"
UNLIMITED = {"rate_limit_calls": 1000, "rate_limit_seconds": 1}
# The destination keeps points for so short that all of a short catchup is about to expire.
KEEP, RETENTION = "6h", timedelta(hours=5, minutes=30)
TOKEN_DAYS = 5
EXPIRES = datetime.now(timezone.utc).date() + timedelta(days=TOKEN_DAYS)

Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class Look:
    """What a run of a coverage DAG has come to."""

    state: str
    log: str
    summary: dict[str, Any]


@dataclass
class Watched:
    """An Airflow with both shipped DAGs, whose catchup has left gaps."""

    airflow: StandaloneAirflow
    gateway: SandboxGateway
    sink: OtlpSink

    def look(self, dag_id: str = COVERAGE) -> Look:
        """Run a coverage DAG."""
        api = self.airflow.api
        run_id = api.trigger(dag_id)
        wait_for(lambda: api.run(dag_id, run_id)["end_date"], timeout=180, what=f"the run of {dag_id}")
        [task] = api.task_instances(dag_id, run_id)
        summary = api.xcom(dag_id, run_id, DAG_ID) if task["state"] == "success" else {}
        return Look(task["state"], api.task_log(task), summary)

    def commands(self, span: Span) -> list[str]:
        """Return what the command `coverage` prints to heal a gap."""
        access = {"AIRFLOW_API_URL": self.airflow.url, "AIRFLOW_API_TOKEN": self.airflow.api.token}
        command = [sys.executable, "-m", "airflow_provider_forge", "coverage"]
        env = {**self.airflow.env, **access}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        printed = re.findall(r"airflow backfill create .*", done.stdout)
        # What had expired before catchup began is no gap.
        assert done.returncode == int(bool(printed)), done.stderr
        return [line for line in printed if f"--from-date {text(span[0])} " in line]

    def runs_of(self, span: Span) -> list[dict[str, Any]]:
        """Return the runs whose interval begins in a gap."""
        dated = [run for run in self.airflow.api.runs(DAG_ID) if run["logical_date"]]
        return [run for run in dated if span[0] <= parse_time(run["logical_date"]) < span[1]]

    def received(self, span: Span) -> Counter[Point]:
        """Return how often each point of a time has come; also those that have not."""
        received = Counter(self.sink.points)
        points = self.gateway.generated(*span, environments=["production"], metrics=DEFAULT_METRICS)
        return Counter({point: received[point] for point in points})


def text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture(scope="module")
def first() -> datetime:
    """The start of a window that catchup is certain to come to."""
    return ceil(datetime.now(timezone.utc) - RETENTION, MAX_WINDOW) + MAX_WINDOW


@pytest.fixture(scope="module")
def two(first: datetime) -> Span:
    """A gap of two windows."""
    return first + 4 * MAX_WINDOW, first + 6 * MAX_WINDOW


@pytest.fixture(scope="module")
def one(first: datetime) -> Span:
    """A gap of one window."""
    return first + 8 * MAX_WINDOW, first + 9 * MAX_WINDOW


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, two: Span, one: Span) -> Iterator[Watched]:
    home = tmp_path_factory.mktemp("coverage")
    install_dag(home / "dags", operator={"revisit_after": None, "live_first": False}, retention=RETENTION)
    install_coverage_dags(home / "dags")
    with SandboxGateway(rate_limit_calls=None) as gateway, OtlpSink() as sink, postgres() as database:
        extras = {**UNLIMITED, "token_expires_on": EXPIRES.isoformat()}
        env = connections(gateway, sink.url, forge=extras, max_age=KEEP)
        with StandaloneAirflow(home, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database, **env) as airflow:
            for start, end in (two, one):
                refusal = Fault("query_error", status_code=400, operation="appMetrics", start=start, end=end)
                gateway.add_fault(refusal)
            catch_up(airflow)
            gateway.clear_faults()
            yield Watched(airflow, gateway, sink)


def install_coverage_dags(dags: Path) -> None:
    """Copy the shipped DAG that watches, and another one that heals; tests say when they run."""
    source = SHIPPED_COVERAGE.read_text().replace('schedule="12 * * * *"', "schedule=None")
    (dags / SHIPPED_COVERAGE.name).write_text(source)
    healing = source.replace(f'"{COVERAGE}"', f'"{HEALING}"')
    healing = healing.replace('"otlp_default"}', '"otlp_default", "heal": True}')
    (dags / "healing.py").write_text(healing)


def catch_up(airflow: StandaloneAirflow) -> None:
    """Unpause all DAGs, and wait until the schedule has reached the present and all its runs have ended."""
    api = airflow.api
    for dag_id in (DAG_ID, COVERAGE, HEALING):
        airflow.wait_for_dag(dag_id)
        api.pause(dag_id, paused=False)

    def is_done() -> bool:
        runs = api.runs(DAG_ID)
        horizon = datetime.now(timezone.utc) - 2 * MAX_WINDOW
        reached = bool(runs) and max(map(interval_end, runs)) > horizon
        return reached and all(run["end_date"] for run in runs)

    wait_for(is_done, timeout=300, what="the end of catchup", every=1.0)


@pytest.fixture(scope="module")
def looks(watched: Watched) -> list[Look]:
    """Three looks in a row."""
    return [watched.look() for _ in range(3)]


@pytest.fixture(scope="module")
def backfilled(watched: Watched, looks: list[Look], two: Span) -> list[dict[str, Any]]:
    """Run the command that is printed for a gap, and return the runs of its windows.

    One of them is green before, as where the record was erased: its window is missing all the same.
    """
    api = watched.airflow.api
    api.set_run_state(DAG_ID, watched.runs_of(two)[0]["dag_run_id"], "success")
    [command] = watched.commands(two)
    program, *arguments = shlex.split(command)
    run = [str(Path(sys.executable).with_name(program)), *arguments]
    api.pause(DAG_ID)
    done = subprocess.run(run, env=watched.airflow.env, capture_output=True, text=True, check=False)
    api.pause(DAG_ID, paused=False)
    assert done.returncode == 0, done.stderr

    def ended() -> list[dict[str, Any]]:
        runs = watched.runs_of(two)
        return runs if all(run["run_type"] == "backfill" and run["end_date"] for run in runs) else []

    return wait_for(ended, timeout=180, what="the backfill")


@pytest.fixture(scope="module")
def healing(watched: Watched, backfilled: list[dict[str, Any]]) -> Look:
    """Let the DAG that heals look once, and wait for the run that it has started."""
    api = watched.airflow.api
    look = watched.look(HEALING)
    [run] = api.runs(DAG_ID, run_type="operator_triggered")
    run_id = run["dag_run_id"]
    wait_for(lambda: api.run(DAG_ID, run_id)["end_date"], timeout=180, what="the healing run")
    return look


@pytest.fixture(scope="module")
def healed(watched: Watched, healing: Look) -> Look:
    """Let it look once more."""
    return watched.look(HEALING)


def test_catchup_has_left_gaps(watched: Watched, two: Span, one: Span) -> None:
    assert len(watched.runs_of(two)) == 2
    assert len(watched.runs_of(one)) == 1


def test_one_check_fails_and_names_the_gaps_and_the_others_succeed(
    looks: list[Look], two: Span, one: Span
) -> None:
    assert [look.state for look in looks] == ["failed", "success", "success"]
    assert "3 windows of 15 minutes not delivered, in 2 gaps" in looks[0].log
    for span in (two, one):
        gap = Window(*map(pendulum.instance, span)).humanize()
        assert f"{gap}: " in looks[0].log
        assert f"Missing, and already reported: {gap}: " in looks[1].log


def test_the_same_failure_reports_the_token_with_a_legible_date(looks: list[Look]) -> None:
    assert f"expires in {TOKEN_DAYS} days ({EXPIRES.day} {EXPIRES:%B %Y})" in looks[0].log
    assert looks[1].summary["token_days"] == TOKEN_DAYS


def test_the_command_that_coverage_prints_heals_its_gap(
    watched: Watched, backfilled: list[dict[str, Any]], two: Span
) -> None:
    assert [run["state"] for run in backfilled] == ["success", "success"]
    assert set(watched.received(two).values()) == {1}
    assert watched.commands(two) == []


def test_heal_starts_a_run_for_the_rest(watched: Watched, healing: Look, one: Span) -> None:
    assert healing.state == "success"
    assert healing.summary["healing"] == [f"{text(one[0])}/{text(one[1])}"]
    [run] = watched.airflow.api.runs(DAG_ID, run_type="operator_triggered")
    assert run["state"] == "success"
    assert set(watched.received(one).values()) == {1}


def test_then_coverage_is_complete_and_nothing_is_healed_twice(
    watched: Watched, healed: Look, first: datetime, two: Span, one: Span
) -> None:
    assert healed.state == "success"
    assert healed.summary["healing"] == []
    assert watched.commands(two) == watched.commands(one) == []
    until = max(map(interval_end, watched.runs_of((first, datetime.now(timezone.utc)))))
    assert set(watched.received((first, until - MAX_WINDOW)).values()) == {1}
