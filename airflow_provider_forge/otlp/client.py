"""Posts OTLP requests, and reads what the receiver says of them.

A receiver's 200 is not the end of it: a partial success can have rejected every point. What may be sent
again and what must not is told apart as in the OTLP specification, "OTLP/HTTP Response".
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from airflow_provider_forge.exceptions import (
    ExportRefused,
    PointsRejected,
    ReceiverUnavailable,
    RequestTooLarge,
)
from airflow_provider_forge.http import USER_AGENT, quote, retry_after
from airflow_provider_forge.otlp.compress import compress
from airflow_provider_forge.otlp.encode import encode
from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from types import TracebackType

    from airflow_provider_forge.otlp.encode import Export
    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["OtlpClient", "Reception"]

log = get_logger(__name__)

_RETRYABLE = (429, 502, 503, 504)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_CONTENT_TYPES = {True: "application/json", False: "application/x-protobuf"}
_REMEDIES = {
    400: "the receiver could not use the request: try the other protocol, or look at the receiver's log",
    401: "check the OTLP Connection's password and its extra auth_header",
    403: "check the OTLP Connection's password and its extra auth_header",
    404: "check the path in the OTLP Connection's host: /v1/metrics is added to a base URL",
    405: "check the path in the OTLP Connection's host: /v1/metrics is added to a base URL",
    415: "set the OTLP Connection's extra protocol to the one that the receiver takes",
}
_IN_PARTS = "It is sent in parts; where even single points are too large"

SUSPICIOUS_BYTES = 1024 * 1024
"""A Collector answers a body above its limit with 400, not 413; a smaller one is refused for what it says."""


@dataclass(frozen=True)
class _PartialSuccess:
    rejected: int = 0
    message: str = ""


@dataclass(frozen=True)
class Reception:
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
        self._client = httpx.Client(
            # In lower case, so that a User-Agent of the user's replaces ours instead of going out beside it.
            headers={"user-agent": USER_AGENT}
            | {key.lower(): value for key, value in endpoint.headers.items()},
            timeout=endpoint.timeout,
            verify=endpoint.ssl_context(),
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

    def export(self, export: Export) -> None:
        """Send one request; returns when the receiver has taken all of its points.

        Raises:
            ReceiverUnavailable: The receiver is busy or did not answer; sending again may help.
            RequestTooLarge: The request is larger than it takes, or than the endpoint says; parts may pass.
            ExportRefused: It refused the request; sending it again would not help.
            PointsRejected: It took the request but rejected points of it, or did not say so in OTLP.
        """
        self._export(export)

    def knock(self) -> Reception:
        """Send a request without points, and return how it was taken.

        Raises:
            ForgeError: As for `export`.
        """
        started = time.monotonic()
        response = self._export(encode([], self.endpoint.protocol))
        return Reception(
            host=self._host(),
            status=response.status_code,
            server=quote(response.headers.get("server", ""), self._secrets),
            elapsed=time.monotonic() - started,
        )

    def _export(self, export: Export) -> httpx.Response:
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
        response = self._post(body, headers)
        if not response.is_success:
            raise self._failure(response, export)
        self._check_partial_success(response, export)
        return response

    def _post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        try:
            return self._client.post(self.endpoint.url, content=body, headers=headers)
        except httpx.RequestError as error:
            raise ReceiverUnavailable(
                f"No answer from {self._host()} ({type(error).__name__}: {quote(str(error), self._secrets)})."
                " It is tried again; should that not end, check the OTLP Connection's host and the network",
                maybe_stored=not isinstance(error, _NEVER_SENT),
            ) from error

    def _failure(self, response: httpx.Response, export: Export) -> ExportRefused | ReceiverUnavailable:
        status = response.status_code
        said = quote(_message(response), self._secrets)
        what = f"{self._host()} answered {status}" + (f" ({said})" if said else "")
        # With 503 a receiver says that it took nothing; the others may come from a proxy, or from a crash,
        # after the points were stored.
        maybe_stored = status >= 500 and status != 503
        if status in _RETRYABLE:
            wait = retry_after(response.headers, dt.datetime.now(dt.timezone.utc))
            return ReceiverUnavailable(
                f"{what}. It is tried again", retry_after=wait, maybe_stored=maybe_stored
            )
        if status == 413 or (status == 400 and export.size > SUSPICIOUS_BYTES):
            return RequestTooLarge(
                f"{what} to {_size(export)}. {_IN_PARTS}, raise the receiver's limit, or look at its log",
                status=status,
            )
        remedy = _REMEDIES.get(status, "look at the receiver's log")
        if response.has_redirect_location:
            remedy = "it moved: put its present URL into the OTLP Connection's host"
        return ExportRefused(
            f"{what}, which OTLP forbids to try again: {remedy}", status=status, maybe_stored=maybe_stored
        )

    def _check_partial_success(self, response: httpx.Response, export: Export) -> None:
        partial = _partial_success(response)
        if partial is None:
            raise ExportRefused(
                f"{self._host()} answered {response.status_code} with a page of HTML, which is no answer to"
                " OTLP, so nothing may have been stored: check the OTLP Connection's host",
                maybe_stored=True,
            )
        said = quote(partial.message, self._secrets)
        if partial.rejected:
            raise PointsRejected(
                f"{self._host()} rejected {partial.rejected} of {export.points} points"
                f" ({said or 'it did not say why'}), and OTLP forbids to send them again. The request held"
                f" {', '.join(export.metrics)} from {_utc(export.start)} to {_utc(export.end)}",
                rejected=partial.rejected,
            )
        if said:
            log.warning("%s took all points, and says: %s", self._host(), said)

    def _host(self) -> str:
        return httpx.URL(self.endpoint.url).netloc.decode()


def _partial_success(response: httpx.Response) -> _PartialSuccess | None:
    """Read an answer of 2xx; None where it is a page for people, not an answer to OTLP.

    Receivers in the wild also answer with nothing, with null, with an empty message in either encoding, and
    without saying which: the body itself tells.
    """
    kind = response.headers.get("content-type", "").lower()
    if "html" in kind:
        return None
    content = _json(response)
    if isinstance(content, dict):
        found = content.get("partialSuccess")
        found = found if isinstance(found, dict) else {}
        return _PartialSuccess(_count(found.get("rejectedDataPoints")), str(found.get("errorMessage") or ""))
    try:
        partial = ExportMetricsServiceResponse.FromString(response.content).partial_success
    except DecodeError:
        if "protobuf" in kind:
            log.warning("Took an answer as success that says it is protobuf and is not")
        return _PartialSuccess()
    return _PartialSuccess(partial.rejected_data_points, partial.error_message)


def _size(export: Export) -> str:
    return f"the request (points: {export.points}, bytes: {export.size})"


def _count(value: Any) -> int:
    """Return a 64-bit integer of protobuf's JSON: a number or text, also with a fraction of zero."""
    try:
        return int(float(value or 0))
    except (TypeError, ValueError, OverflowError):
        return 0


def _message(response: httpx.Response) -> str:
    """Return a failed answer's words: a `google.rpc.Status` in JSON or protobuf, or plain text."""
    kind = response.headers.get("content-type", "").lower()
    if "html" in kind:
        return ""
    content = _json(response)
    if isinstance(content, dict):
        return str(content.get("message") or content.get("error") or "")
    if "protobuf" in kind:
        return response.content.decode("ascii", errors="ignore")
    return response.text


def _json(response: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _utc(nanoseconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
