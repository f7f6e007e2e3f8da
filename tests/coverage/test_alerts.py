"""Each cause rings once: hours pass by a clock that is handed in."""

from __future__ import annotations

import datetime as dt

import pytest

from airflow_provider_forge.coverage.alerts import (
    TOKEN_DAYS,
    AlertState,
    due_threshold,
    gaps_to_report,
    unattended_gaps,
)
from airflow_provider_forge.coverage.healing import HealRun
from tests.operators.coverages import DAYS, HOURS, KEEP, NOW, ago, coverage

ALERT_BEFORE = 48 * HOURS
# Of 336 hours that there are.
EXPIRES_IN_A_DAY = (ago(12 * 24 + 24), ago(12 * 24 + 23))


@pytest.fixture
def look():
    """Return a function that looks once, as a task does, and keeps its notes."""
    notes = AlertState()

    def look(*gaps, now=NOW, is_active=False, tried=(), keep=KEEP):
        nonlocal notes
        notes = AlertState.from_json(notes.to_json())
        notes.tried += tried
        found = coverage(*gaps, now=now, keep=keep)
        told = gaps_to_report(found, now, ALERT_BEFORE, notes, is_active=is_active)
        notes.update(found, now, None)
        look.notes = notes
        return [(gap.start, gap.end) for gap in told]

    return look


def hourly(count):
    return [NOW + number * HOURS for number in range(count)]


def test_a_complete_coverage_raises_no_alert(look):
    assert look() == []


def test_a_gap_is_reported_once(look):
    told = [look(EXPIRES_IN_A_DAY, now=now) for now in hourly(30)]
    assert told[0] == [EXPIRES_IN_A_DAY]
    assert not any(told[1:])


@pytest.mark.parametrize(("hours_left", "rings"), [(49, False), (48, True), (47, True)])
def test_a_gap_is_reported_when_it_begins_to_expire(look, hours_left, rings):
    now = NOW.replace(minute=15)
    start = now - KEEP + hours_left * HOURS
    assert bool(look((start, start + HOURS), now=now)) is rings


def test_a_gap_is_reported_in_the_hour_in_which_it_begins_to_expire(look):
    gap = (ago(14 * 24 - 52), ago(14 * 24 - 53))
    rung = [bool(look((gap[1] - 2 * HOURS, gap[0]), now=now)) for now in hourly(12)]
    assert sum(rung) == 1
    assert not rung[0]


def test_the_gaps_of_one_night_are_reported_together(look):
    night = [(ago(14 * 24 - 50 - number), ago(14 * 24 - 50.5 - number)) for number in range(10)]
    night = [(start, start + HOURS / 2) for start, _ in night]
    told = [look(*night, now=now) for now in hourly(24)]
    assert [len(each) for each in told if each] == [10]


def test_a_gap_that_expires_in_days_is_reported_later(look):
    near, far = EXPIRES_IN_A_DAY, (ago(5 * 24), ago(5 * 24 - 1))
    assert look(near, far) == [near]
    later = NOW + 8 * DAYS
    assert look(far, now=later) == [far]


def test_a_gap_that_grows_stays_the_same(look):
    start = ago(13 * 24)
    told = [
        look((start, ago(0.75, now)), now=now) for now in (NOW + 6 * number * HOURS for number in range(60))
    ]
    assert len(told[0]) == 1
    assert not any(told[1:])


def test_a_gap_that_was_healed_and_is_back_is_reported_again(look):
    assert look(EXPIRES_IN_A_DAY)
    assert not look(now=NOW + HOURS)
    assert look(EXPIRES_IN_A_DAY, now=NOW + 2 * HOURS)


def test_the_rest_of_a_reported_gap_is_not_reported_again(look):
    start, end = EXPIRES_IN_A_DAY
    assert look((start, end))
    assert not look((start + HOURS / 4, start + HOURS / 2), (end - HOURS / 4, end), now=NOW + HOURS)


def test_a_gap_that_can_no_longer_be_healed_is_not_reported(look):
    """Such as what a catchup has left out, because it could not be had in time."""
    first = ago(14 * 24) + HOURS / 4
    assert not look((first, first + HOURS / 2))
    assert look((first, first + HOURS))


