"""Connections and Variables while what keeps them is away, read through Airflow's own look-ups."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    ConnectionResult,
    ErrorResponse,
    GetConnection,
    VariableResult,
)
from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_provider_forge.exceptions import ConfigurationError, FinalError, SecretsUnavailable
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.utils.runtime import find_connection
from airflow_provider_forge.utils.secrets import WAITS, read_connection, read_variable
from tests.airflow_version import AIRFLOW

SECRET = "s3cr3t-canary"
AWAY = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503})
NO_CONNECTION = ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND)
NO_VARIABLE = ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND)

through_the_api = pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow 3.0 raises what the API server says")


class Vault(BaseSecretsBackend):
    """A secrets backend of one's own."""

    kept: dict[str, str] = {}  # noqa: RUF012 - Airflow makes it
    away = False

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        return self._get(conn_id)

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        return self._get(key)

    def _get(self, name: str) -> str | None:
        if type(self).away:
            raise ConnectionError(f"503 for {SECRET}")
        return self.kept.get(name)


@pytest.fixture
def vault(monkeypatch):
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", f"{__name__}.Vault")
    monkeypatch.setattr(Vault, "kept", {})
    monkeypatch.setattr(Vault, "away", False)
    return Vault


class Supervisor:
    """Airflow's supervisor: `answers` are what the API server says, the last one from then on."""

    def __init__(self, *answers: object, keys: tuple[str, ...] = ()) -> None:
        self.answers = list(answers)
        self.keys = keys
        self.asked: list[object] = []

    def send(self, msg):
        if type(msg).__name__ == "MaskSecret":
            return None
        if type(msg).__name__ == "GetVariableKeys":
            from airflow.sdk.execution_time.comms import VariableKeysResult

            return VariableKeysResult(keys=list(self.keys), total_entries=len(self.keys))
        self.asked.append(msg)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ErrorResponse):
            raise AirflowRuntimeError(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def supervise(monkeypatch):
    def supervise(*answers, **more) -> Supervisor:
        supervisor = Supervisor(*answers, **more)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        return supervisor

    return supervise


@pytest.fixture
def waits():
    return []


def test_a_connection_of_a_backend_is_read(vault):
    vault.kept["my_forge"] = json.dumps({"conn_type": "forge", "host": "a.example"})
    assert read_connection(BaseHook, "my_forge").host == "a.example"
    assert read_connection(BaseHook, "another") is None


def test_an_unavailable_backend_is_not_mistaken_for_an_empty_one(vault, monkeypatch):
    vault.away = True
    with pytest.raises(SecretsUnavailable, match="Vault: ConnectionError") as caught:
        find_connection(ForgeMetricsHook, "forge_conn_id", "my_forge", "Atlassian Forge")
    assert "'my_forge'" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert not isinstance(caught.value, FinalError)
    with pytest.raises(SecretsUnavailable, match="Vault: ConnectionError"):
        read_variable("forge_a")
    # What a later backend has is found all the same.
    monkeypatch.setenv("AIRFLOW_CONN_MY_FORGE", json.dumps({"conn_type": "forge"}))
    monkeypatch.setenv("AIRFLOW_VAR_FORGE_A", "{}")
    assert read_connection(BaseHook, "my_forge").conn_type == "forge"
    assert read_variable("forge_a") == "{}"


def test_a_malformed_variable_of_the_process_stays_an_error_of_the_configuration(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MY_FORGE", "{")
    with pytest.raises((ConfigurationError, ValueError)):
        find_connection(ForgeMetricsHook, "forge_conn_id", "my_forge", "Atlassian Forge")


@through_the_api
@pytest.mark.parametrize("answer", [AWAY, EOFError("closed"), ConnectionResetError(), TimeoutError()])
def test_an_unavailable_api_server_is_not_mistaken_for_an_empty_one(supervise, waits, answer):
    supervise(answer)
    with pytest.raises(SecretsUnavailable, match="'my_forge' at this moment"):
        read_connection(BaseHook, "my_forge", sleep=waits.append)
    with pytest.raises(SecretsUnavailable, match="'forge_a' at this moment"):
        read_variable("forge_a", sleep=waits.append)
    assert waits == [*WAITS, *WAITS]


@through_the_api
def test_a_value_missing_at_the_api_server_is_requested_a_few_times(supervise, waits):
    supervisor = supervise(NO_CONNECTION)
    assert read_connection(BaseHook, "my_forge", sleep=waits.append) is None
    assert waits == list(WAITS)
    assert {type(message) for message in supervisor.asked} == {GetConnection}


@through_the_api
@pytest.mark.parametrize("blip", [NO_CONNECTION, AWAY])
def test_a_blip_of_the_api_server_is_over_within_the_task(supervise, waits, blip):
    fields = dict.fromkeys(("host", "schema", "login", "password", "port", "extra"))
    supervise(blip, blip, blip, ConnectionResult(conn_id="my_forge", conn_type="forge", **fields))
    assert read_connection(BaseHook, "my_forge", sleep=waits.append).conn_type == "forge"
    assert waits


def test_nothing_waits_outside_of_a_task(waits):
    assert read_connection(BaseHook, "my_forge", sleep=waits.append) is None
    assert waits == []


@through_the_api
def test_a_variable_that_is_not_there_is_none(supervise):
    supervise(NO_VARIABLE, keys=("forge_ab",))
    assert read_variable("forge_a") is None
    supervise(VariableResult(key="forge_a", value="{}"))
    assert read_variable("forge_a") == "{}"


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="Airflow lists Variables as of 3.3")
def test_a_variable_that_the_database_lists_is_not_mistaken_for_none(supervise, waits):
    supervise(NO_VARIABLE, keys=("forge_a",))
    with pytest.raises(SecretsUnavailable, match="lists it but does not find it"):
        read_variable("forge_a", sleep=waits.append)
    assert waits == list(WAITS)


@through_the_api
@pytest.mark.parametrize("blip", [NO_VARIABLE, AWAY])
def test_a_variable_found_at_the_second_attempt_is_read(supervise, waits, blip):
    """The API server was away for a moment, or another task has made it in between."""
    supervise(blip, VariableResult(key="forge_a", value="{}"))
    assert read_variable("forge_a", sleep=waits.append) == "{}"
    assert waits == [WAITS[0]]


@through_the_api
def test_a_variable_that_is_found_at_every_second_attempt_is_not_absent(supervise, waits):
    found = VariableResult(key="forge_a", value="{}")
    supervise(*[NO_VARIABLE, found] * (len(WAITS) + 1))
    with pytest.raises(SecretsUnavailable, match="found only at the second attempt"):
        read_variable("forge_a", sleep=waits.append)
