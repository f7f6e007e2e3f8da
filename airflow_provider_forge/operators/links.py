"""Links that Airflow shows beside a task's log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_forge.exceptions import ForgeError
from airflow_provider_forge.hooks.forge import ForgeMetricsHook

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

__all__ = ["DeveloperConsoleLink"]

CONSOLE = "https://developer.atlassian.com/console/myapps/"


class DeveloperConsoleLink(BaseOperatorLink):
    """Link to the app in Atlassian's developer console, available once the task has ended."""

    name = "Atlassian developer console"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the URL of the app, or of the list of apps if the app is not known at present."""
        conn_id, app_id = getattr(operator, "forge_conn_id", ""), getattr(operator, "app_id", None)
        try:
            return f"{CONSOLE}{ForgeMetricsHook(conn_id, app_id=app_id or None).app_id}/overview"
        except ForgeError:  # Airflow 3.0 would not call `on_failure_callback`
            return CONSOLE
