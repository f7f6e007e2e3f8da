"""The hook for Atlassian's App metrics API."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_forge.connection_forms import FORGE
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.http import check_cleartext, check_url
from airflow_provider_forge.utils.connections import Extras, find_connection, host_of, secret_of
from airflow_provider_forge.utils.masking import mask_secret
from airflow_provider_forge.utils.shared import find_redis, named_connection, shared_directory
from airflow_provider_forge.utils.variables import VariableStateStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_forge.gateway.budget import Priority
    from airflow_provider_forge.gateway.client import AppMetrics, GatewayClient
    from airflow_provider_forge.gateway.environments import EnvironmentDirectory, LayeredStateStore
    from airflow_provider_forge.gateway.permissions import Permissions
    from airflow_provider_forge.gateway.ratelimit import LimitStore, Usage

__all__ = ["ForgeMetricsHook"]

GATEWAY_URL = "https://api.atlassian.com/graphql"

_PORTS = {"http": 80, "https": 443}


class ForgeMetricsHook(BaseHook):
    """Fetches the metrics of Forge apps, within Atlassian's limit of calls.

    Connection, of type `forge`:

    ==================== ==============================================================================
    login                email of the Atlassian account that owns the app
    password             API token of that account
    host                 gateway URL; default `https://api.atlassian.com/graphql`
    extra                ``app_id`` (ARI or UUID), ``environments`` (list or comma-separated names, UUIDs
                         or ARIs; default ``production``), ``metrics`` (labels; default the five
                         ``FORGE_*`` ones of Atlassian's page), ``service_name``, ``token_expires_on``
                         (date such as ``2027-01-31``), ``allow_cleartext`` (``true`` permits an
                         ``http://`` host on another machine), ``timeout`` (seconds, 60),
                         ``rate_limit_calls`` (5), ``rate_limit_seconds`` (60),
                         ``rate_limit_store`` (default ``file``; for several machines ``redis://…``,
                         ``rediss://…``, or ``redis_conn:<id>`` of a Connection of type redis)
    ==================== ==============================================================================

    All processes share the limit of an account: those of one machine through a file in the directory for
    temporary files (`TMPDIR`), those of several through a Redis. Environment ids that were looked up are
    remembered in an Airflow Variable for each app, ``forge_environments_<app>_<gateway>``, and beside the
    limit, for callers that cannot write the Variable.

    Args:
        forge_conn_id: Id of the Connection.
        app_id: ARI or UUID of the app; default is the Connection's.
        patience: Seconds for which `fetch` waits before it has a place at the rate limit, for which it then
            sleeps for a minute at most; None for any time.
    """

    conn_name_attr = "forge_conn_id"
    default_conn_name = "forge_default"
    conn_type = "forge"
    hook_name = "Atlassian Forge"

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's own fields, to Airflow before 3.2."""
        return FORGE.widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return what becomes of Airflow's fields in the form, to Airflow before 3.2."""
        return FORGE.ui_field_behaviour("_")

    def __init__(
        self,
        forge_conn_id: str = default_conn_name,
        *,
        app_id: str | None = None,
        patience: float | None = None,
    ) -> None:
        super().__init__()
        self.forge_conn_id = forge_conn_id
        self._app_id = app_id
        self._patience = patience
        self._client: GatewayClient | None = None
        self._connection: Any = None
        self._memory: LayeredStateStore | None = None

    def fetch(
        self,
        start: dt.datetime | str,
        end: dt.datetime | str,
        environments: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] | None = None,
    ) -> AppMetrics:
        """Fetch the metrics of one window, in one call; waits for its place at the rate limit.

        Args:
            start: First moment of the window; aware, or ISO 8601 text with an offset.
            end: First moment after it; at most 15 minutes later.
            environments: Names, UUIDs or ARIs; default is the Connection's.
            metrics: Metric labels; default is the Connection's.

        Returns:
            The gateway's OTLP/JSON as it came, with what was asked for and the request id. `waited` includes
            what looking environments up has waited.

        Raises:
            ConfigurationError: An argument or a Connection field is wrong; no metrics call is made.
            WindowExpired: The window begins more than 14 days ago; no call is made.
            CredentialsRefused: The email or the token is wrong, or the token has expired.
            AccessForbidden: The account may not read this app's metrics.
            QueryRefused: The gateway refused what was asked for.
            RateLimited: The account's calls are taken for longer than `patience`, or the gateway still
                counts too many; `retry_after` says when to come back.
            RateLimitUnavailable: The Redis that shares the limit does not answer.
            GatewayUnavailable: The gateway failed or did not answer.
            BrokenAnswer: The answer is not what was asked for.
        """
        from airflow_provider_forge.gateway.budget import Priority
        from airflow_provider_forge.windows import Window, parse_time

        window = Window(parse_time("start", start), parse_time("end", end))
        wanted, labels = self.selection(environments, metrics)
        client = self.get_conn()
        app_id = self.app_id
        waited_before = client.usage.waited
        # Before environments are looked up for it, which costs a call.
        client.check(window)
        live = window.is_live(dt.datetime.now(dt.timezone.utc))
        priority = Priority.LIVE if live else Priority.BACKFILL
        found = self._directory(priority).find(wanted)
        answer = client.app_metrics(app_id, window, found, labels, priority=priority)
        # Looking environments up has its places at the rate limit, too.
        return dataclasses.replace(answer, waited=client.usage.waited - waited_before)

    def find_permissions(self) -> Permissions:
        """Find out what the account may do with the app, in one call.

        Raises:
            ConfigurationError: A field of the Connection is missing or wrong, or names no environment.
            CredentialsRefused: The email or the token is wrong, or the token has expired.
            AccessForbidden: The account sees no such app.
            ForgeError: The gateway cannot be reached or reports another failure.
        """
        from airflow_provider_forge.gateway.permissions import find_permissions
        from airflow_provider_forge.gateway.queries import parse_uuid
        from airflow_provider_forge.windows import MINUTE, Window

        wanted, labels = self.selection()
        ids = [uuid for name in wanted if (uuid := parse_uuid(name.rpartition("/")[2]))]
        window = Window.last_settled(dt.datetime.now(dt.timezone.utc), length=MINUTE)
        access = find_permissions(self.get_conn(), self.app_id, window, ids, labels)
        if access.all_environments:
            access.check_names(self.app_id, wanted)
        return access

    def test_connection(self) -> tuple[bool, str]:
        """Return whether it works and what was found out in one call, for the form's Test button."""
        from airflow_provider_forge.utils.connection_test import check_gateway

        return check_gateway(self)

    def get_conn(self) -> GatewayClient:
        """Return the client of the Connection's account.

        Raises:
            ConfigurationError: A field of the Connection is missing or wrong.
        """
        if self._client is None:
            self._client = self._make_client()
        return self._client

    @property
    def usage(self) -> Usage:
        """What this hook has taken of the account's budget of calls."""
        from airflow_provider_forge.gateway.ratelimit import Usage

        return Usage() if self._client is None else self._client.usage

    @property
    def app_id(self) -> str:
        """UUID of the app.

        Raises:
            ConfigurationError: It is missing or malformed.
        """
        from airflow_provider_forge.gateway.queries import parse_app_id

        app_id = self._named_app()
        if not app_id:
            raise ConfigurationError(
                "app_id",
                f"is missing: set the extra app_id of {self.forge_conn_id} (`app.id` in manifest.yml)",
            )
        return parse_app_id(app_id)

    @property
    def names_app(self) -> bool:
        """Whether there is an app, in an argument or in the Connection."""
        return bool(self._named_app())

    @property
    def service_name(self) -> str | None:
        """What the Connection says the app is to be called as `service.name`; None where it says nothing."""
        return Extras(self._conn()).text("service_name")

    @property
    def token_expires_on(self) -> dt.date | None:
        """The last day of the API token, as the Connection has it; None where it says nothing.

        Raises:
            ConfigurationError: It is no date.
        """
        extras = Extras(self._conn())
        text = extras.text("token_expires_on")
        try:
            return dt.date.fromisoformat(text) if text else None
        except ValueError:
            # Someone may have taken the field for the token's own.
            extras.refuse("token_expires_on", "is not a date; give one such as 2027-01-31")

    def selection(
        self,
        environments: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] | None = None,
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the environments and the metrics meant: those given, else the Connection's.

        Raises:
            ConfigurationError: One of them is malformed or empty.
        """
        from airflow_provider_forge.gateway.queries import DEFAULT_METRICS, parse_list, parse_metrics

        extras = Extras(self._conn())
        # An empty text is what an unset template leaves; an empty list is a mistake.
        if metrics is None or metrics == "":
            metrics = extras.get("metrics", DEFAULT_METRICS)
        if environments is None or environments == "":
            environments = extras.get("environments", "production")
        labels = parse_metrics(metrics)
        return parse_list("environments", environments), labels

    @property
    def redis_url(self) -> str | None:
        """The Redis that several machines share, with its password; None where they share nothing.

        Raises:
            ConfigurationError: The extra is malformed, or names a Connection that is not there.
        """
        extras = Extras(self._conn())
        return find_redis(extras, extras.text("rate_limit_store", "file") or "file")

    @property
    def redis_conn_id(self) -> str | None:
        """Id of the Connection that has that Redis; None where none is named.

        Raises:
            ConfigurationError: The extra is malformed.
        """
        return named_connection(Extras(self._conn()).text("rate_limit_store") or "")

    def _conn(self) -> Any:
        if self._connection is None:
            self._connection = find_connection(
                type(self), self.conn_name_attr, self.forge_conn_id, self.hook_name
            )
        return self._connection

    def _named_app(self) -> str | None:
        return self._app_id or Extras(self._conn()).text("app_id")

    def _make_client(self) -> GatewayClient:
        from airflow_provider_forge.gateway.client import GatewayClient
        from airflow_provider_forge.gateway.ratelimit import RateLimiter

        connection = self._conn()
        extras = Extras(connection)
        email, token, url = connection.login, secret_of(connection), self._url()
        if not email:
            extras.refuse("login", "is missing: give the email of the Atlassian account that owns the app")
        if not token:
            extras.refuse(
                "password", "is missing: make an API token at https://id.atlassian.com/manage/api-tokens"
            )
        if token != token.strip():
            extras.refuse("password", "has white space at its ends: paste the API token without")
        check_cleartext(extras.label("host"), url, allowed=extras.flag("allow_cleartext"))
        client = GatewayClient(
            url,
            email,
            token,
            limiter=RateLimiter(self._limit_store(email, extras)),
            patience=self._patience,
            timeout=extras.number("timeout", 60),
        )
        # Airflow masks the password itself, but not what HTTP Basic makes of it.
        for secret in client.secrets:
            mask_secret(secret)
        return client

    def _limit_store(self, email: str, extras: Extras) -> LimitStore:
        from airflow_provider_forge.gateway.ratelimit_stores import FileStore, RedisStore

        account = hashlib.sha256(f"{email.lower()}\n{self._gateway()}".encode()).hexdigest()[:32]
        calls = extras.whole_number("rate_limit_calls", 5)
        seconds = extras.number("rate_limit_seconds", 60)
        if url := self.redis_url:
            return RedisStore(url, account, calls=calls, seconds=seconds)
        return FileStore(shared_directory() / f"{account}.json", calls=calls, seconds=seconds)

    def _url(self) -> str:
        url = host_of(self._conn(), FORGE.hidden) or GATEWAY_URL
        check_url(f"{self.forge_conn_id}: host", url, example=GATEWAY_URL)
        return url

    def _gateway(self) -> str:
        """Return the gateway's host, with an unusual port: the same however the URL is written."""
        parts = urllib.parse.urlsplit(self._url())
        usual = parts.port in (None, _PORTS[parts.scheme])
        return str(parts.hostname) if usual else f"{parts.hostname}:{parts.port}"

    def _directory(self, priority: Priority) -> EnvironmentDirectory:
        from airflow_provider_forge.gateway.environments import EnvironmentDirectory, LayeredStateStore

        app_id, client = self.app_id, self.get_conn()
        if self._memory is None:
            name = f"{app_id}_{self._gateway()}"
            variable = VariableStateStore(
                f"forge_environments_{name}",
                "Environments of a Forge app, looked up by airflow-provider-forge",
            )
            beside = client.limiter.store.state_store(f"environments_{name}")
            self._memory, self._lock = LayeredStateStore(variable, beside), beside.lock
        return EnvironmentDirectory(
            app_id, lambda: client.environments(app_id, priority=priority), self._memory, lock=self._lock
        )
