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
from airflow_provider_forge.http import USER_AGENT, sanitize
from airflow_provider_forge.proxies import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.gateway.ratelimit import Reservation, Usage

__all__ = ["Transport"]

CONNECT_TIMEOUT = 10.0
"""Seconds; a gateway that does not take a connection by then will not."""

WHOLE_CALL = 3
"""Time for a whole call, in time-outs of silence: an answer that trickles must not hold a task for hours."""

LARGEST = 512 * 1024 * 1024
"""Bytes of an answer, unpacked, that are still read: more than three times those of 200,000 points.
It ends what would go on for ever, and what was compressed to hurt."""

LARGEST_FAILURE = 4 * 1024 * 1024
"""The same of an answer whose status is a failure, for the sake of the words in it."""

FLOWING = 1024 * 1024
"""Bytes of an answer that show, once its time is over, that it was on its way: half of it may be in time."""

_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")


class Transport:
    """Posts to one gateway.

    Args:
        url: The GraphQL endpoint.
        auth: The account's.
        secrets: What must appear in no error.
        usage: Counts the calls.
        timeout: Seconds that the gateway may stay silent.
    """

    def __init__(
        self, url: str, auth: httpx.Auth, secrets: tuple[str, ...], *, usage: Usage, timeout: float
    ) -> None:
        self._url = url
        self._host = httpx.URL(url).host
        self._auth = auth
        self._secrets = secrets
        self._usage = usage
        self._seconds = timeout * WHOLE_CALL
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))

    @cached_property
    def route(self) -> Route:
        """The way to the gateway.

        Raises:
            ConfigurationError: A variable of proxies or certificates cannot be used.
        """
        return Route(self._url)

    def post(
        self, content: Mapping[str, Any], reservation: Reservation, *, splittable: bool
    ) -> tuple[httpx.Response, float]:
        """Return the response, read whole, and the seconds that it took.

        Args:
            content: Of the request, as JSON.
            reservation: Slot at the rate limit; confirmed when the request leaves.
            splittable: Whether a window is asked for, so that there is less to ask for.

        Raises:
            WindowTooLarge: The window may be too much for one answer.
            GatewayUnavailable: There is no whole answer.
            BrokenAnswer: It cannot be unpacked.
            ConfigurationError: A proxy on the way refuses the call.
        """
        wire = Wire()
        left = False

        def trace(event: str, info: Mapping[str, Any]) -> None:
            nonlocal left
            wire.trace(event, info)
            # A proxy is asked for a tunnel first, of which the gateway knows nothing.
            if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
                reservation.confirm()
                self._usage.calls += 1
                left = True
            elif event.endswith("receive_response_headers.complete") and left:
                reservation.settle()

        started = time.monotonic()
        wire.begin(self._seconds)
        response = None
        try:
            with (
                self.route.client(timeout=self._timeout) as client,
                client.stream(
                    "POST",
                    self._url,
                    json=content,
                    auth=self._auth,
                    headers={
                        "Accept-Encoding": ACCEPT_ENCODING,
                        "User-Agent": USER_AGENT,
                        "X-ExperimentalApi": "ForgeMetricsQuery",
                    },
                    extensions={"trace": trace},
                ) as response,
            ):
                if refusal := self.route.refusal(response.status_code):
                    raise refusal
                whole = self._read(response, wire, splittable=splittable)
        except httpx.RequestError as error:
            if left and response is None:
                reservation.settle()  # it may have arrived until now
            raise self._no_answer(error, wire, splittable=splittable) from error
        return whole, time.monotonic() - started

    def _read(self, response: httpx.Response, wire: Wire, *, splittable: bool) -> httpx.Response:
        """Return the response read whole and unpacked, without the headers that deny that."""
        try:
            content = read_body(response, limit=LARGEST if response.is_success else LARGEST_FAILURE)
        except BodyUnreadable as error:
            if response.is_success:
                raise self._unreadable(error, response, wire, splittable=splittable) from error
            content = error.content  # the status counts, and what could be read may say more
        headers = [
            (name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_WIRE
        ]
        return httpx.Response(response.status_code, headers=headers, content=content)

    def _unreadable(
        self, error: BodyUnreadable, response: httpx.Response, wire: Wire, *, splittable: bool
    ) -> ForgeError:
        request_id = request_id_in(response.headers, self._secrets)
        if error.too_large:
            what = f"An answer of more than {LARGEST} bytes from {self._host} was not read on"
            if splittable:
                return WindowTooLarge(f"{what}. {SPLIT_HINT}", request_id=request_id)
            return GatewayUnavailable(f"{what}. Check the Forge Connection's host", request_id=request_id)
        if isinstance(cause := error.__cause__, httpx.RequestError):
            flowing = len(error.content) >= FLOWING
            return self._no_answer(cause, wire, splittable=splittable, request_id=request_id, flowing=flowing)
        return BrokenAnswer(
            f"The gateway's answer cannot be read: {error.reason}. The call will be retried. If this"
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
        what = f"No answer from {self._host}{self.route.words} ({type(error).__name__}: {reason})"
        if wire.expired:
            what = f"No whole answer from {self._host}{self.route.words} within {self._seconds:g} s"
        request_id = request_id or request_id_in(httpx.Headers(wire.headers), self._secrets)
        if splittable and (flowing if wire.expired else isinstance(error, httpx.ReadTimeout)):
            return WindowTooLarge(
                f"{what}: the window may be too much for one answer. {SPLIT_HINT}", request_id=request_id
            )
        return GatewayUnavailable(
            f"{what}. The call will be retried. If this persists, check the Forge Connection's host,"
            " timeout and network",
            request_id=request_id,
        )
