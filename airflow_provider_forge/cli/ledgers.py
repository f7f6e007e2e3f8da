"""Where the record of deliveries is to be found outside of a task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_forge.cli.api_store import ApiStore
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.hooks.otlp import problem_of_ledger_url
from airflow_provider_forge.utils.ledger import delivery_asset, find_store

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.hooks.otlp import OtlpHook

__all__ = ["ledger_store"]


def ledger_store(options: Namespace, otlp: OtlpHook, *, snapshot: bool = False) -> Store:
    """Return the store: object storage where a URL names some, else Airflow's, through its REST API.

    Args:
        options: Of the command.
        otlp: Has the `ledger_url`.
        snapshot: As for `ApiStore`.

    Raises:
        ConfigurationError: Neither is named, or the token for the latter is missing or refused.
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
            "no record of deliveries is named. Give the ledger_url that the DAG's OTLP Connection has or,"
            " where the record is in Airflow's asset state store, --api-url and the token $AIRFLOW_API_TOKEN"
            + (", or --no-ledger to send all points and record nothing" if "no_ledger" in options else ""),
        )
    token = os.environ.get("AIRFLOW_API_TOKEN")
    if not token:
        raise ConfigurationError(
            "AIRFLOW_API_TOKEN", f"is not set: a token for {url}, which POST {url}/auth/token gives"
        )
    return ApiStore(url, token, asset.name, snapshot=snapshot)
