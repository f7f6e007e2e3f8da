"""What a task gets from Airflow, and a command from its environment: Connections, lasting state, storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_forge.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow_provider_forge.state_store import StateStore

__all__ = ["Connection", "Runtime", "malformed_connection", "missing_connection", "variable_of"]


class Connection(Protocol):
    """An Airflow Connection, or an object with the same fields."""

    conn_id: str
    conn_type: str | None
    host: str | None
    schema: str | None
    login: str | None
    password: str | None
    port: int | None
    extra: str | None

    @property
    def extra_dejson(self) -> Any:
        """The extra, decoded; an empty object if it is not JSON."""


class Runtime(Protocol):
    """Airflow in a task, the environment in a command."""

    def connection(self, argument: str, conn_id: str, kind: str) -> Connection:
        """Return a Connection.

        Args:
            argument: Name of the argument that names it, for errors.
            conn_id: Id of the Connection.
            kind: Name of its type in Airflow's form, for errors.

        Raises:
            ConfigurationError: It does not exist, or is malformed.
            SecretsUnavailable: Airflow cannot read it at the moment.
        """

    def mask(self, secret: str) -> None:
        """Mask a secret in every log."""

    def state_store(self, key: str, description: str) -> StateStore:
        """Return the state store of that key, which other machines read, too."""

    def open_storage(self, url: str, field: str = "ledger_url") -> Any:
        """Return the path of an fsspec URL, and create its file system; nothing is read yet.

        Args:
            url: The URL.
            field: Name of the extra that has it, for errors: `ledger_url` or `archive_url`.

        Raises:
            ConfigurationError: A package is missing, or a Connection in the URL.
            LedgerUnavailable: The file system cannot be created for another reason.
            SecretsUnavailable: Airflow cannot read a Connection at the moment.
        """


def variable_of(conn_id: str) -> str:
    """Return the name of the environment variable in which Airflow looks for a Connection."""
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def missing_connection(argument: str, conn_id: str, kind: str) -> ConfigurationError:
    """Return the error for a Connection that does not exist."""
    return ConfigurationError(
        argument,
        f"there is no Connection {conn_id!r}: add one of type {kind!r} under Admin, Connections, or set"
        f" {variable_of(conn_id)}",
    )


def malformed_connection(argument: str, conn_id: str) -> ConfigurationError:
    """Return the error for an environment variable that does not contain a Connection."""
    return ConfigurationError(
        argument,
        f"Airflow cannot read the Connection {conn_id!r} in {variable_of(conn_id)}: check that it is JSON or"
        " a URI, and its extra an object",
    )
