"""Access to Atlassian's App metrics and App resource usage APIs, as a Connection describes it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import urllib.parse
from typing import TYPE_CHECKING

from airflow_provider_forge.connection_forms import FORGE
from airflow_provider_forge.connections.extras import (
    Extras,
    find_redis,
    host_of,
    problem_of_url,
    secret_of,
)
from airflow_provider_forge.exceptions import ConfigurationError, ForgeError
from airflow_provider_forge.files import shared_directory
from airflow_provider_forge.gateway.budget import Priority
from airflow_provider_forge.gateway.queries import (
    DEFAULT_METRICS,
    GROUPINGS,
    RESOURCES,
    parse_app_id,
    parse_choice,
    parse_list,
    parse_metrics,
)
from airflow_provider_forge.http import check_cleartext, check_url
from airflow_provider_forge.windows import Window, parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_forge.connections.runtime import Connection, Runtime
    from airflow_provider_forge.gateway.client import AppMetrics, GatewayClient
    from airflow_provider_forge.gateway.environments import (
        Environment,
        EnvironmentDirectory,
        LayeredStateStore,
    )
    from airflow_provider_forge.gateway.labels import LabelDirectory
    from airflow_provider_forge.gateway.ratelimit import LimitStore, LimitUsage
    from airflow_provider_forge.gateway.usage import ResourceUsage
    from airflow_provider_forge.usage.prices import Prices

__all__ = ["TYPE_NAME", "ForgeAccess"]

TYPE_NAME = "Atlassian Forge"
"""Name of the type of Connection in Airflow's form."""

GATEWAY_URL = "https://api.atlassian.com/graphql"

_PORTS = {"http": 80, "https": 443}


