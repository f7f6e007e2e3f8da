"""The environment of a command: Connections in variables, or else those of this machine's Airflow."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.connections.environ import connection_from_environ
from airflow_provider_forge.connections.runtime import malformed_connection, variable_of
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.state_store import NullStateStore

if TYPE_CHECKING:
    from airflow_provider_forge.connections.runtime import Connection
    from airflow_provider_forge.state_store import StateStore

__all__ = ["ShellRuntime"]


class ShellRuntime:
    """What a shell provides to a command: a `Runtime`.

    Airflow takes seconds to import, so it is imported only for what is not in a variable.
    """

    def __init__(self) -> None:
        self._found: dict[str, Connection] = {}

    def connection(self, argument: str, conn_id: str, kind: str) -> Connection:
        """Return a Connection: of the environment, or else of Airflow's database or secrets backend."""
        if conn_id not in self._found:
            self._found[conn_id] = connection_from_environ(conn_id) or _of_airflow(argument, conn_id, kind)
        return self._found[conn_id]

    def mask(self, secret: str) -> None:
        """Do nothing: a command has no log but what it prints, which is sanitized."""

    def state_store(self, key: str, description: str) -> StateStore:  # noqa: ARG002 - as called
        """Return a store that keeps nothing: only tasks can read and set Variables."""
        return NullStateStore()

    def open_storage(self, url: str, field: str = "ledger_url") -> Any:
        """Return the path of a URL, opened by Airflow with the Connection that the URL names."""
        from airflow_provider_forge.utils.ledger import open_storage

        with contextlib.suppress(ValueError):  # raised again when the URL is opened
            _publish(urllib.parse.unquote(urllib.parse.urlsplit(url).username or ""))
        return open_storage(url, field)


def _of_airflow(argument: str, conn_id: str, kind: str) -> Connection:
    from airflow.models.connection import Connection as AirflowConnection
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
    from airflow.secrets.environment_variables import EnvironmentVariablesBackend

    from airflow_provider_forge.utils.runtime import AirflowRuntime

    if os.environ.get(variable_of(conn_id)):
        try:
            # Airflow passes over a variable that it cannot read, and takes the Connection of its database.
            found: Connection = EnvironmentVariablesBackend().get_connection(conn_id)
        except Exception:  # noqa: BLE001 - of any type, and it may quote a secret
            raise malformed_connection(argument, conn_id) from None
        return found
    with contextlib.suppress(AirflowNotFoundException):
        return AirflowConnection.get_connection_from_secrets(conn_id)
    try:
        # Distinguishes one that does not exist from one that cannot be read.
        return AirflowRuntime(BaseHook).connection(argument, conn_id, kind)
    except ConfigurationError as error:
        raise ConfigurationError(argument, f"{error.problem}. {_describe_search()}") from None


def _describe_search() -> str:
    """Say which Airflow was searched: a shell may have another one than the UI."""
    from airflow.configuration import AIRFLOW_HOME

    default = "" if os.environ.get("AIRFLOW_HOME") else ", the default, because the variable is not set"
    return (
        f"This command searched that variable, and the Airflow whose AIRFLOW_HOME is {AIRFLOW_HOME}{default}"
    )


def _publish(conn_id: str) -> None:
    """Export a Connection of Airflow's database or secrets backend, so that its storage finds it.

    Airflow's own `airflow connections test` does the same.
    """
    from airflow.models.connection import Connection as AirflowConnection
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    if not conn_id or variable_of(conn_id) in os.environ:
        return
    with contextlib.suppress(AirflowNotFoundException):  # the storage's error names the remedy
        os.environ[variable_of(conn_id)] = AirflowConnection.get_connection_from_secrets(conn_id).get_uri()
