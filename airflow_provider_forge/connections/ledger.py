"""Opens the ledger between two Connections."""

from __future__ import annotations

import hashlib
import urllib.parse
from typing import TYPE_CHECKING

from airflow_provider_forge.files import shared_directory
from airflow_provider_forge.http import is_credential
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from airflow_provider_forge.connections.forge import ForgeAccess
    from airflow_provider_forge.connections.runtime import Runtime
    from airflow_provider_forge.delivery.accounts import Account
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.state_store import StateStore

__all__ = ["LARGEST", "account_of", "ledger_name", "open_delivery_ledger", "open_ledger"]

log = get_logger(__name__)

LARGEST = 65_000
"""Maximum size in bytes of a value in the asset state store. Airflow warns above 65,535 bytes, and its REST
API refuses such values."""

MAX_ASSET_NAME = 1500
"""Maximum number of characters of an asset's name in Airflow. An id may need up to twelve for a character."""

_NO_STORE = (
    "There is no ledger, so a re-run sends all points again: Airflow before 3.3 has no place for one, and a"
    " mapped task only if partial() names the asset as inlet and outlet. To have a ledger, set the OTLP"
    " Connection's extra ledger_url"
)


def ledger_name(forge_conn_id: str, otlp_conn_id: str) -> str:
    """Return the name of the asset that represents the deliveries between two Connections."""
    forge, otlp = (urllib.parse.quote(conn_id, safe="") for conn_id in (forge_conn_id, otlp_conn_id))
    name = f"forge_metrics:{forge}:{otlp}"
    if len(name) > MAX_ASSET_NAME:
        digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        name = f"{name[: MAX_ASSET_NAME - len(digest) - 1]}:{digest}"
    return name


def open_ledger(
    runtime: Runtime,
    store: Store | None,
    app_id: str,
    destination: str,
    redis_url: str | None = None,
    account: Account | None = None,
) -> Ledger:
    """Open the ledger of one app and one destination; without a store, one that lasts as long as the task.

    Args:
        runtime: Provides the state that tells a lost ledger from a new one.
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
        log.warning(_NO_STORE)
        return Ledger(InMemoryStore(), f"{app_id}/{destination_hash}", leases=leases)

    def sentinel(selection: str) -> StateStore:
        # Without the URL's path, which can hold a secret.
        host = urllib.parse.urlsplit(destination).hostname
        return runtime.state_store(
            f"forge_ledger_{app_id}_{destination_hash}_{selection}",
            f"Says that airflow-provider-forge has a ledger of its deliveries to {host}",
        )

    return Ledger(store, f"{app_id}/{destination_hash}", leases=leases, sentinel=sentinel, account=account)


def open_delivery_ledger(forge: ForgeAccess, store: Store | None, conn_id: str, endpoint: Endpoint) -> Ledger:
    """Open the ledger of the deliveries of an app to an endpoint, as `open_ledger` does.

    Args:
        forge: The Connection of the app.
        store: Store of the ledger.
        conn_id: Id of the OTLP Connection.
        endpoint: Endpoint of the Connection.
    """
    account = account_of(conn_id, endpoint)
    return open_ledger(forge.runtime, store, forge.app_id, endpoint.destination, forge.redis_url, account)


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
