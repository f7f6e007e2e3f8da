"""Coverage as people read it."""

from __future__ import annotations

import datetime as dt

from airflow_provider_forge.delivery.coverage import QUARTER, Coverage, Outcome, Quarter
from airflow_provider_forge.delivery.picture import LEGEND, SIGNS, backfill, lines

HOUR = dt.timedelta(hours=1)
START = dt.datetime(2026, 11, 22, 22, tzinfo=dt.timezone.utc)
NOW = dt.datetime(2026, 11, 23, 2, 20, tzinfo=dt.timezone.utc)
KEEP = dt.timedelta(hours=5)


def picture(*outcomes: Outcome, alert_before: dt.timedelta = 48 * HOUR) -> list[str]:
    """Return the picture of quarter hours in a row."""
    quarters = tuple(Quarter(START + number * QUARTER, outcome) for number, outcome in enumerate(outcomes))
    coverage = Coverage(quarters, ("production",), ("COUNT",), KEEP)
    return lines(coverage, NOW, alert_before, "mine")


def hour(outcome: Outcome) -> list[Outcome]:
    return [outcome] * 4


def test_each_day_is_a_line_and_each_hour_a_sign():
    text = picture(
        *hour(Outcome.DELIVERED), *hour(Outcome.EMPTY), *hour(Outcome.REJECTED), *hour(Outcome.PENDING)
    )
    heading, first, second = text[:3]
    assert heading.split() == ["UTC", *map(str, range(0, 24, 2))]
    assert first.startswith("2026-11-22 ")
    assert first[heading.index("22")] == SIGNS[Outcome.DELIVERED]
    assert first[heading.index("22") + 2] == SIGNS[Outcome.EMPTY]
    assert second == "2026-11-23 R"
    assert text[3] == LEGEND
    counts = "4 pending, 4 empty, 4 delivered, 4 rejected, 0 failed, 0 missing"
    assert text[4] == f"16 windows of 15 minutes: {counts}"
    assert len(text) == 5


def test_an_hour_that_is_about_to_be_lost_has_a_sign_of_its_own():
    """Each hour by its own windows: the gap's beginning says nothing of its end."""
    text = picture(*hour(Outcome.MISSING), *hour(Outcome.FAILED), *hour(Outcome.MISSING), alert_before=HOUR)
    first, second = text[1:3]
    assert (first.split()[1:], second.split()[1:]) == (["X", "!"], ["x"])
    assert "X expiring soon" in LEGEND


def test_what_was_delivered_does_not_expire_soon():
    text = picture(*hour(Outcome.DELIVERED), *hour(Outcome.REJECTED))
    assert text[1].split()[1:] == [SIGNS[Outcome.DELIVERED], SIGNS[Outcome.REJECTED]]


def test_each_gap_comes_with_the_command_that_heals_it():
    text = picture(Outcome.MISSING, Outcome.FAILED, Outcome.DELIVERED, Outcome.MISSING)
    advice, first, how_first, second, how_second = text[-5:]
    assert advice.startswith("Once catchup has finished, ")
    assert "with mine paused" in advice
    assert first == (
        "2026-11-22T22:00:00Z to 2026-11-22T22:30:00Z: 2 failed and missing, expiring soon, 1 h left"
    )
    assert how_first == (
        "  airflow backfill create --dag-id mine --from-date 2026-11-22T22:00:00Z --to-date"
        " 2026-11-22T22:15:00Z --reprocess-behavior completed --max-active-runs 8"
    )
    assert second == "2026-11-22T22:45:00Z to 2026-11-22T23:00:00Z: 1 missing, expiring soon, 1 h left"
    assert "--from-date 2026-11-22T22:45:00Z --to-date 2026-11-22T22:45:00Z " in how_second


def test_a_gap_that_has_time_is_not_called_expiring_soon():
    text = picture(*hour(Outcome.MISSING), alert_before=HOUR / 2)
    assert text[-2].endswith(": 4 missing, 1 h left")


def test_what_has_expired_has_no_time_left():
    quarters = (Quarter(START - HOUR, Outcome.MISSING),)
    coverage = Coverage(quarters, (), (), KEEP)
    assert lines(coverage, NOW + HOUR, HOUR, "mine")[-2].endswith("0 h left")
    [gap] = coverage.gaps()
    assert "--dag-id other " in backfill(gap, "other")
