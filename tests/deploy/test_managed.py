"""The files for managed Airflows can be read, and name this version and options that exist."""

from __future__ import annotations

import re

import pytest
import yaml
from packaging.requirements import Requirement

import airflow_provider_forge
from tests.deploy.compose import ROOT

MANAGED = ROOT / "deploy" / "managed"
PAGE = (ROOT / "docs" / "managed.md").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()


def requirements():
    lines = (MANAGED / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def check_ours(requirement):
    assert requirement.name == "airflow-provider-forge"
    assert requirement.specifier.contains(airflow_provider_forge.__version__)
    extras = PROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert requirement.extras <= set(re.findall(r"^(\w+) = ", extras, re.MULTILINE))


def test_the_requirements_name_this_version_and_its_extras():
    [ours] = [requirement for requirement in requirements() if requirement.name.endswith("-forge")]
    check_ours(ours)


def test_the_shim_has_the_lower_bound_of_the_package():
    [shim] = [requirement for requirement in requirements() if "common-compat" in requirement.name]
    assert f'"{shim}"' in PROJECT
    assert f"common-compat` {str(shim.specifier).removeprefix('>=')} or newer" in PAGE


def test_the_dockerfile_installs_this_version():
    text = (MANAGED / "Dockerfile").read_text()
    assert re.search(r"^FROM \S+/runtime:3\.\d+-\d+$", text, re.MULTILINE)
    [installed] = re.findall(r'^RUN pip install --no-cache-dir "(.+)"$', text, re.MULTILINE)
    check_ours(Requirement(installed))


def test_the_values_hand_both_connections_to_the_chart():
    values = yaml.safe_load((MANAGED / "values.yaml").read_text())
    assert [entry["envName"] for entry in values["secret"]] == [
        "AIRFLOW_CONN_FORGE_DEFAULT",
        "AIRFLOW_CONN_OTLP_DEFAULT",
    ]
    # The command of the page makes the Secret that they name.
    assert {entry["secretName"] for entry in values["secret"]} == {"forge-connections"}
    keys = re.findall(r"--from-file=(\w+)=", PAGE)
    assert [entry["secretKey"] for entry in values["secret"]] == keys
    assert not re.search("password|token", str(values))


def test_the_image_has_the_airflow_of_our_dockerfile():
    values = yaml.safe_load((MANAGED / "values.yaml").read_text())
    dockerfile = (ROOT / "deploy" / "airflow" / "Dockerfile").read_text()
    [version] = re.findall(r"^FROM apache/airflow:([\d.]+)-", dockerfile, re.MULTILINE)
    assert values["airflowVersion"] == version
    assert values["images"]["airflow"]["tag"] == f"{version}-{airflow_provider_forge.__version__}"


@pytest.mark.parametrize("vendor", ["Amazon MWAA", "Google Cloud Composer", "Astronomer", "Helm chart"])
def test_each_vendor_has_its_sources_with_the_date(vendor):
    section = PAGE.partition(f"\n## {vendor}\n")[2].partition("\n## ")[0]
    assert re.search(r"read on 20\d\d-\d\d-\d\d", section)
    assert "](https://" in section
