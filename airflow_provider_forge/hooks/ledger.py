"""Where Airflow keeps the ledger: in its asset state store, or wherever an fsspec URL points."""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_forge.exceptions import LedgerUnavailable
from airflow_provider_forge.hooks.memory import VariableMemory
from airflow_provider_forge.hooks.otlp import is_credential
from airflow_provider_forge.hooks.shared import shared_directory
from airflow_provider_forge.hooks.storage import open_storage
from airflow_provider_forge.text import get_logger, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.accounts import Account
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.otlp.model import Json

__all__ = ["account_of", "delivery_asset", "find_store", "open_ledger"]

log = get_logger(__name__)

LARGEST = 65_000
"""Bytes: Airflow warns of values above 65,535 in its asset state store, and its REST API takes none."""

LONGEST_ASSET = 1500
"""Characters that Airflow takes for the name of an asset: ids in other scripts take up to twelve for one."""

_SUPERVISOR = threading.Lock()
"""Held while Airflow's supervisor is asked. A worker's answers one thread after the other; that of
`dag.test()` and `airflow tasks test` goes away for the length of a request, and mixes up two answers."""


def delivery_asset(forge_conn_id: str, otlp_conn_id: str) -> Asset:
    """Return the asset that stands for what two Connections deliver, and that the ledger hangs on."""
    forge, otlp = (urllib.parse.quote(conn_id, safe="") for conn_id in (forge_conn_id, otlp_conn_id))
    name = f"forge_metrics:{forge}:{otlp}"
    if len(name) > LONGEST_ASSET:
        digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        name = f"{name[: LONGEST_ASSET - len(digest) - 1]}:{digest}"
    # Without a URI of its own, so that whoever names it means this one.
    return Asset(name)


class AssetStore:
    """Airflow's asset state store, as of 3.3.

    Args:
        accessor: The task's access to the rows of one asset.
        name: What people call it.
    """

    def __init__(self, accessor: Any, name: str) -> None:
        self._accessor = accessor
        self.name = name
        self.largest: int | None = LARGEST
        self.lasting = True

    def get(self, key: str) -> Json | None:
        """Return the value; None where there is none."""
        value = self._ask("get", key)
        return value if isinstance(value, dict) or value is None else {}

    def set(self, key: str, value: Json) -> None:
        """Put a value there."""
        self._ask("set", key, value)

    def delete(self, key: str) -> None:
        """Take a value away."""
        self._ask("delete", key)

    def _ask(self, verb: str, *arguments: Any) -> Any:
        try:
            with _SUPERVISOR:
                return getattr(self._accessor, verb)(*arguments)
        except Exception as error:  # Airflow can be told to keep it anywhere, with errors of that place
            raise LedgerUnavailable(
                f"Airflow's asset state store did not {verb} an entry of {self.name}"
                f" ({type(error).__name__}: {quote(error)}). It is tried again; should that not end, look"
                " at the API server's log"
            ) from error


def find_store(context: Mapping[str, Any], asset: Asset, url: str | None) -> Store | None:
    """Return the store that the user named, else the one of the asset; None where there is neither.

    Args:
        context: The task's.
        asset: Which has to be one of the task's inlets or outlets.
        url: Where the user wants the ledger; None for Airflow's own store.

    Raises:
        ConfigurationError: As `open_storage` raises it.
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


def open_ledger(
    store: Store | None,
    app_id: str,
    destination: str,
    redis_url: str | None = None,
    account: Account | None = None,
) -> Ledger:
    """Open the ledger of one app and one destination; one that forgets, without a store.

    Args:
        store: Where it is kept.
        app_id: UUID of the app.
        destination: As an `Endpoint` tells it.
        redis_url: Where tasks on several machines find each other's leases; None for those of one machine.
        account: As `account_of` returns it, for a caller that delivers.
    """
    from airflow_provider_forge.delivery.leases import FileLeases
    from airflow_provider_forge.delivery.leases_redis import RedisLeases
    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.delivery.stores import TransientStore

    where = hashlib.blake2b(destination.encode(), digest_size=8).hexdigest()
    name = f"{app_id}-{where}"
    leases = RedisLeases(redis_url, name) if redis_url else FileLeases(shared_directory(), name)
    if store is None:
        log.warning(
            "No record is kept of what is delivered, so a re-run sends its points again: Airflow before 3.3"
            " has no place for it, a mapped task only where partial() names the asset as inlet and outlet."
            " Set the OTLP Connection's extra ledger_url to have one"
        )
        return Ledger(TransientStore(), f"{app_id}/{where}", leases=leases)

    def sentinel(selection: str) -> VariableMemory:
        # Not the whole URL: a path can hold a secret.
        host = urllib.parse.urlsplit(destination).hostname
        return VariableMemory(
            f"forge_ledger_{app_id}_{where}_{selection}",
            f"Says that airflow-provider-forge has a record of what it delivered to {host}",
        )

    return Ledger(store, f"{app_id}/{where}", leases=leases, sentinel=sentinel, account=account)


def account_of(conn_id: str, endpoint: Endpoint) -> Account | None:
    """Return the credentials that may tell apart accounts of one receiver; None if something else does.

    Args:
        conn_id: Of the OTLP Connection.
        endpoint: What the Connection says.
    """
    from airflow_provider_forge.delivery.accounts import Account

    credentials = {name: value for name, value in endpoint.headers.items() if is_credential(name)}
    if endpoint.cert_file:
        credentials["cert_file"] = endpoint.cert_file
    is_named = bool(urllib.parse.urlsplit(endpoint.destination).fragment)
    return None if is_named or not credentials else Account(conn_id, credentials)
