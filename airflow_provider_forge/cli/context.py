"""The hooks and the ledger's store of a command, outside of a task."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_forge.cli.api_store import ApiStore
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook, problem_of_ledger_url
from airflow_provider_forge.utils.ledger import delivery_asset, find_store

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.delivery.stores import Store

__all__ = ["forge_hook", "ledger_store", "otlp_hook"]


def forge_hook(options: Namespace) -> ForgeMetricsHook:
    """Return the hook of the gateway."""
    _publish(options.forge_conn_id)
    hook = ForgeMetricsHook(options.forge_conn_id, app_id=options.app_id)
    with contextlib.suppress(ConfigurationError):  # raised again when the hook is used
        _publish(hook.redis_conn_id)
    return hook


def otlp_hook(options: Namespace) -> OtlpHook:
    """Return the hook of the receiver."""
    _publish(options.otlp_conn_id)
    hook = OtlpHook(options.otlp_conn_id)
    with contextlib.suppress(ConfigurationError, ValueError):  # raised again when the hook or the URL is used
        url = getattr(options, "ledger_url", None) or hook.ledger_url
        _publish(urllib.parse.urlsplit(url or "").username)
    return hook


def ledger_store(options: Namespace, otlp: OtlpHook, *, snapshot: bool = False) -> Store:
    """Return the ledger's store: object storage if a URL names it, else Airflow's, through its REST API.

    Args:
        options: Options of the command.
        otlp: Hook of the receiver, whose Connection may have a `ledger_url`.
        snapshot: As for `ApiStore`.

    Raises:
        ConfigurationError: No store is named, or the API token is missing or refused.
        LedgerUnavailable: Airflow does not answer.
    """
    asset = delivery_asset(options.forge_conn_id, options.otlp_conn_id)
    if options.ledger_url and (problem := problem_of_ledger_url(options.ledger_url)):
        raise ConfigurationError("--ledger-url", problem)
    if store := find_store({}, asset, options.ledger_url or otlp.ledger_url):
        return store
    url = options.api_url or os.environ.get("AIRFLOW_API_URL")
    if not url:
        raise ConfigurationError(
            "--ledger-url",
            "no ledger is named. Give the ledger_url of the DAG's OTLP Connection or, if the ledger is in"
            " Airflow's asset state store, --api-url and the token $AIRFLOW_API_TOKEN"
            + (", or --no-ledger to send all points and record nothing" if "no_ledger" in options else ""),
        )
    token = os.environ.get("AIRFLOW_API_TOKEN")
    if not token:
        raise ConfigurationError(
            "AIRFLOW_API_TOKEN", f"is not set: POST {url}/auth/token returns a token for {url}"
        )
    return ApiStore(url, token, asset.name, snapshot=snapshot)


def _publish(conn_id: str | None) -> None:
    """Export a Connection of Airflow's database or secrets backend, so that hooks find it outside of a task.

    Airflow's own `airflow connections test` does the same.
    """
    variable = f"AIRFLOW_CONN_{conn_id.upper()}" if conn_id else ""
    if not conn_id or variable in os.environ:
        return
    # Slow to import, and not needed if all Connections are in variables.
    from airflow.models.connection import Connection

    try:
        connection = Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        return  # the hook's error names the remedy
    os.environ[variable] = connection.get_uri()
