"""The DAG that watches over the other one."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_forge.coverage import healing
from airflow_provider_forge.operators.forge_metrics_coverage import ForgeMetricsCoverageOperator
from airflow_provider_forge.windows import LIVE_FOR, MIN_TIME_LEFT
from tests.dag_files import parse_dags

DAGS = Path(__file__).parent.parent / "dags"
PAGE = DAGS.parent / "docs" / "coverage.md"
SHIPPED = DAGS / "forge_metrics_coverage.py"


@pytest.fixture
def parse(tmp_path):
    def parse(source: str):
        [dag] = parse_dags(source, tmp_path / SHIPPED.name).values()
        return dag

    return parse


def test_it_is_one_hourly_dag_with_a_task_for_the_shipped_dag(parse):
    dag = parse(SHIPPED.read_text())
    assert (dag.dag_id, dag.catchup, dag.max_active_runs) == ("forge_metrics_coverage", False, 1)
    # Tasks that share a Connection look at its token one after the other.
    assert dag.max_active_tasks == 1
    assert dag.schedule == "12 * * * *"
    [task] = dag.tasks
    assert isinstance(task, ForgeMetricsCoverageOperator)
    assert (task.task_id, task.export_dag_id) == ("forge_metrics", "forge_metrics")
    assert (task.alert_before, task.heal) == (timedelta(hours=48), False)


def test_it_watches_over_the_app_that_the_shipped_dag_delivers(parse):
    [entry] = [line for line in SHIPPED.read_text().splitlines() if line.startswith('    "forge_metrics"')]
    assert entry in (DAGS / "forge_metrics.py").read_text().splitlines()


def test_a_second_app_is_one_more_line_and_a_task_of_its_own(parse):
    before, opening, after = SHIPPED.read_text().partition("DAGS = {\n")
    line = next(line for line in before.splitlines() if line.startswith('#   "'))
    dag = parse(before + opening + line.lstrip("#") + "\n" + after)
    assert sorted(dag.task_ids) == ["forge_metrics", "forge_metrics_other"]
    other = dag.get_task("forge_metrics_other")
    assert (other.export_dag_id, other.app_id) == ("forge_metrics_other", "ari:cloud:ecosystem::app/…")


def test_healing_is_one_entry(parse):
    source = SHIPPED.read_text().replace('"otlp_default"}', '"otlp_default", "heal": True}')
    assert [task.heal for task in parse(source).tasks] == [True]


def test_it_is_short_enough_to_be_read():
    assert len(SHIPPED.read_text().splitlines()) <= 60


def test_its_page_has_every_argument_of_the_operator():
    section = PAGE.read_text().partition("## The operator")[2]
    arguments = set(inspect.signature(ForgeMetricsCoverageOperator.__init__).parameters) - {"self", "kwargs"}
    assert len(arguments) >= 6
    assert arguments <= set(re.findall(r"`(\w+)`", section))


def test_its_page_states_how_much_is_healed():
    section = PAGE.read_text().partition("## Healing by itself")[2].partition("\n## ")[0]
    assert f"At most {healing.MAX_RUNS} runs an hour, of at most {healing.MAX_WINDOWS} windows" in section
    assert (timedelta(hours=2), timedelta(minutes=30)) == (LIVE_FOR, MIN_TIME_LEFT)
    assert (timedelta(hours=6), timedelta(hours=3)) == (healing.HEAL_AGAIN_AFTER, healing.TIME_TO_HEAL)


def test_the_entry_on_its_page_can_be_pasted(parse):
    [entry] = re.findall(r"```python\n(DAGS = .*?)```", PAGE.read_text(), re.DOTALL)
    before, _, after = SHIPPED.read_text().partition("DAGS = {\n")
    source = before + entry + after.partition("\n}\n")[2]
    assert [task.heal for task in parse(source).tasks] == [True]
