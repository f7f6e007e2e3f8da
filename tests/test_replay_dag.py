"""The DAG that replays the archive."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pendulum
import pytest

from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from tests.dag_files import parse_dags

SHIPPED = Path(__file__).parent.parent / "dags" / "forge_metrics_replay.py"


@pytest.fixture
def parse(tmp_path):
    return lambda source: parse_dags(source, tmp_path / SHIPPED.name)


def test_it_is_paused_and_has_no_runs_but_backfills(parse):
    [dag] = parse(SHIPPED.read_text()).values()
    assert (dag.dag_id, dag.catchup, dag.is_paused_upon_creation) == ("forge_metrics_replay", False, True)
    assert (dag.timetable.scheduled, dag.timetable.periodic) == (False, True)
    [task] = dag.tasks
    assert isinstance(task, ForgeMetricsToOtlpOperator)
    assert (task.source, task.max_active_tis_per_dag) == ("archive", 3)


def test_a_backfill_reaches_as_far_back_as_an_archive(parse):
    [dag] = parse(SHIPPED.read_text()).values()
    start = pendulum.now("UTC").subtract(years=3).start_of("hour")
    from airflow.timetables.base import TimeRestriction

    # As Airflow asks for the runs of a backfill.
    limits = TimeRestriction(earliest=start, latest=start + timedelta(hours=2), catchup=True)
    run = dag.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=limits)
    assert (run.data_interval.start, run.data_interval.end) == (start, start + timedelta(hours=1))


def test_a_second_receiver_is_one_more_line(parse):
    before, opening, after = SHIPPED.read_text().partition("DAGS = {\n")
    line = next(line for line in before.splitlines() if line.startswith('#   "'))
    dags = parse(before + opening + line.lstrip("#") + "\n" + after)
    assert dags["forge_metrics_replay_other"].tasks[0].otlp_conn_id == "otlp_other"
