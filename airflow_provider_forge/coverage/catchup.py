"""Runs that a catchup run starts: one for the newest window, and some for windows that were skipped.

Airflow's schedule has one position: its next run follows its newest one. A catchup from 14 days ago therefore
reaches the present only after hours. A backfill that is created meanwhile moves the position, so that the
schedule skips everything in between. A timetable can change neither, because the position is all that it
knows; but a task knows the time, and can count and start runs of its DAG.

- A scheduled run whose interval is not the newest settled one starts a run for that one, once.
- A run without a run for the interval before it starts healing runs for the skipped intervals. They form a
  chain, each of at most twelve hours. Each starts the next one in the end, so that one is active at a time.
- A manual run that has a logical date of the schedule, and delivers something else, starts a healing run for
  the interval, because Airflow makes no scheduled run for that date.
- The first run of a catchup whose windows are too old for the destination starts a healing run for the oldest
  ones that are not: the catchup would skip the others one by one, and reach these when they are too old.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_provider_forge.coverage.healing import MAX_WINDOWS
from airflow_provider_forge.exceptions import ConfigurationError, RetryableError
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.timetables import ForgeMetricsTimetable
from airflow_provider_forge.utils.dag_runs import DagRuns
from airflow_provider_forge.windows import (
    LIVE_FOR,
    MAX_WINDOW,
    RETENTION,
    Window,
    ceil,
    floor,
    format_time,
    parse_time,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping

    import pendulum
    from airflow.providers.common.compat.sdk import Context

__all__ = ["continue_healing", "find_catchup", "restore_scheduled", "start_accepted", "start_other_runs"]

log = get_logger(__name__)

MAX_HEALED = MAX_WINDOWS * MAX_WINDOW
"""Maximum length of a healing run's interval."""

MAX_STRAYS = 20
"""Maximum number of manual runs ahead of the schedule that are passed over to find it."""

_UNTIL = "until"
"""Key in a healing run's conf: end of the range whose first part the run delivers."""


