"""Calls to Atlassian's GraphQL gateway: one HTTP request each, each with a place at the rate limit."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx
import msgspec

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    BrokenAnswer,
    ConfigurationError,
    CredentialsRefused,
    QueryRefused,
    RateLimited,
    UnknownFailure,
)
from airflow_provider_forge.gateway.budget import REFUSED_FOR
from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.gateway.queries import APP_METRICS, ENVIRONMENTS, app_ari, app_metrics_variables
from airflow_provider_forge.gateway.responses import GatewayResponse, read_answer
from airflow_provider_forge.gateway.transport import Transport
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import MAX_WINDOW, expired_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_forge.gateway.ratelimit import RateLimiter
    from airflow_provider_forge.windows import Window

__all__ = ["AppMetrics", "GatewayClient"]

log = get_logger(__name__)

ATTENDED_PATIENCE = 2.0
"""Seconds before the minute for which a call sleeps that somebody waits for: enough where nothing is known of
the account's calls, so that the first one is possible after 61 s."""

ATTEMPTS = 5
"""How often a call is made that the gateway counts as one too many, each time after the wait it asks for.

Whoever else uses the account may be faster a few times; that no call ever gets through, people should see."""

MOST_PAGES = 20
"""Pages of a hundred environments each. Every one costs a call of the account's budget, so a list that never
ends would use all of it up."""

UNKNOWN_ATTEMPTS = 3
"""How often a call is made that fails in an unknown way: it may be an outage, but more likely is a
refusal."""

CREDENTIALS_BYTES = 3
"""Length of the hash by which refused credentials are known: too short to find out a token by it, and long
enough that a new token is taken for the refused one once in 17 million times."""


@dataclass(frozen=True)
class AppMetrics:
    """The metrics of one window, as the gateway gave them.

    Attributes:
        app_id: UUID of the app.
        window: The time range that was asked for.
        environments: The environments that were asked for.
        metrics: The metric labels that were asked for.
        text: JSON text of an array of OTLP `ResourceMetrics`; `[]` is no traffic. A slice of what the gateway
            sent, because a copy would be tens of megabytes.
        request_id: The gateway's id of the request.
        elapsed: Seconds that the call took.
        waited: Seconds that it waited for its place at the rate limit.
    """

    app_id: str
    window: Window
    environments: tuple[Environment, ...]
    metrics: tuple[str, ...]
    text: msgspec.Raw = field(repr=False)
    request_id: str | None
    elapsed: float
    waited: float

    @property
    def resource_metrics(self) -> bytes:
        """A copy of `text`."""
        return bytes(self.text)


Data = TypeVar("Data")
Content = TypeVar("Content")


