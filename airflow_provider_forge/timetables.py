"""The schedule: one run for each aligned interval that has settled and that the gateway still keeps."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable
from airflow.utils.types import DagRunType

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import (
    MAX_WINDOW,
    MIN_TIME_LEFT,
    RETENTION,
    SETTLE_DELAY,
    Window,
    ceil,
    floor,
    humanize_duration,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.timetables.base import TimeRestriction

__all__ = ["ForgeMetricsTimetable"]

MAX_RETENTION = dt.timedelta(days=36_500)
"""Maximum age of an interval: a century, long before which dates begin."""

FIRST_DATE, LAST_DATE = pendulum.datetime(1970, 1, 1), pendulum.datetime(9000, 1, 1)
"""Dates between which every interval, and the time at which it settles, can be represented."""

_HOUR = dt.timedelta(hours=1)
_MINUTE = dt.timedelta(minutes=1)


def _utc_now() -> pendulum.DateTime:
    return pendulum.now("UTC")


class ForgeMetricsTimetable(Timetable):
    """Runs for `[start, start + interval)`, aligned in UTC, from `retention` ago until now.

    Each run becomes due `settle` after the end of its interval. Catchup and backfill are limited to the
    `retention` before the time at which a run is created. A manual run whose logical date is aligned gets the
    interval that starts there; any other manual run gets the last settled interval.

    Args:
        interval: Length of an interval: 15 minutes, or another number of whole minutes that divides an hour.
            Do not change it for an existing DAG: gaps are healed in the same intervals.
        retention: Maximum age of an interval's start. Beyond 14 days, the task needs an archive: see the
            operator's `source`.
        settle: Time after an interval's end in which its data may still arrive; 0 or more.
        scheduled: Whether there are scheduled runs. False for a DAG that only has manual runs and backfills;
            it needs `catchup=False`.
        clock: Returns the current time in UTC. It is not serialized: Airflow's components use the default.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    def __init__(
        self,
        interval: dt.timedelta = MAX_WINDOW,
        retention: dt.timedelta = RETENTION - MIN_TIME_LEFT,
        settle: dt.timedelta = SETTLE_DELAY,
        *,
        scheduled: bool = True,
        clock: Callable[[], pendulum.DateTime] = _utc_now,
    ) -> None:
        for name, value in (("interval", interval), ("retention", retention), ("settle", settle)):
            if not isinstance(value, dt.timedelta):
                raise ConfigurationError(name, f"{value!r} is not a timedelta")
        if interval < _MINUTE or interval % _MINUTE or _HOUR % interval:
            raise ConfigurationError(
                "interval", f"{interval} is not a number of whole minutes that divides an hour"
            )
        if settle < dt.timedelta(0):
            raise ConfigurationError("settle", f"{settle} is negative")
        if not isinstance(scheduled, bool):
            raise ConfigurationError("scheduled", f"{scheduled!r} is neither True nor False")
        if not interval <= retention <= MAX_RETENTION:
            raise ConfigurationError(
                "retention", f"{retention} is not between the interval and {MAX_RETENTION.days:,} days"
            )
        self.interval = interval
        self.retention = retention
        self.settle = settle
        self.scheduled = scheduled
        self._clock = clock
        length, delay = map(humanize_duration, (interval, settle))
        when = f"each run {delay} after its interval's end" if scheduled else "only by backfill or by hand"
        self.description = f"Intervals of {length}, {when}"

    @property
    def summary(self) -> str:
        """Short description in the list of DAGs."""
        return f"Forge metrics, {self.interval // _MINUTE} min"

    def serialize(self) -> dict[str, Any]:
        """Return the arguments as JSON, in seconds."""
        return {
            "interval": self.interval.total_seconds(),
            "retention": self.retention.total_seconds(),
            "settle": self.settle.total_seconds(),
            "scheduled": self.scheduled,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        """Return the timetable that was serialized by `serialize`."""
        interval, retention, settle = (
            dt.timedelta(seconds=data[name]) for name in ("interval", "retention", "settle")
        )
        # Absent from what an earlier version has serialized.
        return cls(interval, retention, settle, scheduled=bool(data.get("scheduled", True)))

    def generate_run_id(
        self,
        *,
        run_type: DagRunType,
        run_after: pendulum.DateTime,
        data_interval: DataInterval | None,
        **extra: Any,
    ) -> str:
        """Return the id of a scheduled run, which names its interval: `scheduled__<start>_to_<end>`.

        All others have Airflow's own: a backfill's contain the start, and manual runs of one interval differ.
        """
        if data_interval is None or run_type != DagRunType.SCHEDULED:
            return super().generate_run_id(
                run_type=run_type, run_after=run_after, data_interval=data_interval, **extra
            )
        start, end = (pendulum.instance(each).in_timezone("UTC") for each in data_interval)
        return run_type.generate_run_id(suffix=f"{start.isoformat()}_to_{end:%H:%M}")

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """Return the interval of a manual run with the logical date `run_after`.

        A run's logical date is the start of its interval, and is unique. A manual run with an aligned logical
        date must therefore have the interval of the scheduled run of that date: with any other interval, the
        scheduler would find the date taken, go back, and never advance.

        Raises:
            ConfigurationError: The date is at the beginning or the end of time.
        """
        if not FIRST_DATE <= run_after <= LAST_DATE:
            raise ConfigurationError(
                "logical_date", f"{run_after} is not between the years {FIRST_DATE.year} and {LAST_DATE.year}"
            )
        if floor(run_after, self.interval) == run_after:
            return DataInterval(start=run_after, end=run_after + self.interval)
        window = Window.last_settled(run_after, length=self.interval, settle=self.settle)
        return DataInterval(start=window.start, end=window.end)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next run; None after the end date of the DAG or of a backfill, or at the end of time."""
        if not self.scheduled and not restriction.catchup:  # a backfill always asks for what was missed
            return None
        last_end = last_automated_data_interval and last_automated_data_interval.end
        if any(date is not None and date > LAST_DATE for date in (restriction.earliest, last_end)):
            return None
        now = self._clock()
        candidates = [ceil(now - self.retention, self.interval)]
        if restriction.earliest is not None:
            candidates.append(ceil(restriction.earliest, self.interval))
        if last_end is not None:
            candidates.append(last_end)
        if not restriction.catchup:
            candidates.append(Window.last_settled(now, length=self.interval, settle=self.settle).start)
        start = max(candidates)
        # Without this, a backfill would create runs forever.
        if restriction.latest is not None and start > restriction.latest:
            return None
        # The start is unaligned only if `interval` has changed: one short run fills up to the next boundary.
        end = floor(start, self.interval) + self.interval
        # Not DagRunInfo(…), which has more required fields in Airflow 3.2.
        return DagRunInfo.interval(start, end)._replace(run_after=end + self.settle)
