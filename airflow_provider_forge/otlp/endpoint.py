"""The OTLP/HTTP endpoint: URL, headers, limits and TLS files, validated before anything is sent."""

from __future__ import annotations

import datetime as dt
import functools
import os
import re
import ssl
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.http import check_url, secrets_of_header
from airflow_provider_forge.otlp.destinations import age_remedy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "COMPRESSIONS",
    "DEFAULT_MAX_BODY_BYTES",
    "DEFAULT_TIMEOUT",
    "EXAMPLE_URL",
    "HTTP_JSON",
    "HTTP_PROTOBUF",
    "MAX_BYTES",
    "PROTOCOLS",
    "Endpoint",
    "Limits",
    "TlsFiles",
    "metrics_url",
]

HTTP_PROTOBUF = "http/protobuf"
HTTP_JSON = "http/json"
PROTOCOLS = (HTTP_PROTOBUF, HTTP_JSON)
COMPRESSIONS = ("gzip", "none")

DEFAULT_TIMEOUT = 30.0
"""Seconds."""

DEFAULT_MAX_BODY_BYTES = 4 * 1024 * 1024
"""Dynatrace's limit; a Collector and Prometheus accept more."""

TIMEOUTS_PER_EXPORT = 4
"""Default of `export_timeout`, in timeouts: a receiver that sends a byte now and then is never silent for
long."""

MIN_BYTES = 1024
MAX_BYTES = 64 * 1024 * 1024
"""The request size that OTLP recommends receivers to accept."""

MAX_MAX_AGE = dt.timedelta(days=3650)
"""No destination keeps points for longer, and subtracting it from the present cannot overflow."""

EXAMPLE_URL = "https://host:4318"
_METRICS_PATH = "/v1/metrics"
_OTHER_SIGNALS = ("/v1/traces", "/v1/logs", "/v1development/profiles")
_GRPC_PORT = 4317
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RESERVED_HEADERS = ("content-type", "content-encoding", "content-length", "host", "transfer-encoding")
_TENANT_HEADERS = ("thanos-tenant", "x-scope-orgid")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile("(?=.*[0-9A-Z]).{12,}")
"""A segment of a path that may be a secret: it is long, and not a word."""


