"""Calls to Atlassian's GraphQL gateway: each is one HTTP request, and uses one slot of the rate limit."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import httpx

from airflow_provider_forge.exceptions import (
    ConfigurationError,
    CredentialsBlocked,
    CredentialsRefused,
    QueryRefused,
    RateLimited,
    UnknownFailure,
)
from airflow_provider_forge.gateway.budget import BLOCKED_FOR, Priority
from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.gateway.pages import follow_pages
from airflow_provider_forge.gateway.queries import (
    APP_METRICS,
    ENVIRONMENTS,
    Query,
    app_ari,
    app_metrics_variables,
)
from airflow_provider_forge.gateway.responses import (
    AppData,
    EnvironmentsPage,
    GatewayResponse,
    MetricsData,
    read_app,
    read_resource_metrics,
    read_response,
)
from airflow_provider_forge.gateway.transport import Transport
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import MAX_WINDOW, expired_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import msgspec

    from airflow_provider_forge.gateway.pages import Cursor
    from airflow_provider_forge.gateway.ratelimit import RateLimiter
    from airflow_provider_forge.windows import Window

__all__ = ["AppMetrics", "GatewayClient"]

log = get_logger(__name__)

ATTEMPTS = 5
"""Attempts at a call that the gateway throttles, each after the wait that it asks for.

Another program with the same account may be faster a few times. If no call gets through, the task fails, so
that people notice."""

UNKNOWN_ATTEMPTS = 3
"""Attempts at a call that fails in an unknown way: it may be an outage, but is more likely a refusal."""

ATTENDED_PATIENCE = 2.0
"""Seconds until a slot can be reserved, for a call that a person is waiting for: enough if nothing is known
of the account's calls, because the first one is then possible after 61 s, and can be reserved 60 s before."""

MAX_PAGES = 20
"""Pages of a hundred environments each. Each costs a call, so a list without end would exhaust the budget."""

CREDENTIALS_BYTES = 3
"""Length of the hash that identifies refused credentials: too short to find a token by it, and long enough
that a new token is mistaken for the refused one only once in 17 million times."""


@dataclass(frozen=True)
class AppMetrics:
    """The metrics of one window, as received from the gateway.

    Attributes:
        app_id: UUID of the app.
        window: The requested time range.
        environments: The requested environments.
        metrics: The requested metric labels.
        left_out: Labels that were not requested, because the gateway does not know them.
        text: JSON text of an array of OTLP `ResourceMetrics`; `[]` if there was no traffic. A slice of the
            response, because a copy would be tens of megabytes.
        request_id: The gateway's id of the request.
        elapsed: Duration of the call in seconds.
        waited: Seconds spent waiting for the rate limit.
    """

    app_id: str
    window: Window
    environments: tuple[Environment, ...]
    metrics: tuple[str, ...]
    text: msgspec.Raw = field(repr=False)
    request_id: str | None
    elapsed: float
    waited: float
    left_out: tuple[str, ...] = ()

    @property
    def resource_metrics(self) -> bytes:
        """A copy of `text`."""
        return bytes(self.text)


Data = TypeVar("Data")
Content = TypeVar("Content")


@dataclass(frozen=True)
class _Result(Generic[Content]):
    content: Content
    request_id: str | None
    elapsed: float
    waited: float


class _RetryPolicy(NamedTuple):
    """How long and how often one call is attempted.

    Attributes:
        patience: Seconds to wait until a slot can be reserved; None for any time.
        attempts: Attempts at a call that the gateway throttles.
        unknown_attempts: Attempts at a call that fails in an unknown way.
    """

    patience: float | None
    attempts: int = ATTEMPTS
    unknown_attempts: int = UNKNOWN_ATTEMPTS


_ATTENDED = _RetryPolicy(ATTENDED_PATIENCE, attempts=1, unknown_attempts=1)


