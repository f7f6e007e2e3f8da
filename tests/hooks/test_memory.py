from __future__ import annotations

import json

import pytest

from airflow_provider_forge.hooks import memory as memory_module
from airflow_provider_forge.hooks.memory import VariableMemory

CONTENT = {"seen": "2026-03-10T20:00:00+00:00", "ids": {"production": "8cb2"}, "names": {"8cb2": None}}


class FakeVariable:
    """What a task sees of Airflow's Variables, with no Airflow around it."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self.descriptions: dict[str, str] = {}

    def get(self, key: str, default: str | None) -> str | None:
        return self.stored.get(key, default)

    def set(self, key: str, value: str, description: str) -> None:
        self.stored[key] = value
        self.descriptions[key] = description


@pytest.fixture
def variables(monkeypatch):
    fake = FakeVariable()
    monkeypatch.setattr(memory_module, "Variable", fake)
    return fake


def test_what_is_saved_is_loaded_by_whoever_comes_next(variables):
    VariableMemory("forge_a").save(CONTENT)
    assert VariableMemory("forge_a").load() == CONTENT
    assert VariableMemory("forge_b").load() == {}


def test_a_variable_says_where_it_comes_from(variables):
    VariableMemory("forge_a").save(CONTENT)
    assert json.loads(variables.stored["forge_a"]) == CONTENT
    assert "airflow-provider-forge" in variables.descriptions["forge_a"]


@pytest.mark.parametrize("damaged", ["", "{", "nonsense", "[1]", '"text"', "5", "null", '{"a": 1} {}'])
def test_a_damaged_variable_is_an_empty_one(variables, damaged):
    variables.stored["forge_a"] = damaged
    assert VariableMemory("forge_a").load() == {}
    VariableMemory("forge_a").save(CONTENT)
    assert VariableMemory("forge_a").load() == CONTENT


def test_airflows_own_variable_is_read(monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_FORGE_A", json.dumps(CONTENT))
    assert VariableMemory("forge_a").load() == CONTENT


def test_outside_of_a_task_there_is_nothing_and_nothing_is_kept():
    VariableMemory("forge_a").save(CONTENT)
    assert VariableMemory("forge_a").load() == {}


def test_making_a_memory_reads_nothing(monkeypatch):
    monkeypatch.setattr(memory_module, "Variable", None)
    assert VariableMemory("forge_a").key == "forge_a"