def test_a_shorter_age_limit_of_the_destination_moves_the_alert_forward(look):
    gap = (ago(2), ago(1.5))
    assert look(gap, keep=3 * HOURS) == [gap]


class TestWhileOthersAreAtWork:
    """A catchup leaves gaps wherever it is at the moment."""

    def test_a_gap_is_reported_only_if_it_lasts(self, look):
        assert not look(EXPIRES_IN_A_DAY, is_active=True)
        assert not look(EXPIRES_IN_A_DAY, is_active=True, now=NOW + HOURS / 6)
        assert look(EXPIRES_IN_A_DAY, is_active=True, now=NOW + HOURS)

    def test_another_gap_each_hour_is_not_reported(self, look):
        for number, now in enumerate(hourly(10)):
            start = EXPIRES_IN_A_DAY[0] + number * HOURS
            assert not look((start, start + HOURS / 2), is_active=True, now=now)

    def test_a_shrinking_backlog_is_not_reported(self, look):
        """Oldest first, as a catchup goes; with four apps of one account, 19 hours in an hour."""
        for number, now in enumerate(hourly(18)):
            start = ago(13.9 * 24) + number * 19 * HOURS
            assert not look((start, ago(0.75, now)), is_active=True, now=now)

    def test_a_backlog_that_does_not_shrink_is_reported(self, look):
        backlogs = [(ago(14 * 24, now) + HOURS / 2, ago(0.75, now)) for now in hourly(3)]
        told = [look(gap, is_active=True, now=now) for gap, now in zip(backlogs, hourly(3), strict=True)]
        assert [len(each) for each in told] == [0, 1, 0]

    def test_a_backlog_is_reported_at_once_if_no_run_is_active(self, look):
        assert look((ago(13.9 * 24), ago(0.75)))


@pytest.mark.parametrize(
    ("hours", "came_to", "trusted"),
    [
        # Five windows a minute.
        (1, ago(330) + 75 * HOURS, True),
        (1, ago(330) + 2 * HOURS, True),
        # It is only pushed on by windows that expire.
        (1, ago(330) + 1.5 * HOURS, False),
        (1, ago(330), False),
        (24, ago(330) + 24 * HOURS, False),
        # Too early to say.
        (0.25, ago(330), True),
    ],
)
def test_a_catchup_is_trusted_while_it_is_faster_than_time(hours, came_to, trusted):
    notes = AlertState()
    assert notes.trusts(ago(330), NOW)
    notes.update(coverage(), NOW, ago(330))
    assert notes.trusts(came_to, NOW + hours * HOURS) is trusted


def test_a_catchup_that_is_not_trusted_is_so_until_the_next_observation():
    """A check by hand, soon after an alert, must not make its gap vanish: it would be reported again."""
    notes = AlertState()
    notes.update(coverage(), NOW, ago(330))
    assert not notes.trusts(ago(330), NOW + HOURS)
    notes.update(coverage(), NOW + HOURS, ago(330))
    notes = AlertState.from_json(notes.to_json())
    assert not notes.trusts(ago(330), NOW + 1.2 * HOURS)
    assert notes.trusts(ago(200), NOW + 2 * HOURS)


def test_a_catchup_that_ended_leaves_no_trace_in_the_next_one():
    notes = AlertState()
    notes.update(coverage(), NOW, ago(330))
    notes.update(coverage(), NOW + HOURS, None)
    assert notes.trusts(ago(330), NOW + 2 * HOURS)


def test_a_gap_is_unattended_whether_or_not_it_was_reported(look):
    for now in hourly(3):
        look(EXPIRES_IN_A_DAY, now=now)
        found = coverage(EXPIRES_IN_A_DAY, now=now)
        [gap] = unattended_gaps(found, now, look.notes, is_active=False)
        assert (gap.start, gap.end) == EXPIRES_IN_A_DAY


