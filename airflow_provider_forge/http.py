"""HTTP helpers of all clients: the User-Agent, Retry-After, transport errors, and checks of URLs."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import email.utils
import ipaddress
import math
import re
import socket
import ssl
import urllib.parse
from typing import TYPE_CHECKING

import httpx

from airflow_provider_forge import __version__
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.proxies import find_proxy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "USER_AGENT",
    "check_cleartext",
    "check_url",
    "explain_transport_error",
    "is_credential",
    "is_loopback",
    "is_page",
    "is_tls_failure",
    "retry_after",
    "secrets_of_header",
]

USER_AGENT = f"airflow-provider-forge/{__version__}"

_RETRY_HEADERS = ("retry-after", "x-ratelimit-reset")
_READ = 1000
_MIN_EPOCH = 1e9
_MAX_WAIT = 24 * 60 * 60.0
_CREDENTIAL_NAME = re.compile("auth|cookie|credential|key|pass|secret|session|sig|token", re.IGNORECASE)


def retry_after(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """Return the time to wait before a retry, in seconds, 0 to a day; None if no header gives it.

    `Retry-After` takes precedence over `X-RateLimit-Reset`. Each may be a number of seconds, an HTTP-date
    (RFC 9110), or, on Atlassian's gateway, an ISO 8601 time with or without seconds: `2021-05-10T11:00Z`. Of
    several, the longest wait counts.

    Args:
        headers: The response's headers, looked up in lower case.
        now: The current time, timezone-aware.
    """
    for name in _RETRY_HEADERS:
        value = headers.get(name, "")
        # An HTTP-date has a comma, too, and is one without the day of the week before it.
        waits = [_seconds(each, now) for part in value.split(",") if (each := part.strip())]
        if found := [seconds for seconds in waits if seconds is not None]:
            return min(max(0.0, *found), _MAX_WAIT)
    return None


def _seconds(value: str, now: dt.datetime) -> float | None:
    if value.isascii() and value.isdecimal():
        number = float(value)
        # X-RateLimit-Reset is an epoch time on many gateways; no server asks for a wait of thirty years.
        if number > _MIN_EPOCH:
            milliseconds = number > _MIN_EPOCH * 1000
            number = (number / 1000 if milliseconds else number) - now.timestamp()
        return number if math.isfinite(number) else None
    moment = _http_date(value) or _iso_time(value)
    return None if moment is None else (moment - now).total_seconds()


def _http_date(value: str) -> dt.datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)


def _iso_time(value: str) -> dt.datetime | None:
    try:
        # Python 3.10 does not parse the suffix Z.
        moment = dt.datetime.fromisoformat(value.removesuffix("Z") + ("+00:00" if value[-1] == "Z" else ""))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)


def explain_transport_error(error: BaseException, *, trust: str) -> str:
    """Explain why there is no response, with a remedy, by the types of an error and its causes.

    Args:
        error: The error that httpx raised.
        trust: How to trust the server's certificate, as a sentence without its full stop.
    """
    reasons: tuple[tuple[type[BaseException], str], ...] = (
        (
            ssl.SSLCertVerificationError,
            f"its TLS certificate is not trusted by this machine, or is not for this host. {trust}",
        ),
        (
            ssl.SSLError,
            "it does not speak TLS on this port. Replace https:// with http://, or use another port",
        ),
        (
            ConnectionRefusedError,
            "nothing listens on that port. Check the host, its port, and that it is running",
        ),
        (socket.gaierror, "this machine cannot resolve the host name. Check the host"),
        (
            httpx.ProxyError,
            "it did not connect to that host. Check the proxy, or add the host to NO_PROXY",
        ),
        (
            httpx.ConnectTimeout,
            "it did not accept the connection. Check the host, and the firewalls in between",
        ),
        (httpx.TimeoutException, "it accepted the connection and did not respond. Raise the timeout"),
        (
            httpx.TransportError,
            "it closed the connection. Check whether it speaks https, and on this port",
        ),
    )
    chain = _chain(error)
    return next(reason for kind, reason in reasons if any(isinstance(link, kind) for link in chain))


def is_tls_failure(error: BaseException) -> bool:
    """Return whether TLS failed, which implies that the connection was established."""
    return any(isinstance(link, ssl.SSLError) for link in _chain(error))


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and its causes."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def check_url(field: str, url: str, *, example: str) -> urllib.parse.SplitResult:
    """Return the parts of an absolute http or https URL that carries no credentials.

    Args:
        field: Name of the URL's field, for the error message.
        url: The URL.
        example: A valid URL, for the error message.

    Raises:
        ConfigurationError: It is not such a URL. The message never contains credentials.
    """
    # A URL that cannot be parsed may contain a secret, so it is quoted only if it has no place for one.
    shown = "" if "@" in url or "?" in url else f"{url!r} "
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        _ = httpx.URL(url).host
        # The resolver does the same, and would fail only when a call is made.
        (parts.hostname or "").encode("idna")
    except (ValueError, httpx.InvalidURL):
        raise ConfigurationError(field, f"{shown}is not a URL; give one such as {example}") from None
    if "@" in parts.netloc:
        raise ConfigurationError(field, "contains credentials; put the secret into the Connection's password")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == 0
        or not url.isprintable()
        or " " in url
    ):
        raise ConfigurationError(field, f"{shown}is not an http(s) URL; give one such as {example}")
    if parts.query or parts.fragment:
        raise ConfigurationError(
            field, "has a query or a fragment; put keys into the password or the headers"
        )
    return parts


def check_cleartext(field: str, url: str, *, allowed: bool) -> None:
    """Check that a URL does not send a secret to another machine without TLS.

    A proxy on this machine, such as the sidecar of a service mesh, is not another machine: its configuration
    determines how it connects to the host.

    Args:
        field: Name of the URL's field, for the error message.
        url: An absolute URL that `check_url` has accepted.
        allowed: Whether the Connection's extra `allow_cleartext` permits it.

    Raises:
        ConfigurationError: It is http:// to another machine, and not allowed.
    """
    parts = urllib.parse.urlsplit(url)
    if allowed or parts.scheme == "https" or is_loopback(parts.hostname or ""):
        return
    proxy = find_proxy(url)
    if proxy and is_loopback(urllib.parse.urlsplit(proxy.url).hostname or ""):
        return
    raise ConfigurationError(
        field,
        f"http:// would send the secret to {parts.hostname} in clear text, readable by every network and"
        " proxy in between: use https://, or, on a network that you trust, set the extra allow_cleartext to"
        " true",
    )


def is_loopback(host: str) -> bool:
    """Return whether a host, without brackets or port, is this machine: localhost, 127.0.0.0/8 or ::1."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_credential(name: str) -> bool:
    """Return whether a header of this name carries a secret."""
    return bool(_CREDENTIAL_NAME.search(name))


def secrets_of_header(value: str) -> list[str]:
    """Return the parts of a header's value that a server may quote: all of it, the token, the password."""
    scheme, _, token = value.partition(" ")
    parts = [value, token]
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error):
            login = base64.b64decode(token + "==").decode(errors="replace")
            parts += [login, login.partition(":")[2]]
    return list(filter(None, parts))


def is_page(kind: str, content: bytes) -> bool:
    """Return whether a response is a page of HTML or XML, which no API of JSON or protobuf sends.

    Args:
        kind: Value of its `Content-Type`.
        content: Its body, or the beginning of it.
    """
    return "html" in kind.lower() or content[:_READ].lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"<")