@dataclass(frozen=True)
class _Call(Generic[Content]):
    content: Content
    request_id: str | None
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
        patience: Seconds for which a call waits before it has a place; None for any time.
        timeout: Seconds that the gateway may stay silent; a call may take three times as long as a whole.
        clock: Returns the present, aware; it decides which windows are older than the gateway's 14 days.

    Attributes:
        secrets: What must appear nowhere: the token, and what HTTP Basic makes of it.
        limiter: Shares the account's budget of calls.
        usage: What was taken of the account's budget.
    """

    def __init__(
        self,
        url: str,
        email: str,
        api_token: str,
        *,
        limiter: RateLimiter,
        patience: float | None = None,
        timeout: float = 60.0,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
    ) -> None:
        self.secrets = (api_token, base64.b64encode(f"{email}:{api_token}".encode()).decode())
        digest = hashlib.blake2b(f"{email}\n{api_token}".encode(), digest_size=CREDENTIALS_BYTES)
        self._credentials = digest.hexdigest()
        self.limiter = limiter
        self.usage = limiter.usage
        self._patience = patience
        self._clock = clock
        auth = httpx.BasicAuth(email, api_token)
        self._transport = Transport(url, auth, self.secrets, usage=limiter.usage, timeout=timeout)

    def check(self, window: Window) -> None:
        """Refuse a window that the gateway would refuse, before it costs a call.

        Raises:
            ConfigurationError: It is longer than 15 minutes.
            WindowExpired: It begins more than 14 days ago.
        """
        if window.end - window.start > MAX_WINDOW:
            raise ConfigurationError(
                "end", f"{window} is longer than the 15 minutes that one call may ask for"
            )
        if window.expired(now := self._clock()):
            raise expired_error(f"The window {window}", now)

    def app_metrics(
        self,
        app_id: str,
        window: Window,
        environments: Sequence[Environment],
        metrics: Sequence[str],
        *,
        live: bool = False,
    ) -> AppMetrics:
        """Ask for one window's metrics, in one call.

        Args:
            app_id: UUID.
            window: The time range.
            environments: At least one.
            metrics: Labels, at least one.
            live: Whether it goes before the calls that are not, where both wait for the rate limit.

        Raises:
            ConfigurationError: The window is longer than 15 minutes; no call is made.
            WindowExpired: It begins more than 14 days ago; no call is made.
            WindowTooLarge: It is too much for one answer: ask for its halves.
            ForgeError: The gateway cannot be reached or reports a failure.
        """
        self.check(window)
        ids = [environment.id for environment in environments]
        variables = app_metrics_variables(app_id, window, ids, metrics)
        call = self._call(APP_METRICS, variables, _MetricsData, _resource_metrics, window=window, live=live)
        return AppMetrics(
            app_id=app_id,
            window=window,
            environments=tuple(environments),
            metrics=tuple(metrics),
            text=call.content,
            request_id=call.request_id,
            elapsed=call.elapsed,
            waited=call.waited,
        )

    def environments(self, app_id: str, *, live: bool = False) -> list[Environment]:
        """Ask for the app's environments: one call, and another one for each further hundred.

        Args:
            app_id: UUID.
            live: As in `app_metrics`.

        Raises:
            AccessForbidden: The account sees no such app.
            ForgeError: The gateway cannot be reached or reports a failure.
        """
        return list(self._pages(app_id, live=live))

    def ask(
        self,
        document: str,
        variables: dict[str, Any],
        kind: type[Data],
        read: Callable[[GatewayResponse[Data]], Content],
        *,
        tolerated_field: str,
    ) -> Content:
        """Make one call and return what `read` makes of its answer.

        Somebody is waiting for it, who can ask again: it sleeps for a minute at most before the call.

        Args:
            document: GraphQL.
            variables: Its.
            kind: What the answer's `data` are.
            read: Reads the answer.
            tolerated_field: A field of the document's whose failures are left to `read`.

        Raises:
            RateLimited: The account's calls are taken for longer; `retry_after` says when to come back.
            ForgeError: The gateway cannot be reached or reports another failure, or `read` raises it.
        """
        return self._call(
            document, variables, kind, read, live=True, tolerated_field=tolerated_field, attended=True
        ).content

    def _pages(self, app_id: str, *, live: bool) -> Iterator[Environment]:
        after: str | None = None
        cursors: set[str | None] = {None}
        for _ in range(MOST_PAGES):
            read = functools.partial(_page_of_environments, app_id, cursors)
            variables = {"appId": app_ari(app_id), "after": after}
            page = self._call(ENVIRONMENTS, variables, _AppData, read, live=live).content
            for node in page.nodes or ():
                if node is not None:
                    yield Environment.from_gateway(node.id, node.key, node.type)
            if not page.pageInfo.hasNextPage:
                return
            cursors.add(after := page.pageInfo.endCursor)
        raise BrokenAnswer(
            f"The gateway's list of the app's environments has no end: {MOST_PAGES} pages were read. Name the"
            " environments by their UUIDs, which need no look-up, and see https://developer.status.atlassian.com"
        )

    def _call(
        self,
        document: str,
        variables: dict[str, Any],
        kind: type[Data],
        read: Callable[[GatewayResponse[Data]], Content],
        *,
        window: Window | None = None,
        live: bool,
        tolerated_field: str | None = None,
        attended: bool = False,
    ) -> _Call[Content]:
        """Make a call, and make it again where the gateway counted too many of the account."""
        waited = 0.0
        _ = self._transport.route  # what is wrong with the machine's variables costs no call
        attempts, patience = (1, ATTENDED_PATIENCE) if attended else (ATTEMPTS, self._patience)
        unknown = 1 if attended else UNKNOWN_ATTEMPTS
        while True:
            self._check_credentials()
            place = self.limiter.acquire(live=live, patience=patience)
            if window:
                self.check(window)  # it may have expired meanwhile
            if place.waited:
                self._check_credentials()  # others may have tried them
            response, elapsed = self._transport.post(
                {"query": document, "variables": variables}, place, splittable=window is not None
            )
            waited += place.waited
            try:
                answer = read_answer(
                    response,
                    kind,
                    now=self._clock(),
                    secrets=(*self.secrets, *self._transport.route.secrets),
                    splittable=window is not None,
                    tolerated_field=tolerated_field,
                    via=self._transport.route.answered_by_proxy,
                )
                return _Call(read(answer), answer.request_id, elapsed, waited)
            except CredentialsRefused:
                self.limiter.refuse(self._credentials)
                raise
            except UnknownFailure as error:
                unknown -= 1
                if not unknown:
                    raise _refused(error) from error
                log.warning("%s. The call is made again", error)
            except RateLimited as error:
                self.limiter.pause(error.retry_after or None)
                attempts -= 1
                if not attempts:
                    raise
                log.warning("%s. All tasks of the account wait; then this call is made again", error)

    def _check_credentials(self) -> None:
        """Raise the error at once where they were refused a short while ago: each try would cost a call.

        Raises:
            CredentialsRefused: Nobody tries them now.
        """
        if (left := self.limiter.refused(self._credentials)) > 0:
            until = self._clock() + dt.timedelta(seconds=left)
            since = until - dt.timedelta(seconds=REFUSED_FOR)
            raise CredentialsRefused(
                f"Atlassian refused the credentials at {since:%H:%M:%S} UTC, so no call is made with them"
                f" before {until:%H:%M:%S} UTC. Put a new API token into the Forge Connection's password, or"
                " correct its login: that is tried at once. https://id.atlassian.com/manage/api-tokens"
            )


def _refused(error: UnknownFailure) -> QueryRefused:
    return QueryRefused(
        f"{error.message}. It is taken for a refusal of the query, because it did not pass",
        request_id=error.request_id,
    )


def _resource_metrics(answer: GatewayResponse[_MetricsData]) -> msgspec.Raw:
    ecosystem = answer.data.ecosystem or answer.broken("null as ecosystem")
    forge_metrics = ecosystem.forgeMetrics or answer.broken("null as forgeMetrics")
    result = forge_metrics.appMetrics or answer.broken("null as appMetrics")
    start = bytes(memoryview(result.resourceMetrics)[:1])
    if start == b"n":
        answer.fail(result.message, result.extensions)
    if start != b"[":
        answer.broken("resourceMetrics that are no array")
    return result.resourceMetrics


def _page_of_environments(app_id: str, cursors: set[str | None], answer: GatewayResponse[_AppData]) -> _Page:
    app = answer.data.app
    if app is None:
        raise AccessForbidden(
            f"Atlassian shows this account no app {app_id}. Check app_id (`app.id` in manifest.yml), and that"
            " the API token belongs to the account that owns the app",
            request_id=answer.request_id,
        )
    page = app.environmentsPage or answer.broken("null as environmentsPage")
    if page.pageInfo.hasNextPage and page.pageInfo.endCursor in cursors:
        answer.broken("a page of environments whose end is no beginning of another one")
    return page
