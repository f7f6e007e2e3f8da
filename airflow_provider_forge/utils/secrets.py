"""Airflow's Connections and Variables: one that is unavailable is distinguished from one that does not exist.

Airflow asks its secrets backends and its API server in turn and suppresses their errors: while one of them is
unavailable, Airflow reports that nothing of this name is defined. A state kept in a Variable would then seem
empty, and be overwritten.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, Variable, get_current_context
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from airflow_provider_forge.exceptions import SecretsUnavailable
from airflow_provider_forge.text import get_logger, is_storable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.providers.common.compat.sdk import BaseHook, Connection

__all__ = ["VariableStateStore", "read_connection", "read_variable"]

log = get_logger(__name__)

WAITS = (0.5, 1.5, 4.0)
"""Seconds between a task's attempts to read a Connection, or a Variable that is unavailable. The API server,
too, hides the errors of its database and answers "not found", and a database is locked only for a moment."""

MAX_KEY_LENGTH = 250
"""Maximum number of characters of a Variable's key in Airflow's database."""

_ABSENT = (ErrorType.CONNECTION_NOT_FOUND, ErrorType.VARIABLE_NOT_FOUND)
_LATE = "found only at the second attempt"


def read_connection(
    hook: type[BaseHook], conn_id: str, *, sleep: Callable[[float], None] = time.sleep
) -> Connection | None:
    """Return a Connection; None if it does not exist.

    Args:
        hook: Hook class that reads it.
        conn_id: Id of the Connection.
        sleep: Called with seconds, between a task's attempts.

    Raises:
        SecretsUnavailable: A secrets backend or the API server is unavailable.
    """
    from airflow.sdk.execution_time.comms import GetConnection

    failures: list[str] = []
    for _ in _attempts(sleep):
        try:
            return hook.get_connection(conn_id)
        except AirflowNotFoundException:
            failures = list(_failures("get_connection", GetConnection(conn_id=conn_id), conn_id=conn_id))
        except (AirflowRuntimeError, OSError) as error:
            failures = [_name(error)]
    if failures:
        raise _unavailable(f"Connection {conn_id!r}", failures)
    return None


def read_variable(key: str, *, sleep: Callable[[float], None] = time.sleep) -> str | None:
    """Return the text of a Variable; None if it does not exist.

    Args:
        key: Key of the Variable.
        sleep: Called with seconds, between a task's attempts.

    Raises:
        SecretsUnavailable: A secrets backend or the API server is unavailable.
        ImportError: This process is not a task, so it has no supervisor (Airflow 3.0).
    """
    failures: list[str] = []
    # Another task may also have made it between two looks, and then it is there.
    for _ in _attempts(sleep):
        value, failures = _try_variable(key)
        if not failures:
            return value
    raise _unavailable(f"Variable {key!r}", failures)


def _try_variable(key: str) -> tuple[str | None, list[str]]:
    """Return the text of a Variable, None if it was not found, and the failures that may be the reason."""
    from airflow.sdk.execution_time.comms import GetVariable

    failures_of_backends = functools.partial(_failures, "get_variable", GetVariable(key=key), key=key)
    try:
        value: str | None = Variable.get(key, default=None)
        if value is not None:
            return value, []
        failures = [*failures_of_backends()]
        if not failures and _is_listed(key):
            failures = ["the API server lists it but does not find it"]
    except ImportError:  # the backends have been asked by then, and only the API server has not
        failures = [*failures_of_backends()]
        if not failures:
            raise
    except (AirflowRuntimeError, OSError) as error:
        failures = [_name(error)]
    return None, failures


class VariableStateStore:
    """Keeps one JSON object in an Airflow Variable, which tasks of every Airflow 3 can write.

    A Variable belongs to the team whose task sets it first, and other teams cannot read it. Each team
    therefore has a Variable of its own, whose key ends in the team's name.

    Args:
        key: Key of the Variable. If it is too long for Airflow, it is truncated and ends in its digest.
        description: Description of the Variable, shown in Airflow's UI.
    """

    def __init__(self, key: str, description: str) -> None:
        self._name = key
        self.description = description

    @property
    def key(self) -> str:
        """Key of the running task's Variable."""
        team = _team()
        return _truncate(f"{self._name}.{team}") if team else self.shared_key

    @property
    def shared_key(self) -> str:
        """Key without a team, which earlier versions used; a team without a Variable of its own reads it."""
        return _truncate(self._name)

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if none was saved, or if it is damaged.

        Raises:
            SecretsUnavailable: Airflow cannot read the Variable at the moment. Nothing may be saved over it.
        """
        try:
            text = read_variable(self.key)
            if text is None and self.key != self.shared_key:
                text = read_variable(self.shared_key)
            content = json.loads(text or "{}")
        except ImportError as error:  # Airflow 3.0 raises this if there is no supervisor
            log.debug("Outside of a task, Variables cannot be read: %s", error)
            return {}
        except (ValueError, RecursionError):
            log.warning("The Variable %s is damaged and counts as empty", self.key)
            return {}
        return content if isinstance(content, dict) and is_storable(content) else {}

    def save(self, content: dict[str, Any]) -> None:
        """Replace the object. If Airflow cannot, that is logged, and the task continues."""
        try:
            Variable.set(self.key, json.dumps(content), description=self.description)
        except ImportError as error:  # no supervisor: this is not a task
            log.debug("Outside of a task, Variables cannot be written: %s", error)
        except AirflowRuntimeError as error:
            log.warning("The Variable %s cannot be set: %s", self.key, error)


def _unavailable(name: str, failures: list[str]) -> SecretsUnavailable:
    return SecretsUnavailable(
        f"Airflow cannot read the {name} at this moment ({', '.join(failures)}). If"
        " this persists, check the secrets backend and the API server's log"
    )


def _attempts(sleep: Callable[[float], None]) -> Iterator[None]:
    """Yield once, and in a task again after each of `WAITS`."""
    yield
    for wait in WAITS if _is_task() else ():
        sleep(wait)
        yield


def _is_task() -> bool:
    """Return whether this process is a task, which has a supervisor."""
    from airflow.sdk.execution_time import task_runner

    return getattr(task_runner, "SUPERVISOR_COMMS", None) is not None


def _failures(verb: str, message: Any, **key: str) -> Iterator[str]:
    """Ask each backend again, without suppressing errors, and yield the failures.

    A backend that now has the value must have failed before.

    Args:
        verb: Method of a secrets backend.
        message: The corresponding message to the API server.
        key: Argument of the method.
    """
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    for backend in ensure_secrets_backend_loaded():
        name = type(backend).__name__
        if name == "EnvironmentVariablesBackend":
            continue  # always available: what it cannot read is malformed
        if name == "ExecutionAPISecretsBackend":  # since 3.1; before, Airflow raises the API server's errors
            failure = _failure_of_api(message)
        else:
            failure = _failure_of(functools.partial(getattr(backend, verb), **key))
        if failure:
            yield f"{name}: {failure}"


def _failure_of(ask: Callable[[], Any]) -> str | None:
    try:
        return None if ask() is None else _LATE
    except Exception as error:  # noqa: BLE001 - backends may raise anything
        # Not its text, which may contain a part of the secret.
        return type(error).__name__


def _failure_of_api(message: Any) -> str | None:
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse

    try:
        answer: Any = task_runner.SUPERVISOR_COMMS.send(message)
    except AirflowRuntimeError as error:
        answer = error.error
    except Exception as error:  # noqa: BLE001 - a closed socket, or an undecodable response
        return type(error).__name__
    if not isinstance(answer, ErrorResponse):
        return _LATE
    return None if answer.error in _ABSENT else answer.error.value


def _is_listed(key: str) -> bool:
    """Return whether the database has a Variable of that key. Unlike a value, the list never seems absent.

    Raises:
        AirflowRuntimeError: The API server failed.
    """
    # Airflow before 3.3 cannot list keys.
    return _is_task() and hasattr(Variable, "keys") and key in Variable.keys(prefix=key)


def _name(error: Exception) -> str:
    """Return the name of an error, without its text."""
    return error.error.error.value if isinstance(error, AirflowRuntimeError) else type(error).__name__


def _truncate(key: str) -> str:
    if len(key) <= MAX_KEY_LENGTH:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{key[: MAX_KEY_LENGTH - len(digest) - 1]}_{digest}"


def _team() -> str | None:
    """Return the team of the running task; None without a team, and before Airflow 3.3."""
    try:
        run = get_current_context().get("dag_run")
    except RuntimeError:  # outside of a task
        return None
    return getattr(run, "team_name", None)
