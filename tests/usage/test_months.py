"""Days, months and forecasts, computed by hand."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_provider_forge.exceptions import BrokenAnswer
from airflow_provider_forge.gateway.usage import ResourceUsage, UsagePeriod
from airflow_provider_forge.usage.months import Group, Usage, interval_to_read
from airflow_provider_forge.usage.prices import Price
from airflow_provider_forge.usage.report import rows_of, total_of

UTC = timezone.utc
PRICE = Price("GB-seconds", Decimal(100), Decimal("0.5"))
ENV, OTHER = "8cb293d5-be08-47ae-a75c-95b89da5ad1d", "11111111-2222-4333-8444-555555555555"
NOON = datetime(2026, 11, 10, 12, 15, tzinfo=UTC)


def period(day, amount, environment=ENV, *, resolution="ONE_DAY", unit="GB-seconds", site=None):
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return UsagePeriod(day, start, resolution, Decimal(amount), unit, environment, site)


def usage(*periods, at=NOON, price=PRICE, start=datetime(2026, 10, 1, tzinfo=UTC)):
    return Usage(ResourceUsage("app", "FUNCTION_COMPUTE", periods, at, ("id",)), price, start)


def days(first, *amounts, environment=ENV):
    start = date.fromisoformat(first)
    return [
        period((start + timedelta(days=number)).isoformat(), amount, environment)
        for number, amount in enumerate(amounts)
    ]


def test_a_month_is_the_sum_of_its_days_by_group_and_in_total():
    found = usage(
        *days("2026-10-30", "1.000001", "2", "3", "4.5"), *days("2026-11-01", "10", environment=OTHER)
    )
    assert found.months() == ["2026-10", "2026-11"]
    assert found.used("2026-10") == Decimal("3.000001")
    assert found.used("2026-11") == Decimal("17.5")
    assert found.used("2026-11", Group(OTHER)) == 10
    assert found.newest == date(2026, 11, 2)


def test_a_day_that_is_missing_before_the_newest_is_zero():
    found = usage(*days("2026-11-01", "1"), *days("2026-11-03", "2"), start=datetime(2026, 11, 1, tzinfo=UTC))
    [of_environment] = found.days.values()
    assert of_environment == {date(2026, 11, 1): 1, date(2026, 11, 2): 0, date(2026, 11, 3): 2}


def test_hours_are_added_up_and_weeks_are_refused():
    hours = [period(f"2026-11-01T{hour:02}:00", "0.5", resolution="ONE_HOUR") for hour in range(24)]
    assert usage(*hours).used("2026-11") == 12
    with pytest.raises(BrokenAnswer, match="by ONE_WEEK"):
        usage(period("2026-11-02", "7", resolution="ONE_WEEK"))


def test_without_any_usage_a_month_is_zero():
    found = usage()
    assert (found.months(), found.used("2026-11"), found.cost("2026-11"), found.newest) == (
        ["2026-11"],
        0,
        0,
        None,
    )
    assert found.forecast().used == 0


@pytest.mark.parametrize(
    ("unit", "other"),
    [("GB-seconds", []), ("GB-second", []), ("gb seconds", []), ("", []), ("GB-hours", ["GB-hours"])],
)
def test_another_unit_is_found(unit, other):
    assert usage(period("2026-11-01", "1", unit=unit)).units == other


def test_the_forecast_is_the_mean_of_the_last_seven_complete_days():
    # The refresh was at 12:00: the 9th is complete, and the 10th has 4 of what it will have.
    found = usage(*days("2026-11-01", 1, 1, *[7] * 5, 14, 14, 4))
    # Seven days until the 9th: 5 * 7 + 2 * 14 = 63, which is 9 a day. The 10th to the 30th are 21 days.
    assert found.used("2026-11") == 2 + 63 + 4
    forecast = found.forecast()
    assert forecast.used == 2 + 63 + 21 * 9
    assert forecast.cost == (254 - 100) * Decimal("0.5")
    # 65 until the 9th, then 9 a day: the allowance of 100 ends 35 / 9 days later.
    assert forecast.exhausted_at == datetime(2026, 11, 10, tzinfo=UTC) + timedelta(
        days=float(Decimal(35) / 9)
    )


def test_before_the_refresh_the_day_before_is_not_complete():
    morning = datetime(2026, 11, 10, 11, 59, tzinfo=UTC)
    found = usage(*days("2026-11-01", *[10] * 8, 3), at=morning)
    # The 9th is known until noon only, so it counts as 10.
    assert found.forecast().used == 30 * 10


def test_a_running_day_above_the_mean_counts_as_it_is():
    found = usage(*days("2026-11-01", *[1] * 9, 50))
    assert found.forecast().used == 9 + 50 + 20


def test_on_the_first_of_a_month_the_forecast_is_of_the_month_before():
    found = usage(*days("2026-10-01", *[2] * 31), at=datetime(2026, 11, 1, 5, tzinfo=UTC))
    assert (found.month, found.used("2026-11"), found.forecast().used) == ("2026-11", 0, 60)


def test_an_allowance_that_is_used_up_has_its_time():
    found = usage(*days("2026-11-01", *[40] * 9))
    assert found.forecast().exhausted_at == datetime(2026, 11, 3, 12, tzinfo=UTC)
    assert usage(*days("2026-11-01", *[1] * 9)).forecast().exhausted_at is None
    free = Price("GB-seconds", Decimal(0), Decimal(1))
    assert usage(*days("2026-11-01", *[40] * 9), price=free).forecast().exhausted_at is None


def test_a_group_has_its_part_of_the_cost():
    found = usage(*days("2026-11-01", *[40] * 5), *days("2026-11-01", *[10] * 5, environment=OTHER))
    assert found.cost("2026-11") == 75
    assert found.cost_of("2026-11", Group(ENV)) == 60
    assert found.cost_of("2026-11", Group(OTHER)) == 15
    [row] = rows_of([found], "2026-11")
    assert list(row.groups) == [Group(ENV), Group(OTHER)]
    assert row.to_json()["cost"] == "75"
    assert total_of([row]) == (75, 300)
    assert row.describe().startswith("FUNCTION_COMPUTE: 250 of 100 free GB-seconds (250.0%), $75, forecast ")


def test_whole_months_are_read():
    now = datetime(2026, 11, 5, 12, 15, tzinfo=UTC)
    assert interval_to_read(now, timedelta(days=7)) == (datetime(2026, 10, 1, tzinfo=UTC), now)
    assert interval_to_read(now, timedelta(days=3)) == (datetime(2026, 11, 1, tzinfo=UTC), now)
