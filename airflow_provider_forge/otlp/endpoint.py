"""Where metrics are sent, and how: checked before anything is sent."""

from __future__ import annotations

import re
import ssl
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.http import check_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "COMPRESSIONS",
    "DEFAULT_TIMEOUT",
    "HTTP_JSON",
    "HTTP_PROTOBUF",
    "PROTOCOLS",
    "Endpoint",
    "endpoint_from_environ",
    "metrics_url",
]

HTTP_PROTOBUF = "http/protobuf"
HTTP_JSON = "http/json"
PROTOCOLS = (HTTP_PROTOBUF, HTTP_JSON)
COMPRESSIONS = ("gzip", "none")

DEFAULT_TIMEOUT = 30.0
"""Seconds."""

_EXAMPLE = "https://host:4318"
_METRICS_PATH = "/v1/metrics"
_OTHER_SIGNALS = ("/v1/traces", "/v1/logs", "/v1development/profiles")
_GRPC_PORT = 4317
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("content-type", "content-encoding", "content-length", "host", "transfer-encoding")


@dataclass(frozen=True)
class Endpoint:
    """A receiver of OTLP over HTTP.

    Attributes:
        url: Where metrics are posted to.
        headers: Sent with each request; they may hold secrets.
        protocol: `http/protobuf`, which every receiver takes, or `http/json`.
        compression: `gzip` or `none`.
        timeout: Seconds that the receiver may stay silent.
        ca_file: PEM file with the authorities to trust instead of the usual ones.
        cert_file: PEM file with the client's certificate.
        key_file: PEM file with its key, where `cert_file` does not hold it.

    Raises:
        ConfigurationError: A value is wrong; the message names it, but never a header's value.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    protocol: str = HTTP_PROTOBUF
    compression: str = "gzip"
    timeout: float = DEFAULT_TIMEOUT
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        check_url("host", self.url, example=_EXAMPLE)
        seen = set()
        for name, value in self.headers.items():
            if name.lower() in seen:
                raise ConfigurationError("headers", f"{name!r} is there twice, in another spelling")
            seen.add(name.lower())
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS:
                raise ConfigurationError("headers", f"{name!r} is not the name of a header that may be set")
            if not value.isascii() or not value.isprintable() or value != value.strip():
                raise ConfigurationError(
                    "headers", f"the value of {name!r} has characters a header cannot have"
                )
        if self.protocol not in PROTOCOLS:
            raise ConfigurationError("protocol", f"{self.protocol!r} is not one of {', '.join(PROTOCOLS)}")
        if self.compression not in COMPRESSIONS:
            raise ConfigurationError(
                "compression", f"{self.compression!r} is not one of {', '.join(COMPRESSIONS)}"
            )
        if self.key_file and not self.cert_file:
            raise ConfigurationError("cert_file", "is missing beside key_file")
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path and not Path(path).is_file():
                raise ConfigurationError(name, f"there is no file {path} on this machine")

    def ssl_context(self) -> ssl.SSLContext:
        """Return how to talk TLS.

        Raises:
            ConfigurationError: A file holds something else than it should.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError("ca_file", f"{self.ca_file} cannot be read: {error}") from error
        if self.cert_file:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except (ssl.SSLError, OSError) as error:
                raise ConfigurationError(
                    "cert_file", f"{self.cert_file} and {self.key_file} cannot be used: {error}"
                ) from error
        return context


def metrics_url(endpoint: str) -> str:
    """Return the URL that metrics are posted to: `/v1/metrics` is added unless it is there.

    Raises:
        ConfigurationError: It is no http(s) URL, the port of gRPC, or the URL of another signal.
    """
    parts = check_url("host", endpoint, example=_EXAMPLE)
    path = parts.path.rstrip("/")
    if parts.port == _GRPC_PORT:
        raise ConfigurationError(
            "host",
            f"port {_GRPC_PORT} is OTLP over gRPC; this sends OTLP over HTTP, whose usual port is 4318",
        )
    if path.endswith(_OTHER_SIGNALS):
        raise ConfigurationError(
            "host", f"{path} takes another signal; give the base URL, or one with {_METRICS_PATH}"
        )
    if not path.endswith(_METRICS_PATH):
        path += _METRICS_PATH
    return urllib.parse.urlunsplit(parts._replace(path=path))


def endpoint_from_environ(environ: Mapping[str, str]) -> Endpoint:
    """Make an endpoint from the standard `OTEL_EXPORTER_OTLP_*` variables.

    The one for metrics wins over the general one. The time-out is in milliseconds, as the specification says.

    Raises:
        ConfigurationError: No endpoint is set, or a variable's value is wrong.
    """
    settings = _Environment(environ)
    if not settings.get("ENDPOINT"):
        raise ConfigurationError(
            "host",
            f"no endpoint: give the receiver's URL, such as {_EXAMPLE}, or set OTEL_EXPORTER_OTLP_ENDPOINT",
        )
    try:
        return Endpoint(
            url=settings.url(),
            headers=_headers(settings.get("HEADERS")),
            protocol=settings.get("PROTOCOL", HTTP_PROTOBUF),
            compression=settings.get("COMPRESSION", "gzip"),
            timeout=_seconds(settings.get("TIMEOUT", str(DEFAULT_TIMEOUT * 1000))),
            ca_file=settings.get("CERTIFICATE") or None,
            cert_file=settings.get("CLIENT_CERTIFICATE") or None,
            key_file=settings.get("CLIENT_KEY") or None,
        )
    except ConfigurationError as error:
        raise ConfigurationError(settings.name(_VARIABLES[error.field]), error.problem) from None


_VARIABLES = {
    "host": "ENDPOINT",
    "headers": "HEADERS",
    "protocol": "PROTOCOL",
    "compression": "COMPRESSION",
    "timeout": "TIMEOUT",
    "ca_file": "CERTIFICATE",
    "cert_file": "CLIENT_CERTIFICATE",
    "key_file": "CLIENT_KEY",
}
"""The fields of an endpoint, by the end of the variable that sets them."""


class _Environment:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def name(self, setting: str) -> str:
        """Return the variable that sets it: the one for metrics, else the general one."""
        own = f"OTEL_EXPORTER_OTLP_METRICS_{setting}"
        return own if self._environ.get(own, "").strip() else f"OTEL_EXPORTER_OTLP_{setting}"

    def get(self, setting: str, default: str = "") -> str:
        return self._environ.get(self.name(setting), "").strip() or default

    def url(self) -> str:
        """Return where to post to: the endpoint for metrics as it is, or the general one with the path."""
        url = metrics_url(self.get("ENDPOINT"))
        return self.get("ENDPOINT") if "METRICS" in self.name("ENDPOINT") else url


def _seconds(milliseconds: str) -> float:
    try:
        seconds = float(milliseconds) / 1000
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError("timeout", f"{milliseconds!r} is not a number of milliseconds")
    return seconds


def _headers(text: str) -> dict[str, str]:
    headers = {}
    for pair in filter(None, (entry.strip() for entry in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError("headers", "is not a list of name=value, with commas between")
        headers[urllib.parse.unquote(name.strip())] = urllib.parse.unquote(value.strip())
    return headers
