"""Where metrics are sent, and how: checked before anything is sent."""

from __future__ import annotations

import datetime as dt
import re
import ssl
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.http import check_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "COMPRESSIONS",
    "DEFAULT_MAX_BODY_BYTES",
    "DEFAULT_TIMEOUT",
    "HTTP_JSON",
    "HTTP_PROTOBUF",
    "MOST_BYTES",
    "PROTOCOLS",
    "Endpoint",
    "default_max_age",
    "endpoint_from_environ",
    "metrics_url",
    "parse_max_age",
]

HTTP_PROTOBUF = "http/protobuf"
HTTP_JSON = "http/json"
PROTOCOLS = (HTTP_PROTOBUF, HTTP_JSON)
COMPRESSIONS = ("gzip", "none")

DEFAULT_TIMEOUT = 30.0
"""Seconds."""

DEFAULT_MAX_BODY_BYTES = 4 * 1024 * 1024
"""What Dynatrace takes; a Collector and Prometheus take more."""

CALL_TIMEOUTS = 4
"""Time-outs that a call may take as a whole, if nothing else is said: a receiver that sends a byte now and
then is never silent for long."""

LEAST_BYTES = 1024
MOST_BYTES = 64 * 1024 * 1024
"""What OTLP says that a receiver should take."""

LONGEST_AGE = dt.timedelta(days=3650)
"""No destination keeps more, and a time so long ago can still be reckoned with."""

_EXAMPLE = "https://host:4318"
_METRICS_PATH = "/v1/metrics"
_OTHER_SIGNALS = ("/v1/traces", "/v1/logs", "/v1development/profiles")
_GRPC_PORT = 4317
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("content-type", "content-encoding", "content-length", "host", "transfer-encoding")
_TENANTS = ("thanos-tenant", "x-scope-orgid")
_DEFAULT_PORTS = {"http": 80, "https": 443}

