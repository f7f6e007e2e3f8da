"""The hook for Atlassian's App metrics API and its App resource usage API."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_forge.connection_forms import FORGE
from airflow_provider_forge.connections.forge import TYPE_NAME, ForgeAccess
from airflow_provider_forge.utils.runtime import AirflowRuntime

__all__ = ["ForgeMetricsHook"]


class ForgeMetricsHook(ForgeAccess, BaseHook):
    """Fetches the metrics of Forge apps, within Atlassian's rate limit.

    Connection, of type `forge`:

    ==================== ==============================================================================
    login                email of the Atlassian account that owns the app
    password             API token of that account
    host                 gateway URL; default `https://api.atlassian.com/graphql`
    extra                ``app_id`` (ARI or UUID), ``environments`` (list or comma-separated names, UUIDs
                         or ARIs; default ``production``), ``metrics`` (labels; default all that
                         are known), ``service_name``, ``token_expires_on`` (date such as
                         ``2027-01-31``), ``allow_cleartext`` (``true`` permits an ``http://`` host on
                         another machine), ``timeout`` (seconds, 60), ``rate_limit_calls`` (5),
                         ``rate_limit_seconds`` (60), ``rate_limit_store`` (default ``file``; for
                         several machines ``redis://…``, ``rediss://…``, or ``redis_conn:<id>`` of a
                         Connection of type redis),
                         ``usage_prices`` (object, or path of a JSON file; default Atlassian's prices),
                         ``archive_url`` (directory for all responses, such as ``s3://conn_id@bucket/a``)
    ==================== ==============================================================================

    All processes share the rate limit of an account: on one machine through a file in the directory for
    temporary files (`TMPDIR`), on several machines through Redis. The names and ids of environments are
    cached in an Airflow Variable for each app, ``forge_environments_<app>_<gateway>``, and beside the rate
    limit, for callers that cannot write the Variable.

    Args:
        forge_conn_id: Id of the Connection.
        app_id: ARI or UUID of the app; default is the Connection's.
        patience: Maximum time in seconds for which `fetch` waits for a reservation in the rate limit. It then
            sleeps at most a minute until its slot. None for no maximum.
    """

    conn_name_attr = "forge_conn_id"
    default_conn_name = "forge_default"
    conn_type = "forge"
    hook_name = TYPE_NAME

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the form, for Airflow before 3.2."""
        return FORGE.widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels and placeholders of the form, for Airflow before 3.2."""
        return FORGE.ui_field_behaviour("_")

    def __init__(
        self,
        forge_conn_id: str = default_conn_name,
        *,
        app_id: str | None = None,
        patience: float | None = None,
    ) -> None:
        BaseHook.__init__(self)
        runtime = AirflowRuntime(type(self))
        ForgeAccess.__init__(self, forge_conn_id, runtime, app_id=app_id, patience=patience)
