"""Counts and starts runs of a DAG, as far as a task may."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from airflow_provider_forge.exceptions import ConfigurationError, RetryableError
from airflow_provider_forge.windows import LIVE_FOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["DagRuns"]

Moment = TypeVar("Moment", bound=dt.datetime)

_ACTIVE = ["queued", "running"]

_MINUTE = dt.timedelta(minutes=1)
_SERVER_ERROR = 500

_PER_QUERY = 96
"""Logical dates of one request: they are part of its URL."""


class DagRuns:
    """The runs of one DAG.

    Args:
        dag_id: Id of the DAG.
        ti: The running task instance, from the context.
    """

    def __init__(self, dag_id: str, ti: Any) -> None:
        self.dag_id = dag_id
        self._ti = ti

    def count_active(self, now: dt.datetime) -> int:
        """Return the number of active runs of catchup, backfills or healing, or started by hand."""
        # Scheduled live runs are always there. Their logical dates are whole minutes, however long the
        # intervals.
        latest = now.replace(second=0, microsecond=0)
        live = [latest - number * _MINUTE for number in range(LIVE_FOR // _MINUTE)]
        return int(self._count() - self._count(live))

    def count_at(self, logical_dates: Iterable[dt.datetime]) -> int:
        """Return the number of runs with these logical dates, in any state."""
        return int(self._ti.get_dr_count(self.dag_id, logical_dates=list(logical_dates)))

    def newest_at(self, logical_dates: Sequence[Moment]) -> Moment | None:
        """Return the newest of these logical dates that has a run, in any state; None if none has one.

        Args:
            logical_dates: Newest first.
        """
        for first in range(0, len(logical_dates), _PER_QUERY):
            dates = logical_dates[first : first + _PER_QUERY]
            if not self.count_at(dates):
                continue
            while len(dates) > 1:
                half = len(dates) // 2
                dates = dates[:half] if self.count_at(dates[:half]) else dates[half:]
            return dates[0]
        return None

    def has(self, run_id: str) -> bool:
        """Return whether there is a run of this id, in any state."""
        return bool(self._ti.get_dr_count(self.dag_id, run_ids=[run_id]))

    def start(self, run_id: str, conf: Mapping[str, Any]) -> None:
        """Start a run without a logical date, unless there is one of that id already.

        Raises:
            ConfigurationError: Airflow cannot start runs of this DAG.
            RetryableError: The API server did not answer.
        """
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun

        # TriggerDagRunOperator raises an exception to start a run, which ends the task: one run only.
        message = TriggerDagRun(dag_id=self.dag_id, run_id=run_id, logical_date=None, conf=dict(conf))
        try:
            answer = task_runner.SUPERVISOR_COMMS.send(message)
        except AirflowRuntimeError as error:
            answer = error.error
        if not isinstance(answer, ErrorResponse) or answer.error == ErrorType.DAGRUN_ALREADY_EXISTS:
            return
        problem = f"Airflow did not start a run of {self.dag_id!r} ({answer.error.value}: {answer.detail})."
        status = (answer.detail or {}).get("status_code")
        if answer.error == ErrorType.API_SERVER_ERROR and (status is None or status >= _SERVER_ERROR):
            raise RetryableError(f"{problem} If this persists, check the API server's log")
        raise ConfigurationError(
            "export_dag_id",
            f"{problem} Check that a DAG of that id exists, has no import errors and allows runs that tasks"
            " trigger",
        )

    def _count(self, logical_dates: list[dt.datetime] | None = None) -> int:
        return int(self._ti.get_dr_count(self.dag_id, logical_dates=logical_dates, states=_ACTIVE))