# As people write it (90m, 1d12h), and ISO 8601 (PT90M, P1DT12H), where an M before the T is a month.
_AGE = re.compile(r"(p)?(?:([0-9]+)d)?(?(1)(?:t|$))(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class _Destination(NamedTuple):
    domains: tuple[str, ...]
    max_age: dt.timedelta
    remedy: str


_DESTINATIONS = (
    # https://docs.datadoghq.com/metrics/custom_metrics/historical_metrics/
    _Destination(
        ("datadoghq.com", "datadoghq.eu"),
        dt.timedelta(hours=1),
        "Switch Historical Metrics on for these metrics in Datadog (Metrics Summary, Configure Metrics), and"
        " set the OTLP Connection's extra max_age to 'none'",
    ),
    # The same page: not on the sites of the government.
    _Destination(
        ("ddog-gov.com",),
        dt.timedelta(hours=1),
        "Datadog's government sites have no Historical Metrics: they cannot be stored there",
    ),
    # https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/metric-api-limits-restricted-attributes/
    _Destination(
        ("nr-data.net",),
        dt.timedelta(hours=48),
        "New Relic drops what is older after it has answered 200, and nothing there changes that",
    ),
    # https://docs.dynatrace.com/docs/discover-dynatrace/platform/openpipeline/reference/limits
    _Destination(
        ("dynatrace.com",),
        dt.timedelta(hours=1),
        "Dynatrace takes nothing older, and nothing there changes that",
    ),
)
_OTHER_REMEDY = "Should the destination keep older points, raise the OTLP Connection's extra max_age"


@dataclass(frozen=True)
class Endpoint:
    """A receiver of OTLP over HTTP.

    Attributes:
        url: Where metrics are posted to.
        headers: Sent with each request; they may hold secrets.
        protocol: `http/protobuf`, which every receiver takes, or `http/json`.
        compression: `gzip` or `none`.
        timeout: Seconds that the receiver may stay silent.
        export_timeout: Seconds that one export may take as a whole, its retries included; None for four times
            the time-out for each call.
        max_body_bytes: Size, before compression, above which a request is to be split.
        max_compressed_bytes: Size as it is sent, above which a request is not sent; None for any size.
        max_age: How old points may be for the destination to keep them; None for any age.
        tenant: Whose the points are there, where the URL does not tell one account from another.
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
    export_timeout: float | None = None
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_compressed_bytes: int | None = None
    max_age: dt.timedelta | None = None
    tenant: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        check_url("host", self.url, example=_EXAMPLE)
        self._check_headers()
        if self.protocol not in PROTOCOLS:
            raise ConfigurationError("protocol", f"{self.protocol!r} is not one of {', '.join(PROTOCOLS)}")
        if self.compression not in COMPRESSIONS:
            raise ConfigurationError(
                "compression", f"{self.compression!r} is not one of {', '.join(COMPRESSIONS)}"
            )
        self._check_limits()
        self._check_files()

    def _check_headers(self) -> None:
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

    def _check_limits(self) -> None:
        for name in ("max_body_bytes", "max_compressed_bytes"):
            size = getattr(self, name)
            if size is not None and not LEAST_BYTES <= size <= MOST_BYTES:
                raise ConfigurationError(
                    name, f"{size} is not a number of bytes from {LEAST_BYTES} to {MOST_BYTES}"
                )
        if self.max_age is not None and not dt.timedelta(0) < self.max_age <= LONGEST_AGE:
            raise ConfigurationError(
                "max_age", f"{self.max_age} is not above 0 and up to {LONGEST_AGE.days} days"
            )

    def _check_files(self) -> None:
        if self.key_file and not self.cert_file:
            raise ConfigurationError("cert_file", "is missing beside key_file")
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path and not Path(path).is_file():
                raise ConfigurationError(name, f"there is no file {path} on this machine")

    @property
    def call_timeout(self) -> float:
        """Seconds that one call may take as a whole."""
        return CALL_TIMEOUTS * self.timeout if self.export_timeout is None else self.export_timeout

    @property
    def destination(self) -> str:
        """What tells this destination from others: the URL, in one spelling, and the tenant.

        To be shown to nobody: some receivers have their secret in the path.
        """
        parts = urllib.parse.urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
        tenants = sorted(
            (name.lower(), value) for name, value in self.headers.items() if name.lower() in _TENANTS
        )
        if self.tenant:
            tenants.append(("tenant", self.tenant))
        url = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
        # A URL with a fragment is refused, so none can be mistaken for a tenant.
        return f"{url}#{urllib.parse.urlencode(tenants)}" if tenants else url

    @property
    def age_remedy(self) -> str:
        """What to do about points older than `max_age`, as a sentence without its full stop."""
        known = _known_destination(self.url)
        return known.remedy if known and known.max_age == self.max_age else _OTHER_REMEDY

    def ssl_context(self) -> ssl.SSLContext:
        """Return how to talk TLS.

        Raises:
            ConfigurationError: A file holds something else than it should.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError("ca_file", f"{self.ca_file} cannot be read: {error}") from error
        if self.ca_file:
            # As of Python 3.13 by default: a file that holds an intermediate authority only is enough.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
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


def default_max_age(url: str) -> dt.timedelta | None:
    """Return how old points may be for the destination of this URL; None where it is not known to mind."""
    known = _known_destination(url)
    return known.max_age if known else None


def _known_destination(url: str) -> _Destination | None:
    host = urllib.parse.urlsplit(url).hostname or ""
    for destination in _DESTINATIONS:
        if any(f".{host}".endswith(f".{domain}") for domain in destination.domains):
            return destination
    return None


def parse_max_age(value: object) -> dt.timedelta | None:
    """Return an age: a number of seconds, text such as `90m`, `48h`, `14d`, `PT48H`, or `none` for any age.

    Raises:
        ConfigurationError: It is none of these.
    """
    text = str(value).strip()
    if text.lower() == "none":
        return None
    try:
        if _SECONDS.fullmatch(text):
            return dt.timedelta(seconds=float(text))
        found = _AGE.fullmatch(text)
        if found and any(found.groups()[1:]):
            days, hours, minutes, seconds = (int(number or 0) for number in found.groups()[1:])
            return dt.timedelta(days, seconds, minutes=minutes, hours=hours)
    except (ValueError, OverflowError):
        pass  # more digits than can be reckoned with
    raise ConfigurationError(
        "max_age", f"{value!r} is no age: give a number of seconds, text such as 90m, 48h or 14d, or 'none'"
    )


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
        # The longest time of a batch's whole export, as the specification says.
        timeout = _seconds(settings.get("TIMEOUT")) if settings.get("TIMEOUT") else None
        return Endpoint(
            url=settings.url(),
            headers=_headers(settings.get("HEADERS")),
            protocol=settings.get("PROTOCOL", HTTP_PROTOBUF),
            compression=settings.get("COMPRESSION", "gzip"),
            timeout=timeout or DEFAULT_TIMEOUT,
            export_timeout=timeout,
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
