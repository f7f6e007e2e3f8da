"""What an account may do, found out in one call: see an app, know its environments, read its metrics."""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_forge.exceptions import AccessForbidden, ForgeError, QueryRefused
from airflow_provider_forge.gateway.environments import Environment, EnvironmentDirectory
from airflow_provider_forge.gateway.queries import ACCESS, app_metrics_variables
from airflow_provider_forge.state_store import NullStateStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_forge.gateway.client import GatewayClient
    from airflow_provider_forge.gateway.responses import GatewayResponse
    from airflow_provider_forge.windows import Window

__all__ = ["Permissions", "find_permissions"]

NO_ENVIRONMENT = str(uuid.UUID(int=0))
"""An environment that no app has: whoever may not read an app's metrics is told so all the same."""


@dataclass(frozen=True)
class Permissions:
    """What an account may do with an app.

    Attributes:
        app_name: What the app is called.
        environments: Its environments, at most a hundred.
        all_environments: Whether there are no more than these.
        metrics: What the gateway says to a call for metrics; None where it gave some, or none at all.
    """

    app_name: str
    environments: tuple[Environment, ...]
    all_environments: bool
    metrics: ForgeError | None

    @property
    def may_read_metrics(self) -> bool | None:
        """Whether the account may read the app's metrics; None where the gateway failed to say."""
        if self.metrics is None or isinstance(self.metrics, QueryRefused):
            # A refusal of the environment or the window comes after the account was let in.
            return True
        return False if isinstance(self.metrics, AccessForbidden) else None

    def check_names(self, app_id: str, wanted: Sequence[str]) -> None:
        """Refuse names of environments that the app hasn't.

        Raises:
            ConfigurationError: It hasn't one of that name, or an ARI is malformed or another app's.
        """
        EnvironmentDirectory(app_id, lambda: list(self.environments), NullStateStore()).find(wanted)


def find_permissions(
    client: GatewayClient, app_id: str, window: Window, environment_ids: Sequence[str], metrics: Sequence[str]
) -> Permissions:
    """Ask what the account may do with an app: one call.

    Args:
        client: Of the account.
        app_id: UUID of the app.
        window: A time range to ask metrics of, as short as can be.
        environment_ids: UUIDs of environments to ask metrics of, where any are known.
        metrics: Labels.

    Raises:
        CredentialsRefused: The email or the token is wrong, or the token has expired.
        AccessForbidden: The account sees no such app.
        ForgeError: The gateway cannot be reached or reports another failure.
    """
    variables = app_metrics_variables(app_id, window, environment_ids or [NO_ENVIRONMENT], metrics)
    read = functools.partial(_read, app_id)
    return client.ask(ACCESS, variables, _Data, read, tolerated_field="ecosystem")


class _Node(msgspec.Struct):
    id: str
    key: str
    type: str


class _PageInfo(msgspec.Struct):
    hasNextPage: bool  # noqa: N815 - Atlassian's name


class _Page(msgspec.Struct):
    pageInfo: _PageInfo  # noqa: N815 - likewise
    nodes: list[_Node | None] | None = None


class _App(msgspec.Struct):
    name: str | None = None
    environmentsPage: _Page | None = None  # noqa: N815 - likewise


class _Data(msgspec.Struct):
    app: _App | None = None
    ecosystem: dict[str, Any] | None = None


def _read(app_id: str, answer: GatewayResponse[_Data]) -> Permissions:
    data = answer.data
    if data.app is None:
        raise AccessForbidden(
            f"Atlassian shows this account no app {app_id}. Check app_id (`app.id` in manifest.yml), and that"
            " the API token belongs to the account that owns the app",
            request_id=answer.request_id,
        )
    page = data.app.environmentsPage or answer.broken("null as environmentsPage")
    return Permissions(
        app_name=data.app.name or app_id,
        environments=tuple(
            Environment.from_gateway(node.id, node.key, node.type) for node in page.nodes or () if node
        ),
        all_environments=not page.pageInfo.hasNextPage,
        metrics=_failure(answer, data.ecosystem),
    )


def _failure(answer: GatewayResponse[_Data], ecosystem: dict[str, Any] | None) -> ForgeError | None:
    try:
        answer.raise_partial_errors()
        found: Any = ecosystem or answer.broken("null as ecosystem")
        for level in ("forgeMetrics", "appMetrics"):
            found = found.get(level) or answer.broken(f"null as {level}")
        if found.get("resourceMetrics") is None:
            answer.fail(found.get("message"), found.get("extensions"))
    except ForgeError as error:
        return error
    return None
