"""The route to a URL: directly or through a proxy, and the trusted certificate authorities.

httpx reads the same environment variables. But its errors for an invalid one are of various types and may
contain part of a proxy's password, and some valid values fail: an IPv6 network in NO_PROXY, or a SOCKS proxy
for other hosts.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import ipaddress
import os
import re
import ssl
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_forge.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Proxy", "Route", "find_proxy", "proxy_status", "trusted_authorities"]

_EXAMPLE = "http://proxy.example:3128"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[^\s\[\]@%/?#\\]+")
_MAX_PORT = 65535
_PROXY_AUTH_REQUIRED = 407
_RETRYABLE = (408, 425, 429)


@dataclass(frozen=True)
class Proxy:
    """A proxy from an environment variable.

    Attributes:
        url: URL of the proxy, with credentials.
        variable: Name of the variable.
        name: Description of the proxy for messages, without credentials.
        secrets: Secrets in the URL, to be masked in messages.
    """

    url: str = field(repr=False)
    variable: str
    name: str
    secrets: tuple[str, ...] = field(repr=False)


class Route:
    """The route to one URL.

    Args:
        url: An absolute http or https URL.
        authorities: Returns the TLS context for the URL's host; called only for https.

    Attributes:
        proxy: The proxy; None for a direct connection.

    Raises:
        ConfigurationError: The proxy, certificate file or directory of an environment variable is invalid.
    """

    def __init__(self, url: str, authorities: Callable[[], ssl.SSLContext] | None = None) -> None:
        self._host = urllib.parse.urlsplit(url).hostname
        self._secure = url.lower().startswith("https:")
        self.proxy = find_proxy(url)
        # For http, which uses no TLS, an empty context: loading all authorities is slow.
        make_context = (authorities or trusted_authorities) if self._secure else _empty_context
        self._context = make_context()
        self._proxy = _httpx_proxy(self.proxy) if self.proxy else None

    def client(self, **options: Any) -> httpx.Client:
        """Return a new client for this route.

        Args:
            options: Arguments of `httpx.Client`, except `proxy`, `verify` and `trust_env`.
        """
        return httpx.Client(proxy=self._proxy, verify=self._context, trust_env=False, **options)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Secrets in the proxy's URL, to be masked in messages."""
        return self.proxy.secrets if self.proxy else ()

    @property
    def via(self) -> str:
        """Description of the proxy, to append to the host's name; empty if there is no proxy."""
        return f" through {self.proxy.name}" if self.proxy else ""

    @property
    def answered_by_proxy(self) -> str:
        """The same, if the proxy may respond in place of the host; empty for https, which is tunneled."""
        return "" if self._secure else self.via

    def refusal(self, error: httpx.RequestError | int) -> ConfigurationError | None:
        """Return the error if the proxy refuses the call, and would refuse a retry; None if it does not.

        Args:
            error: The error that httpx raised, or the status of the response.
        """
        status = error if isinstance(error, int) else proxy_status(error)
        if status is None or not 400 <= status < 500 or status in _RETRYABLE:
            return None
        if isinstance(error, int) and status != _PROXY_AUTH_REQUIRED:
            return None
        name = self.proxy.name if self.proxy else "a proxy in between"
        variable = self.proxy.variable if self.proxy else "HTTPS_PROXY" if self._secure else "HTTP_PROXY"
        if status == _PROXY_AUTH_REQUIRED:
            return ConfigurationError(
                variable,
                f"{name} requires credentials (407) to connect to {self._host}: put its user and password,"
                " percent-encoded, into that variable, or the host into NO_PROXY",
            )
        return ConfigurationError(
            variable,
            f"{name} refuses to connect to {self._host} ({status}): allow that host at the proxy, or put it"
            " into NO_PROXY",
        )


def proxy_status(error: httpx.RequestError) -> int | None:
    """Return the status with which a proxy refused a tunnel; None if the error has another cause."""
    if not isinstance(error, httpx.ProxyError):
        return None
    # httpx has the status only in the message.
    code = str(error)[:3]
    return int(code) if code.isascii() and code.isdecimal() and len(code) == 3 else None


