"""The hook for receivers of OTLP over HTTP."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_forge.connection_forms import OTLP
from airflow_provider_forge.exceptions import ConfigurationError, ForgeError
from airflow_provider_forge.http import check_cleartext, is_credential
from airflow_provider_forge.utils.connections import (
    Extras,
    find_connection,
    host_of,
    mask_secret,
    qualify_errors,
    secret_of,
)

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["OtlpHook", "problem_of_ledger_url"]

_OWN_SETTINGS = {
    "allow_cleartext",
    "max_body_bytes",
    "max_compressed_bytes",
    "max_age",
    "tenant",
    "ledger_url",
}
"""Extras that also apply to an endpoint from the standard variables."""

_URL = re.compile("[a-z][a-z0-9+.:-]*://.", re.IGNORECASE)
# Up to the last @: a secret may contain slashes.
_PASSWORD_IN_URL = re.compile("://[^/@]*:.*@")


class OtlpHook(BaseHook):
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
    hook_name = "OpenTelemetry Protocol (OTLP)"

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the form, for Airflow before 3.2."""
        return OTLP.widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels and placeholders of the form, for Airflow before 3.2."""
        return OTLP.ui_field_behaviour("_")

    def __init__(self, otlp_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.otlp_conn_id = otlp_conn_id

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
        from airflow_provider_forge.utils.connection_test import check_receiver, describe_problem
        from airflow_provider_forge.utils.ledger import open_storage

        try:
            if url := self.ledger_url:
                open_storage(url)
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

        connection = find_connection(type(self), self.conn_name_attr, self.otlp_conn_id, self.hook_name)
        with qualify_errors(self.otlp_conn_id):
            host = host_of(connection, OTLP.hidden)
            secret = secret_of(connection)
            extras = Extras(connection)
            if not host and (unread := _unread(secret, extras)):
                raise ConfigurationError(
                    "host",
                    f"is missing beside {', '.join(unread)}; without a host, the receiver is described by the"
                    " variables OTEL_EXPORTER_OTLP_* only, and these fields must be empty",
                )
            endpoint = self._endpoint(host, secret, extras) if host else endpoint_from_environ(os.environ)
            endpoint = self._with_own_settings(endpoint, extras)
            if connection.password or any(map(is_credential, endpoint.headers)):
                field = "host" if host else "OTEL_EXPORTER_OTLP_ENDPOINT"
                check_cleartext(field, endpoint.url, allowed=extras.flag("allow_cleartext"))
        for name, value in endpoint.headers.items():
            # Only credentials: masking a value such as "production" would make every log unreadable.
            if is_credential(name):
                mask_secret(value)
                # Receivers may quote the token without the scheme before it.
                mask_secret(value.partition(" ")[2] or value)
        return endpoint

    @property
    def ledger_url(self) -> str | None:
        """URL of the ledger, for fsspec; None if the Connection has none.

        Raises:
            ConfigurationError: The extra is not a URL, or contains a password.
        """
        connection = find_connection(type(self), self.conn_name_attr, self.otlp_conn_id, self.hook_name)
        extras = Extras(connection)
        url = extras.text("ledger_url")
        if url and (problem := problem_of_ledger_url(url)):
            extras.fail("ledger_url", problem)
        return url

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


def problem_of_ledger_url(url: str) -> str | None:
    """Return the problem with a URL of the ledger; None if it is valid."""
    if _PASSWORD_IN_URL.search(url):
        return "contains a password; put it into a Connection, and name that: s3://conn_id@bucket/path"
    if not _URL.match(url):
        # It may still contain a password.
        shown = "" if "@" in url else f"{url!r} "
        return f"{shown}is not a URL; give one such as s3://conn_id@bucket/path"
    return None


def _unread(password: str | None, extras: Extras) -> list[str]:
    """Return the names of the fields that are set but not used without a host."""
    return ["password"] * bool(password) + sorted(extras.names() - _OWN_SETTINGS)