class TestHealing:
    def test_a_gap_that_is_being_healed_is_not_reported(self, look):
        assert not look(EXPIRES_IN_A_DAY, tried=[HealRun(*EXPIRES_IN_A_DAY, NOW)])
        assert not look(EXPIRES_IN_A_DAY, now=NOW + 2 * HOURS)

    def test_a_gap_that_was_not_healed_is_reported(self, look):
        tried = [HealRun(*EXPIRES_IN_A_DAY, NOW)]
        told = [look(EXPIRES_IN_A_DAY, now=now, tried=tried if now == NOW else ()) for now in hourly(8)]
        assert [len(each) for each in told] == [0, 0, 0, 1, 0, 0, 0, 0]

    def test_a_healing_run_is_forgotten_once_its_gap_is_healed(self, look):
        look(EXPIRES_IN_A_DAY, tried=[HealRun(*EXPIRES_IN_A_DAY, NOW)])
        assert look.notes.tried
        look(now=NOW + HOURS)
        assert look.notes.tried == []


class TestAfterTheClockWasAhead:
    """A state from the future is none: or else nothing would be reported until then."""

    AHEAD = NOW + 3650 * DAYS

    def test_an_observation_is_replaced(self, look):
        look(now=self.AHEAD)
        assert [bool(look(EXPIRES_IN_A_DAY, is_active=True, now=now)) for now in hourly(2)] == [False, True]
        assert look.notes.observed_at == NOW + HOURS

    def test_a_catchup_has_to_gain_on_the_clock_again(self):
        notes = AlertState()
        notes.update(coverage(), self.AHEAD, ago(330))
        assert notes.trusts(ago(330), NOW)
        notes.update(coverage(), NOW, ago(330))
        assert not notes.trusts(ago(330), NOW + HOURS)

    def test_a_gap_that_was_tried_then_is_reported(self, look):
        assert look(EXPIRES_IN_A_DAY, tried=[HealRun(*EXPIRES_IN_A_DAY, self.AHEAD)])


@pytest.mark.parametrize(
    ("days", "threshold"),
    [(400, None), (31, None), (30, 30), (8, 30), (7, 7), (2, 7), (1, 1), (0, 1), (-1, -1), (-400, -1)],
)
def test_the_threshold_that_a_token_has_reached(days, threshold):
    assert due_threshold(days, None) == threshold


def test_each_threshold_is_reported_once():
    told, rung = None, []
    for days in range(60, -60, -1):
        if (due := due_threshold(days, told)) is not None:
            told = due
            rung.append((days, due))
    assert rung == [(days, days) for days in TOKEN_DAYS]


def test_a_skipped_threshold_is_not_reported_later():
    assert due_threshold(5, None) == 7
    assert due_threshold(5, 7) is None


def test_the_alert_state_survives_json():
    notes = AlertState(
        "bucket",
        NOW,
        [EXPIRES_IN_A_DAY],
        ago(300),
        False,
        [EXPIRES_IN_A_DAY],
        [HealRun(*EXPIRES_IN_A_DAY, NOW)],
    )
    assert AlertState.from_json(notes.to_json()) == notes
    assert AlertState.from_json({}) == AlertState()


@pytest.mark.parametrize(
    "damaged",
    [
        {"seen_at": "yesterday"},
        {"seen_at": 5},
        {"seen": 5},
        {"catchup": "2026-11-23T05:00:00"},
        {"seen": [["2026-11-23T05:00:00", "2026-11-23T06:00:00"]]},
        {"told": [["2026-11-23T05:00:00+00:00"]]},
        {"tried": [["2026-11-23T05:00:00+00:00", "2026-11-23T06:00:00+00:00"]]},
        {"tried": {"a": 1}},
    ],
)
def test_a_damaged_alert_state_is_a_value_error(damaged):
    with pytest.raises(ValueError, match=r"."):
        AlertState.from_json(damaged)


def test_checks_in_quick_succession_confirm_no_gap(look):
    for minutes in (0, 10, 20):
        assert not look(EXPIRES_IN_A_DAY, is_active=True, now=NOW + dt.timedelta(minutes=minutes))
    assert look.notes.observed_at == NOW
