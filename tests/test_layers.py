"""Imports point in one direction, never in a circle, and the rooms below Airflow know nothing of it."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "airflow_provider_forge"
NAME = PACKAGE.name

# Files at the root that any room may import.
FOUNDATION = {
    *("exceptions", "exchange", "files", "http", "json_text", "proxies", "redis_client", "state_store"),
    *("text", "windows"),
    NAME,
}
# The rooms, each with those that it may import.
ROOMS = {
    "gateway": set(),
    "otlp": set(),
    "payload": {"otlp"},
    "delivery": {"gateway", "otlp", "payload"},
    "usage": {"delivery", "gateway", "otlp", "payload"},
    "archive": {"delivery", "gateway", "otlp", "payload"},
    "connections": {"archive", "connection_forms", "delivery", "gateway", "otlp", "usage"},
    "utils": {"connection_forms", "connections", "delivery", "gateway", "otlp", "payload"},
    "coverage": {"delivery", "otlp", "timetables", "utils"},
    "hooks": {"connection_forms", "connections", "delivery", "gateway", "otlp", "usage", "utils"},
    "operators": {
        "archive",
        "connections",
        "coverage",
        "delivery",
        "gateway",
        "hooks",
        "otlp",
        "payload",
        "usage",
        "utils",
    },
    "cli": {"archive", "connections", "coverage", "delivery", "gateway", "otlp", "payload", "usage", "utils"},
    "page": set(),
    "sandbox": set(),
}
WITHOUT_AIRFLOW = (
    "archive",
    "connections",
    "delivery",
    "gateway",
    "otlp",
    "page",
    "payload",
    "sandbox",
    "usage",
)


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Return the modules a file imports, wherever in it, those for type checking included."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                modules.add(module if module in MODULES else node.module)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return modules


def rooms_of(modules: set[str]) -> set[str]:
    """Return the rooms, or files at the root, of those modules that are ours."""
    ours = (module.split(".") for module in modules if module.split(".")[0] == NAME)
    return {parts[1] if len(parts) > 1 else NAME for parts in ours}


def test_each_directory_is_a_room():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room):
    for path in (PACKAGE / room).rglob("*.py"):
        # The sandbox is a program of its own.
        below = ROOMS[room] | ({NAME} if room == "sandbox" else FOUNDATION)
        assert rooms_of(imported(path)) <= below | {room}, path.name


def test_the_foundation_stands_on_nothing_else():
    for name in FOUNDATION - {NAME}:
        assert rooms_of(imported(PACKAGE / f"{name}.py")) <= FOUNDATION, name


def test_no_file_imports_a_file_that_imports_it():
    graph = {module: imported(path) & MODULES.keys() for module, path in MODULES.items()}
    # Its __init__ is the door of the sandbox, and imports nothing heavy in other rooms.
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("room", WITHOUT_AIRFLOW)
def test_it_can_be_used_without_airflow(room):
    for path in (PACKAGE / room).rglob("*.py"):
        assert not {module for module in imported(path) if module.split(".")[0] == "airflow"}, path.name