def find_proxy(url: str) -> Proxy | None:
    """Return the proxy for a URL from the environment; None for a direct connection.

    The variables are HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; their lower-case names take
    precedence. An entry of NO_PROXY is a host, which includes its subdomains, `.domain`, an address, a
    network, or `*`; a host or an address may have a port.

    Raises:
        ConfigurationError: The variable's value is not the URL of a usable proxy. The message does not
            contain it.
    """
    parts = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies()
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    entries = proxies.get("no", "").replace(",", " ").split()
    if any(_matches(entry, parts.scheme, parts.hostname or "", port) for entry in entries):
        return None
    for scheme in (parts.scheme, "all"):
        if text := proxies.get(scheme, "").strip():
            return _parse(text, _variable(scheme))
    return None


def _variable(scheme: str) -> str:
    name = f"{scheme}_proxy"
    return next((each for each in (name, name.upper()) if os.environ.get(each)), name.upper())


def _parse(text: str, variable: str) -> Proxy:
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
        proxy = httpx.Proxy(url)
        url.host.encode("idna")
        # If a password is not percent-encoded, part of it may be parsed as the host or the path.
        usable = bool(_HOST.fullmatch(url.host)) and "@" not in f"{url.raw_path!r}{url.fragment}"
        usable &= url.port is None or 0 < url.port <= _MAX_PORT
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise ConfigurationError(
            variable,
            f"is not the URL of a proxy; give one such as {_EXAMPLE}, with special characters of the user and"
            " password percent-encoded, or unset it",
        )
    if url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError(
            variable,
            "is a SOCKS proxy, which requires the package socksio: pip install 'httpx[socks]', use an HTTP"
            " proxy, or put the host into NO_PROXY",
        )
    user, password = proxy.raw_auth or (b"", b"")
    basic = base64.b64encode(user + b":" + password)
    secrets = tuple(each.decode(errors="replace") for each in (password or user, basic) if user or password)
    name = f"the proxy {url.scheme}://{url.netloc.decode(errors='replace')} ({variable})"
    return Proxy(str(url), variable, name, secrets)


def _httpx_proxy(proxy: Proxy) -> httpx.Proxy:
    secure = proxy.url.lower().startswith("https:")
    return httpx.Proxy(proxy.url, ssl_context=trusted_authorities() if secure else None)


def _matches(entry: str, scheme: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY matches a host."""
    wanted, separator, rest = entry.lower().rpartition("://")
    if separator and wanted not in ("all", scheme):
        return False
    name, wanted_port = _host_and_port(rest)
    if wanted_port not in (None, port):
        return False
    host = host.lower().rstrip(".")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    domain = name.lstrip("*").rstrip(".")
    if domain.startswith(".") or not domain:
        return name == "*" or (bool(domain) and host.endswith(domain))
    return host == domain or (domain != "localhost" and host.endswith(f".{domain}"))


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Return the host, without brackets, and the port of an entry such as `[::1]:8080` or `fd00::/8`."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        network, port = ("", rest[1:]) if rest.startswith(":") else (rest, "")
        return host + network, int(port) if port.isascii() and port.isdecimal() else None
    host, _, port = text.partition(":")
    return (host, int(port)) if port.isdecimal() and port.isascii() else (text, None)


def trusted_authorities() -> ssl.SSLContext:
    """Return a TLS context with the authorities of SSL_CERT_FILE or SSL_CERT_DIR, otherwise certifi's.

    Raises:
        ConfigurationError: The variable's file or directory cannot be read.
    """
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(
                "SSL_CERT_FILE",
                f"{file} cannot be read as a PEM file of certificates ({error}): correct or unset it",
            ) from None
    if directory := os.environ.get("SSL_CERT_DIR"):
        if not any(map(os.path.isdir, directory.split(os.pathsep))):
            raise ConfigurationError("SSL_CERT_DIR", f"{directory} is not a directory: correct or unset it")
        return ssl.create_default_context(capath=directory)
    return httpx.create_ssl_context(trust_env=False)


def _empty_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
