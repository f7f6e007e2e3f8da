"""The DAG that people copy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.priority import LiveFirst
from airflow_provider_forge.timetables import ForgeMetricsTimetable
from tests.airflow_version import AIRFLOW
from tests.dag_files import parse_dags

try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow 3.0 and 3.1
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

SHIPPED = Path(__file__).parent.parent / "dags" / "forge_metrics.py"


@pytest.fixture
def parse(tmp_path):
    return lambda source: parse_dags(source, tmp_path / SHIPPED.name)


def test_it_is_one_dag_with_one_task_and_with_catchup(parse):
    (dag,) = parse(SHIPPED.read_text()).values()
    assert (dag.dag_id, dag.catchup) == ("forge_metrics", True)
    assert dag.timetable.serialize() == ForgeMetricsTimetable().serialize()
    (task,) = dag.tasks
    assert isinstance(task, ForgeMetricsToOtlpOperator)
    assert task.live_first, "nobody waits 14 days of windows for the first new point"
    assert (task.task_id, task.forge_conn_id, task.otlp_conn_id) == (
        "export",
        "forge_default",
        "otlp_default",
    )


def test_at_most_three_tasks_of_all_its_runs_wait_for_the_rate_limit(parse):
    (dag,) = parse(SHIPPED.read_text()).values()
    # max_active_runs and pools would not do: backfills ignore the one, and nobody makes the other.
    assert [task.max_active_tis_per_dag for task in dag.tasks] == [3]


def test_a_second_app_is_one_more_line_and_a_dag_of_its_own(parse):
    line = '    "forge_metrics_other": {"app_id": "ari:cloud:ecosystem::app/other"},\n'
    before, opening, after = SHIPPED.read_text().partition("DAGS = {\n")
    dags = parse(before + opening + line + after)
    assert sorted(dags) == ["forge_metrics", "forge_metrics_other"]
    (task,) = dags["forge_metrics_other"].tasks
    assert (task.app_id, task.forge_conn_id) == ("ari:cloud:ecosystem::app/other", "forge_default")


def test_the_fresher_dag_of_the_comment_works(parse):
    before, opening, after = SHIPPED.read_text().partition("DAGS = {\n")
    commented = before[before.index('#   "forge_metrics_live"') :]
    lines = "".join(line.lstrip("#").rstrip() + "\n" for line in commented.splitlines())
    live = parse(before + opening + lines + after)["forge_metrics_live"]
    assert (live.timetable.interval, live.catchup) == (timedelta(minutes=5), False)
    assert [task.revisit_after for task in live.tasks] == [None]


def test_live_windows_go_before_backfills(parse):
    (dag,) = parse(SHIPPED.read_text()).values()
    (rule,) = [task.weight_rule for task in dag.tasks]
    # Before 3.2, Airflow makes the object at once.
    assert rule == f"{LiveFirst.__module__}.{LiveFirst.__name__}" or isinstance(rule, LiveFirst)


def test_the_recipe_for_a_fleet_without_redis_can_be_pasted(parse):
    readme = (SHIPPED.parent.parent / "docs" / "rate-limit.md").read_text()
    [recipe] = re.findall(r'^("pool": .*)$', readme, re.MULTILINE)
    before, opening, after = SHIPPED.read_text().partition("DAGS = {\n")
    dags = parse(before + "import time\n" + opening + f'    "one_at_a_time": {{{recipe}}},\n' + after)
    assert [task.pool for task in dags["one_at_a_time"].tasks] == ["forge"]
    assert DagSerialization.to_dict(dags["one_at_a_time"])


def test_it_is_short_enough_to_be_read():
    assert len(SHIPPED.read_text().splitlines()) <= 60


def test_airflow_parses_all_shipped_files_without_an_error_or_a_warning():
    # In a process of its own: the package, too, may warn where it is imported for the first time.
    command = [sys.executable, "-W", "always", "-m", "tests.dag_files", SHIPPED.parent]
    done = subprocess.run(command, cwd=SHIPPED.parents[1], check=True, capture_output=True, text=True)
    errors, warnings, dags = json.loads(done.stdout.splitlines()[-1])
    assert (errors, warnings) == ({}, {})
    assert len(dags) == len(list(SHIPPED.parent.glob("*.py")))


OLD_PLACE = "airflow.sdk.definitions.deadline"


def test_the_documented_deadline_is_one(parse):
    page = (SHIPPED.parent.parent / "docs" / "operations.md").read_text()
    snippet = re.search(r"```python\n(from airflow\.sdk import AsyncCallback.+?)```", page, re.DOTALL)[1]
    source = SHIPPED.read_text().replace("DAGS = {", f"{snippet}\nDAGS = {{", 1)
    source = source.replace(
        "        max_active_runs=8,", "        max_active_runs=8,\n        deadline=LATE,"
    )
    if AIRFLOW < (3, 1):
        # There is nothing to import; the page says so.
        assert "On Airflow 3.1 and newer" in page
        return
    if AIRFLOW < (3, 2):
        source = source.replace("from airflow.sdk import Async", f"from {OLD_PLACE} import Async")
        assert f"On Airflow 3.1, import the three from\n`{OLD_PLACE}`" in page
    (dag,) = parse(source).values()
    assert dag.deadline
