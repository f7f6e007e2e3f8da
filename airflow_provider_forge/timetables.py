"""The schedule: one run for each aligned interval, settled, and never older than the gateway answers."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import MAX_WINDOW, RETENTION, SETTLE_DELAY, Window, ceil, floor

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.timetables.base import TimeRestriction

__all__ = ["ForgeMetricsTimetable"]

HEADROOM = dt.timedelta(minutes=30)
"""A window is scheduled only while it has this long to live: its task may have to wait before it can ask."""

_HOUR = dt.timedelta(hours=1)
_MINUTE = dt.timedelta(minutes=1)


def _words(duration: dt.timedelta) -> str:
    return pendulum.duration(seconds=duration.total_seconds()).in_words(locale="en") or "0 seconds"


def _utc_now() -> pendulum.DateTime:
    return pendulum.now("UTC")


class ForgeMetricsTimetable(Timetable):
    """Runs for `[start, start + interval)`, aligned in UTC, from `retention` ago until now.

    Each run becomes due `settle` after its interval's end. Catchup and backfill are clipped to the
    `retention` before the moment they are made. A manual run whose logical date is aligned gets the interval
    that begins there; any other gets the last settled interval.

    Args:
        interval: Length of an interval: 15 minutes, or another whole part of an hour from a minute upwards.
            All runs of a DAG must keep one length: what is healed later is healed in the same intervals.
        retention: How far back an interval may begin: up to 14 days.
        settle: How long data may arrive late; 0 or more.
        clock: Returns the present in UTC. It is not serialized: Airflow's components use the real one.

    Raises:
        ConfigurationError: An argument is out of its range.
    """

    def __init__(
        self,
        interval: dt.timedelta = MAX_WINDOW,
        retention: dt.timedelta = RETENTION - HEADROOM,
        settle: dt.timedelta = SETTLE_DELAY,
        *,
        clock: Callable[[], pendulum.DateTime] = _utc_now,
    ) -> None:
        for name, value in (("interval", interval), ("retention", retention), ("settle", settle)):
            if not isinstance(value, dt.timedelta):
                raise ConfigurationError(name, f"{value!r} is not a timedelta")
        if interval < _MINUTE or interval % _MINUTE or _HOUR % interval:
            raise ConfigurationError(
                "interval", f"{interval} is not a whole part of an hour, in whole minutes"
            )
        if not interval <= retention <= RETENTION:
            raise ConfigurationError("retention", f"{retention} is not between the interval and 14 days")
        if settle < dt.timedelta(0):
            raise ConfigurationError("settle", f"{settle} is negative")
        self.interval = interval
        self.retention = retention
        self.settle = settle
        self._clock = clock
        self.description = (
            f"Intervals of {_words(interval)}, each run {_words(settle)} after its interval's end"
        )

    @property
    def summary(self) -> str:
        """A short text for the list of DAGs."""
        return f"Forge metrics, {self.interval // _MINUTE} min"

    def serialize(self) -> dict[str, Any]:
        """Return the arguments, in seconds."""
        return {
            "interval": self.interval.total_seconds(),
            "retention": self.retention.total_seconds(),
            "settle": self.settle.total_seconds(),
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        """Make one from what `serialize` returned."""
        interval, retention, settle = (
            dt.timedelta(seconds=data[name]) for name in ("interval", "retention", "settle")
        )
        return cls(interval, retention, settle)

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """Return the interval of a manual run with the logical date `run_after`.

        A run's logical date is its interval's start, and is unique. A manual run with an aligned one must
        therefore cover what the scheduled run of that date would have covered: with any other interval the
        schedule would find the date taken, go back, and never advance.
        """
        if floor(run_after, self.interval) == run_after:
            return DataInterval(start=run_after, end=run_after + self.interval)
        window = Window.last_settled(run_after, length=self.interval, settle=self.settle)
        return DataInterval(start=window.start, end=window.end)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next run; None after the DAG's end date, or a backfill's."""
        now = self._clock()
        candidates = [ceil(now - self.retention, self.interval)]
        if restriction.earliest is not None:
            candidates.append(ceil(restriction.earliest, self.interval))
        if last_automated_data_interval is not None:
            candidates.append(last_automated_data_interval.end)
        if not restriction.catchup:
            candidates.append(Window.last_settled(now, length=self.interval, settle=self.settle).start)
        start = max(candidates)
        # Without this a backfill would ask for ever for one more.
        if restriction.latest is not None and start > restriction.latest:
            return None
        # Not aligned only where `interval` was another before: one short run fills up to the next boundary.
        end = floor(start, self.interval) + self.interval
        # Not DagRunInfo(…), of which Airflow 3.2 wants more fields than the others.
        return DagRunInfo.interval(start, end)._replace(run_after=end + self.settle)
