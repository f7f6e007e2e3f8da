"""Posts OTLP requests, and reads what the receiver says of them.

A receiver's 200 is not the end of it: a partial success can have rejected every point. What may be sent
again and what must not is told apart as in the OTLP specification, "OTLP/HTTP Response".
"""

from __future__ import annotations

import datetime as dt
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from airflow_provider_forge.exceptions import (
    ExportRefused,
    PointsRejected,
    ReceiverUnavailable,
    RequestTooLarge,
)
from airflow_provider_forge.exchange import ACCEPT_ENCODING, Wire
from airflow_provider_forge.http import USER_AGENT, explain_transport_error, retry_after, sanitize
from airflow_provider_forge.otlp.compress import compress
from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.replies import Reply, partial_success, words
from airflow_provider_forge.otlp.requests import encode_request
from airflow_provider_forge.proxies import Route
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from types import TracebackType

    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.otlp.requests import ExportRequest

__all__ = ["OtlpClient", "ProbeResult"]

log = get_logger(__name__)

_RETRYABLE = (429, 502, 503, 504)
_CONTENT_TYPES = {True: "application/json", False: "application/x-protobuf"}
_REMEDIES = {
    400: "the receiver could not use the request: try the other protocol, or look at the receiver's log",
    401: "check the OTLP Connection's password and its extra auth_header",
    403: "check the OTLP Connection's password and its extra auth_header",
    404: "check the path in the OTLP Connection's host: /v1/metrics is added to a base URL",
    405: "check the path in the OTLP Connection's host: /v1/metrics is added to a base URL",
    407: "a proxy answered, not the receiver: check the proxy's credentials in HTTPS_PROXY or HTTP_PROXY",
    415: "set the OTLP Connection's extra protocol to the one that the receiver takes",
}
_NO_GZIP = "; if it takes no gzip, set the extra compression to none"
_IN_PARTS = "It is sent in parts; where even single points are too large"

SUSPICIOUS_BYTES = 1024 * 1024
"""A Collector answers a body above its limit with 400, not 413; a smaller one is refused for what it says."""


@dataclass(frozen=True)
class ProbeResult:
    """How a receiver takes a request.

    Attributes:
        host: Of the receiver, with its port where that is not the usual one.
        status: HTTP status.
        server: What it calls itself; empty where it doesn't say.
        elapsed: Seconds that it took, connecting included.
    """

    host: str
    status: int
    server: str
    elapsed: float


