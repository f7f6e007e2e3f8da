"""Calls to Atlassian's GraphQL gateway: one HTTP request each, each with a place at the rate limit."""

from __future__ import annotations

import base64
import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    ConfigurationError,
    ForgeError,
    GatewayUnavailable,
    WindowTooLarge,
)
from airflow_provider_forge.gateway.answer import HALVES, Answer, read_answer, request_id_in
from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.gateway.query import (
    APP_METRICS,
    ENVIRONMENTS,
    app_ari,
    app_metrics_variables,
)
from airflow_provider_forge.gateway.windows import LONGEST, too_old
from airflow_provider_forge.http import USER_AGENT, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_forge.gateway.ratelimit import FileRateLimiter
    from airflow_provider_forge.gateway.windows import Window

__all__ = ["AppMetrics", "GatewayClient"]

CONNECT_TIMEOUT = 10.0
"""Seconds; a gateway that does not take a connection by then will not."""


@dataclass(frozen=True)
class AppMetrics:
    """The metrics of one window, as the gateway gave them.

    Attributes:
        app_id: UUID of the app.
        window: The time range that was asked for.
        environments: The environments that were asked for.
        metrics: The metric labels that were asked for.
        resource_metrics: JSON text of an array of OTLP `ResourceMetrics`, byte for byte; `[]` is no traffic.
        request_id: The gateway's id of the request.
        elapsed: Seconds that the call took.
        waited: Seconds that it waited for its place at the rate limit.
    """

    app_id: str
    window: Window
    environments: tuple[Environment, ...]
    metrics: tuple[str, ...]
    resource_metrics: bytes
    request_id: str | None
    elapsed: float
    waited: float


@dataclass(frozen=True)
class _Call:
    answer: Answer
    elapsed: float
    waited: float


# Atlassian's own field names; what is null in a failure may be null here.
class _AppMetricsResult(msgspec.Struct):
    resourceMetrics: msgspec.Raw = msgspec.Raw(b"null")  # noqa: N815
    message: Any = None
    identifier: Any = None
    extensions: Any = None


class _ForgeMetrics(msgspec.Struct):
    appMetrics: _AppMetricsResult | None = None  # noqa: N815


class _Ecosystem(msgspec.Struct):
    forgeMetrics: _ForgeMetrics | None = None  # noqa: N815


class _MetricsData(msgspec.Struct):
    ecosystem: _Ecosystem | None = None


class _Node(msgspec.Struct):
    id: str
    key: str
    type: str


class _PageInfo(msgspec.Struct):
    hasNextPage: bool  # noqa: N815
    endCursor: str | None = None  # noqa: N815


class _Page(msgspec.Struct):
    pageInfo: _PageInfo  # noqa: N815
    nodes: list[_Node | None] | None = None


class _App(msgspec.Struct):
    environmentsPage: _Page | None = None  # noqa: N815


class _AppData(msgspec.Struct):
    app: _App | None = None


