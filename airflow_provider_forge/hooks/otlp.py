"""The hook for receivers of OTLP over HTTP."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.hooks.extras import Extras, find_connection, host_of, naming
from airflow_provider_forge.hooks.masking import mask_secret

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["OtlpHook"]

_NAME_OF_SECRET = re.compile("auth|cookie|credential|key|pass|secret|session|sig|token", re.IGNORECASE)


class OtlpHook(BaseHook):
    """Sends metrics to an OTLP endpoint over HTTP.

    Connection, of type `otlp`:

    ==================== ==============================================================================
    host                 base URL, to which `/v1/metrics` is added, or a full metrics URL; without one, the
                         standard `OTEL_EXPORTER_OTLP_*` variables say everything
    password             secret, sent as ``Authorization: Bearer …`` or in the header `auth_header`
    extra                ``auth_header``, ``headers`` (object), ``protocol`` (``http/protobuf`` or
                         ``http/json``), ``compression`` (``gzip`` or ``none``), ``timeout`` (seconds, 30),
                         ``ca_file``, ``cert_file``, ``key_file``
    ==================== ==============================================================================

    Args:
        otlp_conn_id: Id of the Connection.
    """

    conn_name_attr = "otlp_conn_id"
    default_conn_name = "otlp_default"
    conn_type = "otlp"
    hook_name = "OpenTelemetry Protocol (OTLP)"

    def __init__(self, otlp_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.otlp_conn_id = otlp_conn_id

    def get_conn(self) -> OtlpClient:
        """Return a client, to be closed by who asked for it.

        Raises:
            ConfigurationError: A field of the Connection is missing or wrong.
        """
        from airflow_provider_forge.otlp.client import OtlpClient

        endpoint = self.endpoint()
        with naming(self.otlp_conn_id):
            return OtlpClient(endpoint)

    def endpoint(self) -> Endpoint:
        """Return where the Connection points to.

        Raises:
            ConfigurationError: A field of the Connection is missing or wrong.
        """
        from airflow_provider_forge.otlp.endpoint import endpoint_from_environ

        connection = find_connection(type(self), self.conn_name_attr, self.otlp_conn_id, self.hook_name)
        with naming(self.otlp_conn_id):
            host = host_of(connection)
            if not host and (connection.password or Extras(connection)):
                raise ConfigurationError(
                    "host",
                    "is missing beside other fields; without a host, the variables OTEL_EXPORTER_OTLP_* say"
                    " everything, and the other fields are to be empty",
                )
            endpoint = self._endpoint(host, connection) if host else endpoint_from_environ(os.environ)
        for name, value in endpoint.headers.items():
            # Not all of them: to mask "production" would make every log unreadable.
            if _NAME_OF_SECRET.search(name):
                mask_secret(value)
                # Receivers like to repeat a token, but not the scheme before it.
                mask_secret(value.partition(" ")[2] or value)
        return endpoint

    def _endpoint(self, host: str, connection: Any) -> Endpoint:
        from airflow_provider_forge.otlp.endpoint import (
            COMPRESSIONS,
            DEFAULT_TIMEOUT,
            PROTOCOLS,
            Endpoint,
            metrics_url,
        )

        extras = Extras(connection)
        return Endpoint(
            url=metrics_url(host),
            headers=self._headers(connection.password, extras),
            protocol=extras.choice("protocol", PROTOCOLS, PROTOCOLS[0]),
            compression=extras.choice("compression", COMPRESSIONS, COMPRESSIONS[0]),
            timeout=extras.number("timeout", DEFAULT_TIMEOUT),
            ca_file=extras.text("ca_file"),
            cert_file=extras.text("cert_file"),
            key_file=extras.text("key_file"),
        )

    def _headers(self, secret: str | None, extras: Extras) -> dict[str, str]:
        headers = extras.get("headers", {})
        if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
            extras.refuse("headers", "is not an object of names and texts")
        if not secret:
            return dict(headers)
        own = extras.text("auth_header")
        name, value = (own, secret) if own else ("Authorization", f"Bearer {secret}")
        return {**{key: text for key, text in headers.items() if key.lower() != name.lower()}, name: value}
