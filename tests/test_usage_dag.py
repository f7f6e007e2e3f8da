"""The DAG that exports usage, and its page."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from airflow_provider_forge.operators.forge_usage_to_otlp import MAX_LOOKBACK, ForgeUsageToOtlpOperator
from airflow_provider_forge.usage.metrics import DATE, INSTRUMENTS, MONTH, RESOURCE, SITE
from airflow_provider_forge.usage.months import FORECAST_DAYS, FORECAST_METHOD, REFRESH
from airflow_provider_forge.usage.prices import load_prices
from tests.dag_files import parse_dags

DAGS = Path(__file__).parent.parent / "dags"
SHIPPED = DAGS / "forge_usage.py"
PAGE = (DAGS.parent / "docs" / "usage.md").read_text()


@pytest.fixture
def parse(tmp_path):
    def parse(source: str):
        [dag] = parse_dags(source, tmp_path / SHIPPED.name).values()
        return dag

    return parse


def test_it_is_one_daily_dag_after_the_refresh_without_catchup(parse):
    dag = parse(SHIPPED.read_text())
    assert (dag.dag_id, dag.catchup, dag.max_active_runs, dag.max_active_tasks) == (
        "forge_usage",
        False,
        1,
        1,
    )
    minute, hour, *rest = dag.schedule.split()
    assert (int(hour), rest) == (REFRESH.hour, ["*"] * 3)
    assert int(minute) > REFRESH.minute
    [task] = dag.tasks
    assert isinstance(task, ForgeUsageToOtlpOperator)
    assert (task.task_id, task.group_by, task.lookback) == ("usage", "environment", timedelta(days=7))


def test_it_uses_the_connections_of_the_metrics_dag(parse):
    [entry] = re.findall(r'\{"forge_conn_id".*\}', SHIPPED.read_text())
    assert entry in (DAGS / "forge_metrics.py").read_text()


def test_what_its_comment_adds_are_tasks_of_their_own(parse):
    before, opening, after = SHIPPED.read_text().partition("APPS = {\n")
    lines = [line.lstrip("#") for line in before.splitlines() if line.startswith('#   "')]
    dag = parse(before + opening + "\n".join(lines) + "\n" + after)
    assert sorted(dag.task_ids) == ["other", "sites", "usage"]
    assert dag.get_task("sites").group_by == "site"
    assert dag.get_task("other").app_id == "ari:cloud:ecosystem::app/…"


def test_a_budget_is_one_entry(parse):
    [task] = parse(SHIPPED.read_text().replace('"otlp_default"}', '"otlp_default", "budget": 50}')).tasks
    assert task.budget == 50


def test_it_is_short_enough_to_be_read():
    assert len(SHIPPED.read_text().splitlines()) <= 60


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_its_page_has_every_argument_of_the_operator():
    arguments = set(inspect.signature(ForgeUsageToOtlpOperator.__init__).parameters) - {"self", "kwargs"}
    assert len(arguments) >= 8
    assert arguments <= set(re.findall(r"`(\w+)`", section("The operator")))
    assert f"up to {MAX_LOOKBACK.days} days" in section("The operator")


def test_its_page_has_every_metric_with_its_unit():
    rows = [row for row in section("Metrics").splitlines() if row.startswith("| `forge")]
    documented = {
        (name, re.findall(r"`([^`]+)`", cells[2])[0])
        for cells in (row.split("|") for row in rows)
        for name in re.findall(r"`([^`]+)`", cells[1])
    }
    assert documented == {(each.name, each.unit) for each in INSTRUMENTS}
    assert {RESOURCE, SITE, DATE, MONTH} <= set(re.findall(r"`([\w.]+)`", section("Metrics")))
    assert FORECAST_METHOD in section("Metrics")
    assert f"last {FORECAST_DAYS} complete days" in FORECAST_METHOD


def test_its_page_has_the_prices_that_are_used():
    documented = {}
    for row in section("Prices").splitlines():
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        if not cells or not cells[0].startswith("`"):
            continue
        numbers = re.findall(r"[\d.]+", cells[3])
        per = {"million": 10**6, "thousand": 1000}.get(cells[3].split()[-1], 1)
        for number, name in enumerate(re.findall(r"`(\w+)`", cells[0])):
            price = Decimal(numbers[min(number, len(numbers) - 1)])
            documented[name] = (Decimal(cells[2].replace(",", "")), price, Decimal(per), cells[1])
    used = load_prices().resources
    assert documented == {
        name: (price.allowance, price.price, price.per, price.unit.removesuffix("s"))
        for name, price in used.items()
    }