@dataclass(frozen=True)
class CatchupRun:
    """A run of a DAG with a `ForgeMetricsTimetable`.

    Attributes:
        runs: All runs of the DAG.
        timetable: The DAG's timetable.
        interval: Interval of this run.
        first: Time before which no interval is scheduled now.
        last: Time after which none starts: now, or the end date of the DAG.
        now: Current time, aware.
    """

    runs: DagRuns
    timetable: ForgeMetricsTimetable
    interval: Window
    first: dt.datetime
    last: dt.datetime
    now: dt.datetime

    @property
    def newest(self) -> Window:
        """The newest settled interval that starts by the DAG's end date."""
        step = self.timetable.interval
        settled = Window.last_settled(self.now, length=step, settle=self.timetable.settle)
        start = min(settled.start, floor(self.last, step))
        return Window(start, start + step)

    def still_accepted(self, max_age: dt.timedelta) -> Window | None:
        """Return the oldest twelve hours that the destination still accepts, up to the newest interval.

        Args:
            max_age: Maximum age of a window's start.
        """
        start = ceil(max(self.now - max_age, self.first), self.timetable.interval)
        end = min(self.newest.start, start + MAX_HEALED)
        return Window(start, end) if start < end else None

    def start_newest(self) -> None:
        """Start a run for the newest settled interval, unless there is one or this is it."""
        newest = self.newest
        run_id = f"live__{_run_suffix(newest)}"
        if newest.start < self.interval.end or self.runs.count_at([newest.start]) or self.runs.has(run_id):
            return
        self.runs.start(run_id, _form(newest))
        log.info("Newest window first: started the run %s", run_id)

    def skipped(self) -> Window | None:
        """Return the intervals before this one that have no run; None if there are none."""
        step = self.timetable.interval
        seconds = self.interval.start.timestamp() - self.first.timestamp()
        count = int(seconds // step.total_seconds())
        starts = [self.interval.start - step * number for number in range(1, count + 1)]
        if not starts or self.runs.count_at(starts[:1]):
            return None
        newest = self.runs.newest_at(starts[1:])
        return Window(starts[-1] if newest is None else newest + step, self.interval.start)

    def heal_skipped(self) -> None:
        """Start a run for the first intervals that the schedule has skipped; it starts the next one."""
        if (skipped := self.skipped()) is not None and _start_healing(self.runs, skipped):
            log.warning(
                "The schedule skipped %s when it continued after a backfill. Healing runs deliver these"
                " windows",
                skipped.humanize(),
            )


def find_catchup(runs: DagRuns, now: dt.datetime) -> pendulum.DateTime | None:
    """Return the end of the newest quarter hour that starts at a run's logical date; None if it is recent.

    Airflow's schedule continues there, oldest first. None also without a run.

    Args:
        runs: The runs of the exporting DAG.
        now: Current time, aware.
    """
    latest = floor(now, MAX_WINDOW)
    starts = [latest - number * MAX_WINDOW for number in range(RETENTION // MAX_WINDOW)]
    newest = runs.newest_at(starts)
    for _ in range(MAX_STRAYS):
        # A manual run can have an aligned logical date ahead of the schedule, but has no neighbor.
        if newest is None or runs.count_at([newest - MAX_WINDOW]):
            break
        earlier = runs.newest_at([start for start in starts if start < newest])
        if earlier is None:  # the first run of a catchup
            break
        newest = earlier
    return None if newest is None or newest > now - LIVE_FOR else newest + MAX_WINDOW


def restore_scheduled(context: Context, form: Mapping[str, Any], now: dt.datetime) -> None:
    """Start a run for the interval whose scheduled run a manual one displaces. Failures are logged.

    Airflow makes no scheduled run for a logical date that a manual run has, whatever that one delivers.

    Args:
        context: The task's context.
        form: The operator's arguments from the run's trigger form.
        now: Current time, aware.
    """
    run: Any = context.get("dag_run")
    start: Any = context.get("data_interval_start")
    end: Any = context.get("data_interval_end")
    date = getattr(run, "logical_date", None)
    if getattr(run, "run_type", None) != "manual" or not date or date != start or end is None:
        return
    delivers = Window(form.get("interval_start", start), form.get("interval_end", end))
    interval = Window(start, end)
    is_whole = delivers == interval and not form.keys() & {"environments", "metrics", "check_only"}
    if is_whole or (this := _catchup_run(context, interval, now)) is None:
        return
    with _failures_logged():
        if _start_healing(this.runs, interval):
            log.info(
                "Airflow makes no scheduled run for %s, because this run has its logical date: started a"
                " healing run for it",
                interval.humanize(),
            )


def start_other_runs(context: Context, interval: Window, now: dt.datetime) -> None:
    """Start the runs that no schedule will. Failures are logged; the run itself continues.

    Args:
        context: The task's context.
        interval: The interval that the run delivers.
        now: Current time, aware.
    """
    run_type = context["dag_run"].run_type
    if (this := _catchup_run(context, interval, now)) is None:
        return
    with _failures_logged():
        if run_type == "scheduled":
            this.start_newest()
        if context["dag"].catchup and run_type in ("scheduled", "backfill"):
            this.heal_skipped()


def continue_healing(context: Context, interval: Window, now: dt.datetime) -> None:
    """Start the healing run that follows this one in its chain. Failures are logged.

    Args:
        context: The task's context.
        interval: The interval that the run has delivered.
        now: Current time, aware.
    """
    until = (context["dag_run"].conf or {}).get(_UNTIL)
    if not until or (this := _catchup_run(context, interval, now)) is None:
        return
    with _failures_logged():
        if interval.end < (end := parse_time(_UNTIL, until)):
            _start_healing(this.runs, Window(interval.end, end))


def start_accepted(context: Context, interval: Window, now: dt.datetime, max_age: dt.timedelta) -> None:
    """Start a healing run for windows that a destination will soon not accept. Failures are logged.

    Args:
        context: The task's context.
        interval: The interval that the run delivers.
        now: Current time, aware.
        max_age: Maximum age of a window's start.
    """
    this = _catchup_run(context, interval, now)
    if this is None or context["dag_run"].run_type != "scheduled":
        return
    with _failures_logged():
        if (accepted := this.still_accepted(max_age)) is not None and _start_healing(this.runs, accepted):
            log.info("Started a healing run for %s, before it is too old", accepted.humanize())


@contextlib.contextmanager
def _failures_logged() -> Iterator[None]:
    try:
        yield
    except (AirflowRuntimeError, ConfigurationError, RetryableError) as error:
        log.warning("No other run was started: %s", error)


def _catchup_run(context: Context, interval: Window, now: dt.datetime) -> CatchupRun | None:
    """Return the run of this task; None if its DAG has another schedule, or takes no runs."""
    dag = context["dag"]
    timetable: Any = dag.timetable
    if not isinstance(timetable, ForgeMetricsTimetable) or not _takes_conf():
        return None
    first = max(now - timetable.retention, dag.start_date or now)
    last = min(now, dag.end_date or now)
    return CatchupRun(DagRuns(dag.dag_id, context["ti"]), timetable, interval, first, last, now)


def _start_healing(runs: DagRuns, skipped: Window) -> bool:
    """Start the run for the first part of a range; return False if it was started before."""
    part = Window(skipped.start, min(skipped.end, skipped.start + MAX_HEALED))
    run_id = f"heal__{_run_suffix(part)}"
    if runs.has(run_id):
        return False
    runs.start(run_id, {**_form(part), _UNTIL: format_time(skipped.end)})
    return True


def _form(window: Window) -> Mapping[str, str]:
    return {"from": format_time(window.start), "to": format_time(window.end)}


def _run_suffix(window: Window) -> str:
    return f"{window.start.isoformat()}_to_{window.end:%H:%M}"


def _takes_conf() -> bool:
    """Return whether a run's conf reaches its params, without which it would deliver another interval."""
    return bool(conf.getboolean("core", "dag_run_conf_overrides_params", fallback=True))
