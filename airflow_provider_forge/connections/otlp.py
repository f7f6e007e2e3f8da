"""Access to a receiver of OTLP over HTTP, as a Connection describes it."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from airflow_provider_forge.connection_forms import OTLP
from airflow_provider_forge.connections.extras import (
    Extras,
    host_of,
    problem_of_url,
    qualify_errors,
    secret_of,
)
from airflow_provider_forge.exceptions import ConfigurationError, ForgeError
from airflow_provider_forge.http import check_cleartext, is_credential, secrets_of_header

if TYPE_CHECKING:
    from airflow_provider_forge.connections.runtime import Connection, Runtime
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["TYPE_NAME", "OtlpAccess"]

TYPE_NAME = "OpenTelemetry Protocol (OTLP)"
"""Name of the type of Connection in Airflow's form."""

_OWN_SETTINGS = {
    "allow_cleartext",
    "max_body_bytes",
    "max_compressed_bytes",
    "max_age",
    "tenant",
    "ledger_url",
}
"""Extras that also apply to an endpoint from the standard variables."""


class OtlpAccess:
    """Sends metrics to an OTLP endpoint over HTTP.

    Args:
        otlp_conn_id: Id of the Connection, of type `otlp`; `OtlpHook` lists its fields.
        runtime: Reads the Connection.

    Attributes:
        runtime: The same.
    """

    def __init__(self, otlp_conn_id: str, runtime: Runtime) -> None:
        self.otlp_conn_id = otlp_conn_id
        self.runtime = runtime

    def get_conn(self) -> OtlpClient:
        """Return a new client, which the caller closes.

        Raises:
            ConfigurationError: A field of the Connection is missing or wrong.
        """
        from airflow_provider_forge.otlp.client import OtlpClient

        endpoint = self.endpoint()
        with qualify_errors(self.otlp_conn_id):
            return OtlpClient(endpoint)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the Connection works, and a message: the form's Test button.

        Also opens the file system of `ledger_url`, as far as Airflow can without reading from it.
        """
        from airflow_provider_forge.connections.checks import check_receiver, describe_problem

        try:
            Extras(self._conn()).check_names()
            if url := self.ledger_url:
                self.runtime.open_storage(url)
            with self.get_conn() as client:
                return check_receiver(client)
        except ForgeError as error:
            return False, describe_problem(error, self.otlp_conn_id)

    def endpoint(self) -> Endpoint:
        """Return the endpoint that the Connection describes.

        Raises:
            ConfigurationError: A field of the Connection is missing or wrong.
        """
        from airflow_provider_forge.otlp.environ import endpoint_from_environ

        connection = self._conn()
        with qualify_errors(self.otlp_conn_id):
            host = host_of(connection, OTLP.unused)
            secret = secret_of(connection)
            extras = Extras(connection)
            if not host and (unread := _unread(secret, extras)):
                raise ConfigurationError(
                    "host",
                    f"is missing: give it together with {', '.join(unread)}; without a host, only the"
                    " variables OTEL_EXPORTER_OTLP_* describe the receiver, and these fields must be empty",
                )
            endpoint = self._endpoint(host, secret, extras) if host else endpoint_from_environ(os.environ)
            endpoint = self._with_own_settings(endpoint, extras)
            if connection.password or any(map(is_credential, endpoint.headers)):
                field = "host" if host else "OTEL_EXPORTER_OTLP_ENDPOINT"
                check_cleartext(field, endpoint.url, allowed=extras.flag("allow_cleartext"))
        for name, value in endpoint.headers.items():
            # Only credentials: masking a value such as "production" would make every log unreadable.
            if is_credential(name):
                for secret in secrets_of_header(value):
                    self.runtime.mask(secret)
        return endpoint

    @property
    def ledger_url(self) -> str | None:
        """URL of the ledger, for fsspec; None if the Connection has none.

        Raises:
            ConfigurationError: The extra is not a URL, or contains a password.
        """
        connection = self._conn()
        extras = Extras(connection)
        url = extras.text("ledger_url")
        if url and (problem := problem_of_url(url)):
            extras.fail("ledger_url", problem)
        return url

    def _conn(self) -> Connection:
        return self.runtime.connection("otlp_conn_id", self.otlp_conn_id, TYPE_NAME)

    def _with_own_settings(self, endpoint: Endpoint, extras: Extras) -> Endpoint:
        from airflow_provider_forge.otlp.destinations import default_max_age, parse_max_age
        from airflow_provider_forge.otlp.endpoint import MAX_BYTES

        compressed = extras.get("max_compressed_bytes")
        max_age = extras.get("max_age")
        limits = dataclasses.replace(
            endpoint.limits,
            max_body_bytes=extras.whole_number("max_body_bytes", endpoint.limits.max_body_bytes, MAX_BYTES),
            max_compressed_bytes=(
                None if compressed is None else extras.whole_number("max_compressed_bytes", 0, MAX_BYTES)
            ),
            max_age=default_max_age(endpoint.url) if max_age is None else parse_max_age(max_age),
        )
        return dataclasses.replace(endpoint, limits=limits, tenant=extras.text("tenant"))

    def _endpoint(self, host: str, password: str | None, extras: Extras) -> Endpoint:
        from airflow_provider_forge.otlp.endpoint import (
            COMPRESSIONS,
            DEFAULT_TIMEOUT,
            PROTOCOLS,
            Endpoint,
            Limits,
            TlsFiles,
            metrics_url,
        )

        return Endpoint(
            url=metrics_url(host),
            headers=self._headers(password, extras),
            protocol=extras.choice("protocol", PROTOCOLS, PROTOCOLS[0]),
            compression=extras.choice("compression", COMPRESSIONS, COMPRESSIONS[0]),
            limits=Limits(timeout=extras.number("timeout", DEFAULT_TIMEOUT)),
            tls=TlsFiles(extras.text("ca_file"), extras.text("cert_file"), extras.text("key_file")),
        )

    def _headers(self, secret: str | None, extras: Extras) -> dict[str, str]:
        headers = extras.object("headers")
        if not all(isinstance(value, str) for value in headers.values()):
            extras.fail("headers", "is not an object of names and strings")
        own = extras.text("auth_header")
        if not secret:
            return dict(headers)
        name, value = (own, secret) if own else ("Authorization", f"Bearer {secret}")
        return {**{key: text for key, text in headers.items() if key.lower() != name.lower()}, name: value}


def _unread(password: str | None, extras: Extras) -> list[str]:
    """Return the names of the fields that are set but not used without a host."""
    return ["password"] * bool(password) + sorted(extras.names() - _OWN_SETTINGS)
