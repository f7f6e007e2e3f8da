"""Airflow's Connections, Variables, masks and storage, for hooks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.connections.runtime import malformed_connection, missing_connection, variable_of
from airflow_provider_forge.utils.secrets import VariableStateStore, read_connection

# The one name not taken from common-compat: the versions of it that have the name need Python 3.11.
try:
    from airflow.sdk.log import mask_secret
except ImportError:  # Airflow 3.0
    from airflow.sdk.execution_time.secrets_masker import mask_secret  # type: ignore[no-redef]

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook, Connection

    from airflow_provider_forge.state_store import StateStore

__all__ = ["AirflowRuntime", "find_connection"]


class AirflowRuntime:
    """What Airflow provides to a hook: a `Runtime`.

    Args:
        hook: Class of the hook.
    """

    def __init__(self, hook: type[BaseHook]) -> None:
        self._hook = hook

    def connection(self, argument: str, conn_id: str, kind: str) -> Connection:
        """Return a Connection."""
        return find_connection(self._hook, argument, conn_id, kind)

    def mask(self, secret: str) -> None:
        """Mask a secret in the logs of the task."""
        mask_secret(secret)

    def state_store(self, key: str, description: str) -> StateStore:
        """Return the state store in a Variable."""
        return VariableStateStore(key, description)

    def open_storage(self, url: str, field: str = "ledger_url") -> Any:
        """Return the `ObjectStoragePath` of a URL."""
        # Slow to import, and rarely needed.
        from airflow_provider_forge.utils.ledger import open_storage

        return open_storage(url, field)


def find_connection(hook: type[BaseHook], argument: str, conn_id: str, kind: str) -> Connection:
    """Return the Connection.

    Raises:
        ConfigurationError: It does not exist, or is malformed.
        SecretsUnavailable: Airflow cannot read it at the moment.
    """
    if connection := read_connection(hook, conn_id):
        return connection
    if variable_of(conn_id) in os.environ:  # before 3.2, Airflow reports a malformed Connection as missing
        raise malformed_connection(argument, conn_id)
    raise missing_connection(argument, conn_id, kind)
