"""What is in the distribution that users install."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import airflow_provider_forge

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield {name: archive.read(name).decode(errors="replace") for name in archive.namelist()}


@pytest.mark.parametrize("name", ["forge_metrics.py", "forge_metrics_coverage.py"])
def test_it_ships_the_dags_as_examples(wheel, name):
    assert wheel[f"airflow_provider_forge/example_dags/{name}"] == (ROOT / "dags" / name).read_text()


def test_it_ships_the_sandbox_schema_and_the_type_marker(wheel):
    assert {
        "airflow_provider_forge/sandbox/schema.graphql",
        "airflow_provider_forge/py.typed",
    } <= wheel.keys()


def test_it_holds_the_package_and_nothing_else(wheel):
    version = airflow_provider_forge.__version__
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == {"airflow_provider_forge", f"airflow_provider_forge-{version}.dist-info"}


def test_its_metadata_describes_it(wheel):
    version = airflow_provider_forge.__version__
    metadata = wheel[f"airflow_provider_forge-{version}.dist-info/METADATA"].splitlines()
    assert "Name: airflow-provider-forge" in metadata
    assert f"Version: {version}" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: apache-airflow<4,>=3.0.3" in metadata
