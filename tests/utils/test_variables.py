from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_forge.exceptions import SecretsUnavailable
from airflow_provider_forge.utils import secrets
from airflow_provider_forge.utils.secrets import VariableStateStore

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
    monkeypatch.setattr(secrets, "Variable", fake)
    return fake


@pytest.fixture
def in_team(monkeypatch):
    """Return a function that says which team the running task belongs to."""

    def in_team(name):
        context = {"dag_run": SimpleNamespace(team_name=name)}
        monkeypatch.setattr(secrets, "get_current_context", lambda: context)

    return in_team


def test_a_saved_object_is_loaded_by_the_next_task(variables):
    VariableStateStore("forge_a", "For tests").save(CONTENT)
    assert VariableStateStore("forge_a", "For tests").load() == CONTENT
    assert VariableStateStore("forge_b", "For tests").load() == {}


def test_a_variable_has_a_description(variables):
    for key, description in (
        ("forge_a", "Names of environments"),
        ("forge_b", "Says that there is a ledger"),
    ):
        VariableStateStore(key, description).save(CONTENT)
        assert json.loads(variables.stored[key]) == CONTENT
        assert variables.descriptions[key] == description


@pytest.mark.parametrize(
    "damaged", ["", "{", "nonsense", "[1]", '"text"', "5", "null", '{"a": 1} {}', r'{"a": "\ud800"}']
)
def test_a_damaged_variable_is_an_empty_one(variables, damaged):
    variables.stored["forge_a"] = damaged
    assert VariableStateStore("forge_a", "For tests").load() == {}
    VariableStateStore("forge_a", "For tests").save(CONTENT)
    assert VariableStateStore("forge_a", "For tests").load() == CONTENT


def test_airflows_own_variable_is_read(monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_FORGE_A", json.dumps(CONTENT))
    assert VariableStateStore("forge_a", "For tests").load() == CONTENT


def test_outside_of_a_task_nothing_is_loaded_or_saved():
    VariableStateStore("forge_a", "For tests").save(CONTENT)
    assert VariableStateStore("forge_a", "For tests").load() == {}


def test_delivery_continues_if_airflow_refuses(variables, monkeypatch, caplog):
    def refuse(*_, **__):
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    monkeypatch.setattr(variables, "set", refuse)
    VariableStateStore("forge_a", "For tests").save(CONTENT)
    assert "The Variable forge_a cannot be set: API_SERVER_ERROR" in caplog.text


def test_creating_a_state_store_reads_nothing(monkeypatch):
    monkeypatch.setattr(secrets, "Variable", None)
    memory = VariableStateStore("forge_a", "For tests")
    assert (memory.key, memory.description) == ("forge_a", "For tests")


@pytest.mark.parametrize("letter", ["a", "ж", "名"])
def test_a_key_is_never_longer_than_airflows_database_allows(variables, letter):
    fits = VariableStateStore(letter * 250, "For tests")
    assert fits.key == letter * 250
    long, other = (VariableStateStore(letter * 250 + end, "For tests") for end in ("a", "b"))
    assert len(long.key) == len(other.key) == 250
    long.save(CONTENT)
    assert other.load() == {}
    assert VariableStateStore(letter * 250 + "a", "For tests").load() == CONTENT


@pytest.mark.parametrize(
    "failure",
    [AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR)), ConnectionResetError()],
    ids=repr,
)
def test_a_variable_that_cannot_be_read_is_not_an_empty_one(variables, monkeypatch, failure):
    """Who took it for empty would save over it."""

    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(variables, "get", fail)
    with pytest.raises(SecretsUnavailable, match="Variable 'forge_a'"):
        VariableStateStore("forge_a", "For tests").load()


def test_a_backend_that_is_away_is_not_an_empty_variable(monkeypatch):
    """Airflow asks the others then, and says that there is no such Variable."""

    class Away:
        def get_variable(self, key):
            raise TimeoutError

    supervisor = pytest.importorskip("airflow.sdk.execution_time.supervisor")
    monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: [Away()])
    with pytest.raises(SecretsUnavailable, match="Away: TimeoutError"):
        VariableStateStore("forge_a", "For tests").load()


class TestTeams:
    """A Variable belongs to the team that set it first: for another team it is not there."""

    def test_each_team_has_a_variable_of_its_own(self, variables, in_team):
        memory = VariableStateStore("forge_a", "For tests")
        for team in ("blue", "green", None):
            in_team(team)
            assert memory.load() == {}
            memory.save({"of": team})
        assert list(variables.stored) == ["forge_a.blue", "forge_a.green", "forge_a"]
        for team in ("blue", "green", None):
            in_team(team)
            assert VariableStateStore("forge_a", "For tests").load() == {"of": team}

    def test_a_team_reads_the_variable_from_before_teams(self, variables, in_team):
        memory = VariableStateStore("forge_a", "For tests")
        memory.save(CONTENT)
        in_team("blue")
        assert memory.load() == CONTENT
        memory.save({"of": "blue"})
        assert memory.load() == {"of": "blue"}
        assert json.loads(variables.stored["forge_a"]) == CONTENT

    def test_a_key_with_a_team_fits_as_well(self, variables, in_team):
        in_team("blue")
        memory = VariableStateStore("a" * 250, "For tests")
        memory.save(CONTENT)
        in_team("green")
        assert memory.load() == {}
        assert [len(key) for key in variables.stored] == [250]

    def test_airflow_before_teams_has_none(self, variables, monkeypatch):
        monkeypatch.setattr(secrets, "get_current_context", lambda: {"dag_run": SimpleNamespace()})
        assert VariableStateStore("forge_a", "For tests").key == "forge_a"
