"""The hook for receivers of OTLP over HTTP."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_forge.connection_forms import OTLP
from airflow_provider_forge.connections.otlp import TYPE_NAME, OtlpAccess
from airflow_provider_forge.utils.runtime import AirflowRuntime

__all__ = ["OtlpHook"]


class OtlpHook(OtlpAccess, BaseHook):
    """Sends metrics to an OTLP endpoint over HTTP.

    Connection, of type `otlp`:

    ==================== ==============================================================================
    host                 base URL, to which `/v1/metrics` is added, or a full metrics URL; if empty, the
                         standard `OTEL_EXPORTER_OTLP_*` variables replace all fields but this provider's
                         own settings: the last six extras
    password             secret, sent as ``Authorization: Bearer …`` or in the header `auth_header`
    extra                ``auth_header``, ``headers`` (object), ``protocol`` (``http/protobuf`` or
                         ``http/json``), ``compression`` (``gzip`` or ``none``), ``timeout`` (seconds, 30),
                         ``ca_file``, ``cert_file``, ``key_file``; ``max_body_bytes`` (4 MiB),
                         ``max_compressed_bytes``, ``max_age`` (such as ``48h``, or ``none``), ``tenant``,
                         ``ledger_url``, ``allow_cleartext`` (``true`` permits ``http://`` to another
                         machine beside a secret)
    ==================== ==============================================================================

    Args:
        otlp_conn_id: Id of the Connection.
    """

    conn_name_attr = "otlp_conn_id"
    default_conn_name = "otlp_default"
    conn_type = "otlp"
    hook_name = TYPE_NAME

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the form, for Airflow before 3.2."""
        return OTLP.widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels and placeholders of the form, for Airflow before 3.2."""
        return OTLP.ui_field_behaviour("_")

    def __init__(self, otlp_conn_id: str = default_conn_name) -> None:
        BaseHook.__init__(self)
        OtlpAccess.__init__(self, otlp_conn_id, AirflowRuntime(type(self)))
