"""The OTLP/HTTP client: posts requests, and turns each response into success or an error.

A 200 is not enough: a partial success can reject every point. Whether an error is retryable follows the
section "OTLP/HTTP Response" of the OTLP specification.
"""

from __future__ import annotations

import datetime as dt
import ssl
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

try:
    from isal import isal_zlib
except ModuleNotFoundError:
    isal_zlib = None

from airflow_provider_forge.exceptions import (
    ExportRefused,
    PointsRejected,
    ReceiverUnavailable,
    RequestTooLarge,
)
from airflow_provider_forge.exchange import ACCEPT_ENCODING, Wire
from airflow_provider_forge.http import USER_AGENT, explain_transport_error, retry_after
from airflow_provider_forge.otlp.endpoint import HTTP_JSON, TlsFiles
from airflow_provider_forge.otlp.replies import Reply, partial_success, status_message
from airflow_provider_forge.otlp.requests import encode_request
from airflow_provider_forge.proxies import Route
from airflow_provider_forge.text import get_logger, sanitize
from airflow_provider_forge.windows import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from msgspec import Raw

    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.otlp.requests import ExportRequest

__all__ = ["OtlpClient", "ProbeResult", "compress"]

log = get_logger(__name__)

_RETRYABLE = (429, 502, 503, 504)
_CONTENT_TYPES = {True: "application/json", False: "application/x-protobuf"}
_REMEDIES = {
    400: "the receiver considers the request malformed: try the other protocol, or check the receiver's log",
    401: "check the OTLP Connection's password and its extra auth_header",
    403: "check the OTLP Connection's password and its extra auth_header",
    404: "check the path in the OTLP Connection's host: /v1/metrics is added to a base URL",
    405: "check the path in the OTLP Connection's host: /v1/metrics is added to a base URL",
    407: "a proxy answered, not the receiver: check the proxy's credentials in HTTPS_PROXY or HTTP_PROXY",
    415: "set the OTLP Connection's extra protocol to one that the receiver supports",
}
_NO_GZIP = "; if it does not support gzip, set the extra compression to none"
_SPLIT = "It is split and sent in parts; if even single points are too large"

SUSPICIOUS_BYTES = 1024 * 1024
"""Size in bytes above which a 400 may mean "too large": a Collector above its limit answers 400, not 413. A
400 to a smaller request refuses its content."""

# 8.4 MB of protobuf (20,000 points) become 1.16 MB in 5 ms with isal's level 2, 1.04 MB in 56 ms with zlib's
# level 6. zlib's level 3 compresses as well as isal and takes 26 ms; level 9 takes 220 ms to save 5 % more.
ISAL_LEVEL = 2
ZLIB_LEVEL = 6

_GZIP = 31
"""Window bits of the gzip format, without a time, so that the same input gives the same output."""

_PIECE = 2**16
"""Bytes. Each call of a compressor costs as much as compressing a few hundred bytes."""


@dataclass(frozen=True)
class ProbeResult:
    """The receiver's response to an empty request.

    Attributes:
        host: Host of the receiver, with its port unless it is the default one.
        status: HTTP status.
        server: Value of the `Server` header; empty if there is none.
        elapsed: Duration of the call in seconds, connecting included.
    """

    host: str
    status: int
    server: str
    elapsed: float


