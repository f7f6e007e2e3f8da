"""Coverage as people read it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pendulum
import pytest

from airflow_provider_forge.coverage.coverage import QUARTER, Coverage, Quarter, WindowStatus
from airflow_provider_forge.coverage.report import SYMBOLS, Segment, backfill_command, render, render_text
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR = dt.timedelta(hours=1)
START = dt.datetime(2026, 11, 22, 22, tzinfo=dt.timezone.utc)
LEGEND = "- pending  \u00b7 empty  \u25a0 delivered  R rejected  ! failed  x missing  X expires soon"
NOW = dt.datetime(2026, 11, 23, 2, 20, tzinfo=dt.timezone.utc)
KEEP = dt.timedelta(hours=5)


def picture(
    *outcomes: WindowStatus, alert_before: dt.timedelta = 48 * HOUR, metrics: Sequence[str] = ("COUNT",)
) -> list[str]:
    """Return the picture of quarter hours in a row."""
    quarters = tuple(Quarter(START + number * QUARTER, outcome) for number, outcome in enumerate(outcomes))
    coverage = Coverage(quarters, ("production",), tuple(metrics), KEEP)
    return render_text(coverage, NOW, alert_before, "mine")


def hour(outcome: WindowStatus) -> list[WindowStatus]:
    return [outcome] * 4


def test_each_day_is_a_line_and_each_hour_a_sign():
    text = picture(
        *hour(WindowStatus.DELIVERED),
        *hour(WindowStatus.EMPTY),
        *hour(WindowStatus.REJECTED),
        *hour(WindowStatus.PENDING),
    )
    heading, first, second = text[:3]
    assert heading.split() == ["UTC", *map(str, range(0, 24, 2))]
    assert first.startswith("2026-11-22 ")
    assert first[heading.index("22")] == SYMBOLS[WindowStatus.DELIVERED]
    assert first[heading.index("22") + 2] == SYMBOLS[WindowStatus.EMPTY]
    assert second == "2026-11-23 R -"
    assert text[3] == LEGEND
    counts = "4 pending, 4 empty, 4 delivered, 4 rejected, 0 failed, 0 missing"
    assert text[4] == f"16 windows of 15 minutes: {counts}"
    assert text[5] == "Environments: production. Metrics: COUNT"
    assert len(text) == 6


def test_the_legend_has_each_symbol_in_its_colour_and_fits_a_terminal():
    coverage = Coverage((Quarter(START, WindowStatus.EMPTY),), (), (), KEEP)
    days = next(render(coverage, NOW, HOUR, "mine"))
    assert Segment("\u00b7", "green") in days[-1]
    assert Segment("X", "bold red") in days[-1]
    assert len(LEGEND) <= 80


def test_thousands_are_separated_and_time_left_is_rounded_down():
    quarters = tuple(Quarter(START + number * QUARTER, WindowStatus.MISSING) for number in range(1340))
    coverage = Coverage(quarters, (), (), 14 * 24 * HOUR)
    text = render_text(coverage, pendulum.instance(START + HOUR / 60), HOUR, "mine")
    assert text[-3] == "22 Nov 22:00 \u2013 6 Dec 21:00 UTC: 1,340 missing, 335 h left"
    assert "1,340 windows of 15 minutes: 0 pending," in " ".join(text)
    assert "1,340 missing" in " ".join(text)


def test_a_gap_that_can_no_longer_be_delivered_has_no_backfill():
    coverage = Coverage((Quarter(START, WindowStatus.MISSING),), (), (), 4.8 * HOUR)
    text = render_text(coverage, NOW, HOUR, "mine")
    assert "22 Nov 22:00\u201322:15 UTC: 1 missing, 28 min left, too late to deliver" in text
    assert not [line for line in text if "backfill" in line]


MANY = 60


def caught_up(*, minutes_ago: float, delivered: int = 40) -> Coverage:
    """Return a coverage whose first windows were delivered so long ago, all at once, and no others."""
    first = NOW - MANY * QUARTER
    at = NOW - dt.timedelta(minutes=minutes_ago)
    quarters = [
        Quarter(start, WindowStatus.DELIVERED, 1, 1, at, at)
        if number < delivered
        else Quarter(start, WindowStatus.MISSING)
        for number, start in enumerate(first + number * QUARTER for number in range(MANY))
    ]
    return Coverage(tuple(quarters), ("production",), ("COUNT",), 30 * HOUR)


def test_a_catchup_is_named_with_where_it_is():
    coverage = caught_up(minutes_ago=1)
    text = render_text(coverage.with_catchup(NOW - 20 * QUARTER), NOW, HOUR, "mine")
    assert "Catchup has come to 2026-11-22T21:20:00Z: the windows after it are pending" in text
    assert not [line for line in text if "backfill" in line]


def test_a_catchup_that_is_known_by_its_deliveries_only_is_a_hint():
    text = render_text(caught_up(minutes_ago=9), NOW, HOUR, "mine")
    at = text.index("2026-11-22T21:05:00Z was fetched less than 10 minutes ago:")
    assert text[at + 1] == "its catchup or backfill may still come to the gaps after it"
    assert "20 missing" in text[at - 1]


@pytest.mark.parametrize(
    "coverage",
    [
        caught_up(minutes_ago=11),
        caught_up(minutes_ago=-60),
        caught_up(minutes_ago=1, delivered=MANY),
        caught_up(minutes_ago=1, delivered=0),
    ],
    ids=["long ago", "in the future", "no gap after it", "nothing"],
)
def test_without_a_sign_of_a_catchup_there_is_no_hint(coverage):
    assert "may still come" not in " ".join(render_text(coverage, NOW, HOUR, "mine"))


def test_the_names_of_all_metrics_stand_in_lines_that_fit_a_terminal():
    text = picture(*hour(WindowStatus.EMPTY), metrics=DEFAULT_METRICS)
    lines = text[text.index(LEGEND) + 2 :]
    assert " ".join(lines) == f"Environments: production. Metrics: {', '.join(DEFAULT_METRICS)}"
    assert max(map(len, lines)) < 80


def test_an_hour_that_is_about_to_be_lost_has_a_sign_of_its_own():
    """Each hour by its own windows: the gap's beginning says nothing of its end."""
    text = picture(
        *hour(WindowStatus.MISSING),
        *hour(WindowStatus.FAILED),
        *hour(WindowStatus.MISSING),
        alert_before=HOUR,
    )
    first, second = text[1:3]
    assert (first.split()[1:], second.split()[1:]) == (["X", "!"], ["x"])


