"""The gateway, the receiver and the ledger's store of a command, outside of a task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_forge.cli.api_store import ApiStore
from airflow_provider_forge.cli.runtime import ShellRuntime
from airflow_provider_forge.connections.extras import problem_of_url
from airflow_provider_forge.connections.forge import ForgeAccess
from airflow_provider_forge.connections.ledger import ledger_name
from airflow_provider_forge.connections.otlp import OtlpAccess
from airflow_provider_forge.delivery.stores import ObjectStore
from airflow_provider_forge.exceptions import ConfigurationError

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.delivery.stores import Store

__all__ = ["forge_access", "ledger_store", "otlp_access"]


def forge_access(options: Namespace) -> ForgeAccess:
    """Return the access to the gateway.

    Raises:
        ConfigurationError: An option that selects something is empty, like a variable that is not set.
    """
    for name in ("app_id", "environments", "metrics"):
        if getattr(options, name, None) == "":
            flag = f"--{name.replace('_', '-')}"
            raise ConfigurationError(flag, "is empty; leave it out for the Connection's value")
    return ForgeAccess(options.forge_conn_id, ShellRuntime(), app_id=options.app_id)


def otlp_access(options: Namespace) -> OtlpAccess:
    """Return the access to the receiver."""
    return OtlpAccess(options.otlp_conn_id, ShellRuntime())


def ledger_store(options: Namespace, otlp: OtlpAccess, *, snapshot: bool = False) -> Store:
    """Return the ledger's store: object storage if a URL names it, else Airflow's, through its REST API.

    Args:
        options: Options of the command.
        otlp: Access to the receiver, whose Connection may have a `ledger_url`.
        snapshot: As for `ApiStore`.

    Raises:
        ConfigurationError: No store is named, or the API token is missing or refused.
        LedgerUnavailable: Airflow does not answer.
    """
    if options.ledger_url and (problem := problem_of_url(options.ledger_url)):
        raise ConfigurationError("--ledger-url", problem)
    if path := options.ledger_url or otlp.ledger_url:
        return ObjectStore(otlp.runtime.open_storage(path))
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
            "AIRFLOW_API_TOKEN",
            f"is not set: POST {url}/auth/token returns one for a JSON body with username and password",
        )
    return ApiStore(url, token, ledger_name(options.forge_conn_id, options.otlp_conn_id), snapshot=snapshot)
