"""The gateway's answer, and what can be wrong with it.

A failure can come through four channels: the HTTP status, `errors` beside or in place of `data`, a
`QueryError` in place of the metrics, and null where data should be. All end here in one typed error, chosen
by status and error type, never by text: Atlassian may reword its messages at any time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import httpx
import msgspec

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    BrokenAnswer,
    CredentialsRefused,
    ForgeError,
    GatewayUnavailable,
    QueryRefused,
    RateLimited,
    WindowTooLarge,
)
from airflow_provider_forge.http import quote, retry_after

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator

__all__ = ["HALVES", "Answer", "read_answer", "read_whole", "request_id_in"]

HALVES = (
    "Its halves are asked for; where even a minute is too much, ask for fewer environments or metrics at a"
    " time, raise the Forge Connection's timeout, and see https://developer.status.atlassian.com"
)
"""What is done about a window that is too much, and what to do where that does not help."""

_STATUS_OF_TYPE = {
    "ACCESSDENIED": 403,
    "BADREQUEST": 400,
    "BADUSERINPUT": 400,
    "DATAFETCHINGEXCEPTION": 500,
    "EXECUTIONABORTED": 504,
    "FORBIDDEN": 403,
    "GATEWAYTIMEOUT": 504,
    "INTERNALERROR": 500,
    "INTERNALSERVERERROR": 500,
    "INVALIDARGUMENT": 400,
    "INVALIDINPUT": 400,
    "INVALIDSYNTAX": 400,
    "NOTFOUND": 404,
    "OPERATIONNOTSUPPORTED": 400,
    "PERMISSIONDENIED": 403,
    "RATELIMITED": 429,
    "RATELIMITEXCEEDED": 429,
    "SERVICEUNAVAILABLE": 503,
    "THROTTLED": 429,
    "TIMEOUT": 504,
    "TOOMANYREQUESTS": 429,
    "UNAUTHENTICATED": 401,
    "UNAUTHORIZED": 401,
    "VALIDATIONERROR": 400,
}
"""For an error that has no status code: its `errorType` or `classification`, capitals only."""

_TOO_LARGE = {408, 413, 504}
_TOO_LARGE_TYPE = re.compile("COMPLEX|EXECUTIONABORTED|TIMEDOUT|TIMEOUT|TOOLARGE")
"""Part of a type that says the same, whatever the status: servers give a query too complex a 400, too.
`ExecutionAborted` is what graphql-java makes of one."""


LARGEST = 512 * 1024 * 1024
"""Bytes of an answer, decompressed, that are still read: more than three times those of 200,000 points.
It ends what would go on for ever, and what was compressed to hurt."""

_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")

Data = TypeVar("Data")


class _Envelope(msgspec.Struct):
    errors: Any = None
    extensions: Any = None


class _EnvelopeOf(_Envelope, Generic[Data]):
    data: Data | None = None


@dataclass(frozen=True)
class Answer(Generic[Data]):
    """An answer that arrived whole and reports no error at the top level.

    Attributes:
        request_id: The gateway's id of the request, for Atlassian's support.
    """

    request_id: str | None
    _data: Data | None
    _response: httpx.Response
    _now: dt.datetime
    _secrets: tuple[str, ...]
    _of_window: bool
    _spared: list[Any] = field(default_factory=list)

    @property
    def data(self) -> Data:
        """The answer's `data`.

        Raises:
            BrokenAnswer: It is null.
        """
        if self._data is None:
            self.broken("null as data")
        return self._data

    def broken(self, what: str) -> NoReturn:
        """Raise the error for an answer without the data that was asked for."""
        raise _broken(what, self.request_id)

    def fail(self, message: str | None, extensions: Any) -> NoReturn:
        """Raise the error that a `QueryError` in the data stands for."""
        self._fail([{"message": message, "extensions": extensions}])

    def fail_spared(self) -> None:
        """Raise the error that the failures stand for that `read_answer` has let pass, if there are any."""
        if self._spared:
            self._fail(self._spared)

    def _fail(self, failures: list[Any]) -> NoReturn:
        raise _error(
            failures, self._response, self.request_id, self._now, self._secrets, of_window=self._of_window
        )


def read_whole(response: httpx.Response, *, of_window: bool) -> httpx.Response:
    """Read a response that is still arriving; return it decompressed, without the headers that deny that.

    Args:
        response: The gateway's response.
        of_window: As in `read_answer`.

    Raises:
        WindowTooLarge: It is larger than `LARGEST`, and so less can be asked for.
        GatewayUnavailable: It is larger, and nothing can be done about it.
    """
    chunks, size = [], 0
    for chunk in response.iter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST:
            what = f"An answer of more than {LARGEST} bytes from {response.url.host} was not read on"
            request_id = request_id_in(response.headers)
            if of_window:
                raise WindowTooLarge(f"{what}. {HALVES}", request_id=request_id)
            raise GatewayUnavailable(f"{what}. Check the Forge Connection's host", request_id=request_id)
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_WIRE]
    return httpx.Response(response.status_code, headers=headers, content=b"".join(chunks))


def read_answer(
    response: httpx.Response,
    kind: type[Data],
    *,
    now: dt.datetime,
    secrets: Iterable[str],
    of_window: bool,
    spared: str | None = None,
) -> Answer[Data]:
    """Check the HTTP status and the top-level errors of a response that was read whole.

    Args:
        response: The gateway's response.
        kind: What its `data` are.
        now: The present, against which times in headers are read.
        secrets: What must not appear in an error should the gateway repeat it.
        of_window: Whether a window was asked for, so that there is less to ask for should it be too much.
        spared: A field of the query's whose failures, beside data, are let pass: see `Answer.fail_spared`.

    Raises:
        ForgeError: Some channel reports a failure, or the answer has another shape.
    """
    secrets = tuple(secrets)
    envelope, mismatch = _decode(response, kind)
    request_id = _request_id(response, envelope)
    failures = envelope.errors if envelope else None
    if failures and not isinstance(failures, list):
        failures = [failures]
    let_pass = [failure for failure in failures or () if spared and _top_level(failure) == spared]
    if isinstance(envelope, _EnvelopeOf) and envelope.data is not None and response.is_success:
        failures = [failure for failure in failures or () if failure not in let_pass]
    if failures or not response.is_success:
        raise _error(failures or [], response, request_id, now, secrets, of_window=of_window)
    if envelope is None:
        content_type = response.headers.get("content-type", "no content type")
        raise BrokenAnswer(
            f"The gateway's answer is cut off or not GraphQL ({len(response.content)} bytes,"
            f" {content_type}). It is asked again; should that not end, check the Connection's host",
            request_id=request_id,
        )
    if not isinstance(envelope, _EnvelopeOf):
        raise _broken(f"an answer of another shape than the schema's ({mismatch})", request_id)
    return Answer(request_id, envelope.data, response, now, secrets, of_window, let_pass)


def _top_level(failure: Any) -> Any:
    """Return the query's field that an error is about; None where it doesn't say."""
    path = failure.get("path") if isinstance(failure, dict) else None
    return path[0] if isinstance(path, list) and path else None


def _decode(
    response: httpx.Response, kind: type[Data]
) -> tuple[_Envelope | None, msgspec.ValidationError | None]:
    """Return the envelope; without its data, in a second pass, where these are of another shape."""
    try:
        try:
            return msgspec.json.decode(response.content, type=_EnvelopeOf[kind]), None  # type: ignore[valid-type]
        except msgspec.ValidationError as mismatch:
            return msgspec.json.decode(response.content, type=_Envelope), mismatch
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None


def _broken(what: str, request_id: str | None) -> BrokenAnswer:
    return BrokenAnswer(
        f"The gateway gave {what}. It is asked again; should that not end, check the Forge"
        " Connection's host, and look at the app's metrics in Atlassian's developer console",
        request_id=request_id,
    )


def _request_id(response: httpx.Response, envelope: _Envelope | None) -> str | None:
    extensions = envelope.extensions if envelope else None
    gateway = extensions.get("gateway") if isinstance(extensions, dict) else None
    in_body = gateway.get("request_id") if isinstance(gateway, dict) else None
    return str(in_body) if in_body else request_id_in(response.headers)


def request_id_in(headers: httpx.Headers) -> str | None:
    """Return the request id of an answer whose body says nothing of it."""
    found: str = headers.get("x-request-id") or headers.get("x-trace-id") or ""
    return found or None


def _error(
    failures: list[Any],
    response: httpx.Response,
    request_id: str | None,
    now: dt.datetime,
    secrets: tuple[str, ...],
    *,
    of_window: bool,
) -> ForgeError:
    statuses = set(_statuses(failures))
    if not response.is_success:
        statuses.add(response.status_code)
    said = _said(failures, statuses, secrets)
    if 401 in statuses:
        return CredentialsRefused(
            f"Atlassian refused the credentials{said}. Check the Forge Connection's login (the account's"
            " email) and password (its API token); tokens expire after at most a year: make a new one at"
            " https://id.atlassian.com/manage/api-tokens",
            request_id=request_id,
        )
    if 403 in statuses:
        return AccessForbidden(
            f"Atlassian does not let this account read this app{said}. The API token must belong to the"
            " account that owns the app: check app_id, and whose token the Forge Connection holds",
            request_id=request_id,
        )
    if 429 in statuses:
        return RateLimited(
            f"Atlassian counted too many calls of this account{said}. Another program with the same account,"
            " or a higher rate_limit_calls than Atlassian allows, uses up its budget",
            retry_after=retry_after(response.headers, now),
            request_id=request_id,
        )
    if of_window and (statuses & _TOO_LARGE or any(map(_TOO_LARGE_TYPE.search, _types(failures)))):
        return WindowTooLarge(
            f"The gateway failed{said}: the window may be too much for one answer. {HALVES}",
            retry_after=retry_after(response.headers, now),
            request_id=request_id,
        )
    return _other_error(said, statuses, response, request_id, now)


def _other_error(
    said: str, statuses: set[int], response: httpx.Response, request_id: str | None, now: dt.datetime
) -> ForgeError:
    refused = {status for status in statuses if status < 500 and status != 408}
    if statuses and refused == statuses:
        remedy = "Check the metrics, environments, app_id and times asked for"
        if response.status_code in range(300, 400) or response.status_code in (404, 405):
            remedy = "Check the Forge Connection's host; the usual one is https://api.atlassian.com/graphql"
        return QueryRefused(f"The gateway refused the query{said}. {remedy}", request_id=request_id)
    return GatewayUnavailable(
        f"The gateway failed{said}. It is asked again; see https://developer.status.atlassian.com",
        retry_after=retry_after(response.headers, now),
        request_id=request_id,
    )


def _extensions(failures: list[Any]) -> Iterator[dict[str, Any]]:
    for failure in failures:
        extensions = failure.get("extensions") if isinstance(failure, dict) else None
        for extension in extensions if isinstance(extensions, list) else [extensions]:
            if isinstance(extension, dict):
                yield extension


def _types_of(extension: dict[str, Any]) -> list[str]:
    """Return its type, then its classification, in one spelling: capitals only."""
    return [re.sub("[^A-Z]", "", str(extension.get(key)).upper()) for key in ("errorType", "classification")]


def _types(failures: list[Any]) -> Iterator[str]:
    for extension in _extensions(failures):
        yield from _types_of(extension)


def _statuses(failures: list[Any]) -> Iterator[int]:
    for extension in _extensions(failures):
        if status := _status(extension):
            yield status


def _status(extension: dict[str, Any]) -> int | None:
    code = str(extension.get("statusCode"))
    if re.fullmatch("[45][0-9]{2}", code):
        return int(code)
    for kind in _types_of(extension):
        if kind in _STATUS_OF_TYPE:
            return _STATUS_OF_TYPE[kind]
    return None


def _said(failures: list[Any], statuses: set[int], secrets: tuple[str, ...]) -> str:
    """Return the statuses and the gateway's words, to go into a message."""
    codes = ", ".join(str(status) for status in sorted(statuses)) or "no status"
    messages = [failure.get("message") for failure in failures if isinstance(failure, dict)]
    words = "; ".join(str(message) for message in messages if message)
    return f" ({codes}: {quote(words, secrets)})" if words else f" ({codes})"