class ForgeAccess:
    """Fetches the metrics and the usage of Forge apps, within Atlassian's rate limit.

    Args:
        forge_conn_id: Id of the Connection, of type `forge`; `ForgeMetricsHook` lists its fields.
        runtime: Reads the Connection.
        app_id: ARI or UUID of the app; default is the Connection's.
        patience: Maximum time in seconds for which `fetch` waits for a reservation in the rate limit. It then
            sleeps at most a minute until its slot. None for no maximum.

    Attributes:
        runtime: The same.
    """

    def __init__(
        self,
        forge_conn_id: str,
        runtime: Runtime,
        *,
        app_id: str | None = None,
        patience: float | None = None,
    ) -> None:
        self.forge_conn_id = forge_conn_id
        self.runtime = runtime
        self._app_id = app_id
        self._patience = patience
        self._client: GatewayClient | None = None
        self._usage_client: GatewayClient | None = None
        self._connection: Connection | None = None
        self._memory: LayeredStateStore | None = None

    def fetch(
        self,
        start: dt.datetime | str,
        end: dt.datetime | str,
        environments: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] | None = None,
    ) -> AppMetrics:
        """Fetch the metrics of one window, in one call, after waiting for the rate limit.

        Args:
            start: Start of the window, inclusive; aware, or ISO 8601 text with a UTC offset.
            end: End of the window, exclusive; at most 15 minutes after the start.
            environments: Names, UUIDs or ARIs; default is the Connection's.
            metrics: Metric labels; default is the Connection's.

        Returns:
            The gateway's OTLP/JSON, unchanged; `waited` includes the waits of looking up environments.

        Raises:
            ConfigurationError: An argument or a Connection field is wrong; no metrics call is made.
            WindowExpired: The window begins more than 14 days ago; no call is made.
            CredentialsRefused, CredentialsBlocked: The email or the token is wrong, or the token has expired.
            AccessForbidden: The account may not read this app's metrics.
            QueryRefused: The gateway refused the query.
            RateLimited: All calls of the account are reserved for longer than `patience`, or the gateway
                still counts too many calls; `retry_after` is the time to wait.
            RateLimitUnavailable: The store of the rate limit cannot be used at present.
            SecretsUnavailable: Airflow cannot read a Connection or a Variable at present.
            GatewayUnavailable: The gateway failed or did not answer.
            BrokenAnswer: The gateway's response is malformed.
            WindowTooLarge: The window is too large for one response: fetch its halves.
        """
        window = Window(parse_time("start", start), parse_time("end", end))
        wanted, labels = self.selection(environments, metrics)
        client = self.get_conn()
        app_id = self.app_id
        waited_before = client.usage.waited
        # Before looking up environments, which costs a call.
        client.check(window)
        live = window.is_live(dt.datetime.now(dt.timezone.utc))
        priority = Priority.LIVE if live else Priority.BACKFILL
        found = self._directory(priority).find(wanted)
        answer = self._labels().fetch(
            labels, lambda known: client.app_metrics(app_id, window, found, known, priority=priority)
        )
        left_out = tuple(label for label in labels if label not in answer.metrics)
        # Looking up environments waits for the rate limit, too.
        return dataclasses.replace(answer, waited=client.usage.waited - waited_before, left_out=left_out)

    def left_out_metrics(self) -> tuple[str, ...]:
        """Return the Connection's metrics that the gateway does not know, as found in the last day; no call.

        Includes what other tasks found: on this machine or, if the rate limit is in Redis, on any machine.

        Raises:
            ConfigurationError: A field of the Connection is missing or wrong.
        """
        return self._labels().left_out(self.selection()[1])

    def fetch_usage(
        self,
        resource: str,
        start: dt.datetime | str,
        end: dt.datetime | str,
        environments: str | Sequence[str] | None = None,
        group_by: str | None = None,
    ) -> ResourceUsage:
        """Fetch the usage of one resource: all pages, one call each, within a rate limit of its own.

        Args:
            resource: One of `RESOURCES`, such as `FUNCTION_COMPUTE`.
            start: Start of the time range, inclusive; aware, or ISO 8601 text with a UTC offset. Atlassian
                keeps about 60 days.
            end: End of the time range, exclusive.
            environments: Names, UUIDs or ARIs, each fetched by calls of its own; None for all together.
            group_by: `ENVIRONMENT_ID` or `CONTEXT_ARI` (by site); None for totals.

        Raises:
            ConfigurationError: An argument or a Connection field is wrong; no call for usage is made.
            QueryRefused: The gateway refused the query, or does not know the resource.
            ForgeError: As for `fetch`.
        """
        from airflow_provider_forge.gateway.usage import UsageQuery, read_usage

        parse_choice("resource", resource, RESOURCES)
        if group_by is not None:
            parse_choice("group_by", group_by, tuple(GROUPINGS.values()))
        interval = Window(parse_time("start", start), parse_time("end", end))
        ids: tuple[str, ...] = ()
        if environments is not None and environments != "":
            found = self.find_environments(parse_list("environments", environments))
            ids = tuple(environment.id for environment in found)
        if self._usage_client is None:
            self._usage_client = self._new_client("usage")
        query = UsageQuery(self.app_id, resource, interval, ids, group_by)
        return read_usage(self._usage_client, query, dt.datetime.now(dt.timezone.utc))

    def find_environments(self, wanted: Sequence[str]) -> tuple[Environment, ...]:
        """Return the app's environments of these names, UUIDs or ARIs; raises as `fetch`."""
        return self._directory(Priority.LIVE).find(wanted)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the Connection works, and a message: the form's Test button. Makes one call."""
        from airflow_provider_forge.connections.archive import open_archive
        from airflow_provider_forge.connections.checks import (
            check_credentials,
            check_gateway,
            describe_problem,
        )

        try:
            Extras(self._conn()).check_names()
            # Checked here as well, because a task may never use them.
            _ = self.token_expires_on, self.service_name, self.usage_prices
            if self.archive_url:
                open_archive(self)
            if not self._raw_app_id():
                return check_credentials(self.get_conn())
            environments, metrics = self.selection()
            return check_gateway(self.get_conn(), self.app_id, environments, metrics, self._labels())
        except ForgeError as error:
            return False, describe_problem(error, self.forge_conn_id)

    def get_conn(self) -> GatewayClient:
        """Return the client of the Connection's account, made by the first call.

        Raises:
            ConfigurationError: A field of the Connection is missing or wrong.
        """
        if self._client is None:
            self._client = self._new_client()
        return self._client

    def _new_client(self, budget: str = "") -> GatewayClient:
        """Return a client of the Connection's account, for calls of one of its budgets."""
        from airflow_provider_forge.gateway.client import GatewayClient
        from airflow_provider_forge.gateway.ratelimit import RateLimiter

        connection = self._conn()
        extras = Extras(connection)
        email, token, url = connection.login, secret_of(connection), self._url()
        if not email:
            extras.fail("login", "is missing: give the email of the Atlassian account that owns the app")
        if not token:
            extras.fail(
                "password", "is missing: create an API token at https://id.atlassian.com/manage/api-tokens"
            )
        if token != token.strip():
            extras.fail("password", "has whitespace around it: paste the API token without it")
        check_cleartext(extras.label("host"), url, allowed=extras.flag("allow_cleartext"))
        client = GatewayClient(
            url,
            email,
            token,
            limiter=RateLimiter(self._limit_store(email, budget)),
            patience=self._patience,
            timeout=extras.number("timeout", 60),
        )
        # Airflow masks the password, but not its encoding for HTTP Basic.
        for secret in client.secrets:
            self.runtime.mask(secret)
        return client

    @property
    def rate_limit(self) -> tuple[int, float]:
        """The account's rate limit: a number of calls, and the seconds in which it may make them."""
        extras = Extras(self._conn())
        return extras.whole_number("rate_limit_calls", 5), extras.number("rate_limit_seconds", 60)

    @property
    def usage(self) -> LimitUsage:
        """Use of the rate limit for metrics: calls and waits; without those of `fetch_usage`."""
        from airflow_provider_forge.gateway.ratelimit import LimitUsage

        return LimitUsage() if self._client is None else self._client.usage

    @property
    def app_id(self) -> str:
        """UUID of the app.

        Raises:
            ConfigurationError: The app's id is missing or malformed.
        """
        app_id = self._raw_app_id()
        if not app_id:
            raise ConfigurationError(
                "app_id",
                f"is missing: set the extra app_id of {self.forge_conn_id} (`app.id` in manifest.yml)",
            )
        return parse_app_id(app_id)

    @property
    def service_name(self) -> str | None:
        """The Connection's `service_name`; None if it is not set."""
        return Extras(self._conn()).text("service_name")

    @property
    def usage_prices(self) -> Prices:
        """Atlassian's prices, with the Connection's in their place; raises `ConfigurationError`."""
        from airflow_provider_forge.usage.prices import load_prices

        extras = Extras(self._conn())
        return load_prices(extras.get("usage_prices"), extras.label("usage_prices"))

    @property
    def token_expires_on(self) -> dt.date | None:
        """Last day of the API token, from the Connection; None if it is not set.

        Raises:
            ConfigurationError: The field is not a date.
        """
        extras = Extras(self._conn())
        text = extras.text("token_expires_on")
        try:
            return dt.date.fromisoformat(text) if text else None
        except ValueError:
            # The value is not shown: someone may have put the token itself here.
            extras.fail("token_expires_on", "is not a date; give one such as 2027-01-31")

    @property
    def archive_url(self) -> str | None:
        """URL of the archive of raw windows, for fsspec; None if the Connection has none.

        Raises:
            ConfigurationError: The extra is not a URL, or contains a password.
        """
        extras = Extras(self._conn())
        url = extras.text("archive_url")
        if url and (problem := problem_of_url(url)):
            extras.fail("archive_url", problem)
        return url

    def selection(
        self,
        environments: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] | None = None,
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the environments and metrics: the arguments, or else the Connection's.

        Raises:
            ConfigurationError: An argument or field is malformed or empty.
        """
        extras = Extras(self._conn())
        # A template of an unset value renders an empty text; an empty list is a mistake.
        if metrics is None or metrics == "":
            metrics = extras.get("metrics", DEFAULT_METRICS)
        if environments is None or environments == "":
            environments = extras.get("environments", "production")
        labels = parse_metrics(metrics)
        return parse_list("environments", environments), labels

    @property
    def redis_url(self) -> str | None:
        """URL of the Redis with the rate limit, including its password; None if the rate limit is in a file.

        Raises:
            ConfigurationError: The extra is malformed, or its Connection does not exist.
        """
        extras = Extras(self._conn())
        return find_redis(self.runtime, extras, extras.text("rate_limit_store", "file") or "file")

    def _conn(self) -> Connection:
        if self._connection is None:
            self._connection = self.runtime.connection("forge_conn_id", self.forge_conn_id, TYPE_NAME)
        return self._connection

    def _raw_app_id(self) -> str | None:
        return self._app_id or Extras(self._conn()).text("app_id")

    def _limit_store(self, email: str, budget: str) -> LimitStore:
        from airflow_provider_forge.gateway.ratelimit_stores import FileStore, RedisStore

        # The budget of metrics has no name, because its key must stay that of earlier versions.
        parts = [email.lower(), self._gateway(), *([budget] if budget else [])]
        account = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        calls, seconds = self.rate_limit
        if url := self.redis_url:
            return RedisStore(url, account, calls=calls, seconds=seconds)
        return FileStore(shared_directory() / f"{account}.json", calls=calls, seconds=seconds)

    def _url(self) -> str:
        url = host_of(self._conn(), FORGE.unused) or GATEWAY_URL
        check_url(f"{self.forge_conn_id}: host", url, example=GATEWAY_URL)
        return url

    def _gateway(self) -> str:
        """Return the gateway's host, and its port if it is not the default: equal for equivalent URLs."""
        parts = urllib.parse.urlsplit(self._url())
        is_default = parts.port in (None, _PORTS[parts.scheme])
        return str(parts.hostname) if is_default else f"{parts.hostname}:{parts.port}"

    def _labels(self) -> LabelDirectory:
        from airflow_provider_forge.gateway.labels import LabelDirectory

        return LabelDirectory(self.get_conn().limiter.store.state_store(f"labels_{self._gateway()}"))

    def _directory(self, priority: Priority) -> EnvironmentDirectory:
        from airflow_provider_forge.gateway.environments import EnvironmentDirectory, LayeredStateStore

        app_id, client = self.app_id, self.get_conn()
        if self._memory is None:
            name = f"{app_id}_{self._gateway()}"
            shared = self.runtime.state_store(
                f"forge_environments_{name}",
                "Environments of a Forge app, looked up by airflow-provider-forge",
            )
            beside = client.limiter.store.state_store(f"environments_{name}")
            self._memory, self._lock = LayeredStateStore(shared, beside), beside.lock
        return EnvironmentDirectory(
            app_id, lambda: client.environments(app_id, priority=priority), self._memory, lock=self._lock
        )
