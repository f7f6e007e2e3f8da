"""The interval of a task run, and the time at which its data has settled."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import Window, parse_time

if TYPE_CHECKING:
    import pendulum
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

__all__ = ["check_not_in_future", "find_interval", "is_oldest", "settled_at"]

MAX_LEAD = dt.timedelta(hours=2)
"""An interval that ends later than this is a mistake: a schedule's intervals are an hour at most."""


def find_interval(context: Context, start: dt.datetime | str | None, end: dt.datetime | str | None) -> Window:
    """Return the interval to deliver: the operator's, else the run's data interval.

    A manual run without a logical date has no data interval. It delivers the last settled window before it.

    Args:
        context: The task's context.
        start: The operator's `interval_start`; None or empty text if not given.
        end: Its `interval_end`, likewise.

    Raises:
        ConfigurationError: A time is malformed, only one is given, or the end is not after the start.
    """
    start, end = start or None, end or None
    if start is None and end is None:
        start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None and end is None:
        return Window.last_settled(context["dag_run"].run_after)
    if start is None:
        raise ConfigurationError("interval_start", "is missing: give it together with interval_end")
    if end is None:
        raise ConfigurationError("interval_end", "is missing: give it together with interval_start")
    first, last = parse_time("interval_start", start), parse_time("interval_end", end)
    if first == last:
        raise ConfigurationError(
            "interval_end",
            f"{end} is interval_start too. If that is the run's data interval, the DAG's schedule is a cron"
            " expression: use ForgeMetricsTimetable()",
        )
    if last < first:
        raise ConfigurationError("interval_end", f"{end} is before interval_start, {start}")
    return Window(first, last)


def settled_at(interval: Window, context: Context, now: dt.datetime) -> pendulum.DateTime:
    """Return the time at which the interval has settled: its end plus the settle time of the timetable.

    Raises:
        ConfigurationError: The interval ends too far in the future.
    """
    dag = context.get("dag")
    check_not_in_future("interval_end", interval.end, now)
    return interval.end + _settle_time(dag.timetable if dag else None)


def is_oldest(interval: Window, context: Context, now: dt.datetime) -> bool:
    """Return whether the run's schedule has no earlier interval; True if it does not limit their age."""
    dag = context.get("dag")
    timetable = dag.timetable if dag else None
    retention, length = (_find_duration(timetable, name) for name in ("retention", "interval"))
    return retention is None or length is None or interval.start - length < now - retention


def _settle_time(timetable: Any) -> dt.timedelta:
    return _find_duration(timetable, "settle") or dt.timedelta(0)


def _find_duration(timetable: Any, name: str) -> dt.timedelta | None:
    """Return an attribute of our timetable, also of one inside an `AssetOrTimeSchedule`."""
    while timetable is not None:
        value = getattr(timetable, name, None)
        if isinstance(value, dt.timedelta):
            return value
        timetable = getattr(timetable, "timetable", None)
    return None


def check_not_in_future(field: str, end: dt.datetime, now: dt.datetime) -> None:
    """Check that an interval does not end too far in the future.

    Raises:
        ConfigurationError: It ends more than `MAX_LEAD` from now.
    """
    if end > now + MAX_LEAD:
        hours = MAX_LEAD // dt.timedelta(hours=1)
        raise ConfigurationError(
            field, f"{end} is more than {hours} hours in the future; give an earlier time"
        )


def resume_at(moment: dt.datetime) -> BaseTrigger:
    """Return the trigger that resumes a deferred task at a time."""
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger

    return DateTimeTrigger(moment)
