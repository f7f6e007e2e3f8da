"""The archive of one place: responses are written once, found by time, and checked when they are read."""

from __future__ import annotations

import datetime as dt
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_provider_forge.archive.layout import (
    ABOUT,
    DATA,
    VERSION,
    Description,
    day_path,
    entry_of,
    parse_name,
)
from airflow_provider_forge.exceptions import ArchiveDamaged, ArchiveUnavailable
from airflow_provider_forge.gateway.client import AppMetrics
from airflow_provider_forge.text import sanitize
from airflow_provider_forge.windows import Window, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_forge.archive.layout import Entry
    from airflow_provider_forge.archive.storage import Storage

__all__ = ["Archive", "Archived", "Response"]

LEVEL = 6
"""Level of gzip. Level 9 saves a tenth and takes 2.3 times as long, level 1 needs two fifths more space."""

MAX_CONTENT = 2**30
"""Maximum size of a content in bytes, against a damaged object that inflates without end."""

_GZIP = 31
"""zlib's code for the format of gzip; its header then has no time, so equal contents are equal objects."""

_PIECE = 2**20

_OPENING, _CLOSING = b'{"resourceMetrics":', b"}\n"


class _Content(msgspec.Struct, rename="camel"):
    resource_metrics: msgspec.Raw


@dataclass(frozen=True)
class Archived:
    """One archived response, as the listing shows it.

    Attributes:
        app_id: UUID of the app.
        day: Day of its directory.
        entry: Its name.
        data_size: Size of the compressed metrics in bytes; None if the object is missing.
        is_described: Whether it has a description.
    """

    app_id: str
    day: dt.date
    entry: Entry
    data_size: int | None
    is_described: bool

    @property
    def key(self) -> str:
        """Path of both objects, without the extension."""
        return f"{day_path(self.app_id, self.day)}/{self.entry.stem}"


class Response(NamedTuple):
    """An archived response of the gateway.

    Attributes:
        metrics: The response, as the gateway's client returned it.
        fetched: Time at which it was fetched, aware.
    """

    metrics: AppMetrics
    fetched: dt.datetime


