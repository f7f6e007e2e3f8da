"""Opens the ledger of a task: in Airflow's asset state store, or in object storage at an fsspec URL."""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, Asset, BaseHook

from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.files import shared_directory
from airflow_provider_forge.http import is_credential
from airflow_provider_forge.text import get_logger, sanitize
from airflow_provider_forge.utils.secrets import VariableStateStore, read_connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.accounts import Account
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["account_of", "delivery_asset", "find_store", "open_ledger", "open_storage"]

log = get_logger(__name__)

LARGEST = 65_000
"""Maximum size in bytes of a value in the asset state store. Airflow warns above 65,535 bytes, and its REST
API refuses such values."""

MAX_ASSET_NAME = 1500
"""Maximum number of characters of an asset's name in Airflow. An id may need up to twelve for a character."""

_SUPERVISOR = threading.Lock()
"""Held during a request to Airflow's supervisor. A worker's supervisor serves one thread at a time; that of
`dag.test()` and `airflow tasks test` is replaced during a request, and confuses concurrent responses."""

_PACKAGES = {
    "s3": "pip install 'apache-airflow-providers-amazon[s3fs]'",
}
"""How to install the file system of a scheme; Airflow's providers contain them."""


def delivery_asset(forge_conn_id: str, otlp_conn_id: str) -> Asset:
    """Return the asset that represents the deliveries between two Connections, and holds their ledger."""
    forge, otlp = (urllib.parse.quote(conn_id, safe="") for conn_id in (forge_conn_id, otlp_conn_id))
    name = f"forge_metrics:{forge}:{otlp}"
    if len(name) > MAX_ASSET_NAME:
        digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        name = f"{name[: MAX_ASSET_NAME - len(digest) - 1]}:{digest}"
    # Without a URI, so that the name alone identifies it in other DAGs.
    return Asset(name)


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
        return value if isinstance(value, dict) or value is None else {}

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
                f" ({type(error).__name__}: {sanitize(error)}). The task will be retried. If this persists,"
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


def open_storage(url: str) -> Any:
    """Return Airflow's `ObjectStoragePath` for a URL and create its file system; nothing is read yet.

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
            "ledger_url",
            f"this Airflow cannot open it ({sanitize(error)}): Airflow 3.0 needs universal-pathlib before"
            ' 0.3, as its constraints say: pip install "universal-pathlib<0.3"',
        ) from error
    except (ImportError, ValueError) as error:
        scheme = urllib.parse.urlsplit(url).scheme
        remedy = _PACKAGES.get(scheme, "install the Airflow provider that has file systems of this kind")
        raise ConfigurationError(
            "ledger_url", f"this Airflow cannot open {scheme}:// ({sanitize(error)}): {remedy}"
        ) from error
    except AirflowNotFoundException as error:
        raise _connection_error(url, error) from error
    except Exception as error:  # looking up a Connection or credentials can fail in any way
        raise LedgerUnavailable(
            f"The ledger cannot be opened ({type(error).__name__}: {sanitize(error)}). The task will be"
            " retried. If this persists, check the OTLP Connection's extra ledger_url and the Connection that"
            " it names"
        ) from error
    return path


def _connection_error(url: str, error: AirflowNotFoundException) -> ConfigurationError | LedgerUnavailable:
    """Return the error for a Connection in a URL that Airflow does not find, or did not find a moment ago."""
    conn_id = urllib.parse.unquote(urllib.parse.urlsplit(url).username or "")
    if conn_id and read_connection(BaseHook, conn_id):
        return LedgerUnavailable(
            f"Airflow did not find the Connection {conn_id!r} of the extra ledger_url a moment ago. The task"
            " will be retried"
        )
    return ConfigurationError(
        "ledger_url",
        f"names a Connection that does not exist ({sanitize(error)}): create it, or name another",
    )


def open_ledger(
    store: Store | None,
    app_id: str,
    destination: str,
    redis_url: str | None = None,
    account: Account | None = None,
) -> Ledger:
    """Open the ledger of one app and one destination; without a store, one that lasts as long as the task.

    Args:
        store: Store of the ledger.
        app_id: UUID of the app.
        destination: Destination, as `Endpoint` has it.
        redis_url: URL of the Redis that has the leases of several machines; None for those of one machine.
        account: Account that delivers, as `account_of` returns it; None if nothing is delivered.
    """
    from airflow_provider_forge.delivery.leases import FileLeases, RedisLeases
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.stores import InMemoryStore

    destination_hash = hashlib.blake2b(destination.encode(), digest_size=8).hexdigest()
    name = f"{app_id}-{destination_hash}"
    leases = RedisLeases(redis_url, name) if redis_url else FileLeases(shared_directory(), name)
    if store is None:
        log.warning(
            "There is no ledger, so a re-run sends all points again: Airflow before 3.3 has no place for one,"
            " and a mapped task only if partial() names the asset as inlet and outlet. To have a ledger, set"
            " the OTLP Connection's extra ledger_url"
        )
        return Ledger(InMemoryStore(), f"{app_id}/{destination_hash}", leases=leases)

    def sentinel(selection: str) -> VariableStateStore:
        # Without the URL's path, which can hold a secret.
        host = urllib.parse.urlsplit(destination).hostname
        return VariableStateStore(
            f"forge_ledger_{app_id}_{destination_hash}_{selection}",
            f"Says that airflow-provider-forge has a ledger of its deliveries to {host}",
        )

    return Ledger(store, f"{app_id}/{destination_hash}", leases=leases, sentinel=sentinel, account=account)


def account_of(conn_id: str, endpoint: Endpoint) -> Account | None:
    """Return the credentials that may identify an account of the receiver; None if something else does.

    Args:
        conn_id: Id of the OTLP Connection.
        endpoint: Endpoint of the Connection.
    """
    from airflow_provider_forge.delivery.accounts import Account

    credentials = {name: value for name, value in endpoint.headers.items() if is_credential(name)}
    if endpoint.tls.cert_file:
        credentials["cert_file"] = endpoint.tls.cert_file
    has_name = bool(urllib.parse.urlsplit(endpoint.destination).fragment)
    return None if has_name or not credentials else Account(conn_id, credentials)
