"""Opens the receivers of an export with their ledgers, and the source of its windows."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_forge.exceptions import ConfigurationError, RetryableError
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from airflow.providers.common.compat.sdk import Asset

    from airflow_provider_forge.delivery.destination import Destination
    from airflow_provider_forge.delivery.exporter import Source
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.utils.task_metrics import ReceiverStats

__all__ = [
    "SOURCES",
    "check_connections",
    "open_destinations",
    "open_receivers",
    "open_source",
]


SOURCES = ("gateway", "archive", "auto")
"""Values of the operator's `source`."""


def check_connections(forge_conn_id: str, app_id: str | None, conn_ids: Sequence[str]) -> NoReturn:
    """Test all Connections on this worker instead of a delivery; fail the task, or skip it.

    Raises:
        AirflowFailException: One does not work.
        AirflowSkipException: All of them work.
    """
    from airflow_provider_forge.connections.checks import report_results

    results = {forge_conn_id: ForgeMetricsHook(forge_conn_id, app_id=app_id).test_connection()}
    results |= {conn_id: OtlpHook(conn_id).test_connection() for conn_id in conn_ids}
    if failed := report_results(results):
        raise AirflowFailException(f"Check only: not working: {', '.join(failed)}. See the messages above")
    # A success would mean a delivery, also to DAGs that are scheduled on the asset.
    raise AirflowSkipException("Check only: all Connections work; nothing was delivered")


def open_receivers(conn_ids: Sequence[str], stack: ExitStack) -> list[ReceiverStats]:
    """Open the receivers, which `stack` closes; return them with the statistics of each.

    Raises:
        ConfigurationError: A field of a Connection is missing or wrong, or two are the same destination.
    """
    from airflow_provider_forge.delivery.telemetry import TaskStats
    from airflow_provider_forge.utils.task_metrics import ReceiverStats

    found: dict[str, str] = {}
    reports = []
    for conn_id in conn_ids:
        receiver = stack.enter_context(OtlpHook(conn_id).get_conn())
        if other := found.get(receiver.endpoint.destination):
            raise ConfigurationError(
                "otlp_conn_id",
                f"{other} and {conn_id} are the same destination: set the extra tenant of one, if they are"
                " different accounts behind one URL",
            )
        found[receiver.endpoint.destination] = conn_id
        reports.append(ReceiverStats(TaskStats(), receiver, conn_id if len(conn_ids) > 1 else ""))
    return reports


def open_destinations(
    conn_ids: Sequence[str],
    assets: Sequence[Asset],
    reports: Sequence[ReceiverStats],
    context: Mapping[str, Any],
    forge: ForgeMetricsHook,
) -> list[Destination]:
    """Open the ledgers of the receivers. Of several, one that cannot be opened fails only its destination.

    Args:
        conn_ids: Ids of the Connections.
        assets: Asset of each, which may hold its ledger.
        reports: The receivers, with the statistics of each.
        context: The task's context.
        forge: Hook of the gateway.

    Raises:
        ConfigurationError: A Connection is wrong.
        RetryableError: The ledger of the only destination cannot be opened.
    """
    from airflow_provider_forge.connections.ledger import open_delivery_ledger
    from airflow_provider_forge.delivery.destination import Destination

    destinations = []
    for conn_id, asset, (stats, receiver, name) in zip(conn_ids, assets, reports, strict=True):
        store, failure = _find_store(conn_id, asset, context, is_only=not name)
        ledger = open_delivery_ledger(forge, store, conn_id, receiver.endpoint)
        destinations.append(destination := Destination(receiver, ledger, name, stats))
        if failure:
            destination.fail(failure)
    return destinations


def _find_store(
    conn_id: str, asset: Asset, context: Mapping[str, Any], *, is_only: bool
) -> tuple[Store | None, RetryableError | None]:
    """Return the store of a ledger; if one of several cannot be opened, an empty one, and the error."""
    from airflow_provider_forge.delivery.stores import InMemoryStore
    from airflow_provider_forge.utils.ledger import find_store

    try:
        return find_store(context, asset, OtlpHook(conn_id).ledger_url), None
    except RetryableError as error:
        if is_only:
            raise
        return InMemoryStore(), error


def open_source(
    source: str,
    forge: ForgeMetricsHook,
    environments: str | Sequence[str] | None,
    metrics: str | Sequence[str] | None,
    context: Mapping[str, Any],
) -> Source:
    """Return the source of a task's windows.

    Args:
        source: `gateway`, `archive` or `auto`.
        forge: Hook of the gateway, whose Connection may have an archive.
        environments: As for the hook's `fetch`.
        metrics: Likewise.
        context: The task's context. A retry does not fetch what an earlier try of the run has archived.

    Raises:
        ConfigurationError: An argument or a Connection field is wrong.
        ArchiveUnavailable: The archive that is to be read cannot be opened.
    """
    from airflow_provider_forge.connections.archive import (
        check_archive_url,
        open_archive_source,
        open_gateway_source,
    )

    if source == "archive":
        return open_archive_source(forge, environments, metrics)
    tries = getattr(context.get("ti"), "try_number", None) or 1
    tries += context.get("task_reschedule_count") or 0
    run = context.get("dag_run")
    # A clear fetches again. In a run that had not ended it leaves the start, before which nothing is taken.
    is_retry = tries > 1 and not getattr(run, "clear_number", None)
    started = getattr(run, "start_date", None)
    gateway = open_gateway_source(forge, environments, metrics, since=started if is_retry else None)
    if source == "gateway":
        return gateway
    from airflow_provider_forge.archive.sources import either_by_age

    check_archive_url(forge)
    # Opened when it is needed: live windows do not wait for the archive.
    archive = functools.cache(lambda: open_archive_source(forge, environments, metrics))
    return either_by_age(gateway, lambda window, stats: archive()(window, stats))