@dataclass(frozen=True)
class Limits:
    """Limits of time, size and age for what is sent to a receiver.

    Attributes:
        timeout: Maximum time in seconds without a byte from the receiver.
        export_timeout: Maximum time in seconds of one export, its retries included; None for four timeouts
            per call.
        max_body_bytes: Maximum size in bytes of a serialized request, before compression; 1 KiB to 64 MiB.
            A larger one is split.
        max_compressed_bytes: Maximum size in bytes of a request as it is sent, 1 KiB to 64 MiB; None for no
            limit. A larger one is not sent.
        max_age: Maximum age of a point that the destination stores; None for no limit.

    Raises:
        ConfigurationError: A limit is out of range.
    """

    timeout: float = DEFAULT_TIMEOUT
    export_timeout: float | None = None
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_compressed_bytes: int | None = None
    max_age: dt.timedelta | None = None

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_compressed_bytes"):
            size = getattr(self, name)
            if size is not None and not MIN_BYTES <= size <= MAX_BYTES:
                raise ConfigurationError(
                    name, f"{size} is not a number of bytes from {MIN_BYTES} to {MAX_BYTES}"
                )
        if self.max_age is not None and not dt.timedelta(0) < self.max_age <= MAX_MAX_AGE:
            raise ConfigurationError(
                "max_age", f"{self.max_age} is not above 0 and up to {MAX_MAX_AGE.days} days"
            )

    @property
    def call_timeout(self) -> float:
        """Maximum time in seconds of one call as a whole."""
        return TIMEOUTS_PER_EXPORT * self.timeout if self.export_timeout is None else self.export_timeout


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a TLS connection.

    Attributes:
        ca_file: The certificate authorities to trust instead of the default ones.
        cert_file: The client certificate.
        key_file: The client key, if `cert_file` does not contain it.

    Raises:
        ConfigurationError: A file does not exist, or there is a key without a certificate.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        if self.key_file and not self.cert_file:
            raise ConfigurationError("cert_file", "is missing, though key_file is set")
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            # Path.is_file raises if the path is too long, or one of its directories cannot be searched.
            if path and not os.path.isfile(path):  # noqa: PTH113
                raise ConfigurationError(name, f"there is no file {path} on this machine")

    @functools.cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """A TLS context with these files, shared by all clients: loading the authorities takes 30 ms.

        Raises:
            ConfigurationError: A file does not contain what its field requires.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError("ca_file", f"{self.ca_file} cannot be read: {error}") from error
        if self.ca_file:
            # The default as of Python 3.13: a file with only an intermediate authority is enough.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.cert_file:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except (ssl.SSLError, OSError) as error:
                raise ConfigurationError(
                    "cert_file", f"{self.cert_file} and {self.key_file} cannot be used: {error}"
                ) from error
        return context


@dataclass(frozen=True)
class Endpoint:
    """An OTLP/HTTP receiver, as a Connection or the standard variables describe it.

    Attributes:
        url: URL that metrics are posted to.
        headers: Headers of each request; their values may be secrets.
        protocol: `http/protobuf`, which every receiver supports, or `http/json`.
        compression: `gzip` or `none`.
        tenant: Account or tenant at the destination, if the URL does not identify it.
        limits: Limits of time, size and age.
        tls: PEM files.

    Raises:
        ConfigurationError: A value is invalid. The message quotes it, but never a header's value.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    protocol: str = HTTP_PROTOBUF
    compression: str = "gzip"
    tenant: str | None = None
    limits: Limits = field(default_factory=Limits)
    tls: TlsFiles = field(default_factory=TlsFiles)

    def __post_init__(self) -> None:
        check_url("host", self.url, example=EXAMPLE_URL)
        self._check_headers()
        if self.protocol not in PROTOCOLS:
            raise ConfigurationError("protocol", f"{self.protocol!r} is not one of {', '.join(PROTOCOLS)}")
        if self.compression not in COMPRESSIONS:
            raise ConfigurationError(
                "compression", f"{self.compression!r} is not one of {', '.join(COMPRESSIONS)}"
            )

    def _check_headers(self) -> None:
        seen = set()
        for name, value in self.headers.items():
            if name.lower() in seen:
                raise ConfigurationError("headers", f"{name!r} is given twice, in different spellings")
            seen.add(name.lower())
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
                raise ConfigurationError("headers", f"{name!r} is not the name of a header that can be set")
            if not value.isascii() or not value.isprintable() or value != value.strip():
                raise ConfigurationError(
                    "headers", f"the value of {name!r} has characters that a header cannot contain"
                )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The parts of the headers and of the path that may be secret, as a receiver may quote them."""
        parts = [part for value in self.headers.values() for part in secrets_of_header(value)]
        path = urllib.parse.urlsplit(self.url).path
        segments = [*path.split("/"), *urllib.parse.unquote(path).split("/")]
        return (*parts, *(segment for segment in segments if _TOKEN.fullmatch(segment)))

    @property
    def destination(self) -> str:
        """Key of the destination in the ledger: the normalized URL and the tenant.

        Not for display: some receivers have a secret in the path.
        """
        parts = urllib.parse.urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
        tenants = sorted(
            (name.lower(), value) for name, value in self.headers.items() if name.lower() in _TENANT_HEADERS
        )
        if self.tenant:
            tenants.append(("tenant", self.tenant))
        url = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
        # A URL with a fragment is refused, so a fragment cannot be mistaken for a tenant.
        return f"{url}#{urllib.parse.urlencode(tenants)}" if tenants else url

    @property
    def age_remedy(self) -> str:
        """How to deliver points older than the limit, as a sentence without its full stop."""
        return age_remedy(self.url, self.limits.max_age)


def metrics_url(endpoint: str) -> str:
    """Return the URL to post metrics to; `/v1/metrics` is appended if it is missing.

    Raises:
        ConfigurationError: It is not an http(s) URL, has gRPC's port, or is the URL of another signal.
    """
    parts = check_url("host", endpoint, example=EXAMPLE_URL)
    path = parts.path.rstrip("/")
    if parts.port == _GRPC_PORT:
        raise ConfigurationError(
            "host",
            f"port {_GRPC_PORT} is OTLP over gRPC; this provider sends OTLP over HTTP, usually on port 4318",
        )
    if path.endswith(_OTHER_SIGNALS):
        raise ConfigurationError(
            "host", f"{path} is for another signal; give the base URL, or one with {_METRICS_PATH}"
        )
    if not path.endswith(_METRICS_PATH):
        path += _METRICS_PATH
    return urllib.parse.urlunsplit(parts._replace(path=path))
