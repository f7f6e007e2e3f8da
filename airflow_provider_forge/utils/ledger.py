"""The store of a task's ledger: Airflow's asset state store, or object storage at an fsspec URL."""

from __future__ import annotations

import threading
import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, Asset, BaseHook

from airflow_provider_forge.connections.ledger import LARGEST, ledger_name
from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.text import is_storable, sanitize
from airflow_provider_forge.utils.secrets import read_connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["delivery_asset", "find_store", "open_storage"]

_SUPERVISOR = threading.Lock()
"""Held during a request to Airflow's supervisor. A worker's supervisor serves one thread at a time; that of
`dag.test()` and `airflow tasks test` is replaced during a request, and confuses concurrent responses."""

_PACKAGES = {
    "s3": "pip install 'apache-airflow-providers-amazon[s3fs]'",
}
"""How to install the file system of a scheme; Airflow's providers contain them."""

_SUBJECTS = {"ledger_url": "The ledger", "archive_url": "The archive"}
"""What is kept at the URL of an extra."""


def delivery_asset(forge_conn_id: str, otlp_conn_id: str) -> Asset:
    """Return the asset that represents the deliveries between two Connections, and holds their ledger."""
    # Without a URI, so that the name alone identifies it in other DAGs.
    return Asset(ledger_name(forge_conn_id, otlp_conn_id))


class AssetStore:
    """Airflow's asset state store (3.3 and later).

    Args:
        accessor: Airflow's accessor of the values of one asset.
        name: Name for logs and errors.
    """

    def __init__(self, accessor: Any, name: str) -> None:
        self._accessor = accessor
        self.name = name
        self.largest: int | None = LARGEST
        self.lasting = True

    def get(self, key: str) -> Json | None:
        """Return a value; None if there is none, and an empty object if it is damaged."""
        value = self._call("get", key)
        is_intact = value is None or (isinstance(value, dict) and is_storable(value))
        return value if is_intact else {}

    def set(self, key: str, value: Json) -> None:
        """Write a value."""
        self._call("set", key, value)

    def delete(self, key: str) -> None:
        """Delete a value."""
        self._call("delete", key)

    def _call(self, verb: str, *arguments: Any) -> Any:
        try:
            with _SUPERVISOR:
                return getattr(self._accessor, verb)(*arguments)
        except Exception as error:  # Airflow can be configured to use any backend, each with its own errors
            raise LedgerUnavailable(
                f"Airflow's asset state store did not {verb} a value of {self.name}"
                f" ({type(error).__name__}: {sanitize(error)}). If this persists,"
                " check the log of the API server"
            ) from error


def find_store(context: Mapping[str, Any], asset: Asset, url: str | None) -> Store | None:
    """Return the store at a URL, else the asset's; None if there is neither.

    Args:
        context: Context of the task.
        asset: Asset of the ledger, which must be an inlet or outlet of the task.
        url: URL of the ledger; None for Airflow's own store.

    Raises:
        ConfigurationError: As for `open_storage`.
        LedgerUnavailable: Likewise.
    """
    from airflow_provider_forge.delivery.stores import ObjectStore

    if url:
        return ObjectStore(open_storage(url))
    stores = context.get("asset_state_store")
    try:
        return AssetStore(stores[asset], f"the asset {asset.name}") if stores is not None else None
    except KeyError:  # a mapped task has only the assets named in partial()
        return None


def open_storage(url: str, field: str = "ledger_url") -> Any:
    """Return Airflow's `ObjectStoragePath` for a URL and create its file system; nothing is read yet.

    Args:
        url: The URL.
        field: Name of the extra that has it, for errors.

    Raises:
        ConfigurationError: A package that Airflow needs is missing or has an unsupported version, or there is
            no Connection with the id in the URL.
        LedgerUnavailable: The file system cannot be created for another reason.
        SecretsUnavailable: Airflow cannot read the Connection at the moment.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        path = ObjectStoragePath(url)
        _ = path.fs  # otherwise a missing package would be noticed only when the first value is read
    except TypeError as error:  # universal-pathlib 0.3 does not know the class of Airflow 3.0
        raise ConfigurationError(
            field,
            f"this Airflow cannot open it ({sanitize(error)}): Airflow 3.0 needs universal-pathlib before"
            ' 0.3, as its constraints say: pip install "universal-pathlib<0.3"',
        ) from error
    except (ImportError, ValueError) as error:
        scheme = urllib.parse.urlsplit(url).scheme
        remedy = _PACKAGES.get(scheme, "install the Airflow provider that has file systems of this kind")
        raise ConfigurationError(
            field, f"this Airflow cannot open {scheme}:// ({sanitize(error)}): {remedy}"
        ) from error
    except AirflowNotFoundException as error:
        raise _connection_error(url, field, error) from error
    except Exception as error:  # looking up a Connection or credentials can fail in any way
        raise LedgerUnavailable(
            f"{_SUBJECTS[field]} cannot be opened ({type(error).__name__}: {sanitize(error)})."
            f" If this persists, check the extra {field} and the Connection that it names"
        ) from error
    return path


def _connection_error(
    url: str, field: str, error: AirflowNotFoundException
) -> ConfigurationError | LedgerUnavailable:
    """Return the error for a Connection in a URL that Airflow does not find, or did not find a moment ago."""
    conn_id = urllib.parse.unquote(urllib.parse.urlsplit(url).username or "")
    if conn_id and read_connection(BaseHook, conn_id):
        return LedgerUnavailable(
            f"Airflow did not find the Connection {conn_id!r} of the extra {field} a moment ago"
        )
    return ConfigurationError(
        field,
        f"names a Connection that does not exist ({sanitize(error)}): create it, or name another",
    )
