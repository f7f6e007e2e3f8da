"""The files around the code: workflows, forms, hooks before a commit, and the entry in Airflow's registry.

None of them can run here. Schemas, two linters of workflows, and the code itself are the checks.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import check_jsonschema
import pytest
import yaml
from click.testing import CliRunner

from tests.receivers.programs import program

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
URLS = re.findall(r'^\w+ = "(https://github\.com/.+?)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
SCHEMAS = {
    "custom.github-workflows-require-timeout": "workflows/*.yml",
    "vendor.dependabot": "dependabot.yml",
    "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "vendor.github-workflows": "workflows/*.yml",
}


def check(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("schema", SCHEMAS)
def test_github_can_read_it(schema):
    files = sorted(GITHUB.glob(SCHEMAS[schema]))
    assert files
    done = CliRunner().invoke(check_jsonschema.main, ["--builtin-schema", schema, *map(str, files)])
    assert done.exit_code == 0, done.output


def test_actionlint_finds_nothing():
    check(program("actionlint"), "-shellcheck=", "-pyflakes=")


def test_zizmor_finds_nothing():
    check(Path(sys.executable).with_name("zizmor"), "--offline", "--quiet", "--pedantic", GITHUB)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_actions_by_commit_and_grants_by_job(workflow):
    text = workflow.read_text()
    uses = re.findall(r"uses: (\S+) # v\d+\.\d+\.\d+\n", text)
    assert len(uses) == text.count("uses:")
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in uses)
    document = yaml.safe_load(text)
    assert document["permissions"] == {}
    assert all("permissions" in job for job in document["jobs"].values())


def test_only_the_job_that_publishes_can_publish():
    jobs = yaml.safe_load((GITHUB / "workflows" / "release.yml").read_text())["jobs"]
    assert jobs["build"]["permissions"] == {"contents": "read"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"]["name"] == "pypi"
    # Neither installs nor runs anything of the repository.
    for name in ("publish", "page"):
        assert not any("checkout" in step.get("uses", "") for step in jobs[name]["steps"])


def test_the_targets_of_the_workflows_exist():
    targets = set(re.findall(r"^[a-z-]+(?=:)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for workflow in WORKFLOWS:
        assert set(re.findall(r"\bmake ([a-z-]+)", workflow.read_text())) <= targets


def test_the_matrix_has_every_airflow_and_every_python():
    jobs = yaml.safe_load((GITHUB / "workflows" / "test.yml").read_text())["jobs"]
    rows = jobs["matrix"]["strategy"]["matrix"]["include"]
    noxfile = (ROOT / "noxfile.py").read_text()
    assert {row["airflow"] for row in rows} == set(
        re.findall(r'^    "(3\.\d+)": Airflow', noxfile, re.MULTILINE)
    )
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert {row["python"] for row in rows} == set(classifiers)


def test_the_hooks_before_a_commit_run_what_is_in_the_environment():
    subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config"], cwd=ROOT, check=True, capture_output=True
    )
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    dependencies = (ROOT / "pyproject.toml").read_text().partition("[dependency-groups]")[2]
    for hook in repository["hooks"]:
        name = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f'"{name}>=' in dependencies


def test_the_registry_is_told_of_every_operator_and_hook():
    entry = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text())
    info = import_module("airflow_provider_forge").get_provider_info()
    assert (entry["package-name"], entry["display-name"]) == (info["package-name"], info["name"])
    assert {entry["source-url"], entry["docs-url"]} <= set(
        re.findall(r'= "(https://.+?)"', (ROOT / "pyproject.toml").read_text())
    )
    told = {kind: [item["module"] for item in entry[kind]] for kind in ("operators", "hooks", "other")}
    for kind in ("operators", "hooks"):
        modules = [module for group in info[kind] for module in group["python-modules"]]
        assert sorted(name.rpartition(".")[0] for name in told[kind]) == sorted(modules)
    for path in itertools.chain(*told.values()):
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name)


@pytest.mark.parametrize("name", ["SECURITY.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md"])
def test_its_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)\s#]+)", text):
        if target.startswith("https://github.com/"):
            assert any(target.startswith(url) for url in URLS)
        elif not target.startswith("http"):
            assert (ROOT / target).exists(), target
