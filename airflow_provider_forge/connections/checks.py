"""Checks behind the Test buttons of the Connection forms and behind `airflow forge check`.

Airflow tests a Connection under a made-up id, so no message names it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from typing import TYPE_CHECKING

import httpx

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    ConfigurationError,
    ExportRefused,
    ForgeError,
    QueryRefused,
    ReceiverUnavailable,
)
from airflow_provider_forge.gateway.permissions import NO_ENVIRONMENT, find_permissions
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS, parse_uuid
from airflow_provider_forge.http import explain_transport_error, is_tls_failure
from airflow_provider_forge.proxies import find_proxy, proxy_status
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import MINUTE, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_forge.gateway.client import GatewayClient
    from airflow_provider_forge.gateway.labels import LabelDirectory
    from airflow_provider_forge.gateway.permissions import Permissions
    from airflow_provider_forge.otlp.client import OtlpClient, ProbeResult

__all__ = [
    "check_credentials",
    "check_gateway",
    "check_receiver",
    "describe_permissions",
    "describe_probe",
    "describe_problem",
    "report_results",
]

log = get_logger(__name__)


def check_gateway(
    client: GatewayClient,
    app_id: str,
    environments: Sequence[str],
    metrics: Sequence[str],
    labels: LabelDirectory,
) -> tuple[bool, str]:
    """Return whether the account may export the app's metrics, and a message. Makes one call.

    Args:
        client: Client of the account.
        app_id: UUID of the app.
        environments: Names, UUIDs or ARIs of environments.
        metrics: Metric labels.
        labels: Labels that the gateway does not know. Each costs another call, once a day.

    Raises:
        ConfigurationError: The app has no environment of that name.
        CredentialsRefused: The email or the token is wrong, or the token has expired.
        AccessForbidden: The account cannot see the app.
        ForgeError: The gateway cannot be reached, or reports another failure.
    """
    ids = [uuid for name in environments if (uuid := parse_uuid(name.rpartition("/")[2]))]
    permissions = labels.fetch(
        metrics, lambda known: find_permissions(client, app_id, _shortest_window(), ids, known)
    )
    if permissions.all_environments:
        permissions.check_names(app_id, environments)
    found = describe_permissions(permissions)
    left_out = labels.left_out(metrics)
    if permissions.may_read_metrics:
        count = len(metrics) - len(left_out)
        found += f" Exports {', '.join(environments)}: {count} {'metric' if count == 1 else 'metrics'}."
    if left_out:
        found += f" The gateway does not know the metrics {', '.join(left_out)}, which are left out."
    return permissions.may_read_metrics is True, found


def report_results(results: Mapping[str, tuple[bool, str]]) -> list[str]:
    """Log the results of the checks by Connection; return the ids of those that do not work."""
    for conn_id, (works, words) in results.items():
        log.log(
            logging.INFO if works else logging.ERROR,
            "%s %s: %s",
            "\u2713" if works else "\u2717",
            conn_id,
            words,
        )
    return [conn_id for conn_id, (works, _) in results.items() if not works]


def check_credentials(client: GatewayClient) -> tuple[bool, str]:
    """Return whether Atlassian accepts the credentials, and a message. Makes one call.

    This is the check for a Connection without an app, which a task can set instead.

    Raises:
        CredentialsRefused: The email or the token is wrong, or the token has expired.
        ForgeError: The gateway cannot be reached, or reports another failure.
    """
    with contextlib.suppress(AccessForbidden, QueryRefused):  # expected: no app has this id
        find_permissions(client, NO_ENVIRONMENT, _shortest_window(), [], DEFAULT_METRICS)
    return True, (
        "Atlassian accepts the credentials. Nothing else was checked, because the Connection has no app_id"
        " (`app.id` in the app's manifest.yml)."
    )


def check_receiver(client: OtlpClient) -> tuple[bool, str]:
    """Return whether the receiver accepts a request without points, and a message.

    Raises:
        ForgeError: The receiver cannot be reached, or refuses the request.
    """
    return True, describe_probe(client.probe())


def describe_permissions(permissions: Permissions) -> str:
    """Describe what an account may do."""
    names = ", ".join(each.name or each.id for each in permissions.environments) or "none"
    more = "" if permissions.all_environments else " and more"
    found = (
        f"Atlassian accepts the credentials. The app is {permissions.app_name}; environments: {names}{more}."
    )
    if permissions.may_read_metrics:
        return f"{found} The account may read its metrics."
    if permissions.may_read_metrics is None:
        return f"{found} It is not known whether the account may read its metrics: {permissions.metrics}"
    return f"{found} But the account may not read its metrics: {permissions.metrics}"


def describe_probe(result: ProbeResult) -> str:
    """Describe a receiver's response to a request without points."""
    server = f" ({result.server})" if result.server else ""
    return f"{result.host}{server} answered {result.status} to an empty request, in {result.elapsed:.2f} s."


def describe_problem(error: ForgeError, conn_id: str) -> str:
    """Describe an error and its remedy, for a user who is setting up a Connection.

    Args:
        error: Error raised by a hook or a check.
        conn_id: Id of the Connection, which is left out of the description.
    """
    if isinstance(error, ConfigurationError):
        return f"{error.field.removeprefix(f'{conn_id}: ')}: {error.problem}"
    if isinstance(cause := error.__cause__, httpx.RequestError):
        trust = "If a proxy intercepts TLS, name the PEM file of its authority in the variable SSL_CERT_FILE"
        if isinstance(error, ReceiverUnavailable):
            trust = "Name the PEM file of its authority in the extra ca_file"
        return f"No answer from {_silent_peer(cause)}: {explain_transport_error(cause, trust=trust)}."
    if isinstance(error, ExportRefused) and error.status == httpx.codes.BAD_REQUEST:
        return f"{error}. Some receivers refuse a request without points but accept others"
    return str(error)


def _shortest_window() -> Window:
    return Window.last_settled(dt.datetime.now(dt.timezone.utc), length=MINUTE)


def _silent_peer(error: httpx.RequestError) -> str:
    """Return the name of the peer that did not answer: the host, or the proxy on the way to it."""
    host = error.request.url.netloc.decode()
    proxy = find_proxy(str(error.request.url))
    if proxy is None:
        return host
    is_at_proxy = isinstance(error, (httpx.ProxyError, httpx.ConnectTimeout)) or (
        isinstance(error, httpx.ConnectError) and not is_tls_failure(error)
    )
    if not is_at_proxy:
        return f"{host} through {proxy.name}"
    status = proxy_status(error)
    return f"{proxy.name} on the way to {host}{f' ({status})' if status else ''}"
