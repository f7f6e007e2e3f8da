"""Finds in one call whether an account sees an app, its environments, and its metrics."""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import AccessForbidden, ForgeError, QueryRefused
from airflow_provider_forge.gateway.environments import Environment, EnvironmentDirectory
from airflow_provider_forge.gateway.queries import PERMISSIONS, Query, app_metrics_variables
from airflow_provider_forge.gateway.responses import PermissionsData, read_app, read_resource_metrics
from airflow_provider_forge.state_store import NullStateStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_forge.gateway.client import GatewayClient
    from airflow_provider_forge.gateway.responses import GatewayResponse
    from airflow_provider_forge.windows import Window

__all__ = ["NO_ENVIRONMENT", "Permissions", "find_permissions"]

NO_ENVIRONMENT = str(uuid.UUID(int=0))
"""An environment that no app has. The gateway checks permission first, so its response still shows
whether the account may read the app's metrics."""


@dataclass(frozen=True)
class Permissions:
    """The permissions of an account for an app.

    Attributes:
        app_name: Name of the app.
        environments: Its environments, at most a hundred.
        all_environments: Whether the app has no others.
        metrics: The error of the query for metrics; None if it succeeded.
    """

    app_name: str
    environments: tuple[Environment, ...]
    all_environments: bool
    metrics: ForgeError | None

    @property
    def may_read_metrics(self) -> bool | None:
        """Whether the account may read the app's metrics; None if unknown, because the gateway failed."""
        if self.metrics is None or isinstance(self.metrics, QueryRefused):
            # The gateway refuses an environment or a window only after it has checked permission.
            return True
        return False if isinstance(self.metrics, AccessForbidden) else None

    def check_names(self, app_id: str, wanted: Sequence[str]) -> None:
        """Check that the app has these environments.

        Raises:
            ConfigurationError: The app has no environment of a name, or an ARI is malformed or another app's.
        """
        EnvironmentDirectory(app_id, lambda: list(self.environments), NullStateStore()).find(wanted)


def find_permissions(
    client: GatewayClient, app_id: str, window: Window, environment_ids: Sequence[str], metrics: Sequence[str]
) -> Permissions:
    """Return the account's permissions for an app, in one call.

    Args:
        client: Client of the account.
        app_id: UUID of the app.
        window: Time range of the metrics, as short as possible.
        environment_ids: UUIDs of environments to query metrics of; may be empty.
        metrics: Metric labels.

    Raises:
        CredentialsRefused: The email or the token is wrong, or the token has expired.
        AccessForbidden: The account sees no such app.
        ForgeError: The gateway cannot be reached or reports another failure.
    """
    variables = app_metrics_variables(app_id, window, environment_ids or [NO_ENVIRONMENT], metrics)
    query = Query(PERMISSIONS, variables, PermissionsData, tolerated_field="ecosystem")
    return client.call(query, functools.partial(_read_permissions, app_id))


def _read_permissions(app_id: str, response: GatewayResponse[PermissionsData]) -> Permissions:
    app, page = read_app(app_id, response)
    return Permissions(
        app_name=app.name or app_id,
        environments=tuple(
            Environment.from_gateway(node.id, node.key, node.type) for node in page.nodes or () if node
        ),
        all_environments=not page.page_info.has_next_page,
        metrics=_metrics_error(response),
    )


def _metrics_error(response: GatewayResponse[PermissionsData]) -> ForgeError | None:
    try:
        response.raise_partial_errors()
        read_resource_metrics(response)
    except ForgeError as error:
        return error
    return None
