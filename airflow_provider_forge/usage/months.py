"""Days and months of usage, their cost, and a forecast of the running month.

All amounts are decimals. The calendar is that of UTC, and a month's allowance is that of the whole app.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.exceptions import BrokenAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_forge.gateway.usage import ResourceUsage
    from airflow_provider_forge.usage.prices import Price

__all__ = ["FORECAST_METHOD", "Forecast", "Group", "Usage", "interval_to_read", "month_of"]

REFRESH = dt.time(12, tzinfo=dt.timezone.utc)
"""Time of day at which Atlassian refreshes usage."""

FORECAST_DAYS = 7
"""Complete days whose mean stands for each day to come: whole weeks, because weekends differ."""

FORECAST_METHOD = "mean of the last 7 complete days"

_DAY = dt.timedelta(days=1)
_RESOLUTIONS = {"ONE_HOUR", "ONE_DAY"}


class Group(NamedTuple):
    """The environment or the site of a part of the usage; neither for the app as a whole."""

    environment_id: str | None = None
    site: str | None = None


@dataclass(frozen=True)
class Forecast:
    """A forecast for the running month.

    Attributes:
        used: Usage of the whole month.
        cost: Cost of the whole month in US dollars.
        exhausted_at: Time at which the allowance was or will be used up; None if that is not in this month,
            or if there is no allowance.
    """

    used: Decimal
    cost: Decimal
    exhausted_at: dt.datetime | None


def month_of(day: dt.date) -> str:
    """Return the month of a day, such as `2026-11`."""
    return f"{day:%Y-%m}"


def interval_to_read(now: dt.datetime, lookback: dt.timedelta) -> tuple[dt.datetime, dt.datetime]:
    """Return the time range to read, in whole months, so that their totals are complete.

    Args:
        now: The present, aware.
        lookback: How far back days may still be revised.
    """
    oldest = (now - lookback).astimezone(dt.timezone.utc)
    return dt.datetime(oldest.year, oldest.month, 1, tzinfo=dt.timezone.utc), now


class Usage:
    """The usage of one resource by day and group.

    Args:
        source: The periods; hours are added up to days.
        price: Price of the resource.
        start: Start of the time range that was read; its months are complete from there.

    Attributes:
        days: Usage by group and day, with 0 for days without usage up to the newest.
        newest: The newest day; None without any.
        units: Units that Atlassian names and that the price is not for; the cost is wrong then.

    Raises:
        BrokenAnswer: A period is longer than a day.
    """

    def __init__(self, source: ResourceUsage, price: Price, start: dt.datetime) -> None:
        self.resource = source.resource
        self.price = price
        self.observed_at = source.observed_at
        self._first = start.date()
        expected = _plain(price.unit)
        self.units = sorted({each.unit for each in source.periods if _plain(each.unit) not in ("", expected)})
        days: dict[Group, dict[dt.date, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        for period in source.periods:
            if period.resolution not in _RESOLUTIONS:
                raise BrokenAnswer(
                    f"The gateway gave the usage of {source.resource} by {period.resolution}, which cannot be"
                    " split into days. If this persists, please report it",
                    request_id=next(iter(source.request_ids), None),
                )
            days[Group(period.environment_id, period.site)][period.start.date()] += period.amount
        self.newest = max((day for each in days.values() for day in each), default=None)
        # A day that Atlassian no longer has must be 0, not what it was.
        self.days: Mapping[Group, Mapping[dt.date, Decimal]] = {
            group: {day: amounts.get(day, Decimal(0)) for day in self._all_days()}
            for group, amounts in days.items()
        }
        self._months: dict[Group, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        self._totals: dict[str, Decimal] = defaultdict(Decimal)
        for group, amounts in days.items():
            for day, amount in amounts.items():
                self._months[group][month_of(day)] += amount
                self._totals[month_of(day)] += amount

    def _all_days(self) -> Iterator[dt.date]:
        day = self._first
        while self.newest is not None and day <= self.newest:
            yield day
            day += _DAY

    @property
    def month(self) -> str:
        """The running month."""
        return month_of(self.observed_at.astimezone(dt.timezone.utc).date())

    def months(self) -> list[str]:
        """Return the months that were read, oldest first, the running one included."""
        return sorted({*map(month_of, self._all_days()), self.month})

    def used(self, month: str, group: Group | None = None) -> Decimal:
        """Return the usage of a month, so far or as a whole, by a group or in total."""
        of_months = self._totals if group is None else self._months[group]
        return of_months.get(month, Decimal(0))

    def cost(self, month: str) -> Decimal:
        """Return the cost of a month in US dollars, so far or as a whole."""
        return self.price.cost(self.used(month))

    def cost_of(self, month: str, group: Group) -> Decimal:
        """Return a group's part of the cost of a month, in proportion to its usage."""
        total = self.used(month)
        return self.cost(month) * self.used(month, group) / total if total else Decimal(0)

    def forecast(self) -> Forecast:
        """Return the forecast for the running month.

        A complete day counts as it is. The running day, and each day to come, counts as the mean of the last
        seven complete days, or as its usage so far if that is higher.
        """
        totals: dict[dt.date, Decimal] = defaultdict(Decimal)
        for days in self.days.values():
            for day, amount in days.items():
                totals[day] += amount
        refreshed = _last_refresh(self.observed_at)
        known = max(0, min(FORECAST_DAYS, (refreshed - self._first).days))
        mean = _mean([totals[refreshed - number * _DAY] for number in range(1, known + 1)])
        expected = {
            day: totals[day] if day < refreshed else max(totals[day], mean) for day in _days_of(self.month)
        }
        used = sum(expected.values(), Decimal(0))
        return Forecast(used, self.price.cost(used), _exhausted_at(expected, self.price.allowance))


def _plain(unit: str) -> str:
    """Return a unit without its spelling: Atlassian writes `GB-seconds`, and may write `GB-second`."""
    return re.sub(r"[^a-z]", "", unit.lower()).rstrip("s")


def _last_refresh(moment: dt.datetime) -> dt.date:
    """Return the day of the last refresh: the days before it are complete."""
    moment = moment.astimezone(dt.timezone.utc)
    return moment.date() - _DAY * (moment.timetz() < REFRESH)


def _mean(amounts: Sequence[Decimal]) -> Decimal:
    return sum(amounts, Decimal(0)) / len(amounts) if amounts else Decimal(0)


def _days_of(month: str) -> list[dt.date]:
    first = dt.date.fromisoformat(f"{month}-01")
    _, length = calendar.monthrange(first.year, first.month)
    return [first + number * _DAY for number in range(length)]


def _exhausted_at(expected: Mapping[dt.date, Decimal], allowance: Decimal) -> dt.datetime | None:
    """Return when the allowance is used up, within a day in proportion to its usage."""
    if not allowance:
        return None
    used = Decimal(0)
    for day, amount in expected.items():
        if used + amount > allowance:
            midnight = dt.datetime.combine(day, dt.time(), dt.timezone.utc)
            return midnight + _DAY * float((allowance - used) / amount)
        used += amount
    return None
