"""An endpoint from the standard environment variables, `OTEL_EXPORTER_OTLP_*`."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.otlp.endpoint import (
    DEFAULT_TIMEOUT,
    EXAMPLE_URL,
    HTTP_PROTOBUF,
    Endpoint,
    Limits,
    TlsFiles,
    metrics_url,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["endpoint_from_environ"]

_SUFFIXES = {
    "host": "ENDPOINT",
    "headers": "HEADERS",
    "protocol": "PROTOCOL",
    "compression": "COMPRESSION",
    "timeout": "TIMEOUT",
    "ca_file": "CERTIFICATE",
    "cert_file": "CLIENT_CERTIFICATE",
    "key_file": "CLIENT_KEY",
}
"""The suffix of the variable for each field of an endpoint."""


def endpoint_from_environ(environ: Mapping[str, str]) -> Endpoint:
    """Return an endpoint configured by the standard `OTEL_EXPORTER_OTLP_*` variables.

    A variable for metrics, `OTEL_EXPORTER_OTLP_METRICS_*`, overrides the general one. The timeout is in
    milliseconds, as the OpenTelemetry specification defines.

    Raises:
        ConfigurationError: No endpoint is set, or a variable's value is wrong.
    """
    variables = _Variables(environ)
    if not variables.get("ENDPOINT"):
        raise ConfigurationError(
            "host",
            f"no endpoint: give the receiver's URL, such as {EXAMPLE_URL}, or set"
            " OTEL_EXPORTER_OTLP_ENDPOINT",
        )
    try:
        # By the specification, the maximum time of a batch's whole export.
        timeout = _seconds(variables.get("TIMEOUT")) if variables.get("TIMEOUT") else None
        return Endpoint(
            url=variables.url(),
            headers=_headers(variables.get("HEADERS")),
            protocol=variables.get("PROTOCOL", HTTP_PROTOBUF),
            compression=variables.get("COMPRESSION", "gzip"),
            limits=Limits(timeout=timeout or DEFAULT_TIMEOUT, export_timeout=timeout),
            tls=TlsFiles(
                variables.get("CERTIFICATE") or None,
                variables.get("CLIENT_CERTIFICATE") or None,
                variables.get("CLIENT_KEY") or None,
            ),
        )
    except ConfigurationError as error:
        raise ConfigurationError(variables.name(_SUFFIXES[error.field]), error.problem) from None


class _Variables:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def name(self, suffix: str) -> str:
        """Return the name of the variable in effect: the one for metrics if set, else the general one."""
        name = f"OTEL_EXPORTER_OTLP_METRICS_{suffix}"
        return name if self._environ.get(name, "").strip() else f"OTEL_EXPORTER_OTLP_{suffix}"

    def get(self, suffix: str, default: str = "") -> str:
        return self._environ.get(self.name(suffix), "").strip() or default

    def url(self) -> str:
        """Return the URL to post to: the endpoint for metrics as it is, or the general one with the path."""
        url = metrics_url(self.get("ENDPOINT"))
        return self.get("ENDPOINT") if "METRICS" in self.name("ENDPOINT") else url


def _seconds(milliseconds: str) -> float:
    try:
        seconds = float(milliseconds) / 1000
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError("timeout", f"{milliseconds!r} is not a positive number of milliseconds")
    return seconds


def _headers(text: str) -> dict[str, str]:
    headers = {}
    for pair in filter(None, (entry.strip() for entry in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError("headers", "is not a comma-separated list of name=value pairs")
        headers[urllib.parse.unquote(name.strip())] = urllib.parse.unquote(value.strip())
    return headers
