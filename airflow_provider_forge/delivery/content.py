"""What came for one window, ready to be delivered: its points' fingerprints, and requests made of points.

There are two ways to it with one outcome. `fast` knows the usual shape of OTLP/JSON only; for any other
answer there is `Complete`, which takes twenty times as long. And where neither points nor deliveries are
looked at, `Unread` is a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from airflow_provider_forge.delivery.fingerprints import (
    KEY_BYTES,
    VALUE_BYTES,
    Fingerprint,
    fingerprints,
    minute_of,
)
from airflow_provider_forge.delivery.spliced import Spliced
from airflow_provider_forge.otlp.conform import conform
from airflow_provider_forge.otlp.encode import Export, encode, json_chunks
from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.model import select, whole_nanoseconds
from airflow_provider_forge.otlp.oddities import Oddities, find_oddities
from airflow_provider_forge.otlp.repeats import check_repeats
from airflow_provider_forge.otlp.salvage import LeftOut, salvage
from airflow_provider_forge.otlp.typed import REFUSALS, metrics_of, skim
from airflow_provider_forge.otlp.typed import decode as decode_around
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from msgspec import Raw

    from airflow_provider_forge.otlp.conform import Identity

__all__ = ["Complete", "Content", "Source", "Unread", "read"]

log = get_logger(__name__)


@dataclass(frozen=True)
class Source:
    """What the gateway gave for one window, and what is to become of it.

    Attributes:
        text: JSON text of an array of `ResourceMetrics`.
        environments: UUIDs of the environments that were asked for.
        minute: That the window begins in, counted from the epoch.
        identity: What `conform` needs; None to change nothing.
        protocol: `http/protobuf` or `http/json`.
        recorded: Whether there is a record of what is delivered.
    """

    text: bytes | Raw
    environments: Collection[str]
    minute: int
    identity: Identity | None
    protocol: str
    recorded: bool = True

    @property
    def passes_through(self) -> bool:
        """Whether its text is sent as it came, and nobody asks what is in it."""
        return not self.recorded and self.identity is None and self.protocol == HTTP_JSON


class Content(Protocol):
    """The points of one answer. They go by their numbers, in the order in which they came.

    Attributes:
        points: Their fingerprints; a metric of a kind that is not known counts as a point here.
        count: How many points there are.
        oddities: What is odd about them.
        left_out: Number of points that are not OTLP, by the metric's name and the reason; not in `points`.
    """

    @property
    def points(self) -> Sequence[Fingerprint]: ...  # noqa: D102

    @property
    def count(self) -> int: ...  # noqa: D102

    @property
    def oddities(self) -> Oddities: ...  # noqa: D102

    @property
    def left_out(self) -> LeftOut: ...  # noqa: D102

    def encode(self, numbers: Collection[int]) -> Export:
        """Make one request of these points, in the order in which they came.

        Raises:
            MalformedOtlp: They are not OTLP.
        """


def read(source: Source) -> Content:
    """Read an answer.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    from airflow_provider_forge.delivery.fast import Fast

    try:
        return Unread(source) if source.passes_through else Fast(source)
    except REFUSALS as refusal:
        log.info("Read in the slow way, which knows everything: %.200s", refusal)
    return Complete(source)


