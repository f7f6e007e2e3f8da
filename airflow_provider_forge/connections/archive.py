"""Opens the archive of a Forge Connection."""

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
    from airflow_provider_forge.archive.archive import Archive
    from airflow_provider_forge.archive.sources import Archivist
    from airflow_provider_forge.connections.runtime import Runtime

__all__ = ["open_archive", "open_archivist"]

log = get_logger(__name__)


class ForgeConnection(Protocol):
    """The Connection whose archive is opened: a `ForgeAccess`.

    Attributes:
        forge_conn_id: Its id.
        runtime: Opens storage.
        archive_url: Its extra; None if it is not set.
    """

    forge_conn_id: str
    runtime: Runtime

    @property
    def archive_url(self) -> str | None: ...


def open_archive(forge: ForgeConnection) -> Archive:
    """Open the archive of a Connection; nothing is read yet.

    Raises:
        ConfigurationError: The Connection has no `archive_url`, or this Airflow cannot open it.
        ArchiveUnavailable: It cannot be opened at the moment.
    """
    from airflow_provider_forge.archive.archive import Archive
    from airflow_provider_forge.archive.storage import Storage

    url = forge.archive_url
    if not url:
        raise ConfigurationError(
            f"{forge.forge_conn_id}: archive_url",
            "is missing: set it to the directory of the archive, such as s3://aws_default@bucket/path",
        )
    try:
        return Archive(Storage(forge.runtime.open_storage(url, "archive_url")))
    except LedgerUnavailable as error:
        raise ArchiveUnavailable(error.message) from error


def open_archivist(forge: ForgeConnection) -> Archivist:
    """Return the archivist of a task; without an archive if that cannot be opened at the moment.

    Raises:
        ConfigurationError: As for `open_archive`.
    """
    from airflow_provider_forge.archive.sources import Archivist

    try:
        return Archivist(open_archive(forge))
    except (ArchiveUnavailable, SecretsUnavailable) as error:
        log.warning("Windows are delivered, but not archived: %s", error)
        return Archivist(None)
