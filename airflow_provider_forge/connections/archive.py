"""Opens the archive of a Forge Connection, and the sources of windows that write and read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from airflow_provider_forge.exceptions import (
    ArchiveUnavailable,
    ConfigurationError,
    LedgerUnavailable,
    SecretsUnavailable,
)
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from airflow_provider_forge.archive.archive import Archive
    from airflow_provider_forge.archive.sources import ArchiveSource, Archivist
    from airflow_provider_forge.connections.runtime import Runtime
    from airflow_provider_forge.delivery.exporter import Source
    from airflow_provider_forge.delivery.progress import DeliveryStats
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.windows import Window

__all__ = ["check_archive_url", "open_archive", "open_archive_source", "open_gateway_source"]

log = get_logger(__name__)


class ForgeConnection(Protocol):
    """The Connection whose archive is opened: a `ForgeAccess`.

    Attributes:
        forge_conn_id: Its id.
        runtime: Opens storage.
        app_id: UUID of the app.
        archive_url: Its extra; None if it is not set.
    """

    forge_conn_id: str
    runtime: Runtime

    @property
    def app_id(self) -> str: ...

    @property
    def archive_url(self) -> str | None: ...

    def selection(
        self, environments: str | Sequence[str] | None, metrics: str | Sequence[str] | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]: ...

    def fetch(
        self,
        start: dt.datetime,
        end: dt.datetime,
        environments: str | Sequence[str] | None,
        metrics: str | Sequence[str] | None,
    ) -> AppMetrics: ...


def check_archive_url(forge: ForgeConnection) -> str:
    """Return the URL of the archive of a Connection.

    Raises:
        ConfigurationError: The Connection has no `archive_url`.
    """
    if url := forge.archive_url:
        return url
    raise ConfigurationError(
        f"{forge.forge_conn_id}: archive_url",
        "is missing: set it to the directory of the archive, such as s3://aws_default@bucket/path",
    )


def open_archive(forge: ForgeConnection) -> Archive:
    """Open the archive of a Connection; nothing is read yet.

    Raises:
        ConfigurationError: The Connection has no `archive_url`, or this Airflow cannot open it.
        ArchiveUnavailable: It cannot be opened at the moment.
    """
    from airflow_provider_forge.archive.archive import Archive
    from airflow_provider_forge.archive.storage import Storage

    url = check_archive_url(forge)
    try:
        return Archive(Storage(forge.runtime.open_storage(url, "archive_url")))
    except LedgerUnavailable as error:
        raise ArchiveUnavailable(error.message) from error


def open_gateway_source(
    forge: ForgeConnection,
    environments: str | Sequence[str] | None,
    metrics: str | Sequence[str] | None,
    *,
    keep: bool = True,
    since: dt.datetime | None = None,
) -> Source:
    """Return the gateway as the source of windows; its responses are archived if the Connection says so.

    Args:
        forge: The Connection.
        environments: As for `ForgeAccess.fetch`.
        metrics: Likewise.
        keep: Whether responses may be archived.
        since: Start of the run, aware, if this is a retry: what was archived since then is not fetched again.

    Raises:
        ConfigurationError: An argument or a field of the Connection is wrong.
    """

    def fetch(window: Window) -> AppMetrics:
        return forge.fetch(window.start, window.end, environments, metrics)

    def fetch_and_count(window: Window, stats: DeliveryStats) -> list[AppMetrics]:
        metrics = fetch(window)
        stats.calls += 1
        return [metrics]

    if not keep or not forge.archive_url:
        return fetch_and_count
    from airflow_provider_forge.archive.sources import GatewaySource

    archivist = _open_archivist(forge)
    archived = None
    if since and archivist.archive:
        archived = _archive_source(archivist.archive, forge, environments, metrics)
    return GatewaySource(fetch, archivist, archived, since).fetch


def open_archive_source(
    forge: ForgeConnection,
    environments: str | Sequence[str] | None,
    metrics: str | Sequence[str] | None,
) -> Source:
    """Return the archive as the source of windows.

    Args:
        forge: The Connection.
        environments: As for `ForgeAccess.fetch`.
        metrics: Likewise.

    Raises:
        ConfigurationError: An argument or a field of the Connection is wrong.
        ArchiveUnavailable: The archive cannot be opened at the moment.
    """
    return _archive_source(open_archive(forge), forge, environments, metrics).fetch


def _archive_source(
    archive: Archive,
    forge: ForgeConnection,
    environments: str | Sequence[str] | None,
    metrics: str | Sequence[str] | None,
) -> ArchiveSource:
    from airflow_provider_forge.archive.sources import ArchiveSource

    return ArchiveSource(archive, forge.app_id, *forge.selection(environments, metrics))


def _open_archivist(forge: ForgeConnection) -> Archivist:
    """Return the archivist of a task; without an archive if that cannot be opened at the moment."""
    from airflow_provider_forge.archive.sources import Archivist

    try:
        return Archivist(open_archive(forge))
    except (ArchiveUnavailable, SecretsUnavailable) as error:
        log.warning("Windows are delivered, but not archived: %s", error)
        return Archivist(None)
