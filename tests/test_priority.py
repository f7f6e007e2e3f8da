from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from airflow.task.priority_strategy import (
    PriorityWeightStrategy,
    validate_and_load_priority_weight_strategy,
)

from airflow_provider_forge.coverage.healing import HealRun
from airflow_provider_forge.plugin import ForgePlugin
from airflow_provider_forge.priority import HEAD_START, LiveFirst


def weight(run_id: str, priority_weight: int = 1) -> int:
    task = SimpleNamespace(priority_weight=priority_weight)
    return LiveFirst().get_weight(SimpleNamespace(run_id=run_id, task=task))


def run_id(kind: str, ago: timedelta) -> str:
    return f"{kind}__{(datetime.now(timezone.utc) - ago).isoformat()}"


@pytest.mark.parametrize("kind", ["scheduled", "backfill", "manual", "asset_triggered", "live"])
def test_a_live_run_of_any_kind_goes_first(kind):
    assert weight(run_id(kind, timedelta(minutes=25))) == 1 + HEAD_START


@pytest.mark.parametrize("kind", ["scheduled", "backfill", "live", "operator_triggered"])
@pytest.mark.parametrize("ago", [timedelta(hours=3), timedelta(days=13)])
def test_an_older_run_has_its_own_weight(kind, ago):
    """A backfill with All Runs keeps the names of the scheduled runs that it repeats."""
    assert weight(run_id(kind, ago), 7) == 7


@pytest.mark.parametrize(
    "name", ["manual__2026-11-01T05:00:00+00:00", "mine", "x__2026-11-01T05:00:00+00:00"]
)
def test_a_manual_run_with_any_id_goes_first(name):
    assert weight(name, 5) == 5 + HEAD_START


def test_a_healing_run_goes_before_catchup_and_backfills_but_not_before_live_windows():
    start = datetime.now(timezone.utc) - timedelta(days=3)
    piece = HealRun(start, start + timedelta(hours=12), tried=datetime.now(timezone.utc))
    chain = f"heal__{start.isoformat()}_to_05:15"
    older, live = run_id("scheduled", timedelta(days=3)), run_id("scheduled", timedelta(minutes=25))
    assert weight(older) < weight(piece.run_id) == weight(chain) < weight(live)


@pytest.mark.parametrize("name", ["scheduled__", "scheduled__now", "backfill__2026-13-45T99:00:00+00:00"])
def test_ids_without_a_date_are_not_live(name):
    assert weight(name) == 1


def test_the_time_zone_of_a_run_id_is_minded():
    now = datetime.now(timezone(timedelta(hours=9))) - timedelta(minutes=20)
    assert weight(f"scheduled__{now.isoformat()}") == 1 + HEAD_START
    old = datetime.now(timezone(timedelta(hours=-9))) - timedelta(hours=4)
    assert weight(f"scheduled__{old.isoformat()}") == 1


def test_airflow_finds_it_through_the_plugin():
    assert ForgePlugin.priority_weight_strategies == [LiveFirst]
    assert issubclass(LiveFirst, PriorityWeightStrategy)


def test_airflow_finds_it_by_its_name():
    found = validate_and_load_priority_weight_strategy("airflow_provider_forge.priority.LiveFirst")
    assert isinstance(found, LiveFirst)


@pytest.mark.parametrize("kind", ["live", "heal", "scheduled"])
def test_no_weight_is_larger_than_the_databases_numbers(kind):
    name = run_id(kind, timedelta(days=3))
    assert weight(name, 2**31 - 1) == weight("mine", 2**31 - 2) == 2**31 - 1
