"""The gateway's answer, and what can be wrong with it.

A failure can come through four channels: the HTTP status, `errors` beside or in place of `data`, a
`QueryError` in place of the metrics, and null where data should be. All end here in one typed error, chosen
by status and error type, never by text: Atlassian may reword its messages at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import msgspec

from airflow_provider_forge import json_text
from airflow_provider_forge.exceptions import LONGEST_ID, BrokenAnswer
from airflow_provider_forge.gateway.failures import Reply, error_of
from airflow_provider_forge.http import sanitize

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    import httpx

__all__ = ["GatewayResponse", "read_answer", "request_id_in"]

Data = TypeVar("Data")


class _Envelope(msgspec.Struct):
    errors: Any = None
    extensions: Any = None


class _EnvelopeOf(_Envelope, Generic[Data]):
    data: Data | None = None


@dataclass(frozen=True)
class GatewayResponse(Generic[Data]):
    """An answer that arrived whole and reports no error at the top level.

    Attributes:
        request_id: The gateway's id of the request, for Atlassian's support.
    """

    request_id: str | None
    _data: Data | None
    _reply: Reply
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
        raise error_of([{"message": message, "extensions": extensions}], self._reply)

    def raise_partial_errors(self) -> None:
        """Raise the error that the failures stand for that `read_answer` has let pass, if there are any."""
        if self._spared:
            raise error_of(self._spared, self._reply)


def read_answer(
    response: httpx.Response,
    kind: type[Data],
    *,
    now: dt.datetime,
    secrets: Iterable[str],
    splittable: bool,
    tolerated_field: str | None = None,
    via: str = "",
) -> GatewayResponse[Data]:
    """Check the HTTP status and the top-level errors of a response that was read whole.

    Args:
        response: The gateway's response.
        kind: What its `data` are.
        now: The present, against which times in headers are read.
        secrets: What must not appear in an error should the gateway repeat it.
        splittable: Whether a window was asked for, so that there is less to ask for should it be too much.
        tolerated_field: Field of the query whose errors, beside data, are tolerated.
        via: The proxy that may have answered in the gateway's place, in words; empty if none can have.

    Raises:
        ForgeError: Some channel reports a failure, or the answer has another shape.
    """
    envelope, mismatch = _decode(response, kind)
    request_id = _request_id(response, envelope, secrets := tuple(secrets))
    reply = Reply(response, request_id, now, secrets, splittable, via)
    failures = envelope.errors if envelope else None
    if failures and not isinstance(failures, list):
        failures = [failures]
    let_pass = [
        failure for failure in failures or () if tolerated_field and _top_level(failure) == tolerated_field
    ]
    if isinstance(envelope, _EnvelopeOf) and envelope.data is not None and response.is_success:
        failures = [failure for failure in failures or () if failure not in let_pass]
    if failures or not response.is_success:
        raise error_of(failures or [], reply)
    if envelope is None:
        content_type = sanitize(response.headers.get("content-type", "no content type"), secrets, most=100)
        raise BrokenAnswer(
            f"The gateway's answer is cut off or not GraphQL ({len(response.content)} bytes,"
            f" {content_type}). The call will be retried. If this persists, check the Connection's host",
            request_id=request_id,
        )
    if not isinstance(envelope, _EnvelopeOf):
        raise _broken(f"an answer of another shape than the schema's ({mismatch})", request_id)
    return GatewayResponse(request_id, envelope.data, reply, let_pass)


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
            envelope, _ = json_text.decode_or_repair(response.content, _EnvelopeOf[kind])  # type: ignore[valid-type]
        except msgspec.ValidationError as mismatch:
            return json_text.decode_or_repair(response.content, _Envelope)[0], mismatch
    except json_text.UNREADABLE:
        return None, None
    return envelope, None


def _broken(what: str, request_id: str | None) -> BrokenAnswer:
    return BrokenAnswer(
        f"The gateway gave {what}. The call will be retried. If this persists, check the Forge"
        " Connection's host, and look at the app's metrics in Atlassian's developer console",
        request_id=request_id,
    )


def _request_id(response: httpx.Response, envelope: _Envelope | None, secrets: tuple[str, ...]) -> str | None:
    extensions = envelope.extensions if envelope else None
    gateway = extensions.get("gateway") if isinstance(extensions, dict) else None
    in_body = gateway.get("request_id") if isinstance(gateway, dict) else None
    found = (
        sanitize(in_body, secrets, most=LONGEST_ID) if in_body else request_id_in(response.headers, secrets)
    )
    return found or None


def request_id_in(headers: httpx.Headers, secrets: tuple[str, ...] = ()) -> str | None:
    """Return the request id of an answer whose body says nothing of it."""
    found = headers.get("x-request-id") or headers.get("x-trace-id") or ""
    return sanitize(found, secrets, most=LONGEST_ID) or None
