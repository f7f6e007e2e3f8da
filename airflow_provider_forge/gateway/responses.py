"""The gateway's responses, and the failures in them.

A failure can be reported in four ways: the HTTP status, `errors` next to or instead of `data`, a `QueryError`
instead of the metrics, and null instead of data. All become one typed error, chosen by status and error type,
never by text: Atlassian may reword its messages at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import msgspec

from airflow_provider_forge import json_text
from airflow_provider_forge.exceptions import MAX_REQUEST_ID, AccessForbidden, BrokenAnswer
from airflow_provider_forge.gateway.failures import Reply, error_of
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    import httpx

__all__ = [
    "App",
    "AppData",
    "EnvironmentsPage",
    "GatewayResponse",
    "MetricsData",
    "PermissionsData",
    "UsagePage",
    "read_app",
    "read_resource_metrics",
    "read_response",
    "read_usage_page",
    "request_id_in",
]

Data = TypeVar("Data")


class _Struct(msgspec.Struct, rename="camel"):
    """A GraphQL object. Fields that the gateway sets to null after a failure have a default."""


class AppMetricsResult(_Struct):
    """Either `ForgeMetricsOtlpData` or a `QueryError`."""

    resource_metrics: msgspec.Raw = msgspec.Raw(b"null")
    message: Any = None
    identifier: Any = None
    extensions: Any = None


class ForgeMetrics(_Struct):
    """The parent of `appMetrics`."""

    app_metrics: AppMetricsResult | None = None


class UsageGroup(_Struct):
    """The usage of one environment or site in a period; the amount is a decimal number as text."""

    group_value: str
    tokens_consumed: str
    token_unit: str


class UsagePeriodNode(_Struct):
    """The usage in a period: as a whole, or by groups."""

    period: str
    resolution: str
    tokens_consumed: str | None = None
    token_unit: str = ""
    groups: list[UsageGroup] | None = None


class Pagination(_Struct):
    """The position of a page; there is no total."""

    page: int
    page_size: int


class UsageError(_Struct):
    """A `QueryError` beside the data."""

    message: Any = None
    extensions: Any = None


class UsagePage(_Struct):
    """A page of usage, and the error beside it; null without one."""

    error: UsageError | None = None
    pagination: Pagination | None = None
    resource_usage: list[UsagePeriodNode] | None = None


class DevConsole(_Struct):
    """The parent of `appResourceUsage`."""

    app_resource_usage: UsagePage | None = None


class Ecosystem(_Struct):
    """The parent of `forgeMetrics` and of `devConsole`."""

    forge_metrics: ForgeMetrics | None = None
    dev_console: DevConsole | None = None


class EnvironmentNode(_Struct):
    """An environment of an app; its id is a UUID or an ARI."""

    id: str
    key: str
    type: str


class PageInfo(_Struct):
    """The end of a page."""

    has_next_page: bool
    end_cursor: str | None = None


class EnvironmentsPage(_Struct):
    """A hundred environments at most."""

    page_info: PageInfo
    nodes: list[EnvironmentNode | None] | None = None


class App(_Struct):
    """An app."""

    name: str | None = None
    environments_page: EnvironmentsPage | None = None


class MetricsData(_Struct):
    """The data of `queries.APP_METRICS` or `queries.USAGE`."""

    ecosystem: Ecosystem | None = None


class AppData(_Struct):
    """The data of `queries.ENVIRONMENTS`; app is null if the account sees no such app."""

    app: App | None = None


class PermissionsData(AppData):
    """The data of `queries.PERMISSIONS`."""

    ecosystem: Ecosystem | None = None


class _Envelope(msgspec.Struct):
    errors: Any = None
    extensions: Any = None


class _EnvelopeOf(_Envelope, Generic[Data]):
    data: Data | None = None


@dataclass(frozen=True)
class GatewayResponse(Generic[Data]):
    """A complete response without errors, except those of the tolerated field.

    Attributes:
        request_id: The gateway's id of the request, for Atlassian's support.
    """

    request_id: str | None
    _data: Data | None
    _reply: Reply
    _tolerated: list[Any] = field(default_factory=list)

    @property
    def data(self) -> Data:
        """The `data` of the response.

        Raises:
            BrokenAnswer: The data are null.
        """
        if self._data is None:
            self.broken("null as data")
        return self._data

    def broken(self, found: str) -> NoReturn:
        """Raise the error for a response with something else in the place of the data."""
        raise _broken(sanitize(found, self._reply.secrets), self.request_id)

    def fail(self, message: str | None, extensions: Any) -> NoReturn:
        """Raise the error for a `QueryError` in the data."""
        # Its path says that it stands for a part of the query.
        raise error_of([{"message": message, "path": [], "extensions": extensions}], self._reply)

    def raise_partial_errors(self) -> None:
        """Raise the error for the failures that `read_response` has tolerated, if there are any."""
        if self._tolerated:
            raise error_of(self._tolerated, self._reply)


def read_response(
    response: httpx.Response,
    data_type: type[Data],
    *,
    now: dt.datetime,
    secrets: Iterable[str],
    splittable: bool,
    tolerated_field: str | None = None,
    via: str = "",
) -> GatewayResponse[Data]:
    """Check the HTTP status and the top-level errors of a response.

    Args:
        response: The response, with its body read.
        data_type: Type of its `data`.
        now: The current time, to which times in headers are relative.
        secrets: Secrets to redact in errors, in case the gateway repeats them.
        splittable: Whether the query was for a window, so that a smaller one can be sent.
        tolerated_field: Top-level field of the query whose errors are tolerated if there are data.
        via: Description of the proxy that may have responded instead of the gateway; empty if there is none.

    Raises:
        ForgeError: The response reports a failure, or does not match the schema.
    """
    envelope, mismatch = _decode(response, data_type)
    request_id = _request_id(response, envelope, secrets := tuple(secrets))
    reply = Reply(response, request_id, now, secrets, splittable, via)
    failures = (envelope.errors if envelope else None) or []
    if not isinstance(failures, list):
        failures = [failures]
    tolerated = [each for each in failures if tolerated_field and _top_level_field(each) == tolerated_field]
    if isinstance(envelope, _EnvelopeOf) and envelope.data is not None and response.is_success:
        failures = [each for each in failures if each not in tolerated]
    if failures or not response.is_success:
        raise error_of(failures, reply)
    if envelope is None:
        raise _not_graphql(response, request_id, secrets)
    if not isinstance(envelope, _EnvelopeOf):
        problem = sanitize(mismatch, secrets)
        raise _broken(f"a response that does not match the schema ({problem})", request_id)
    return GatewayResponse(request_id, envelope.data, reply, tolerated)


def read_resource_metrics(response: GatewayResponse[Any]) -> msgspec.Raw:
    """Return the metrics: the JSON text of an array of `ResourceMetrics`.

    Args:
        response: With `MetricsData` or `PermissionsData`.

    Raises:
        ForgeError: The response has a `QueryError`, or no metrics.
    """
    ecosystem = response.data.ecosystem or response.broken("null as ecosystem")
    forge_metrics = ecosystem.forge_metrics or response.broken("null as forgeMetrics")
    result = forge_metrics.app_metrics or response.broken("null as appMetrics")
    start = bytes(memoryview(result.resource_metrics)[:1])
    if start == b"n":
        response.fail(result.message, result.extensions)
    if start != b"[":
        response.broken("resourceMetrics that are not an array")
    metrics: msgspec.Raw = result.resource_metrics
    return metrics


def read_usage_page(response: GatewayResponse[MetricsData]) -> UsagePage:
    """Return a page of usage.

    Raises:
        ForgeError: There is an error beside the data, or there are no data.
    """
    ecosystem = response.data.ecosystem or response.broken("null as ecosystem")
    dev_console = ecosystem.dev_console or response.broken("null as devConsole")
    page = dev_console.app_resource_usage or response.broken("null as appResourceUsage")
    if page.error is not None:
        response.fail(page.error.message, page.error.extensions)
    if page.resource_usage is None:
        response.broken("null as resourceUsage")
    return page


def read_app(app_id: str, response: GatewayResponse[Any]) -> tuple[App, EnvironmentsPage]:
    """Return the app and a page of its environments.

    Args:
        app_id: UUID of the app.
        response: With `AppData` or `PermissionsData`.

    Raises:
        AccessForbidden: The account sees no such app.
        BrokenAnswer: The response has no page.
    """
    app: App | None = response.data.app
    if app is None:
        raise AccessForbidden(
            f"Atlassian shows this account no app {app_id}. Check app_id (`app.id` in manifest.yml), and that"
            " the API token belongs to the account that owns the app",
            request_id=response.request_id,
        )
    return app, app.environments_page or response.broken("null as environmentsPage")


def _top_level_field(failure: Any) -> Any:
    """Return the query's field that an error is about; None if the error does not name it."""
    path = failure.get("path") if isinstance(failure, dict) else None
    return path[0] if isinstance(path, list) and path else None


