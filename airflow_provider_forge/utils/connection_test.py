"""What the Test buttons of the Connections' forms do and say: what works, or what to do about what doesn't.

A Connection on trial has an id that Airflow made up for it, so no message names it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    ConfigurationError,
    ExportRefused,
    ForgeError,
    QueryRefused,
    ReceiverUnavailable,
)
from airflow_provider_forge.gateway.permissions import NO_ENVIRONMENT, find_permissions
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.http import explain_transport_error, is_tls_failure
from airflow_provider_forge.proxies import find_proxy, proxy_status
from airflow_provider_forge.utils.ledger import open_storage
from airflow_provider_forge.windows import MINUTE, Window

if TYPE_CHECKING:
    import httpx

    from airflow_provider_forge.gateway.permissions import Permissions
    from airflow_provider_forge.hooks.forge import ForgeMetricsHook
    from airflow_provider_forge.hooks.otlp import OtlpHook
    from airflow_provider_forge.otlp.client import ProbeResult

__all__ = ["check_gateway", "check_receiver", "describe_permissions", "describe_probe", "describe_problem"]

_BAD_REQUEST = 400


def check_gateway(hook: ForgeMetricsHook) -> tuple[bool, str]:
    """Return whether the account may export the app's metrics, and what was found out, in one call."""
    try:
        if not hook.names_app:
            return True, _check_credentials(hook)
        access = hook.find_permissions()
    except ForgeError as error:
        return False, describe_problem(error, hook.forge_conn_id)
    return access.may_read_metrics is True, describe_permissions(access)


def check_receiver(hook: OtlpHook) -> tuple[bool, str]:
    """Return whether the receiver takes a request without points, and what it says.

    The record's file system must be there too, as far as Airflow can make it without reading from it.
    """
    try:
        if url := hook.ledger_url:
            open_storage(url)
        with hook.get_conn() as client:
            return True, describe_probe(client.probe())
    except ForgeError as error:
        return False, describe_problem(error, hook.otlp_conn_id)


def describe_permissions(access: Permissions) -> str:
    """Return in words what an account may do."""
    names = ", ".join(environment.name or environment.id for environment in access.environments) or "none"
    more = "" if access.all_environments else " and more"
    found = f"Atlassian takes the credentials. The app is {access.app_name}; environments: {names}{more}."
    if access.may_read_metrics:
        return f"{found} The account may read its metrics."
    if access.may_read_metrics is None:
        return f"{found} Whether the account may read its metrics is not known: {access.metrics}"
    return f"{found} But the account may not read its metrics: {access.metrics}"


def describe_probe(reception: ProbeResult) -> str:
    """Return in words how a receiver took a request without points."""
    server = f" ({reception.server})" if reception.server else ""
    return (
        f"{reception.host}{server} answered {reception.status} to an empty request, in"
        f" {reception.elapsed:.2f} s."
    )


def describe_problem(error: ForgeError, conn_id: str) -> str:
    """Return in words what is wrong and what to do about it, to someone who is setting a Connection up.

    Args:
        error: What a hook raised.
        conn_id: Id of the Connection, which is left out.
    """
    import httpx

    if isinstance(error, ConfigurationError):
        return f"{error.field.removeprefix(f'{conn_id}: ')}: {error.problem}"
    if isinstance(cause := error.__cause__, httpx.RequestError):
        trust = "Where a proxy opens TLS, name the PEM file of its authority in the variable SSL_CERT_FILE"
        if isinstance(error, ReceiverUnavailable):
            trust = "Name the PEM file of its authority in the extra ca_file"
        return f"No answer from {_silent(cause)}: {explain_transport_error(cause, trust=trust)}."
    if isinstance(error, ExportRefused) and error.status == _BAD_REQUEST:
        return f"{error}. Some receivers refuse a request without points and take others"
    return str(error)


def _silent(error: httpx.RequestError) -> str:
    """Return in words who did not answer: the host, or the proxy on the way to it."""
    import httpx

    host = error.request.url.netloc.decode()
    proxy = find_proxy(str(error.request.url))
    if proxy is None:
        return host
    at_proxy = isinstance(error, (httpx.ProxyError, httpx.ConnectTimeout)) or (
        isinstance(error, httpx.ConnectError) and not is_tls_failure(error)
    )
    if not at_proxy:
        return f"{host} through {proxy.name}"
    status = proxy_status(error)
    return f"{proxy.name} on the way to {host}{f' ({status})' if status else ''}"


def _check_credentials(hook: ForgeMetricsHook) -> str:
    """Find out what can be found out without an app, which a task can name as well."""
    window = Window.last_settled(dt.datetime.now(dt.timezone.utc), length=MINUTE)
    with contextlib.suppress(AccessForbidden, QueryRefused):  # of course: there is no such app
        find_permissions(hook.get_conn(), NO_ENVIRONMENT, window, [], DEFAULT_METRICS)
    return (
        "Atlassian takes the credentials. No more could be found out, because the Connection has no app_id"
        " (`app.id` in the app's manifest.yml)."
    )