class Archive:
    """The archive in one store.

    Args:
        storage: The store.
        now: Returns the current time, aware.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
    ) -> None:
        self.storage = storage
        self._now = now

    @property
    def name(self) -> str:
        """Its place, for logs and errors."""
        return self.storage.name

    def write(self, metrics: AppMetrics) -> bool:
        """Write a response of the gateway; return whether it was not there yet.

        Raises:
            ArchiveUnavailable: The store cannot be read or written.
        """
        text = one_line(metrics.text)
        parts = (_OPENING, text, _CLOSING)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        entry = entry_of(metrics, sha256 := digest.hexdigest())
        key = f"{day_path(metrics.app_id, metrics.window.start.date())}/{entry.stem}"
        if self.storage.exists(key + ABOUT):
            return False
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
        data = b"".join([*map(packer.compress, parts), packer.flush()])
        about = Description.of(
            metrics, fetched=self._now(), sha256=sha256, size=sum(memoryview(part).nbytes for part in parts)
        )
        self.storage.write(key + DATA, data)
        self.storage.write(key + ABOUT, msgspec.json.format(msgspec.json.encode(about)) + b"\n")
        return True

    def apps(self) -> list[str]:
        """Return the UUIDs of the apps in the archive.

        Raises:
            ArchiveUnavailable: The store cannot be read.
        """
        return [name for name, _ in self.storage.names("")]

    def days(self, app_id: str) -> list[dt.date]:
        """Return the days that have objects, oldest first.

        Raises:
            ArchiveUnavailable: The store cannot be read.
        """
        found = []
        for year, _ in self.storage.names(app_id):
            for month, _ in self.storage.names(f"{app_id}/{year}"):
                for day, _ in self.storage.names(f"{app_id}/{year}/{month}"):
                    try:
                        found.append(dt.datetime.strptime(f"{year}-{month}-{day}Z", "%Y-%m-%d%z").date())
                    except ValueError:  # not ours
                        continue
        return sorted(found)

    def list_day(self, app_id: str, day: dt.date) -> list[Archived]:
        """Return the archived responses of one day, in the order of their windows.

        Raises:
            ArchiveUnavailable: The store cannot be read.
        """
        sizes: dict[Entry, dict[str, int]] = {}
        for name, size in self.storage.names(day_path(app_id, day)):
            if parsed := parse_name(name, day):
                entry, kind = parsed
                sizes.setdefault(entry, {})[kind] = size
        return [
            Archived(app_id, day, entry, kinds.get(DATA), ABOUT in kinds)
            for entry, kinds in sorted(sizes.items())
        ]

    def list_between(self, app_id: str, start: dt.datetime, end: dt.datetime) -> Iterator[Archived]:
        """Yield the archived responses whose windows overlap a time range, in the order of their windows.

        Raises:
            ArchiveUnavailable: The store cannot be read.
        """
        day = start.date()
        while day <= end.date():
            for archived in self.list_day(app_id, day):
                if archived.entry.window.start < end and archived.entry.window.end > start:
                    yield archived
            day += dt.timedelta(days=1)

    def describe(self, archived: Archived) -> Description:
        """Return the description of a response.

        Raises:
            ArchiveDamaged: It is missing or damaged, or a later version has written it.
            ArchiveUnavailable: The store cannot be read.
        """
        content = self.storage.read(archived.key + ABOUT)
        if content is None:
            raise self._damaged(archived, ABOUT, "it is missing, as after an interrupted write")
        try:
            version = msgspec.json.decode(content, type=dict[str, object]).get("version")
            if isinstance(version, int) and version > VERSION:
                raise self._damaged(
                    archived, ABOUT, f"version {version} has written it, and this one reads up to {VERSION}"
                )
            return msgspec.json.decode(content, type=Description)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._damaged(archived, ABOUT, str(error)) from None

    def read(self, archived: Archived) -> Response:
        """Return an archived response, after comparing it with its description.

        Raises:
            ArchiveDamaged: An object is missing or damaged, or a later version has written it.
            ArchiveUnavailable: The store cannot be read.
        """
        began = self._now()
        about = self.describe(archived)
        data = self.storage.read(archived.key + DATA)
        if data is None:
            raise self._damaged(archived, DATA, "it is missing")
        content = self._inflate(archived, data)
        if hashlib.sha256(content).hexdigest() != about.sha256:
            raise self._damaged(archived, DATA, "its SHA-256 is not that of the description")
        try:
            metrics = AppMetrics(
                about.app_id,
                Window(*about.window.split("/")),  # type: ignore[arg-type]
                about.environment_list(),
                tuple(about.metrics),
                msgspec.json.decode(content, type=_Content).resource_metrics,
                about.request_id,
                elapsed=(self._now() - began).total_seconds(),
                waited=0.0,
                left_out=tuple(about.left_out),
            )
            fetched = parse_time("fetched", about.fetched)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise self._damaged(archived, DATA, str(error)) from None
        return Response(metrics, fetched)

    def delete(self, archived: Archived) -> None:
        """Delete both objects of a response; the description first, without which the other is not read.

        Raises:
            ArchiveUnavailable: The store cannot be written.
        """
        self.storage.delete(archived.key + ABOUT)
        self.storage.delete(archived.key + DATA)

    def _inflate(self, archived: Archived, data: bytes) -> bytes:
        inflater = zlib.decompressobj(_GZIP)
        try:
            content = inflater.decompress(data, MAX_CONTENT)
        except zlib.error as error:
            raise self._damaged(archived, DATA, str(error)) from None
        if not inflater.eof:
            raise self._damaged(archived, DATA, f"it is cut off after {len(data):,} bytes")
        return content

    def _damaged(self, archived: Archived, kind: str, problem: str) -> ArchiveDamaged:
        return ArchiveDamaged(
            f"The archive's {archived.key}{kind} cannot be used: {sanitize(problem, most=300)}. Restore it"
            " from a backup or, while Atlassian still has the window, delete both objects and run it again"
        )


def one_line(text: msgspec.Raw | bytes) -> memoryview | bytes:
    """Return JSON without line breaks, which are only white space between its tokens; usually unchanged.

    Readers of OTLP/JSON files take each line for a message.
    """
    view = memoryview(text)
    # Copied piece by piece: searching bytes is many times as fast as searching a view.
    pieces = (bytes(view[at : at + _PIECE]) for at in range(0, len(view), _PIECE))
    if any(b"\n" in piece or b"\r" in piece for piece in pieces):
        return bytes(view).replace(b"\n", b" ").replace(b"\r", b" ")
    return view


def unavailable_for(name: str, seconds: float) -> ArchiveUnavailable:
    """Return the error for a store that did not answer in time."""
    return ArchiveUnavailable(
        f"The archive {name} did not answer within {seconds:g} s. Check the Forge Connection's extra"
        " archive_url, and the network to it"
    )


def fetched_text(moment: dt.datetime) -> str:
    """Return the time of a response for the log."""
    return format_time(moment, "seconds")