def test_a_delivered_window_does_not_expire_soon():
    text = picture(*hour(WindowStatus.DELIVERED), *hour(WindowStatus.REJECTED))
    assert text[1].split()[1:] == [SYMBOLS[WindowStatus.DELIVERED], SYMBOLS[WindowStatus.REJECTED]]


def test_each_gap_comes_with_the_command_that_heals_it():
    text = picture(WindowStatus.MISSING, WindowStatus.FAILED, WindowStatus.DELIVERED, WindowStatus.MISSING)
    advice, first, dialog, how_first, second, _, how_second = text[-7:]
    assert advice.startswith("Run one at a time, ")
    assert "pause mine" in advice
    assert first == ("22 Nov 22:00\u201322:30 UTC: 2 failed and missing, expiring soon, 40 min left")
    assert dialog == (
        "  Backfill dialog: From 2026-11-22 22:00, To 2026-11-22 22:15 (UTC), All Runs, Max Active Runs 8; or"
    )
    assert how_first == (
        "  airflow backfill create --dag-id mine --from-date 2026-11-22T22:00:00Z --to-date"
        " 2026-11-22T22:15:00Z --reprocess-behavior completed --max-active-runs 8"
    )
    assert second == "22 Nov 22:45\u201323:00 UTC: 1 missing, expiring soon, 85 min left"
    assert "--from-date 2026-11-22T22:45:00Z --to-date 2026-11-22T22:45:00Z " in how_second


def test_a_gap_that_has_time_is_not_called_expiring_soon():
    text = picture(*hour(WindowStatus.MISSING), alert_before=HOUR / 2)
    assert text[-3].endswith(": 4 missing, 40 min left")


def test_an_expired_gap_has_no_time_left():
    quarters = (Quarter(START - HOUR, WindowStatus.MISSING),)
    coverage = Coverage(quarters, (), (), KEEP)
    assert render_text(coverage, NOW + HOUR, HOUR, "mine")[-1].endswith("no time left, too late to deliver")
    [gap] = coverage.gaps()
    assert "--dag-id other " in backfill_command(gap, "other")
