"""The Connections of a command: those in variables, and those that only Airflow's own processes can read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["forge_hook", "otlp_hook"]


def forge_hook(options: Namespace) -> ForgeMetricsHook:
    """Return the hook for the gateway."""
    _publish(options.forge_conn_id)
    return ForgeMetricsHook(options.forge_conn_id, app_id=options.app_id)


def otlp_hook(options: Namespace) -> OtlpHook:
    """Return the hook for the receiver."""
    _publish(options.otlp_conn_id)
    return OtlpHook(options.otlp_conn_id)


def _publish(conn_id: str) -> None:
    """Put a Connection of Airflow's database or secrets backend where hooks find it outside of a task.

    Airflow's own `airflow connections test` does the same.
    """
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if variable in os.environ:
        return
    from airflow.models.connection import Connection
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    try:
        connection = Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        return  # the hook says what to do about it
    os.environ[variable] = connection.get_uri()
