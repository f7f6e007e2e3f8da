"""The Connections of a command: those in variables, and those that only Airflow's own processes can read."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["forge_hook", "otlp_hook"]


def forge_hook(options: Namespace) -> ForgeMetricsHook:
    """Return the hook for the gateway."""
    _publish(options.forge_conn_id)
    hook = ForgeMetricsHook(options.forge_conn_id, app_id=options.app_id)
    with contextlib.suppress(ConfigurationError):  # whoever uses the hook is told
        _publish(hook.redis_conn_id)
    return hook


def otlp_hook(options: Namespace) -> OtlpHook:
    """Return the hook for the receiver."""
    _publish(options.otlp_conn_id)
    hook = OtlpHook(options.otlp_conn_id)
    with contextlib.suppress(ConfigurationError, ValueError):  # whoever uses the hook or the URL is told
        url = getattr(options, "ledger_url", None) or hook.ledger_url
        _publish(urllib.parse.urlsplit(url or "").username)
    return hook


def _publish(conn_id: str | None) -> None:
    """Put a Connection of Airflow's database or secrets backend where hooks find it outside of a task.

    Airflow's own `airflow connections test` does the same.
    """
    variable = f"AIRFLOW_CONN_{conn_id.upper()}" if conn_id else ""
    if not conn_id or variable in os.environ:
        return
    from airflow.models.connection import Connection
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    try:
        connection = Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        return  # the hook says what to do about it
    os.environ[variable] = connection.get_uri()