class GatewayClient:
    """One Atlassian account at one gateway.

    Args:
        url: The GraphQL endpoint.
        email: The account's email.
        api_token: The account's API token.
        limiter: Shares the account's budget of calls.
        timeout: Seconds that the gateway may stay silent.
        clock: Returns the present, aware; it decides which windows are older than the gateway's 14 days.

    Attributes:
        secrets: What must appear nowhere: the token, and what HTTP Basic makes of it.
    """

    def __init__(
        self,
        url: str,
        email: str,
        api_token: str,
        *,
        limiter: FileRateLimiter,
        timeout: float = 60.0,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
    ) -> None:
        self._url = url
        self._auth = httpx.BasicAuth(email, api_token)
        self.secrets = (api_token, base64.b64encode(f"{email}:{api_token}".encode()).decode())
        self._limiter = limiter
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))
        self._clock = clock

    def check(self, window: Window) -> None:
        """Refuse a window that the gateway would refuse, before it costs a call.

        Raises:
            ConfigurationError: It is longer than 15 minutes.
            WindowExpired: It begins more than 14 days ago.
        """
        if window.end - window.start > LONGEST:
            raise ConfigurationError(
                "end", f"{window} is longer than the 15 minutes that one call may ask for"
            )
        if window.expired(now := self._clock()):
            raise too_old(f"The window {window}", now)

    def app_metrics(
        self, app_id: str, window: Window, environments: Sequence[Environment], metrics: Sequence[str]
    ) -> AppMetrics:
        """Ask for one window's metrics, in one call.

        Raises:
            ConfigurationError: The window is longer than 15 minutes; no call is made.
            WindowExpired: It begins more than 14 days ago; no call is made.
            WindowTooLarge: It is too much for one answer: ask for its halves.
            ForgeError: The gateway cannot be reached or reports a failure.
        """
        self.check(window)
        ids = [environment.id for environment in environments]
        call = self._call(APP_METRICS, app_metrics_variables(app_id, window, ids, metrics), window)
        return AppMetrics(
            app_id=app_id,
            window=window,
            environments=tuple(environments),
            metrics=tuple(metrics),
            resource_metrics=_resource_metrics(call.answer),
            request_id=call.answer.request_id,
            elapsed=call.elapsed,
            waited=call.waited,
        )

    def environments(self, app_id: str) -> list[Environment]:
        """Ask for the app's environments: one call, and another one for each further hundred.

        Raises:
            AccessForbidden: The account sees no such app.
            ForgeError: The gateway cannot be reached or reports a failure.
        """
        return list(self._pages(app_id))

    def ask(
        self, document: str, variables: dict[str, Any], read: Callable[[Answer], Any], *, spared: str
    ) -> Any:
        """Make one call and return what `read` makes of its answer.

        Args:
            document: GraphQL.
            variables: Its.
            read: Reads the answer.
            spared: A field of the document's whose failures are left to `read`.

        Raises:
            ForgeError: The gateway cannot be reached or reports another failure, or `read` raises it.
        """
        return read(self._call(document, variables, spared=spared).answer)

    def _pages(self, app_id: str) -> Iterator[Environment]:
        after: str | None = None
        while True:
            call = self._call(ENVIRONMENTS, {"appId": app_ari(app_id), "after": after})
            answer = call.answer
            data: _AppData = answer.decode(_AppData | None) or answer.broken("null as data")
            app = data.app
            if app is None:
                raise AccessForbidden(
                    f"Atlassian shows this account no app {app_id}. Check app_id (`app.id` in manifest.yml),"
                    " and that the API token belongs to the account that owns the app",
                    request_id=answer.request_id,
                )
            page = app.environmentsPage
            if page is None:
                answer.broken("null as environmentsPage")
            for node in page.nodes or ():
                if node is not None:
                    yield Environment.from_gateway(node.id, node.key, node.type)
            if not page.pageInfo.hasNextPage:
                return
            if page.pageInfo.endCursor in (None, after):
                answer.broken("a page of environments whose end is no beginning of the next")
            after = page.pageInfo.endCursor

    def _call(
        self,
        document: str,
        variables: dict[str, Any],
        window: Window | None = None,
        *,
        spared: str | None = None,
    ) -> _Call:
        place = self._limiter.acquire()
        if window:
            self.check(window)  # it may have expired meanwhile

        def trace(event: str, _: Any) -> None:
            if event.endswith("send_request_headers.started"):
                place.use()

        started = time.monotonic()
        response = None
        try:
            with (
                httpx.Client(timeout=self._timeout) as client,
                client.stream(
                    "POST",
                    self._url,
                    json={"query": document, "variables": variables},
                    auth=self._auth,
                    headers={"User-Agent": USER_AGENT, "X-ExperimentalApi": "ForgeMetricsQuery"},
                    extensions={"trace": trace},
                ) as response,
            ):
                response.read()
        except httpx.RequestError as error:
            request_id = request_id_in(response.headers) if response else None
            raise self._no_answer(error, window, request_id) from error
        elapsed = time.monotonic() - started
        answer = read_answer(
            response,
            now=self._clock(),
            secrets=self.secrets,
            of_window=window is not None,
            spared=spared,
        )
        return _Call(answer, elapsed, place.waited)

    def _no_answer(
        self, error: httpx.RequestError, window: Window | None, request_id: str | None
    ) -> ForgeError:
        what = (
            f"No answer from {httpx.URL(self._url).host} ({type(error).__name__}:"
            f" {quote(str(error), self.secrets)})"
        )
        if window and isinstance(error, httpx.ReadTimeout):
            return WindowTooLarge(
                f"{what}: the window may be too much for one answer. {HALVES}", request_id=request_id
            )
        return GatewayUnavailable(
            f"{what}. It is asked again; should that not end, check the Forge Connection's host, timeout and"
            " network",
            request_id=request_id,
        )


def _resource_metrics(answer: Answer) -> bytes:
    data: _MetricsData = answer.decode(_MetricsData | None) or answer.broken("null as data")
    ecosystem = data.ecosystem or answer.broken("null as ecosystem")
    forge_metrics = ecosystem.forgeMetrics or answer.broken("null as forgeMetrics")
    result = forge_metrics.appMetrics or answer.broken("null as appMetrics")
    metrics = bytes(result.resourceMetrics)
    if metrics == b"null":
        answer.fail(result.message, result.extensions)
    if not metrics.startswith(b"["):
        answer.broken("resourceMetrics that are no array")
    return metrics
