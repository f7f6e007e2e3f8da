"""Which interval a task delivers, and which windows of it can still be had."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import ConfigurationError, WindowExpired
from airflow_provider_forge.windows import (
    MAX_WINDOW,
    RETENTION,
    Window,
    ceil,
    expired_error,
    floor,
    parse_time,
)

if TYPE_CHECKING:
    import pendulum
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["available_windows", "check_age", "check_not_in_future", "find_interval", "settled_at"]

MAX_LEAD = dt.timedelta(hours=2)
"""An interval that ends further ahead is a mistake, not one to wait for: a schedule's are an hour at most."""


def find_interval(context: Context, start: dt.datetime | str | None, end: dt.datetime | str | None) -> Window:
    """Return what the task is to deliver: what was given, else what the run says.

    Args:
        context: Of the task; a manual run without a logical date has no data interval in it.
        start: The operator's `interval_start`; None or empty text where it was not given.
        end: Its `interval_end`, likewise.

    Raises:
        ConfigurationError: A time is malformed, only one is given, or there is nothing between them.
    """
    start, end = start or None, end or None
    if start is None and end is None:
        start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None and end is None:
        return Window.last_settled(context["dag_run"].run_after)
    if start is None:
        raise ConfigurationError("interval_start", "is missing beside interval_end")
    if end is None:
        raise ConfigurationError("interval_end", "is missing beside interval_start")
    first, last = parse_time("interval_start", start), parse_time("interval_end", end)
    if first == last:
        raise ConfigurationError(
            "interval_end",
            f"{end} is interval_start too. If that is the run's data interval, the DAG's schedule is a cron"
            " text: use ForgeMetricsTimetable()",
        )
    if last < first:
        raise ConfigurationError("interval_end", f"{end} is before interval_start, {start}")
    return Window(first, last)


def settled_at(interval: Window, context: Context, now: dt.datetime) -> pendulum.DateTime:
    """Return when the interval's data has arrived, as far as the DAG's timetable allows for.

    Raises:
        ConfigurationError: That is too far ahead to be meant.
    """
    dag = context.get("dag")
    check_not_in_future("interval_end", interval.end, now)
    return interval.end + _settle_of(dag.timetable if dag else None)


def _settle_of(timetable: Any) -> dt.timedelta:
    """Return how long a timetable lets data arrive late, also one that is inside an AssetOrTimeSchedule."""
    while timetable is not None:
        settle = getattr(timetable, "settle", None)
        if isinstance(settle, dt.timedelta):
            return settle
        timetable = getattr(timetable, "timetable", None)
    return dt.timedelta(0)


def check_not_in_future(field: str, end: dt.datetime, now: dt.datetime) -> None:
    """Refuse an end that is too far ahead to be waited for.

    Raises:
        ConfigurationError: It is further ahead than `MAX_LEAD`.
    """
    if end > now + MAX_LEAD:
        hours = MAX_LEAD // dt.timedelta(hours=1)
        raise ConfigurationError(
            field, f"{end} is more than {hours} hours in the future; give an earlier time"
        )


def available_windows(
    interval: Window, now: dt.datetime, on_expired: str, endpoint: Endpoint
) -> tuple[list[Window], int]:
    """Return the windows to ask for, oldest first, and how many are too old and left out.

    Raises:
        WindowExpired: Some are too old for the gateway or for the destination, and `on_expired` is `fail`.
    """
    keep = min(RETENTION, endpoint.max_age or RETENTION)
    if interval.start >= now - keep:
        return list(interval.split()), 0
    if on_expired == "fail":
        check_age(interval, endpoint, now)
        raise expired_error(f"The interval {interval}", now)
    edge = min(ceil(now - keep, MAX_WINDOW), ceil(interval.end, MAX_WINDOW))
    expired = round((edge - floor(interval.start, MAX_WINDOW)).total_seconds() / MAX_WINDOW.total_seconds())
    return list(Window(edge, interval.end).split()) if edge < interval.end else [], expired


def check_age(window: Window, endpoint: Endpoint, now: dt.datetime) -> None:
    """Refuse a window that the destination would throw away, before it costs a call.

    Raises:
        WindowExpired: It begins longer ago than the destination keeps points.
    """
    if endpoint.max_age is not None and window.start < now - endpoint.max_age:
        raise WindowExpired(
            f"{window} begins before {now - endpoint.max_age:%Y-%m-%dT%H:%MZ}: the destination keeps nothing"
            f" older than {endpoint.max_age}, so it is not asked for. {endpoint.age_remedy}, or set"
            " on_expired='skip'"
        )
