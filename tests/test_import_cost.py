"""What it costs to have the provider: at each start of Airflow, and where its DAG files are parsed.

Times are CPU times. The exact ones are of what is ours alone, in a process that has loaded everything else
before. The difference between whole starts, which vary by more than we add, stands beside them: it has room
for that, and would show what we make Airflow do by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DAGS = sorted((Path(__file__).parent.parent / "dags").glob("*.py"))

OPERATORS = {
    "forge_metrics": "forge_metrics_to_otlp",
    "forge_metrics_coverage": "forge_metrics_coverage",
    "forge_usage": "forge_usage_to_otlp",
    "forge_metrics_replay": "forge_metrics_to_otlp",
}

# Modules that are slow to import. Airflow may import some of them itself, so the importing module counts.
# httpx, msgspec and pendulum are left out, because `airflow.sdk` itself imports them (checked on 3.3.2).
PROGRAM = """
import builtins, json, runpy, sys

HEAVY = {"google", "graphql", "isal", "opentelemetry", "redis"}
asked, real = set(), builtins.__import__

def watched(name, globals=None, *arguments, **options):
    asker = (globals or {}).get("__name__") or ""
    if asker.split(".")[0] == "airflow_provider_forge" and name.split(".")[0] in HEAVY:
        asked.add((asker, name))
    return real(name, globals, *arguments, **options)

builtins.__import__ = watched
for file in sys.argv[1:]:
    runpy.run_path(file)
import airflow_provider_forge.hooks.forge, airflow_provider_forge.hooks.otlp, airflow_provider_forge.plugin
ours = [name for name in sys.modules if name.startswith("airflow_provider_forge.")]
print(json.dumps([sorted(asked), ours]))
"""

# What every start of Airflow does with its providers: list them, load plugins, build the command line. The
# first argument is the distribution to hide from it; the others are what to import once it has started.
START = """
import importlib, json, sys, time

hidden, *wanted = sys.argv[1:]

for name in ("importlib.metadata", "importlib_metadata"):
    try:
        metadata = importlib.import_module(name)
    except ImportError:
        continue
    metadata.distributions = lambda real=metadata.distributions, **options: (
        each for each in real(**options) if each.metadata["Name"] != hidden
    )

from airflow import plugins_manager
from airflow.cli import cli_parser
from airflow.providers_manager import ProvidersManager

cli_parser.get_parser()
ProvidersManager().initialize_providers_list()
plugins_manager.ensure_plugins_loaded()
started = time.process_time()
ours = [name for name in sys.modules if name.partition(".")[0] == "airflow_provider_forge"]
for name in wanted:
    importlib.import_module(name)
if wanted:
    sys.modules["airflow_provider_forge"].get_provider_info()
    sys.modules["airflow_provider_forge.cli.definition"].get_forge_cli_commands()
print(json.dumps({"start": started, "ours": ours, "imports": time.process_time() - started}))
"""
US, NOBODY = "airflow-provider-forge", "no-such-provider"

# A DAG file without us, which loads what Airflow needs for any.
ORDINARY = """
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator, Param
from airflow.timetables.interval import CronDataIntervalTimetable

with DAG("ordinary", schedule=CronDataIntervalTimetable("@daily", "UTC"), params={"a": Param(1)}):
    BaseOperator(task_id="a", outlets=[Asset("a")])
"""

PARSE = """
import json, sys, time
from airflow.dag_processing.dagbag import DagBag

def parse(path):
    before = time.process_time()
    bag = DagBag(path)
    assert bag.dags and not bag.import_errors, bag.import_errors
    return time.process_time() - before

ordinary, ours = map(parse, sys.argv[1:])
print(json.dumps(ours))
"""


def run(program: str, *arguments: object):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


STARTS_VARY_BY = 0.1
"""Seconds: starts of one second were seen to differ by 0.2 on a busy machine, the least of some by less."""


def least(program: str, *arguments: object) -> float:
    """Return the least seconds of three processes: whatever else a machine does can only add to them."""
    return min(run(program, *arguments) for _ in range(3))


@pytest.mark.parametrize("dag", DAGS, ids=lambda path: path.stem)
def test_parsing_the_dag_imports_nothing_heavy(dag):
    asked, ours = run(PROGRAM, dag)
    assert asked == []
    assert f"airflow_provider_forge.operators.{OPERATORS[dag.stem]}" in ours
    assert not [name for name in ours if name.split(".")[1] in ("delivery", "otlp", "sandbox")]


@pytest.fixture(scope="module")
def loaded():
    """Our modules that a start of Airflow loads."""
    loaded = run(START, NOBODY)["ours"]
    # Otherwise something else would be measured than what a start does.
    assert {"airflow_provider_forge.plugin", "airflow_provider_forge.cli.definition"} <= set(loaded)
    return loaded


def test_a_start_of_airflow_costs_less_than_50_ms_more(loaded):
    runs = [run(START, US, *loaded) for _ in range(3)]
    assert not any(each["ours"] for each in runs)
    assert min(each["imports"] for each in runs) < 0.05


@pytest.mark.long
def test_a_whole_start_is_not_slower_beyond_the_variation_of_starts(loaded):
    without, with_us = [], []
    for _ in range(3):  # by turns, so that what slows the machine down for a while slows both
        without.append(run(START, US)["start"])
        with_us.append(run(START, NOBODY)["start"])
    assert min(with_us) - min(without) < 0.05 + STARTS_VARY_BY


@pytest.mark.parametrize("dag", DAGS, ids=lambda path: path.stem)
def test_parsing_the_dag_costs_less_than_100_ms_beyond_airflows_own_imports(dag, tmp_path):
    ordinary = tmp_path / "ordinary.py"
    ordinary.write_text(ORDINARY)
    assert least(PARSE, ordinary, dag) < 0.1