def _decode(
    response: httpx.Response, data_type: type[Data]
) -> tuple[_Envelope | None, msgspec.ValidationError | None]:
    """Return the envelope; without its data, in a second pass, if these do not match the schema."""
    try:
        try:
            envelope, _ = json_text.decode_or_repair(response.content, _EnvelopeOf[data_type])  # type: ignore[valid-type]
        except msgspec.ValidationError as mismatch:
            return json_text.decode_or_repair(response.content, _Envelope)[0], mismatch
    except json_text.UNREADABLE:
        return None, None
    return envelope, None


def _not_graphql(response: httpx.Response, request_id: str | None, secrets: tuple[str, ...]) -> BrokenAnswer:
    content_type = sanitize(response.headers.get("content-type", "no content type"), secrets, most=100)
    return BrokenAnswer(
        f"The gateway's response is cut off or not GraphQL ({len(response.content)} bytes, {content_type})."
        " If this persists, check the Connection's host",
        request_id=request_id,
    )


def _broken(found: str, request_id: str | None) -> BrokenAnswer:
    return BrokenAnswer(
        f"The gateway returned {found}. If this persists, check the Forge"
        " Connection's host, and look at the app's metrics in Atlassian's developer console",
        request_id=request_id,
    )


def _request_id(response: httpx.Response, envelope: _Envelope | None, secrets: tuple[str, ...]) -> str | None:
    extensions = envelope.extensions if envelope else None
    gateway = extensions.get("gateway") if isinstance(extensions, dict) else None
    in_body = gateway.get("request_id") if isinstance(gateway, dict) else None
    found = (
        sanitize(in_body, secrets, most=MAX_REQUEST_ID)
        if in_body
        else request_id_in(response.headers, secrets)
    )
    return found or None


def request_id_in(headers: httpx.Headers, secrets: tuple[str, ...] = ()) -> str | None:
    """Return the request id of a response whose body has none; None if the headers have none, either."""
    found = headers.get("x-request-id") or headers.get("x-trace-id") or ""
    return sanitize(found, secrets, most=MAX_REQUEST_ID) or None
