"""What is in the distribution that users install, and that anyone can build the same one."""

from __future__ import annotations

import email
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import airflow_provider_forge

ROOT = Path(__file__).parent.parent
VERSION = airflow_provider_forge.__version__
INFO = f"airflow_provider_forge-{VERSION}.dist-info"
# What building needs; not the version control, so that no file of this machine gets in.
SOURCES = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.split()


def build(sources, target, umask):
    """Build both distributions out of a fresh copy, as a person with another umask would."""
    for name in SOURCES:
        if (ROOT / name).exists():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, sources / name)
            (sources / name).chmod(0o666 & ~umask)
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target)]
    subprocess.run(command, cwd=sources, check=True, capture_output=True, env=environment, umask=umask)
    return {path.suffix: path for path in target.iterdir()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    return build(tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("dist"), 0o022)


@pytest.fixture(scope="module")
def wheel(distributions):
    with zipfile.ZipFile(distributions[".whl"]) as archive:
        return {name: archive.read(name).decode(errors="replace") for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(wheel):
    return email.message_from_string(wheel[f"{INFO}/METADATA"])


def test_two_builds_are_one_to_the_byte(distributions, tmp_path):
    (tmp_path / "sources").mkdir()
    again = build(tmp_path / "sources", tmp_path / "dist", 0o077)
    assert again.keys() == {".gz", ".whl"}
    for suffix, path in again.items():
        assert path.name == distributions[suffix].name
        assert digest(path) == digest(distributions[suffix])


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pypi_can_show_them(distributions):
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions.values())]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize(
    "name", ["forge_metrics.py", "forge_metrics_coverage.py", "forge_metrics_replay.py", "forge_usage.py"]
)
def test_it_ships_the_dags_as_examples(wheel, name):
    assert wheel[f"airflow_provider_forge/example_dags/{name}"] == (ROOT / "dags" / name).read_text()


def test_it_ships_the_sandbox_schema_and_the_type_marker(wheel):
    assert {
        "airflow_provider_forge/sandbox/schema.graphql",
        "airflow_provider_forge/py.typed",
    } <= wheel.keys()


def test_it_holds_the_package_and_nothing_else(wheel):
    assert {name.partition("/")[0] for name in wheel} == {"airflow_provider_forge", INFO}


def test_the_source_distribution_has_all_that_the_tests_and_the_site_need(distributions):
    with tarfile.open(distributions[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {name for name in SOURCES if (ROOT / name).exists()} - names
    assert {name for name in left_out if not name.startswith((".ci/", ".github/", "."))} == set()


def test_its_metadata_describes_it(metadata):
    assert metadata["Name"] == "airflow-provider-forge"
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"]
    assert "apache-airflow<4,>=3.0.3" in metadata.get_all("Requires-Dist")
    urls = dict(entry.split(", ") for entry in metadata.get_all("Project-URL"))
    assert urls.keys() >= {"Documentation", "Source", "Changelog", "Issues", "Security"}
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata.get_all("Classifier")))
    assert versions == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert metadata["Requires-Python"] == f">={versions[0]}"


def test_every_link_and_picture_of_its_readme_works_outside_the_repository(metadata):
    readme = metadata.get_payload()
    targets = re.findall(r"\]\(([^)\s]+)\)", readme)
    assert [target for target in targets if not re.match("https?:|#", target)] == []
    source = dict(entry.split(", ") for entry in metadata.get_all("Project-URL"))["Source"]
    ours = [target for target in targets if f"/v{VERSION}/" in target]
    assert len(ours) >= 20
    for target in ours:
        head = target.partition("#")[0]
        picture = head.endswith(".png")
        start = source.replace("github.com", "raw.githubusercontent.com") if picture else f"{source}/blob"
        assert head.startswith(f"{start}/v{VERSION}/")
        assert (ROOT / head.removeprefix(f"{start}/v{VERSION}/")).exists(), target


def test_its_bill_of_materials_is_valid_and_complete(wheel, metadata):
    [name] = [name for name in wheel if name.startswith(f"{INFO}/sboms/")]
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(wheel[name]) is None
    document = json.loads(wheel[name])
    assert document["metadata"]["component"]["purl"] == f"pkg:pypi/airflow-provider-forge@{VERSION}"
    scopes = {component["name"]: component["scope"] for component in document["components"]}
    declared = [re.split(r"[<>=;[ ]", entry)[0] for entry in metadata.get_all("Requires-Dist")]
    assert scopes.keys() == set(declared)
    assert (scopes["httpx"], scopes["redis"]) == ("required", "optional")


def test_the_package_and_the_changelog_have_one_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(VERSION)}\]", changelog, re.MULTILINE)


def test_what_it_depends_on_fits_together():
    subprocess.run([sys.executable, "-m", "pip", "check"], check=True, capture_output=True)
