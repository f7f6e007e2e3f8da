"""The progress of the demo, from Airflow and the sink."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.windows import MAX_WINDOW, SETTLE_DELAY, Window
from demo.api import parse_time
from demo.dagfile import DAG_ID, TASK_ID

if TYPE_CHECKING:
    from airflow_provider_forge.sandbox import OtlpSink
    from demo.api import AirflowApi


@dataclass(frozen=True)
class Progress:
    """Counts of windows and points at one time.

    Args:
        due: Windows that have ended and settled, delivered or not.
        delivered: Windows that have been delivered.
        retrying: Windows whose last attempt failed and that will be retried.
        failed: Windows that have failed permanently.
        points: Data points that the sink has received, or that a real collector has accepted.
        newest: End of the newest delivered window; None before the first.
        problem: The last failure: its window, why it failed, and when it is tried again; empty without one.
    """

    due: int = 0
    delivered: int = 0
    retrying: int = 0
    failed: int = 0
    points: int = 0
    newest: datetime | None = None
    problem: str = ""

    @property
    def steps(self) -> tuple[int, ...]:
        """The counts whose change is worth a new line; the points change at other times than these."""
        return self.delivered, self.retrying, self.failed

    @property
    def is_complete(self) -> bool:
        """Whether every window that is due has been delivered, or has failed permanently."""
        return 0 < self.due <= self.delivered + self.failed

    @property
    def following(self) -> str:
        """The window after the newest one, and the time of its delivery."""
        if not self.newest:
            return ""
        window = Window(self.newest, self.newest + MAX_WINDOW)
        return f"{window.humanize()} at {window.end + SETTLE_DELAY:%H:%M}"

    @property
    def details(self) -> list[str]:
        """Times, failures and their reasons, each as text."""
        newest = [f"newest until {self.newest:%d %b %H:%M} UTC"] if self.newest else []
        following = [f"next: {self.following}"] if self.is_complete else []
        retrying = [f"{self.retrying} failed and will be retried"] if self.retrying else []
        failed = [f"{self.failed} failed permanently"] if self.failed else []
        return [*newest, *following, *retrying, *failed, *filter(None, [self.problem])]

    def __str__(self) -> str:
        counts = [f"{self.delivered} of {self.due} windows delivered", f"{self.points:,} points received"]
        return "; ".join([*counts, *self.details])


class ProgressMeter:
    """Reads the progress.

    Args:
        api: Airflow's REST API.
        sink: The sink. None with a real collector, whose points are the sum of the tasks' results.
    """

    def __init__(self, api: AirflowApi, sink: OtlpSink | None) -> None:
        self._api = api
        self._sink = sink
        self._sent: dict[str, int] = {}
        self._first: datetime | None = None
        self._newest: datetime | None = None
        self._problems: dict[tuple[str, int], str] = {}

    def read(self) -> Progress:
        """Return the current progress."""
        newest = self._newest_runs()
        ends = [parse_time(end) for run in newest if (end := _interval(run)[1])]
        # The run of the newest window is soon not among those that ended last.
        self._newest = max([*ends, *filter(None, [self._newest])], default=None)
        retrying, failed = (self._tasks(state) for state in ("up_for_retry", "failed"))
        return Progress(
            due=self._due(datetime.now(timezone.utc)),
            delivered=self._api.count_runs(DAG_ID, state="success", run_type="scheduled"),
            retrying=retrying["total_entries"],
            failed=failed["total_entries"],
            points=self._sink.summary()["points"] if self._sink else self._sum_of_sent(newest),
            newest=self._newest,
            problem=self._problem(retrying["task_instances"] or failed["task_instances"]),
        )

    def _newest_runs(self) -> list[dict]:
        path = f"dags/{DAG_ID}/dagRuns"
        return self._api.get(path, state="success", order_by="-end_date", limit=50)["dag_runs"]

    def _tasks(self, state: str) -> dict:
        """Return the number of tasks in a state, and the one that came to it last."""
        path = f"dags/{DAG_ID}/dagRuns/~/taskInstances"
        return self._api.get(path, state=state, order_by="-end_date", limit=1)

    def _due(self, now: datetime) -> int:
        if self._first is None:
            # Live runs have no logical date, by which SQLite puts them first.
            path, oldest = f"dags/{DAG_ID}/dagRuns", {"order_by": "logical_date", "limit": 1}
            runs = self._api.get(path, run_type="scheduled", **oldest)["dag_runs"]
            if not runs:
                return 0
            self._first = parse_time(runs[0]["data_interval_start"])
        return (now - SETTLE_DELAY - self._first) // MAX_WINDOW

    def _sum_of_sent(self, runs: list[dict]) -> int:
        for run_id in {run["dag_run_id"] for run in runs} - self._sent.keys():
            self._sent[run_id] = self._api.xcom(DAG_ID, run_id, TASK_ID)["sent"]
        return sum(self._sent.values())

    def _problem(self, tasks: list[dict]) -> str:
        """Describe the failure of the first of these tasks, if there is one."""
        if not tasks:
            return ""
        task = tasks[0]
        key = task["dag_run_id"], task["try_number"]
        if key not in self._problems:
            self._problems[key] = self._describe(task)
        return self._problems[key]

    def _describe(self, task: dict) -> str:
        start, end = map(parse_time, _interval(self._api.run(DAG_ID, task["dag_run_id"])))
        reason = _reason(json.loads(self._api.task_log(task))["content"])
        what = f"{Window(start, end).humanize()} failed: {reason}."
        if task["state"] != "up_for_retry":
            return what
        delay = self._api.get(f"dags/{DAG_ID}/tasks/{TASK_ID}")["retry_delay"]
        again = parse_time(task["end_date"]) + timedelta(days=delay["days"], seconds=delay["seconds"])
        # An error may ask for a shorter delay.
        return f"{what} It is tried again by {again:%H:%M} UTC"


def _interval(run: dict) -> tuple[Any, Any]:
    """Return start and end of the interval that a run delivers; a live run has them in its conf."""
    conf = run.get("conf") or {}
    return run["data_interval_start"] or conf.get("from"), run["data_interval_end"] or conf.get("to")


def _reason(log: list[dict]) -> str:
    """Return the last error in a task's log: the exporter's own line, or that of Airflow's exception."""
    errors = [line for line in log if line.get("level") == "error"]
    own = [line["event"] for line in errors if "error_detail" not in line]
    if own:
        return own[-1].partition(". If the task has retries left")[0]
    raised = [line["error_detail"][0] for line in errors if line["error_detail"]]
    return f"{raised[-1]['exc_type']}: {raised[-1]['exc_value']}" if raised else "its log has no error"
