"""Reading Connections and Variables, so that one that cannot be read is not taken for one that is not there.

Airflow asks its secrets backends and its API server one after the other and swallows what any of them raises:
while one of them is away, Airflow says that nothing of this name is defined.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, Variable
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from airflow_provider_forge.exceptions import SecretsUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.providers.common.compat.sdk import BaseHook, Connection

__all__ = ["read_connection", "read_variable"]

WAITS = (0.5, 1.5, 4.0)
"""Seconds between the times that a task asks for a Connection. The API server, too, swallows what its
database raises and answers "not found"; a database that is locked is so for a moment."""

_ABSENT = (ErrorType.CONNECTION_NOT_FOUND, ErrorType.VARIABLE_NOT_FOUND)
_LATE = "found only at the second attempt"


def read_connection(
    hook: type[BaseHook], conn_id: str, *, sleep: Callable[[float], None] = time.sleep
) -> Connection | None:
    """Return a Connection; None where there is none of that id.

    Args:
        hook: The class to ask.
        conn_id: Id of the Connection.
        sleep: Called with seconds, between the times that a task asks.

    Raises:
        SecretsUnavailable: A secrets backend or the API server could not be asked.
    """
    from airflow.sdk.execution_time.comms import GetConnection

    failures: list[str] = []
    for wait in (*(WAITS if _is_task() else ()), None):
        try:
            return hook.get_connection(conn_id)
        except AirflowNotFoundException:
            failures = list(_failures("get_connection", GetConnection(conn_id=conn_id), conn_id=conn_id))
        except (AirflowRuntimeError, OSError) as error:
            failures = [_name(error)]
        if wait is not None:
            sleep(wait)
    if failures:
        raise _unavailable(f"Connection {conn_id!r}", failures)
    return None


def read_variable(key: str) -> str | None:
    """Return the text of a Variable; None where there is none of that key.

    Raises:
        SecretsUnavailable: A secrets backend or the API server could not be asked.
        ImportError: There is no supervisor to ask: this is no task (Airflow 3.0).
    """
    from airflow.sdk.execution_time.comms import GetVariable

    try:
        value: str | None = Variable.get(key, default=None)
        if value is not None:
            return value
        failures = list(_failures("get_variable", GetVariable(key=key), key=key))
        if not failures and _is_listed(key):
            failures = ["the API server lists it and does not find it"]
    except (AirflowRuntimeError, OSError) as error:
        failures = [_name(error)]
    if failures:
        raise _unavailable(f"Variable {key!r}", failures)
    return None


def _unavailable(name: str, failures: list[str]) -> SecretsUnavailable:
    return SecretsUnavailable(
        f"Airflow cannot read the {name} at this moment ({', '.join(failures)}). It will be retried. If"
        " this persists, check the secrets backend and the API server's log"
    )


def _is_task() -> bool:
    """Tell whether there is a supervisor to ask."""
    from airflow.sdk.execution_time import task_runner

    return getattr(task_runner, "SUPERVISOR_COMMS", None) is not None


def _failures(verb: str, message: Any, **key: str) -> Iterator[str]:
    """Ask each backend again, without swallowing: return the names of what failed.

    A backend that has the value by now failed a moment ago.

    Args:
        verb: The method of a secrets backend.
        message: What asks the API server for the same.
        key: The method's argument.
    """
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    for backend in ensure_secrets_backend_loaded():
        name = type(backend).__name__
        if name == "EnvironmentVariablesBackend":
            continue  # never away: what it cannot read is malformed
        if name == "ExecutionAPISecretsBackend":  # as of 3.1; before, Airflow raises what the API server says
            failure = _failure_of_api(message)
        else:
            failure = _failure_of(functools.partial(getattr(backend, verb), **key))
        if failure:
            yield f"{name}: {failure}"


def _failure_of(ask: Callable[[], Any]) -> str | None:
    try:
        return None if ask() is None else _LATE
    except Exception as error:  # noqa: BLE001 - backends are anybody's
        # Without its text, which may hold a part of the secret.
        return type(error).__name__


def _failure_of_api(message: Any) -> str | None:
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse

    try:
        answer: Any = task_runner.SUPERVISOR_COMMS.send(message)
    except AirflowRuntimeError as error:
        answer = error.error
    except Exception as error:  # noqa: BLE001 - the end of a socket, or what cannot be decoded
        return type(error).__name__
    if not isinstance(answer, ErrorResponse):
        return _LATE
    return None if answer.error in _ABSENT else answer.error.value


def _is_listed(key: str) -> bool:
    """Tell whether the database has a Variable of that key: the list comes or fails, a value may seem absent.

    Raises:
        AirflowRuntimeError: The API server failed.
    """
    # Airflow before 3.3 has no list.
    return _is_task() and hasattr(Variable, "keys") and key in Variable.keys(prefix=key)


def _name(error: Exception) -> str:
    """Return an error's name, without its text."""
    return error.error.error.value if isinstance(error, AirflowRuntimeError) else type(error).__name__