class Unread:
    """An answer that is passed through: it is JSON, its points have times, and that is all that is known.

    Without a record, nothing depends on what tells one point from another, so no point counts as any other.

    Attributes:
        oddities: None, as nobody has looked.
        left_out: None: what is no OTLP is no usual shape either.

    Raises:
        Exception: It is in an unusual shape; one of `typed.REFUSALS`.
    """

    oddities = Oddities()
    left_out: LeftOut = LeftOut()

    def __init__(self, source: Source) -> None:
        self._source = source
        self._metrics = [(metric.name, metric.data.dataPoints) for metric in metrics_of(skim(source.text))]
        for start in {point.startTimeUnixNano for _, points in self._metrics for point in points}:
            whole_nanoseconds(start, "startTimeUnixNano")
        times = {point.timeUnixNano for _, points in self._metrics for point in points}
        self._nanoseconds = {time: whole_nanoseconds(time, "timeUnixNano") for time in times}
        self.count = sum(len(points) for _, points in self._metrics)

    @cached_property
    def points(self) -> list[Fingerprint]:
        """Stand-ins for fingerprints, each unlike all others of a task."""
        window = self._source.minute.to_bytes(KEY_BYTES // 2, "big") + bytes(VALUE_BYTES)
        minutes = {text: minute_of(time, self._source.minute) for text, time in self._nanoseconds.items()}
        named = ((name, point.timeUnixNano) for name, points in self._metrics for point in points)
        return [
            Fingerprint(name, minutes[time], number.to_bytes(KEY_BYTES // 2, "big") + window)
            for number, (name, time) in enumerate(named)
        ]

    def encode(self, numbers: Collection[int]) -> Export:
        """Make one request of these points, of bytes that are cut out of the answer."""
        if len(numbers) < self.count:
            return self._spliced.encode(numbers)
        names = tuple(dict.fromkeys(name for name, _ in self._metrics))
        times = self._nanoseconds.values()
        start, end = min(times, default=0), max(times, default=0)
        return Export(json_chunks(self._source.text), HTTP_JSON, self.count, names, start, end)

    @cached_property
    def _spliced(self) -> Spliced:
        spliced = Spliced(self._source, decode_around(self._source.text))
        filled = size = 0
        for number, metric in enumerate(metrics_of(spliced.resources)):
            texts, metric.data.dataPoints = metric.data.dataPoints, []
            spliced.points += texts
            spliced.place_of += [spliced.new_place(number, (None, None))] * len(texts)
            filled += bool(texts)
            size += sum(map(len, texts)) + max(len(texts) - 1, 0)
        # All of it is sent as it came; cut in parts, it would lose what the first of two fields holds.
        check_repeats(self._source.text, spliced.resources, filled, size)
        times = (point.timeUnixNano for _, points in self._metrics for point in points)
        spliced.times = [self._nanoseconds[time] for time in times]
        return spliced


class Complete:
    """An answer as dictionaries: slow, and open to whatever nobody has seen yet.

    Attributes:
        left_out: Number of points that are no OTLP, by the metric's name and the reason.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        salvaged = salvage(source.text, protobuf=source.protocol != HTTP_JSON)
        self._resource_metrics = salvaged.resource_metrics
        self.left_out = salvaged.left_out
        self._verbatim = None if salvaged.notes or salvaged.left_out else source.text
        self.points = fingerprints(
            self._resource_metrics, environments=source.environments, minute=source.minute
        )
        self.count = len(self.points)
        if salvaged.notes:
            log.warning("Repaired in Atlassian's answer: %s", _listed(salvaged.notes))
        if salvaged.carried:
            log.warning(
                "%s: of a kind that is not known here; sent as it came, and a receiver that does not know"
                " it either keeps nothing of it",
                ", ".join(dict.fromkeys(salvaged.carried)),
            )

    @cached_property
    def oddities(self) -> Oddities:
        """What is odd about the points."""
        return find_oddities(self._resource_metrics)

    def encode(self, numbers: Collection[int]) -> Export:
        """Make one request of these points.

        Raises:
            MalformedOtlp: They are not OTLP.
        """
        source, chosen = self._source, self._resource_metrics
        everything = len(numbers) == len(self.points)
        if not everything:
            chosen = select(chosen, set(numbers))
        if source.identity:
            return encode(conform(chosen, source.identity), source.protocol)
        return encode(chosen, source.protocol, verbatim=self._verbatim if everything else None)


def _listed(notes: Mapping[str, int]) -> str:
    return ", ".join(f"{what} ({count})" for what, count in notes.items())
