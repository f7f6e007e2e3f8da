"""The weight rule for waiting tasks: live windows first, then healing runs, then catchup and backfills."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

from airflow.task.priority_strategy import PriorityWeightStrategy

from airflow_provider_forge.windows import LIVE_FOR, MAX_WINDOW

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

__all__ = ["LiveFirst"]

HEAD_START = 1_000
"""More than any weight that people set by hand."""

HEALING_HEAD_START = HEAD_START // 2
"""Head start of healing runs. Among equal weights, PostgreSQL puts runs without a logical date last, so that
they would wait for all runs of a catchup."""

MAX_WEIGHT = 2**31 - 1
"""The largest number that Airflow's database has room for; its scheduler would end at a larger one."""

_HEALING = "heal__"

_PROGRAMS = ("scheduled__", "backfill__", "asset_triggered__", "operator_triggered__", _HEALING, "live__")
"""Prefixes of the ids of runs that nobody waits for. Manual runs can have any id."""

_DATE = re.compile(r"__(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d:\d\d)")


class LiveFirst(PriorityWeightStrategy):
    """A weight rule: live and manual runs first, then healing runs; otherwise it works as `absolute`.

    Airflow queues waiting tasks by weight and then by logical date, oldest first. If the number of active
    tasks is limited, a backfill of days would therefore delay the live window until the backfill is done. The
    age of a run is read from the date in its id, not from its type, because a backfill with *All Runs* keeps
    the ids of the runs that it repeats.
    """

    def get_weight(self, ti: TaskInstance) -> int:
        """Return the task's own weight, plus a head start if its run is live or heals."""
        weight = int(ti.task.priority_weight) if ti.task is not None else 1
        if self._is_live(ti.run_id):
            weight += HEAD_START
        elif ti.run_id.startswith(_HEALING):
            weight += HEALING_HEAD_START
        return min(weight, MAX_WEIGHT)

    def _is_live(self, run_id: str) -> bool:
        if not run_id.startswith(_PROGRAMS):
            return True
        match = _DATE.search(run_id)
        try:
            age = dt.datetime.now(dt.timezone.utc) - dt.datetime.fromisoformat(match[1]) if match else None
        except ValueError:
            return False
        # The date is the start of the run's interval.
        return age is not None and age <= LIVE_FOR + MAX_WINDOW
