"""The runs of another DAG, with a stand-in for Airflow's supervisor; tests/e2e has the real one."""

from __future__ import annotations

import datetime as dt

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, OKResponse, TriggerDagRun

from airflow_provider_forge.exceptions import ConfigurationError, RetryableError
from airflow_provider_forge.utils.dag_runs import DagRuns

NOW = dt.datetime(2026, 11, 23, 12, 12, 34, tzinfo=dt.timezone.utc)
FORM = {"from": "2026-11-20T05:00:00Z", "to": "2026-11-20T06:00:00Z"}


class TaskInstance:
    """Counts runs as Airflow does; `runs` are their logical dates and states."""

    def __init__(self, *runs: tuple[dt.datetime | None, str]) -> None:
        self.runs = runs
        self.queries: list[int] = []

    def get_dr_count(self, dag_id, logical_dates=None, run_ids=None, states=None):
        assert (dag_id, run_ids) == ("forge_metrics", None)
        self.queries.append(len(logical_dates or ()))
        return sum(
            (states is None or state in states) and (logical_dates is None or date in logical_dates)
            for date, state in self.runs
        )


def ago(**duration):
    return (NOW - dt.timedelta(**duration)).replace(second=0)


@pytest.mark.parametrize(
    ("date", "state", "counted"),
    [
        (ago(hours=5), "running", 1),
        (ago(hours=5), "queued", 1),
        (ago(hours=5), "failed", 0),
        (ago(hours=5), "success", 0),
        (ago(hours=2), "running", 1),
        (ago(hours=1, minutes=59), "running", 0),
        (ago(minutes=12), "queued", 0),
        (ago(), "running", 0),
        (None, "queued", 1),
        # By hand, at any moment.
        (NOW - dt.timedelta(minutes=20), "running", 1),
    ],
)
def test_runs_under_way_are_those_that_are_not_live(date, state, counted):
    assert DagRuns("forge_metrics", TaskInstance((date, state))).count_active(NOW) == counted


def test_all_of_them_are_counted():
    runs = [(ago(hours=hours), "running") for hours in range(10)]
    assert DagRuns("forge_metrics", TaskInstance(*runs)).count_active(NOW) == 8


DATES = [ago(hours=number) for number in range(300)]


@pytest.mark.parametrize("newest", [0, 1, 47, 95, 96, 97, 191, 192, 298, 299])
def test_the_newest_run_is_found_in_few_short_queries(newest):
    ti = TaskInstance((DATES[newest], "failed"), (DATES[-1], "success"), (None, "running"))
    assert DagRuns("forge_metrics", ti).newest_at(DATES) == DATES[newest]
    assert len(ti.queries) <= newest // 96 + 8
    assert max(ti.queries) <= 96, "they are part of a URL"


def test_without_a_run_there_is_no_newest_one():
    assert DagRuns("forge_metrics", TaskInstance((None, "running"))).newest_at(DATES) is None
    assert DagRuns("forge_metrics", TaskInstance()).newest_at([]) is None


@pytest.fixture
def supervisor(monkeypatch):
    """Airflow's supervisor; `answer` is what it says or raises."""

    class Supervisor:
        def __init__(self) -> None:
            self.messages: list[TriggerDagRun] = []
            self.answer: object = OKResponse(ok=True)

        def send(self, msg):
            self.messages.append(msg)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return supervisor


def test_a_run_is_started_with_the_fields_of_its_form(supervisor):
    DagRuns("forge_metrics", None).start("heal__1", FORM)
    [message] = supervisor.messages
    assert (message.dag_id, message.run_id, message.conf) == ("forge_metrics", "heal__1", FORM)
    assert message.logical_date is None


def test_a_run_that_is_there_is_not_started_again(supervisor):
    supervisor.answer = ErrorResponse(error=ErrorType.DAGRUN_ALREADY_EXISTS)
    DagRuns("forge_metrics", None).start("heal__1", FORM)


@pytest.mark.parametrize("raised", [True, False])
def test_a_dag_that_cannot_be_run_is_named(supervisor, raised):
    response = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404})
    supervisor.answer = AirflowRuntimeError(response) if raised else response
    with pytest.raises(ConfigurationError, match=r"^export_dag_id: Airflow did not start a run of"):
        DagRuns("forge_metrics", None).start("heal__1", FORM)


@pytest.mark.parametrize("detail", [None, {}, {"status_code": None}, {"status_code": 503}])
def test_an_unavailable_api_server_is_retryable(supervisor, detail):
    supervisor.answer = AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))
    with pytest.raises(RetryableError, match="did not start a run of 'forge_metrics'"):
        DagRuns("forge_metrics", None).start("heal__1", FORM)
