"""Which gaps are healed, in which pieces."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_forge.coverage.coverage import QUARTER
from airflow_provider_forge.coverage.healing import (
    HEAL_AGAIN_AFTER,
    MAX_RUNS,
    MAX_WINDOWS,
    HealRun,
    heal,
    is_being_healed,
    plan,
)
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.priority import LiveFirst
from tests.operators.coverages import DAYS, HOURS, NOW, ago, coverage

NIGHT = (ago(30), ago(28))


class Runs:
    """The runs of the DAG that heals."""

    def __init__(self) -> None:
        self.started: dict[str, dict[str, str]] = {}

    def start(self, run_id, conf):
        self.started[run_id] = conf


def spans(pieces):
    return [(piece.start, piece.end) for piece in pieces]


def test_a_gap_is_healed_by_a_run_from_its_beginning_to_its_end():
    assert spans(plan(coverage(NIGHT), [], NOW)) == [NIGHT]


def test_without_gaps_there_is_nothing_to_do():
    assert plan(coverage(), [], NOW) == []


def test_a_long_gap_is_healed_oldest_first_and_a_bounded_part_of_it_at_a_time():
    pieces = plan(coverage((ago(300), ago(20))), [], NOW)
    assert len(pieces) == MAX_RUNS
    assert {(piece.end - piece.start) / QUARTER for piece in pieces} == {MAX_WINDOWS}
    assert pieces[0].start == ago(300)
    assert [piece.end for piece in pieces[:-1]] == [piece.start for piece in pieces[1:]]


def test_adjacent_gaps_share_a_run():
    gaps = [(ago(hours), ago(hours) + HOURS / 2) for hours in range(60, 20, -5)]
    assert spans(plan(coverage(*gaps), [], NOW)) == [(ago(60), ago(49.5)), (ago(45), ago(34.5))]


def test_distant_gaps_have_a_run_each():
    gaps = [(ago(hours), ago(hours) + HOURS / 2) for hours in (200, 100, 50)]
    assert spans(plan(coverage(*gaps), [], NOW)) == gaps[:MAX_RUNS]


def test_a_run_is_left_for_a_live_window():
    shipped = Path(__file__).parents[2] / "dags" / "forge_metrics.py"
    [at_once] = re.findall(r"max_active_tis_per_dag=(\d+)", shipped.read_text())
    assert int(at_once) > MAX_RUNS


def test_a_fresh_window_is_left_to_its_own_run():
    """And to the retries of it."""
    assert spans(plan(coverage((ago(4), ago(0.75))), [], NOW)) == [(ago(4), ago(2))]
    assert plan(coverage((ago(2), ago(0.75))), [], NOW) == []


def test_windows_that_expire_before_a_run_can_begin_are_left_out():
    first = ago(14 * 24) + QUARTER
    pieces = plan(coverage((first, first + 2 * HOURS)), [], NOW)
    assert pieces[0].start + 14 * 24 * HOURS > NOW + HOURS / 2
    assert pieces[0].end == first + 2 * HOURS


def test_a_gap_is_not_tried_again_for_a_while():
    tried = [HealRun(*NIGHT, NOW - HOURS)]
    assert plan(coverage(NIGHT), tried, NOW) == []
    assert spans(plan(coverage(NIGHT), [HealRun(*NIGHT, NOW - HEAL_AGAIN_AFTER)], NOW)) == [NIGHT]


def test_a_gap_that_was_tried_while_the_clock_was_ahead_is_tried_again():
    found, tried = coverage(NIGHT), [HealRun(*NIGHT, NOW + 3650 * DAYS)]
    assert spans(plan(found, tried, NOW)) == [NIGHT]
    [gap] = found.gaps()
    assert not is_being_healed(gap, tried, NOW)


def test_an_adjacent_gap_is_tried():
    start, end = NIGHT
    tried = [HealRun(start, start + HOURS, NOW - HOURS)]
    assert spans(plan(coverage((start, end)), tried, NOW)) == [(start + HOURS, end)]


def test_the_trigger_form_of_the_run_has_the_interval():
    runs = Runs()
    heal(plan(coverage(NIGHT), [], NOW), runs)
    [(run_id, conf)] = runs.started.items()
    assert conf == {"from": f"{NIGHT[0]:%Y-%m-%dT%H:%M:%SZ}", "to": f"{NIGHT[1]:%Y-%m-%dT%H:%M:%SZ}"}
    assert run_id == f"heal__{NIGHT[0].isoformat()}__20261123T121200"
    # What Airflow allows by default.
    assert re.fullmatch(r"[A-Za-z0-9_.~:+-]+", run_id)


def test_live_windows_go_before_it():
    assert not LiveFirst()._is_live(HealRun(*NIGHT, NOW).run_id)


def test_the_same_gap_has_another_run_each_time():
    assert HealRun(*NIGHT, NOW).run_id != HealRun(*NIGHT, NOW + HOURS).run_id


def test_an_error_is_not_hidden():
    class Refusing:
        def start(self, run_id, conf):
            raise ConfigurationError("export_dag_id", "no")

    with pytest.raises(ConfigurationError):
        heal(plan(coverage(NIGHT), [], NOW), Refusing())
