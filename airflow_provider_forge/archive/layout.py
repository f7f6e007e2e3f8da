"""The layout of the archive: the names of its objects, and the description beside each.

A response of the gateway is two objects, which differ in their extension only::

    <app>/<YYYY>/<MM>/<DD>/<start>-<end>_<selection>_<content>.json.gz      the metrics
    <app>/<YYYY>/<MM>/<DD>/<start>-<end>_<selection>_<content>.about.json   their description

All times are in UTC: `0500-0515`, with seconds only if there are any, and `2400` for the end of a day. The
selection is a hash of the environments and metrics, and the content is the first 16 hexadecimal digits of the
content's SHA-256. Names sort by time, and the same content always has the same name.

The metrics are one line of OTLP/JSON, `{"resourceMetrics":[…]}`, in gzip. The description is written after
them: an object without one is the remainder of an interrupted write.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import pendulum

from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.windows import Window, format_time

if TYPE_CHECKING:
    from airflow_provider_forge.gateway.client import AppMetrics

__all__ = ["ABOUT", "DATA", "VERSION", "Description", "Entry", "day_path", "entry_of", "parse_name"]

VERSION = 1
"""Version of the format. A reader refuses a later one."""

DATA = ".json.gz"
ABOUT = ".about.json"

DIGEST_LETTERS = 16
"""Hexadecimal digits of the SHA-256 in a name: a window has two or three responses, not billions."""

_DAY = dt.timedelta(days=1)
_NAME = re.compile(
    r"(?P<start>[0-9]{4}(?:[0-9]{2}(?:\.[0-9]{3})?)?)-(?P<end>[0-9]{4}(?:[0-9]{2}(?:\.[0-9]{3})?)?)"
    r"_(?P<selection>[0-9a-f]{8})_(?P<content>[0-9a-f]{16})(?P<kind>\.json\.gz|\.about\.json)"
)


@dataclass(frozen=True, order=True)
class Entry:
    """The name of one archived response.

    Attributes:
        window: Its window.
        selection: Hash of its environments and metrics.
        content: First hexadecimal digits of the SHA-256 of its content.
    """

    window: Window
    selection: str
    content: str

    @property
    def stem(self) -> str:
        """Its name without the extension."""
        start = self.window.start
        day = start.start_of("day")
        end = "2400" if self.window.end == day + _DAY else _clock(self.window.end)
        return f"{_clock(start)}-{end}_{self.selection}_{self.content}"


class _Environment(msgspec.Struct):
    id: str
    name: str | None = None


class Description(msgspec.Struct, kw_only=True):
    """The description of one archived response, as its JSON has it.

    Attributes:
        version: Version of the format.
        app_id: UUID of the app.
        window: The window, as an ISO 8601 interval.
        environments: The requested environments.
        metrics: The requested metric labels.
        left_out: Labels that were not requested, because the gateway did not know them.
        request_id: The gateway's id of the request.
        fetched: Time of the response, in ISO 8601.
        sha256: SHA-256 of the content before compression, in hexadecimal.
        size: Size of that content in bytes.
    """

    version: int
    app_id: str
    window: str
    environments: list[_Environment]
    metrics: list[str]
    request_id: str | None
    fetched: str
    sha256: str
    size: int
    left_out: list[str] = []

    @classmethod
    def of(cls, metrics: AppMetrics, *, fetched: dt.datetime, sha256: str, size: int) -> Description:
        """Return the description of a response."""
        return cls(
            version=VERSION,
            app_id=metrics.app_id,
            window=str(metrics.window),
            environments=[_Environment(each.id, each.name) for each in metrics.environments],
            metrics=list(metrics.metrics),
            request_id=metrics.request_id,
            fetched=format_time(fetched, "milliseconds"),
            sha256=sha256,
            size=size,
            left_out=list(metrics.left_out),
        )

    def environment_list(self) -> tuple[Environment, ...]:
        """Return the environments as the gateway's client has them."""
        return tuple(Environment(each.id, each.name) for each in self.environments)


def entry_of(metrics: AppMetrics, sha256: str) -> Entry:
    """Return the name of a response.

    Args:
        metrics: The response.
        sha256: SHA-256 of its content, in hexadecimal.
    """
    names = sorted(each.id for each in metrics.environments), sorted(metrics.metrics)
    selection = hashlib.sha256(msgspec.json.encode(names)).hexdigest()[:8]
    return Entry(metrics.window, selection, sha256[:DIGEST_LETTERS])


def day_path(app_id: str, day: dt.date) -> str:
    """Return the directory of one app and one day of UTC."""
    return f"{app_id}/{day:%Y/%m/%d}"


def parse_name(name: str, day: dt.date) -> tuple[Entry, str] | None:
    """Return the entry that an object's name stands for, and its extension; None for any other name.

    Args:
        name: Name of the object, without its directory.
        day: Day of its directory.
    """
    found = _NAME.fullmatch(name)
    if not found:
        return None
    start, end = (_moment(found[part], day) for part in ("start", "end"))
    if start is None or end is None or end <= start:
        return None
    return Entry(Window(start, end), found["selection"], found["content"]), found["kind"]


def _clock(moment: dt.datetime) -> str:
    text = f"{moment:%H%M%S}"
    if moment.microsecond:
        return f"{text}.{moment.microsecond // 1000:03}"
    return text if moment.second else text[:4]


def _moment(text: str, day: dt.date) -> pendulum.DateTime | None:
    midnight = pendulum.datetime(day.year, day.month, day.day)
    if text == "2400":
        return midnight.add(days=1)
    hours, minutes, seconds, thousandths = int(text[:2]), int(text[2:4]), int(text[4:6] or 0), text[7:]
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    return midnight.add(
        hours=hours, minutes=minutes, seconds=seconds, microseconds=1000 * int(thousandths or 0)
    )
