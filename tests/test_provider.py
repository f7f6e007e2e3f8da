"""What Airflow reads of the package when it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module, metadata, resources

import jsonschema
import pytest

import airflow_provider_forge
from airflow_provider_forge.timetables import ForgeMetricsTimetable

INFO = airflow_provider_forge.get_provider_info()
HEAVY = ("google.protobuf", "graphql", "httpx", "msgspec", "opentelemetry.proto", "redis")


def test_the_metadata_fits_airflows_schema():
    schema = json.loads(resources.files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def list_providers(*arguments):
    command = [sys.executable, "-m", "airflow", "providers", *arguments, "--output", "json"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(listed[listed.index("[{") :])


def test_airflow_finds_the_provider():
    [provider] = list_providers("get", "airflow-provider-forge")
    assert provider == {"Provider": "airflow-provider-forge", "Version": airflow_provider_forge.__version__}


def test_airflow_finds_both_hooks():
    hooks = {hook["connection_type"]: hook for hook in list_providers("hooks")}
    for connection_type in ("forge", "otlp"):
        assert hooks[connection_type]["package_name"] == "airflow-provider-forge"
        assert hooks[connection_type]["conn_id_attribute_name"] == f"{connection_type}_conn_id"


def test_the_names_in_the_metadata_exist():
    for section in ("hooks", "operators"):
        for entry in INFO[section]:
            for module in entry["python-modules"]:
                assert import_module(module)
    for entry in INFO["connection-types"]:
        module, _, name = entry["hook-class-name"].rpartition(".")
        hook = getattr(import_module(module), name)
        assert (hook.conn_type, hook.hook_name) == (entry["connection-type"], entry["hook-name"])


def test_the_plugin_is_an_entry_point_with_the_timetable():
    (entry,) = [
        entry
        for entry in metadata.entry_points(group="airflow.plugins")
        if entry.module.startswith("airflow_pro")
    ]
    assert entry.load().timetables == [ForgeMetricsTimetable]


def test_the_package_has_the_name_that_its_metadata_gives():
    assert metadata.metadata("airflow-provider-forge")["Name"] == INFO["package-name"]


@pytest.mark.parametrize(
    "module",
    [
        "airflow_provider_forge.provider",
        "airflow_provider_forge.plugin",
        "airflow_provider_forge.hooks.forge",
        "airflow_provider_forge.hooks.otlp",
        "airflow_provider_forge.operators.forge_metrics_coverage",
        "airflow_provider_forge.operators.forge_metrics_to_otlp",
        "airflow_provider_forge.operators.forge_usage_to_otlp",
        "airflow_provider_forge.operators.form",
    ],
)
def test_nothing_heavy_is_imported_by_airflows_imports(module):
    # What counts is what our import adds to Airflow's own imports. The processes that parse DAGs and run
    # tasks are forks of a supervisor. Those that load providers and plugins are not.
    supervisor = "operators" in module or "hooks" in module
    code = (
        "import sys, airflow, airflow.plugins_manager, airflow.timetables.base;"
        f"{'import airflow.sdk.execution_time.supervisor;' if supervisor else ''}"
        "from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, Variable;"
        "from airflow.sdk.log import mask_secret;"
        f"before = set(sys.modules); import {module};"
        "print(*(set(sys.modules) - before))"
    )
    added = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert [name for name in added if name.startswith(HEAVY)] == []


def test_the_package_itself_imports_nothing():
    code = (
        "import sys, __future__; before = set(sys.modules);"
        "import airflow_provider_forge; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["airflow_provider_forge"]
