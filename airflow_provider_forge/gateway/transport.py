"""One HTTP request to the gateway, bounded in bytes and in time."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_forge.exceptions import BrokenAnswer, ForgeError, GatewayUnavailable, WindowTooLarge
from airflow_provider_forge.exchange import ACCEPT_ENCODING, BodyUnreadable, Wire, read_body
from airflow_provider_forge.gateway.failures import SPLIT_HINT
from airflow_provider_forge.gateway.responses import request_id_in
from airflow_provider_forge.http import USER_AGENT
from airflow_provider_forge.proxies import Route
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_forge.gateway.ratelimit import LimitUsage, Reservation

__all__ = ["Transport"]

CONNECT_TIMEOUT = 10.0
"""Seconds; a gateway that has not accepted a connection by then will not."""

MAX_TIMEOUTS = 3
"""Maximum duration of a call in timeouts: a response that trickles must not occupy a task for hours."""

MAX_SIZE = 512 * 1024 * 1024
"""Maximum size in bytes of a response after decompression, more than three times that of 200,000 points.
Protects against endless responses and decompression bombs."""

MAX_FAILURE_SIZE = 4 * 1024 * 1024
"""The same for a response whose status is a failure; it is read for its message."""

FLOWING = 1024 * 1024
"""Minimum size in bytes of a response cut off by a timeout for which half the window is requested next."""

_TRANSFER_HEADERS = (b"content-encoding", b"content-length", b"transfer-encoding")


_HEADERS = {
    "Accept-Encoding": ACCEPT_ENCODING,
    "User-Agent": USER_AGENT,
    "X-ExperimentalApi": "ForgeMetricsQuery",
}


class _Trace:
    """Uses the reservation as the request of one call leaves and its response begins.

    Attributes:
        has_left: Whether the request has left for the gateway.
        waited: Seconds for which it has waited for its slot after connecting.
    """

    def __init__(self, wire: Wire, reservation: Reservation, usage: LimitUsage) -> None:
        self._wire = wire
        self._reservation = reservation
        self._usage = usage
        self.has_left = False
        self.waited = 0.0

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        self._wire.trace(event, info)
        # A CONNECT goes to a proxy; the gateway does not count it.
        if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            self.waited = self._reservation.confirm()
            self._wire.extend(self.waited)
            self._usage.calls += 1
            self.has_left = True
        elif event.endswith("receive_response_headers.complete") and self.has_left:
            self._reservation.settle()


class Transport:
    """Sends requests to one gateway.

    Args:
        url: The GraphQL endpoint.
        auth: Credentials of the account.
        secrets: Secrets to redact in errors.
        usage: Counts the calls.
        timeout: Seconds for which the gateway may stay silent.
    """

    def __init__(
        self, url: str, auth: httpx.Auth, secrets: tuple[str, ...], *, usage: LimitUsage, timeout: float
    ) -> None:
        self._url = url
        self._host = httpx.URL(url).netloc.decode()
        self._auth = auth
        self._secrets = secrets
        self._usage = usage
        self._seconds = timeout * MAX_TIMEOUTS
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))

    @cached_property
    def route(self) -> Route:
        """The route to the gateway, through a proxy if the environment names one.

        Raises:
            ConfigurationError: An environment variable for proxies or certificates is invalid.
        """
        return Route(self._url)

    def post(
        self, content: Mapping[str, Any], reservation: Reservation, *, splittable: bool
    ) -> tuple[httpx.Response, float]:
        """Return the response, with its body read, and the duration in seconds.

        Args:
            content: JSON content of the request.
            reservation: Slot at the rate limit; confirmed when the request leaves.
            splittable: Whether the query is for a window, so that half of it can be fetched instead.

        Raises:
            WindowTooLarge: The window may be too large for one response.
            GatewayUnavailable: There is no complete response.
            BrokenAnswer: The response cannot be decompressed.
            ConfigurationError: A proxy refuses the call.
        """
        wire, response = Wire(), None
        trace = _Trace(wire, reservation, self._usage)
        started = time.monotonic()
        wire.begin(self._seconds)
        try:
            with (
                self.route.client(timeout=self._timeout) as client,
                client.stream(
                    "POST",
                    self._url,
                    json=content,
                    auth=self._auth,
                    headers=_HEADERS,
                    extensions={"trace": trace},
                ) as response,
            ):
                if refusal := self.route.refusal(response.status_code):
                    raise refusal
                whole = self._read(response, wire, splittable=splittable)
        except httpx.RequestError as error:
            if trace.has_left and response is None:
                reservation.settle()  # the request may have arrived as late as now
            failed = self._failure_in(wire) if response is None else None
            if failed is None:
                raise self._no_answer(error, wire, splittable=splittable) from error
            whole = failed
        return whole, time.monotonic() - started - trace.waited

    def _read(self, response: httpx.Response, wire: Wire, *, splittable: bool) -> httpx.Response:
        """Return the response with its body decompressed, without the headers of the transfer."""
        try:
            content = read_body(response, limit=MAX_SIZE if response.is_success else MAX_FAILURE_SIZE)
        except BodyUnreadable as error:
            if response.is_success:
                raise self._unreadable(error, response, wire, splittable=splittable) from error
            content = error.content  # the status decides, and the part that was read may explain it
        return _rebuild(response.status_code, response.headers.raw, content)

    def _failure_in(self, wire: Wire) -> httpx.Response | None:
        """Return a failure whose status line has arrived, whatever follows it; None without one."""
        if wire.status is None or httpx.codes.is_success(wire.status):
            return None
        if refusal := self.route.refusal(wire.status):
            raise refusal
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in wire.headers.items()]
        return _rebuild(wire.status, headers, wire.rest[:MAX_FAILURE_SIZE])

    def _unreadable(
        self, error: BodyUnreadable, response: httpx.Response, wire: Wire, *, splittable: bool
    ) -> ForgeError:
        request_id = request_id_in(response.headers, self._secrets)
        if error.too_large:
            problem = f"A response of more than {MAX_SIZE} bytes from {self._host} was not read to the end"
            if splittable:
                return WindowTooLarge(f"{problem}. {SPLIT_HINT}", request_id=request_id)
            return GatewayUnavailable(f"{problem}. Check the Forge Connection's host", request_id=request_id)
        if isinstance(cause := error.__cause__, httpx.RequestError):
            flowing = len(error.content) >= FLOWING
            return self._no_answer(cause, wire, splittable=splittable, request_id=request_id, flowing=flowing)
        return BrokenAnswer(
            f"The gateway's response cannot be read: {error.reason}. If this"
            " persists, check the Forge Connection's host, and the proxies on the way",
            request_id=request_id,
        )

    def _no_answer(
        self,
        error: httpx.RequestError,
        wire: Wire,
        *,
        splittable: bool,
        request_id: str | None = None,
        flowing: bool = False,
    ) -> ForgeError:
        if refusal := self.route.refusal(error):
            return refusal
        reason = sanitize(error, (*self._secrets, *self.route.secrets))
        problem = f"No answer from {self._host}{self.route.via} ({type(error).__name__}: {reason})"
        if wire.expired:
            problem = f"No complete response from {self._host}{self.route.via} within {self._seconds:g} s"
        request_id = request_id or request_id_in(httpx.Headers(wire.headers), self._secrets)
        if splittable and (flowing if wire.expired else isinstance(error, httpx.ReadTimeout)):
            return WindowTooLarge(
                f"{problem}: the window may be too large for one response. {SPLIT_HINT}",
                request_id=request_id,
            )
        return GatewayUnavailable(
            f"{problem}. If this persists, check the Forge Connection's host, timeout and network",
            request_id=request_id,
        )


def _rebuild(status: int, headers: Iterable[tuple[bytes, bytes]], content: bytes) -> httpx.Response:
    """Return a response with its body decompressed, without the headers of the transfer.

    Args:
        status: Its status.
        headers: Its headers as received: they need not be ASCII.
        content: Its body.
    """
    kept = [(name, value) for name, value in headers if name.lower() not in _TRANSFER_HEADERS]
    return httpx.Response(status, headers=kept, content=content)