class OtlpClient:
    """A client of one OTLP/HTTP receiver. Use it as a context manager, or close it.

    Args:
        endpoint: The receiver, with its headers, limits and TLS files.

    Raises:
        ConfigurationError: A certificate file cannot be used.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._wire = Wire()
        if endpoint.tls != TlsFiles():
            _ = endpoint.tls.ssl_context  # also for http, so that an invalid file is always an error
        self._route = Route(endpoint.url, lambda: endpoint.tls.ssl_context)
        self._secrets = (*endpoint.secrets, *self._route.secrets)
        self._client = self._new_client()

    def _new_client(self) -> httpx.Client:
        return self._route.client(
            # In lower case, so that a user's User-Agent replaces ours instead of being sent in addition.
            headers={"user-agent": USER_AGENT, "accept-encoding": ACCEPT_ENCODING}
            | {key.lower(): value for key, value in self.endpoint.headers.items()},
            timeout=self.endpoint.limits.timeout,
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

    def export(self, request: ExportRequest, *, seconds: float | None = None) -> str | None:
        """Send one request; return once the receiver has accepted all of its points.

        Args:
            request: The request.
            seconds: Maximum duration of the call in seconds; None for the endpoint's.

        Returns:
            A warning about the response: the receiver's message, or why the body cannot be read. None if
            there is nothing to warn about.

        Raises:
            ReceiverUnavailable: The receiver is busy or did not answer; sending again may help.
            RequestTooLarge: The request exceeds the receiver's limit or the endpoint's; parts of it may not.
            ExportRefused: The receiver refused the request; sending it again would not help.
            PointsRejected: The receiver accepted the request and rejected points of it.
        """
        body, headers = self._encode(request)
        reply = self._post(body, headers, self.endpoint.limits.call_timeout if seconds is None else seconds)
        return self._check(reply, request)

    def probe(self) -> ProbeResult:
        """Send a request without points, to check the endpoint and the credentials.

        Raises:
            ForgeError: As for `export`.
        """
        request = encode_request([], self.endpoint.protocol)
        started = time.monotonic()
        reply = self._post(*self._encode(request), self.endpoint.limits.call_timeout)
        self._check(reply, request)
        return ProbeResult(
            host=self._host(),
            status=reply.status,
            server=sanitize(reply.headers.get("server", ""), self._secrets),
            elapsed=time.monotonic() - started,
        )

    def _encode(self, request: ExportRequest) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of a request."""
        headers = {"Content-Type": _CONTENT_TYPES[request.protocol == HTTP_JSON]}
        if self.endpoint.compression == "gzip":
            headers["Content-Encoding"] = "gzip"
            body = compress(request.chunks)
        else:
            body = request.body
        limit = self.endpoint.limits.max_compressed_bytes
        if limit is not None and len(body) > limit:
            raise RequestTooLarge(
                f"Not sent to {self._host()}: {_size(request)} would be sent as {len(body)} bytes, more than"
                f" max_compressed_bytes ({limit}). {_SPLIT}, raise that extra of the OTLP Connection"
            )
        return body, headers

    def _post(self, body: bytes, headers: dict[str, str], seconds: float) -> Reply:
        wire = self._wire
        wire.begin(seconds)
        try:
            with self._client.stream(
                "POST", self.endpoint.url, content=body, headers=headers, extensions={"trace": wire.trace}
            ) as response:
                reply = Reply.read(response)
        except httpx.RequestError as error:
            if wire.status is None:
                raise self._no_answer(error, seconds) from error
            # The status line has arrived, so the receiver has answered, even if the rest is invalid.
            reply = Reply(
                wire.status, wire.headers, wire.rest, f"the connection broke ({type(error).__name__})"
            )
        self._check_order(reply)
        return reply

    def _check_order(self, reply: Reply) -> None:
        """Check that a reply is the one to this request, and that all of the request was sent before it.

        Raises:
            ReceiverUnavailable: Otherwise the reply does not say whether the points were stored.
        """
        if self._wire.status != reply.status:
            # Bytes that followed an earlier reply on the connection, such as a second reply to its request.
            self._client.close()
            self._client = self._new_client()
            problem = f"{reply.status} to an earlier request, and not to this one"
        elif reply.is_success and not self._wire.sent:
            problem = f"{reply.status} before it had received the whole request"
        else:
            return
        raise ReceiverUnavailable(
            f"{self._host()}{self._route.via} answered {problem}, so the points may not have been stored."
            " If this persists, check the receiver and the proxies before it",
            maybe_stored=True,
        )

    def _no_answer(self, error: httpx.RequestError, seconds: float) -> ReceiverUnavailable:
        reason, transient = "", not self._wire.sent
        if (status := self._wire.proxy_status) is not None:
            reason = f": the proxy answered {status}; check HTTPS_PROXY and the proxy's credentials"
            transient = status in _RETRYABLE
        elif tls := _tls_error(error):
            reason, transient = f": {_explain_tls_error(tls)}", False
        elif self._wire.expired:
            reason = f": the call took longer than {seconds:g} s as a whole"
        cause = f"{type(error).__name__}: {sanitize(str(error), self._secrets)}"
        return ReceiverUnavailable(
            f"No answer from {self._host()}{self._route.via} ({cause}){reason}."
            " If this persists, check the OTLP Connection's host and the network",
            maybe_stored=self._wire.sent,
            transient=transient,
        )

    def _check(self, reply: Reply, request: ExportRequest) -> str | None:
        """Return a warning about a success, if there is one; raise an error for everything else."""
        if not reply.is_success:
            raise self._failure(reply, request)
        if reply.is_page:
            raise ExportRefused(
                f"{self._host()} answered {reply.status} with a page of HTML or XML, not an OTLP response,"
                " so the points may not have been stored: check the OTLP Connection's host",
                maybe_stored=True,
            )
        partial = partial_success(reply)
        message = sanitize(partial.message, self._secrets)
        if partial.rejected != 0:
            raise self._rejection(partial.rejected, message, request)
        accepted = f"{self._host()} accepted the request of {request.points} points"
        if message:
            warning = f"{accepted}, reported no number of rejected points, and added: {message}"
        elif reason := reply.unread or partial.problem:
            reason = sanitize(reason, self._secrets)
            warning = (
                f"{accepted} ({reply.status}), but the body of its response cannot be read: {reason}."
                " It is not known whether it rejected points"
            )
        else:
            return None
        log.warning("%s", warning)
        return warning

    def _failure(self, reply: Reply, request: ExportRequest) -> ExportRefused | ReceiverUnavailable:
        status = reply.status
        message = sanitize(status_message(reply), self._secrets)
        answered = f"{self._host()} answered {status}{self._route.answered_by_proxy}" + (
            f" ({message})" if message else ""
        )
        # A receiver that answers 503 has stored nothing. Other errors of this class may come from a proxy, or
        # from a crash after the points were stored.
        maybe_stored = status >= 500 and status != 503
        if status in _RETRYABLE:
            return ReceiverUnavailable(
                answered,
                retry_after=retry_after(reply.headers, dt.datetime.now(dt.timezone.utc)),
                maybe_stored=maybe_stored,
                transient=True,
            )
        if status == 413 or (status == 400 and request.size > SUSPICIOUS_BYTES):
            return RequestTooLarge(
                f"{answered} to {_size(request)}. {_SPLIT}, raise the receiver's limit, or check its log",
                status=status,
            )
        remedy = _REMEDIES.get(status, "check the receiver's log")
        if status in (400, 415) and self.endpoint.compression == "gzip":
            remedy += _NO_GZIP
        if reply.redirects:
            remedy = "the receiver has moved: set the OTLP Connection's host to its new URL"
        return ExportRefused(
            f"{answered}, a status that OTLP forbids retrying: {remedy}",
            status=status,
            maybe_stored=maybe_stored,
        )

    def _rejection(self, rejected: int | None, message: str, request: ExportRequest) -> PointsRejected:
        if rejected is None:
            count = f"rejected some of {request.points} points, and reported an impossible number of them"
        elif rejected > request.points:
            count = f"rejected up to {request.points} of {request.points} points, by its own count"
        else:
            count = f"rejected {rejected} of {request.points} points"
        return PointsRejected(
            f"{self._host()} {count} ({message or 'no reason given'}), and OTLP forbids sending them again."
            f" The request contained {', '.join(request.metrics)} from {_utc(request.start)} to"
            f" {_utc(request.end)}",
            rejected=min(rejected or 0, request.points),
        )

    def _host(self) -> str:
        return httpx.URL(self.endpoint.url).netloc.decode()


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    link: BaseException | None = error
    while link is not None and not isinstance(link, ssl.SSLError):
        link = link.__cause__ or link.__context__
    return link


