"""Sources of a task's windows: the gateway (its responses are archived), the archive, or either by age."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from airflow_provider_forge.archive.archive import fetched_text, unavailable_for
from airflow_provider_forge.archive.storage import within
from airflow_provider_forge.exceptions import (
    ArchiveDamaged,
    ArchiveUnavailable,
    FinalError,
    WindowExpired,
    WindowNotArchived,
)
from airflow_provider_forge.gateway.queries import parse_uuid
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_forge.archive.archive import Archive, Response
    from airflow_provider_forge.delivery.exporter import Source
    from airflow_provider_forge.delivery.progress import DeliveryStats
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.windows import Window

__all__ = ["ArchiveSource", "Archivist", "GatewaySource", "either_by_age"]

log = get_logger(__name__)

PATIENCE = 10.0
"""Seconds within which a response must be archived: live data do not wait any longer."""


class Archivist:
    """Archives the responses of one task, and never fails it: the archive must not hold up live data.

    Args:
        archive: The archive; None if it could not be opened.
        patience: Seconds within which a response must be archived. If a store does not answer in time,
            nothing more is archived by this task.

    Attributes:
        archive: The archive; None if nothing can be archived.
    """

    def __init__(self, archive: Archive | None, patience: float = PATIENCE) -> None:
        self.archive = archive
        self._patience = patience
        self._has_warned = archive is None

    def keep(self, metrics: AppMetrics) -> bool:
        """Archive a response; return whether it is in the archive now. The first failure is logged."""
        if (archive := self.archive) is None:
            return False
        try:
            is_new = within(self._patience, lambda: archive.write(metrics))
        except TimeoutError:
            self.archive = None
            self._warn(unavailable_for(archive.name, self._patience), "Nothing more is archived by this task")
        except ArchiveUnavailable as error:
            self._warn(error, "Later windows are tried as well, and further failures only counted")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the archive, the data are delivered
            self._warn(error, "Later windows are tried as well, and further failures only counted")
        else:
            log.info("Archived at %s" if is_new else "%s already has this response", archive.name)
            return True
        return False

    def _warn(self, error: Exception, then: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "A window is delivered, but not archived: %s: %s. %s. To archive it, clear this run, or"
                " repeat this command, while Atlassian still has its windows",
                type(error).__name__,
                error,
                then,
            )


class ArchiveSource:
    """Reads windows from the archive: the responses whose environments are all among those wanted.

    Args:
        archive: The archive.
        app_id: UUID of the app.
        environments: Names, UUIDs or ARIs of the wanted environments.
        metrics: Wanted metric labels. A response is read if it has any of them, because the list may have
            changed since.
    """

    def __init__(
        self, archive: Archive, app_id: str, environments: Sequence[str], metrics: Sequence[str]
    ) -> None:
        self._archive = archive
        self._app_id = app_id
        # An ARI ends with the UUID.
        self._environments = {parse_uuid(entry.rsplit("/", 1)[-1]) or entry for entry in environments}
        self._metrics = set(metrics)

    def fetch(self, window: Window, stats: DeliveryStats) -> list[AppMetrics]:
        """Return all responses of a window: its versions, the latest first, and those of its parts.

        Args:
            window: The window.
            stats: Counts the window as replayed, and gets the errors of responses that cannot be used.

        Raises:
            WindowNotArchived: There is none, not even a damaged one.
            ArchiveUnavailable: The archive cannot be read.
        """
        responses, problems = self._read(window)
        if not responses and not problems:
            raise WindowNotArchived(
                f"{window.humanize()} is not in the archive {self._archive.name} for these environments and"
                " metrics. If Atlassian still has it, set source='auto'; on_expired='skip' skips such windows"
            )
        for response in responses:
            log.info(
                "Fetched at %s (request id %s)", fetched_text(response.fetched), response.metrics.request_id
            )
        stats.replayed += 1
        stats.problems += problems
        return [response.metrics for response in responses]

    def fetch_since(self, window: Window, since: dt.datetime) -> AppMetrics | None:
        """Return the latest response for exactly this window and selection; None without one since a time.

        Args:
            window: The window.
            since: Time after which it must have been fetched.

        Raises:
            ArchiveUnavailable: The archive cannot be read.
        """
        responses, _ = self._read(window)
        for response in responses:
            metrics = response.metrics
            labels = {*metrics.metrics, *metrics.left_out}
            same = metrics.window == window and labels == self._metrics
            if same and response.fetched >= since and self._has_all(metrics):
                log.info("Taken from the archive, fetched at %s", fetched_text(response.fetched))
                return metrics
        return None

    def _has_all(self, metrics: AppMetrics) -> bool:
        """Return whether every wanted environment is among those of a response."""
        known = {each.id for each in metrics.environments} | {each.name for each in metrics.environments}
        return self._environments <= known

    def _read(self, window: Window) -> tuple[list[Response], list[FinalError]]:
        """Return the responses within a window, the latest first, and the errors of unusable ones."""
        responses: list[Response] = []
        problems: list[FinalError] = []
        for archived in self._archive.list_between(self._app_id, window.start, window.end):
            if not archived.is_described:  # an interrupted write, which its task has repeated
                continue
            try:
                about = self._archive.describe(archived)
                names = [{each.id, each.name} for each in about.environment_list()]
                if all(each & self._environments for each in names) and self._metrics & set(about.metrics):
                    responses.append(self._archive.read(archived))
            except ArchiveDamaged as error:
                problems.append(error)
        responses.sort(key=lambda response: response.fetched, reverse=True)
        return responses, problems


class GatewaySource:
    """Fetches windows from the gateway, and archives each response before anything of it is sent.

    Args:
        fetch: Fetches a window from the gateway.
        archivist: Archives the responses.
        archived: Reads the archive, for the windows that an earlier try has fetched; None in a first try.
        since: Start of the run, aware. What was archived since then is not fetched again.
    """

    def __init__(
        self,
        fetch: Callable[[Window], AppMetrics],
        archivist: Archivist,
        archived: ArchiveSource | None = None,
        since: dt.datetime | None = None,
    ) -> None:
        self._fetch = fetch
        self._archivist = archivist
        self._archived = archived
        self._since = since

    def fetch(self, window: Window, stats: DeliveryStats) -> list[AppMetrics]:
        """Return the gateway's response, or the one that an earlier try of this run has archived."""
        if self._archived and self._since:
            try:
                if found := self._archived.fetch_since(window, self._since):
                    stats.replayed += 1
                    return [found]
            except ArchiveUnavailable as error:
                log.info("The archive cannot be searched for the response of an earlier try: %s", error)
        metrics = self._fetch(window)
        stats.calls += 1
        stats.unarchived += not self._archivist.keep(metrics)
        return [metrics]


def either_by_age(
    gateway: Source,
    archive: Source,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
) -> Source:
    """Return a source that asks the gateway while it still has a window, and the archive after that.

    Args:
        gateway: Fetches a window from the gateway.
        archive: Reads a window from the archive.
        now: Returns the current time, aware.
    """

    def fetch(window: Window, stats: DeliveryStats) -> Sequence[AppMetrics]:
        if not window.expired(now()):
            try:
                return gateway(window, stats)
            except WindowExpired as error:  # during a wait for the rate limit
                log.info("%s. Reading the archive instead", error)
        return archive(window, stats)

    return fetch