class GatewayClient:
    """A client of the gateway for one Atlassian account.

    Args:
        url: The GraphQL endpoint.
        email: The account's email.
        api_token: The account's API token.
        limiter: Shares the account's budget of calls.
        patience: Seconds to wait until a slot can be reserved; None for any time.
        timeout: Seconds for which the gateway may stay silent. A whole call may take three times as long.
        clock: Returns the current time, aware; decides which windows have expired.

    Attributes:
        secrets: Secrets to redact everywhere: the token, and the credentials of HTTP Basic.
        limiter: Shares the account's budget of calls.
        usage: The part of the budget that this client has used.
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
        self._policy = _RetryPolicy(patience)
        self._clock = clock
        auth = httpx.BasicAuth(email, api_token)
        self._transport = Transport(url, auth, self.secrets, usage=limiter.usage, timeout=timeout)

    def check(self, window: Window) -> None:
        """Reject a window that the gateway would refuse, before it costs a call.

        Raises:
            ConfigurationError: The window is longer than 15 minutes.
            WindowExpired: The window begins more than 14 days ago.
        """
        if window.end - window.start > MAX_WINDOW:
            raise ConfigurationError(
                "end", f"{window.humanize()} is longer than 15 minutes, the maximum of one call"
            )
        if window.expired(now := self._clock()):
            raise expired_error(window, now)

    def app_metrics(
        self,
        app_id: str,
        window: Window,
        environments: Sequence[Environment],
        metrics: Sequence[str],
        *,
        priority: Priority = Priority.BACKFILL,
    ) -> AppMetrics:
        """Fetch one window's metrics, in one call.

        Args:
            app_id: UUID.
            window: The time range, 15 minutes at most.
            environments: At least one.
            metrics: Labels, at least one.
            priority: Priority at the rate limit.

        Raises:
            ConfigurationError: The window is longer than 15 minutes; no call is made.
            WindowExpired: The window begins more than 14 days ago; no call is made.
            WindowTooLarge: The response would be too large: fetch the halves of the window.
            ForgeError: The gateway cannot be reached or reports a failure.
        """
        self.check(window)
        ids = [environment.id for environment in environments]
        query = Query(APP_METRICS, app_metrics_variables(app_id, window, ids, metrics), MetricsData, window)
        result = self._call(query, read_resource_metrics, priority, self._policy)
        return AppMetrics(
            app_id=app_id,
            window=window,
            environments=tuple(environments),
            metrics=tuple(metrics),
            text=result.content,
            request_id=result.request_id,
            elapsed=result.elapsed,
            waited=result.waited,
        )

    def environments(self, app_id: str, *, priority: Priority = Priority.BACKFILL) -> list[Environment]:
        """Fetch the app's environments, in one call per hundred.

        Args:
            app_id: UUID.
            priority: Priority at the rate limit.

        Raises:
            AccessForbidden: The account sees no such app.
            ForgeError: The gateway cannot be reached or reports a failure.
        """
        return [
            Environment.from_gateway(node.id, node.key, node.type)
            for page in self._pages(app_id, priority)
            for node in page.nodes or ()
            if node is not None
        ]

    def call(self, query: Query[Data], read: Callable[[GatewayResponse[Data]], Content]) -> Content:
        """Make one call for a person who is waiting and can repeat it: it waits for about a minute at most.

        Args:
            query: The query; errors of its tolerated field are left to `read`.
            read: Reads the result from the response.

        Raises:
            RateLimited: The rate limit asks for a longer wait. `retry_after` says how much longer.
            ForgeError: The gateway cannot be reached or reports another failure, or `read` raises it.
        """
        return self._call(query, read, Priority.LIVE, _ATTENDED).content

    def request(
        self,
        query: Query[Data],
        read: Callable[[GatewayResponse[Data]], Content],
        *,
        priority: Priority = Priority.LIVE,
    ) -> Content:
        """Make one call for a task, which waits for a slot as long as the client's patience.

        Args:
            query: The query; errors of its tolerated field are left to `read`.
            read: Reads the result from the response.
            priority: Priority at the rate limit.

        Raises:
            ForgeError: The gateway cannot be reached or reports a failure, or `read` raises it.
        """
        return self._call(query, read, priority, self._policy).content

    def _pages(self, app_id: str, priority: Priority) -> Iterator[EnvironmentsPage]:
        remedy = "Name the environments by their UUIDs, which need no lookup, and see"
        for cursor in follow_pages("the app's", "environments", most=MAX_PAGES, remedy=remedy):
            query = Query(ENVIRONMENTS, {"appId": app_ari(app_id), "after": cursor.after}, AppData)
            read = functools.partial(_read_page, app_id, cursor)
            yield self._call(query, read, priority, self._policy).content

    def _call(
        self,
        query: Query[Data],
        read: Callable[[GatewayResponse[Data]], Content],
        priority: Priority,
        policy: _RetryPolicy,
    ) -> _Result[Content]:
        """Make a call, and repeat it if the gateway throttles it or fails in an unknown way."""
        _ = self._transport.route  # an invalid proxy or certificate variable costs no call
        patience, attempts, unknown_attempts = policy
        waited = 0.0
        while True:
            http_response, elapsed, slept = self._send(query, priority, patience)
            waited += slept
            try:
                response = self._read(http_response, query)
                return _Result(read(response), response.request_id, elapsed, waited)
            except CredentialsRefused:
                self.limiter.block_credentials(self._credentials)
                raise
            except UnknownFailure as error:
                unknown_attempts -= 1
                if not unknown_attempts:
                    raise _as_refusal(error) from error
                log.warning("%s. The call will be retried", error)
            except RateLimited as error:
                self.limiter.pause(error.retry_after or None)
                attempts -= 1
                if not attempts:
                    raise
                log.warning("%s. All tasks of the account wait; then the call will be retried", error)

    def _send(
        self, query: Query[Any], priority: Priority, patience: float | None
    ) -> tuple[httpx.Response, float, float]:
        """Return the response, the duration of the request, and the seconds waited for the rate limit."""
        self._check_credentials()
        reservation = self.limiter.acquire(priority=priority, patience=patience)
        if query.window:
            self.check(query.window)  # it may have expired during the wait
        if reservation.waited:
            self._check_credentials()  # another task may have tried them during the wait
        content = {"query": query.document, "variables": query.variables}
        response, elapsed = self._transport.post(content, reservation, splittable=query.splittable)
        return response, elapsed, reservation.waited

    def _read(self, response: httpx.Response, query: Query[Data]) -> GatewayResponse[Data]:
        return read_response(
            response,
            query.data_type,
            now=self._clock(),
            secrets=(*self.secrets, *self._transport.route.secrets),
            splittable=query.splittable,
            tolerated_field=query.tolerated_field,
            via=self._transport.route.answered_by_proxy,
        )

    def _check_credentials(self) -> None:
        """Fail without a call while the credentials are blocked, because each attempt would cost a call.

        Raises:
            CredentialsBlocked: The gateway refused them less than a quarter of an hour ago.
        """
        if (left := self.limiter.blocked_for(self._credentials)) > 0:
            until = self._clock() + dt.timedelta(seconds=left)
            since = until - dt.timedelta(seconds=BLOCKED_FOR)
            raise CredentialsBlocked(
                f"Atlassian refused the credentials at {since:%H:%M:%S} UTC, so no call is made with them"
                f" before {until:%H:%M:%S} UTC. Put a new API token into the Forge Connection's password, or"
                " correct its login: changed credentials are not blocked. To try them at once, clear a"
                " waiting task. https://id.atlassian.com/manage/api-tokens",
                retry_after=left,
            )


def _as_refusal(error: UnknownFailure) -> QueryRefused:
    return QueryRefused(
        f"{error.message}. Because the failure persists, it counts as a refusal of the query",
        request_id=error.request_id,
    )


def _read_page(app_id: str, cursor: Cursor, response: GatewayResponse[AppData]) -> EnvironmentsPage:
    _, page = read_app(app_id, response)
    cursor.move(page.page_info, response)
    return page