def _explain_tls_error(error: ssl.SSLError) -> str:
    """Return the cause of a TLS error, with the Connection's field to change."""
    if "ALERT" in (error.reason or ""):
        return (
            "it refused the TLS handshake; check the extras cert_file and key_file, the client's certificate"
        )
    return explain_transport_error(error, trust="Name the PEM file of its authority in the extra ca_file")


def _size(request: ExportRequest) -> str:
    return f"the request (points: {request.points}, bytes: {request.size})"


def _utc(nanoseconds: int) -> str:
    return format_time(dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.timezone.utc), "seconds")


def compress(chunks: Iterable[bytes | Raw]) -> bytes:
    """Compress chunks with gzip, without joining them first.

    isal is used if the extra `fast` is installed, otherwise zlib.
    """
    if isal_zlib is None:
        compressor = zlib.compressobj(ZLIB_LEVEL, wbits=_GZIP)
    else:
        compressor = isal_zlib.compressobj(ISAL_LEVEL, wbits=_GZIP)
    compressed = [compressor.compress(piece) for piece in _pieces(chunks)]
    return b"".join((*compressed, compressor.flush()))


def _pieces(chunks: Iterable[bytes | Raw]) -> Iterator[bytes | memoryview]:
    small: list[bytes | Raw] = []
    size = 0
    for chunk in chunks:
        if size + len(chunk) > _PIECE:
            yield b"".join(small)
            small, size = [], 0
        if len(chunk) > _PIECE:
            yield memoryview(chunk)
        else:
            small.append(chunk)
            size += len(chunk)
    yield b"".join(small)
