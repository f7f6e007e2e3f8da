"""The progress of the demo, from Airflow and the sink."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_forge.windows import MAX_WINDOW, SETTLE_DELAY
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
    """

    due: int = 0
    delivered: int = 0
    retrying: int = 0
    failed: int = 0
    points: int = 0
    newest: datetime | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """The counts whose change is worth a new line; the points change at other times than these."""
        return self.delivered, self.retrying, self.failed

    @property
    def parts(self) -> list[str]:
        """The progress as text."""
        newest = f", the newest until {self.newest:%Y-%m-%d %H:%M} UTC" if self.newest else ""
        parts = [
            f"{self.delivered} of {self.due} windows delivered{newest}",
            f"{self.points:,} points received",
        ]
        if self.retrying:
            parts.append(f"{self.retrying} windows failed and will be retried")
        if self.failed:
            parts.append(f"{self.failed} windows failed permanently, see their logs in Airflow")
        return parts

    def __str__(self) -> str:
        return "; ".join(self.parts)


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

    def read(self) -> Progress:
        """Return the current progress."""
        newest = self._newest_runs()
        ends = [parse_time(end) for run in newest if (end := _end(run))]
        return Progress(
            due=self._due(datetime.now(timezone.utc)),
            delivered=self._api.count_runs(DAG_ID, state="success", run_type="scheduled"),
            retrying=self._api.count_task_instances(DAG_ID, state="up_for_retry"),
            failed=self._api.count_runs(DAG_ID, state="failed"),
            points=self._sink.summary()["points"] if self._sink else self._sum_of_sent(newest),
            newest=max(ends, default=None),
        )

    def _newest_runs(self) -> list[dict]:
        path = f"dags/{DAG_ID}/dagRuns"
        return self._api.get(path, state="success", order_by="-end_date", limit=50)["dag_runs"]

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


def _end(run: dict) -> str | None:
    """Return the end of the interval that a run delivers; a live run has it in its conf."""
    return run["data_interval_end"] or (run.get("conf") or {}).get("to")
