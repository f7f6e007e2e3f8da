"""The README and the pages in `docs` agree with the code."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from airflow_provider_forge.cli.commands import COMMANDS
from airflow_provider_forge.connection_forms import FORGE, OTLP
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.payload.conform import MAPPING_VERSION, SCHEMA_URL, SCOPE_NAME
from airflow_provider_forge.timetables import ForgeMetricsTimetable

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text()
# These are of use on the site only; tests/test_site.py reads them.
ONLY_ON_THE_SITE = {"api.md", "changelog.md", "index.md"}
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in ONLY_ON_THE_SITE),
]


def test_the_readme_is_a_front_page():
    assert len(README.split()) <= 1500


@pytest.mark.parametrize("documented", [ForgeMetricsToOtlpOperator, ForgeMetricsTimetable])
def test_every_argument_is_documented(documented):
    section = REFERENCE.partition(f"## `{documented.__name__}`")[2].partition("\n#")[0]
    arguments = set(inspect.signature(documented.__init__).parameters) - {"self", "kwargs", "clock"}
    assert len(arguments) >= 3
    assert arguments <= set(re.findall(r"`(\w+)`", section))


@pytest.mark.parametrize(("name", "form"), [("forge", FORGE), ("otlp", OTLP)])
def test_every_extra_of_the_forms_is_documented(name, form):
    section = REFERENCE.partition(f"## Connection `{name}`")[2].partition("\n#")[0]
    assert {extra.name for extra in form.extras} <= set(re.findall(r"`(\w+)`", section))


def test_every_command_and_every_option_is_documented():
    section = REFERENCE.partition("## On the command line")[2].partition("\n#")[0]
    words = set(re.findall(r"`([\w-]+)`", section))
    for command in COMMANDS:
        assert {command.name} | {flag for option in command.options for flag in option.flags} <= words


def test_every_explained_message_is_in_the_code():
    explained = [row.split("|")[1] for row in TROUBLESHOOTING.splitlines() if row.startswith("| `")]
    assert len(explained) >= 15
    texts = texts_of_the_package()
    for message in re.findall(r"`([^`]+)`", " ".join(explained)):
        # The name of the field, and values that vary, are separate arguments in the code.
        for part in re.split(r"…|: |\b(?:[NM]|\d+)\b", message):
            assert part.strip() in texts, message


def texts_of_the_package():
    """Return all string literals, with adjacent ones joined."""
    trees = [ast.parse(file.read_text()) for file in (ROOT / "airflow_provider_forge").rglob("*.py")]
    constants = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return "\n".join(node.value for node in constants if isinstance(node.value, str))


def test_the_reference_describes_the_mapping():
    assert f"mapping version {MAPPING_VERSION};" in REFERENCE
    assert SCOPE_NAME in REFERENCE
    assert SCHEMA_URL.rpartition("/")[2] in REFERENCE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_commands_exist(page):
    text = page.read_text()
    ours = re.findall(r"(?:airflow forge|forge-metrics|python -m airflow_provider_forge) ([a-z]\w*)", text)
    assert set(ours) <= {command.name for command in COMMANDS}
    targets = re.findall(r"^[a-z-]+(?=:)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.MULTILINE)) <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_json_is_valid(page):
    for block in re.findall(r"^```json\n(.+?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        json.loads(block)


@pytest.mark.parametrize("port", ["", '"port": "0",'])
@pytest.mark.parametrize(("name", "hook"), [("FORGE", ForgeMetricsHook), ("OTLP", OtlpHook)])
def test_the_hooks_take_the_connections_of_the_readme(name, hook, port, monkeypatch):
    [connection] = re.findall(rf"export AIRFLOW_CONN_{name}_DEFAULT='(.+?)'", README, re.DOTALL)
    app = "12345678-1234-4234-8234-123456789abc"
    connection = connection.replace("<uuid>", app).replace("{", f"{{{port}", 1)
    monkeypatch.setenv(f"AIRFLOW_CONN_{name}_DEFAULT", connection)
    if hook is ForgeMetricsHook:
        assert hook().app_id.endswith(app)
    else:
        assert hook().endpoint().url == "http://localhost:4318/v1/metrics"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_files_and_anchors_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            name, _, anchor = target.partition("#")
            linked = page.parent / name if name else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_every_page_is_in_the_list_of_pages(page):
    assert f"(docs/{page.name})" in README.partition("## More")[2]


def test_the_design_names_every_room_and_every_file_at_the_root():
    named = set(re.findall(r"`([\w.]+/?)`", (ROOT / "docs" / "design.md").read_text()))
    package = ROOT / "airflow_provider_forge"
    assert {f"{path.parent.name}/" for path in package.glob("*/__init__.py")} <= named
    assert {path.name for path in package.glob("*.py")} <= named


def test_the_path_of_one_window_is_drawn_in_names_of_the_code():
    drawing = (ROOT / "docs" / "design.md").read_text().split("```")[1]
    # Methods of classes, classes with two words in their names, functions with two.
    drawn = re.findall(r"\b[A-Z]\w+\.\w+|\b[A-Z][a-z]+[A-Z]\w+|\b[a-z]+_\w+\b", drawing)
    files = list((ROOT / "airflow_provider_forge").rglob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    defined = {node.name for node in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    names = {part for name in drawn for part in name.split(".")}
    assert len(names) >= 15
    assert names <= defined | {file.stem for file in files}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_modules_it_names_exist(page):
    package = ROOT / "airflow_provider_forge"
    rooms = "|".join(path.name for path in package.iterdir() if path.is_dir())
    for name in re.findall(rf"`((?:(?:{rooms}|tests|benchmarks)/)[\w/]+\.py)`", page.read_text()):
        assert (package / name).exists() or (ROOT / name).exists(), name


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
