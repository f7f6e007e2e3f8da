"""What it costs to have the provider: at each start of Airflow, and where its DAG files are parsed.

Times are CPU times of what is ours alone, in a process that has loaded everything else before: differences
between two starts would drown in what a start itself varies by.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow_version import AIRFLOW

DAGS = sorted((Path(__file__).parent.parent / "dags").glob("*.py"))

OPERATORS = {"forge_metrics": "forge_metrics_to_otlp", "forge_metrics_coverage": "forge_metrics_coverage"}

# Airflow imports some of these itself, so what counts is who asks for them.
PROGRAM = """
import builtins, json, runpy, sys

HEAVY = {"google", "graphql", "httpx", "isal", "msgspec", "opentelemetry", "redis"}
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

# What every start of Airflow does with its providers: list them, load plugins, build the command line.
START = """
import importlib, json, sys, time

def hide(name):
    try:
        metadata = importlib.import_module(name)
    except ImportError:
        return
    real = metadata.distributions
    metadata.distributions = lambda **options: (
        each for each in real(**options) if each.metadata["Name"] != "airflow-provider-forge"
    )

wanted = json.loads(sys.argv[1])
if wanted:
    hide("importlib.metadata")
    hide("importlib_metadata")

from airflow import plugins_manager
from airflow.cli import cli_parser
from airflow.providers_manager import ProvidersManager

cli_parser.get_parser()
ProvidersManager().initialize_providers_list()
plugins_manager.ensure_plugins_loaded()
ours = [name for name in sys.modules if name.partition(".")[0] == "airflow_provider_forge"]

if wanted:
    assert not ours, ours
    before = time.process_time()
    for name in wanted:
        importlib.import_module(name)
    sys.modules["airflow_provider_forge"].get_provider_info()
    sys.modules["airflow_provider_forge.cli.definition"].get_forge_cli_commands()
    print(json.dumps(time.process_time() - before))
else:
    print(json.dumps(ours))
"""

# A DAG file without us, which loads what Airflow needs for any.
ORDINARY = """
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator, Param
from airflow.timetables.interval import CronDataIntervalTimetable

with DAG("ordinary", schedule=CronDataIntervalTimetable("@daily", "UTC"), params={"a": Param(1)}):
    BaseOperator(task_id="a", outlets=[Asset("a")])
"""

PARSE = """
import json, sys, time
try:
    from airflow.dag_processing.dagbag import DagBag
except ModuleNotFoundError:  # Airflow 3.0 and 3.1
    from airflow.models.dagbag import DagBag

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


def least(program: str, *arguments: object) -> float:
    """Return the least seconds of three processes: whatever else a machine does can only add to them."""
    return min(run(program, *arguments) for _ in range(3))


@pytest.mark.parametrize("dag", DAGS, ids=lambda path: path.stem)
def test_parsing_the_dag_imports_neither_msgspec_nor_protobuf_nor_httpx(dag):
    asked, ours = run(PROGRAM, dag)
    assert asked == []
    assert f"airflow_provider_forge.operators.{OPERATORS[dag.stem]}" in ours
    assert not [name for name in ours if name.split(".")[1] in ("delivery", "otlp", "sandbox")]


@pytest.mark.skipif(AIRFLOW < (3, 2), reason="Airflow before 3.2 asks no provider for commands")
def test_a_start_of_airflow_costs_less_than_50_ms_more():
    loaded = run(START, "[]")
    # Otherwise something else would be measured than what a start does.
    assert {"airflow_provider_forge.plugin", "airflow_provider_forge.cli.definition"} <= set(loaded)
    assert least(START, json.dumps(loaded)) < 0.05


@pytest.mark.parametrize("dag", DAGS, ids=lambda path: path.stem)
def test_parsing_the_dag_costs_less_than_100_ms_beyond_airflows_own_imports(dag, tmp_path):
    ordinary = tmp_path / "ordinary.py"
    ordinary.write_text(ORDINARY)
    assert least(PARSE, ordinary, dag) < 0.1