class OtlpClient:
    """Sends metrics to one receiver. Use it as a context manager, or close it.

    Args:
        endpoint: Where to, and how.

    Raises:
        ConfigurationError: A certificate file cannot be used.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._secrets = tuple(
            part for value in endpoint.headers.values() for part in (value, value.partition(" ")[2])
        )
        self._wire = Wire()
        context = endpoint.ssl_context()  # a wrong file is refused for http, too
        self._route = Route(endpoint.url, lambda: context)
        self._secrets += self._route.secrets
        self._client = self._route.client(
            # In lower case, so that a User-Agent of the user's replaces ours instead of going out beside it.
            headers={"user-agent": USER_AGENT, "accept-encoding": ACCEPT_ENCODING}
            | {key.lower(): value for key, value in endpoint.headers.items()},
            timeout=endpoint.timeout,
        )

    def __enter__(self) -> OtlpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def export(self, export: ExportRequest, *, seconds: float | None = None) -> str | None:
        """Send one request; returns when the receiver has taken all of its points.

        Args:
            export: The request.
            seconds: Maximum time that the call may take; None for the endpoint's.

        Returns:
            What the receiver said beside that, or what of it could not be read; None if there is nothing.

        Raises:
            ReceiverUnavailable: The receiver is busy or did not answer; sending again may help.
            RequestTooLarge: The request is larger than it takes, or than the endpoint says; parts may pass.
            ExportRefused: It refused the request; sending it again would not help.
            PointsRejected: It took the request but rejected points of it, or did not say so in OTLP.
        """
        return self._export(export, seconds)[1]

    def probe(self) -> ProbeResult:
        """Send a request without points, and return how it was taken.

        Raises:
            ForgeError: As for `export`.
        """
        started = time.monotonic()
        reply, _ = self._export(encode_request([], self.endpoint.protocol), None)
        return ProbeResult(
            host=self._host(),
            status=reply.status,
            server=sanitize(reply.headers.get("server", ""), self._secrets),
            elapsed=time.monotonic() - started,
        )

    def _export(self, export: ExportRequest, seconds: float | None) -> tuple[Reply, str | None]:
        headers = {"Content-Type": _CONTENT_TYPES[export.protocol == HTTP_JSON]}
        if self.endpoint.compression == "gzip":
            headers["Content-Encoding"] = "gzip"
            body = compress(export.chunks)
        else:
            body = export.body
        most = self.endpoint.max_compressed_bytes
        if most is not None and len(body) > most:
            raise RequestTooLarge(
                f"Not sent to {self._host()}: {_size(export)} would go out as {len(body)} bytes, more than"
                f" max_compressed_bytes ({most}). {_IN_PARTS}, raise that extra of the OTLP Connection"
            )
        reply = self._post(body, headers, self.endpoint.call_timeout if seconds is None else seconds)
        if not reply.is_success:
            raise self._failure(reply, export)
        return reply, self._check_success(reply, export)

    def _post(self, body: bytes, headers: dict[str, str], seconds: float) -> Reply:
        wire = self._wire
        wire.begin(seconds)
        try:
            with self._client.stream(
                "POST", self.endpoint.url, content=body, headers=headers, extensions={"trace": wire.trace}
            ) as response:
                return Reply.read(response)
        except httpx.RequestError as error:
            if wire.status is not None:
                # The answer was given with its status line, whatever is wrong with what follows.
                return Reply(wire.status, wire.headers, wire.rest, f"it broke off ({type(error).__name__})")
            raise self._no_answer(error, seconds) from error

    def _no_answer(self, error: httpx.RequestError, seconds: float) -> ReceiverUnavailable:
        why, transient = "", not self._wire.sent
        if (status := self._wire.proxy_status) is not None:
            why = f": the proxy in between answered {status}; check HTTPS_PROXY and the proxy's credentials"
            transient = status in _RETRYABLE
        elif tls := _tls_error(error):
            why, transient = f": {_why_no_tls(tls)}", False
        elif self._wire.expired:
            why = f": it took longer than {seconds:g} s as a whole"
        said = f"{type(error).__name__}: {sanitize(str(error), self._secrets)}"
        return ReceiverUnavailable(
            f"No answer from {self._host()}{self._route.words} ({said}){why}. The request will be"
            " retried. If this persists, check the OTLP Connection's host and the network",
            maybe_stored=self._wire.sent,
            transient=transient,
        )

    def _failure(self, reply: Reply, export: ExportRequest) -> ExportRefused | ReceiverUnavailable:
        status = reply.status
        said = sanitize(words(reply), self._secrets)
        what = f"{self._host()} answered {status}{self._route.answered_by_proxy}" + (
            f" ({said})" if said else ""
        )
        # With 503 a receiver says that it took nothing; the others may come from a proxy, or from a crash,
        # after the points were stored.
        maybe_stored = status >= 500 and status != 503
        if status in _RETRYABLE:
            wait = retry_after(reply.headers, dt.datetime.now(dt.timezone.utc))
            return ReceiverUnavailable(
                f"{what}. The request will be retried",
                retry_after=wait,
                maybe_stored=maybe_stored,
                transient=True,
            )
        if status == 413 or (status == 400 and export.size > SUSPICIOUS_BYTES):
            return RequestTooLarge(
                f"{what} to {_size(export)}. {_IN_PARTS}, raise the receiver's limit, or look at its log",
                status=status,
            )
        remedy = _REMEDIES.get(status, "look at the receiver's log")
        if status in (400, 415) and self.endpoint.compression == "gzip":
            remedy += _NO_GZIP
        if reply.redirects:
            remedy = "it moved: put its present URL into the OTLP Connection's host"
        return ExportRefused(
            f"{what}, which OTLP forbids to try again: {remedy}", status=status, maybe_stored=maybe_stored
        )

    def _check_success(self, reply: Reply, export: ExportRequest) -> str | None:
        if reply.is_html:
            raise ExportRefused(
                f"{self._host()} answered {reply.status} with a page of HTML, which is no answer to"
                " OTLP, so nothing may have been stored: check the OTLP Connection's host",
                maybe_stored=True,
            )
        partial = partial_success(reply)
        took = f"{self._host()} took the request of {export.points} points"
        said = sanitize(partial.message, self._secrets)
        if partial.rejected != 0:
            raise self._rejection(partial.rejected, said, export)
        if said:
            warning = f"{took}, names no number of rejected ones, and says: {said}"
        elif reply.unread or not partial.readable:
            why = reply.unread or "it is not the protobuf that it says"
            warning = (
                f"{took} ({reply.status}), but the body of its answer cannot be read: {why}. Whether it"
                " rejected points is not known"
            )
        else:
            return None
        log.warning("%s", warning)
        return warning

    def _rejection(self, rejected: int | None, said: str, export: ExportRequest) -> PointsRejected:
        if rejected is None:
            what = f"rejected points of {export.points}, and gives a number that cannot be"
        elif rejected > export.points:
            what = f"rejected up to {export.points} of {export.points} points, counted in a way of its own"
        else:
            what = f"rejected {rejected} of {export.points} points"
        return PointsRejected(
            f"{self._host()} {what} ({said or 'it did not say why'}), and OTLP forbids to send them again."
            f" The request held {', '.join(export.metrics)} from {_utc(export.start)} to {_utc(export.end)}",
            rejected=min(rejected or 0, export.points),
        )

    def _host(self) -> str:
        return httpx.URL(self.endpoint.url).netloc.decode()


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    link: BaseException | None = error
    while link is not None and not isinstance(link, ssl.SSLError):
        link = link.__cause__ or link.__context__
    return link


def _why_no_tls(error: ssl.SSLError) -> str:
    """Return what is wrong with TLS, and which field of the Connection mends it."""
    if "ALERT" in (error.reason or ""):
        return "it refused the TLS handshake; check the extras cert_file and key_file, which show who calls"
    return explain_transport_error(error, trust="Name the PEM file of its authority in the extra ca_file")


def _size(export: ExportRequest) -> str:
    return f"the request (points: {export.points}, bytes: {export.size})"


def _utc(nanoseconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
