"""Imports point one way, and what speaks to the outside knows nothing of Airflow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "airflow_provider_forge"
NAME = PACKAGE.name

# What each room may know of.
BELOW = {
    "gateway": {
        "exceptions",
        "exchange",
        "proxies",
        "files",
        "gateway",
        "http",
        "json_text",
        "redis_server",
        "text",
    },
    "otlp": {"exceptions", "exchange", "http", "json_text", "otlp", "proxies", "text"},
    "delivery": {"delivery", "exceptions", "files", "otlp", "redis_server", "text"},
    "sandbox": {"sandbox"},
    "hooks": {
        "delivery",
        "exceptions",
        "files",
        "exchange",
        "proxies",
        "forms",
        "gateway",
        "hooks",
        "http",
        "otlp",
        "text",
    },
    "operators": {"delivery", "exceptions", "gateway", "hooks", "operators", "otlp", "text"},
    "cli": {
        "cli",
        "delivery",
        "exceptions",
        "exchange",
        "proxies",
        "gateway",
        "hooks",
        "http",
        "operators",
        "otlp",
        "text",
    },
}
WITHOUT_AIRFLOW = ("delivery", "gateway", "otlp", "sandbox")


def imported(path: Path) -> set[str]:
    """Return the modules a file imports, wherever in it, those for type checking included."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return modules


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_what_is_below_it(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        ours = {module.split(".")[1] for module in imported(path) if module.startswith(f"{NAME}.")}
        assert ours <= BELOW[room], path.name


@pytest.mark.parametrize("room", WITHOUT_AIRFLOW)
def test_it_can_be_used_without_airflow(room):
    for path in (PACKAGE / room).rglob("*.py"):
        assert not {module for module in imported(path) if module.split(".")[0] == "airflow"}, path.name
