"""What came for one window, ready to be delivered: its points' fingerprints, and requests made of points.

There are two ways to it with one outcome. `fast` knows the usual shape of OTLP/JSON only; for any other
answer there is `DictPayload`, which takes twenty times as long. And where neither points nor deliveries are
looked at, `PassthroughPayload` is a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import select, whole_nanoseconds
from airflow_provider_forge.otlp.requests import ExportRequest, encode, json_chunks
from airflow_provider_forge.otlp.salvage import LeftOut, salvage
from airflow_provider_forge.payload.anomalies import Anomalies, find_anomalies
from airflow_provider_forge.payload.conform import conform
from airflow_provider_forge.payload.encoded_points import EncodedPoints
from airflow_provider_forge.payload.fingerprints import (
    KEY_BYTES,
    VALUE_BYTES,
    Fingerprint,
    fingerprints,
    minute_of,
)
from airflow_provider_forge.payload.structs import REFUSALS, metrics_of, scan_times
from airflow_provider_forge.payload.structs import decode as decode_around
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from msgspec import Raw

    from airflow_provider_forge.payload.conform import Identity

__all__ = ["DictPayload", "GatewayPayload", "PassthroughPayload", "Payload", "read"]

log = get_logger(__name__)


@dataclass(frozen=True)
class GatewayPayload:
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


class Payload(Protocol):
    """The points of one answer. They go by their numbers, in the order in which they came.

    Attributes:
        points: Their fingerprints; a metric of a kind that is not known counts as a point here.
        count: How many points there are.
        anomalies: What is odd about them.
        left_out: Number of points that are not OTLP, by the metric's name and the reason; not in `points`.
    """

    @property
    def points(self) -> Sequence[Fingerprint]: ...  # noqa: D102

    @property
    def count(self) -> int: ...  # noqa: D102

    @property
    def anomalies(self) -> Anomalies: ...  # noqa: D102

    @property
    def left_out(self) -> LeftOut: ...  # noqa: D102

    def encode(self, numbers: Collection[int]) -> ExportRequest:
        """Make one request of these points, in the order in which they came.

        Raises:
            MalformedOtlp: They are not OTLP.
        """


def read(source: GatewayPayload) -> Payload:
    """Read an answer.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    from airflow_provider_forge.payload.reader import FastPayload

    try:
        return PassthroughPayload(source) if source.passes_through else FastPayload(source)
    except REFUSALS as refusal:
        log.info("Read in the slow way, which knows everything: %.200s", refusal)
    return DictPayload(source)


class PassthroughPayload:
    """An answer that is passed through: it is JSON, its points have times, and that is all that is known.

    Without a record, nothing depends on what tells one point from another, so no point counts as any other.

    Attributes:
        anomalies: None, as nobody has looked.
        left_out: None: what is no OTLP is no usual shape either.

    Raises:
        Exception: It is in an unusual shape; one of `typed.REFUSALS`.
    """

    anomalies = Anomalies()
    left_out: LeftOut = LeftOut()

    def __init__(self, source: GatewayPayload) -> None:
        self._source = source
        self._metrics = [
            (metric.name, metric.data.dataPoints) for metric in metrics_of(scan_times(source.text))
        ]
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

    def encode(self, numbers: Collection[int]) -> ExportRequest:
        """Make one request of these points, of bytes that are cut out of the answer."""
        if len(numbers) < self.count:
            return self._encoded_points.encode(numbers)
        names = tuple(dict.fromkeys(name for name, _ in self._metrics))
        times = self._nanoseconds.values()
        start, end = min(times, default=0), max(times, default=0)
        return ExportRequest(json_chunks(self._source.text), HTTP_JSON, self.count, names, start, end)

    @cached_property
    def _encoded_points(self) -> EncodedPoints:
        encoded = EncodedPoints(self._source, decode_around(self._source.text))
        for number, metric in enumerate(metrics_of(encoded.resources)):
            texts, metric.data.dataPoints = metric.data.dataPoints, []
            encoded.points += texts
            encoded.slot_of += [encoded.new_slot(number, (None, None))] * len(texts)
        times = (point.timeUnixNano for _, points in self._metrics for point in points)
        encoded.times = [self._nanoseconds[time] for time in times]
        return encoded


class DictPayload:
    """An answer as dictionaries: slow, and open to whatever nobody has seen yet.

    Attributes:
        left_out: Number of points that are no OTLP, by the metric's name and the reason.
    """

    def __init__(self, source: GatewayPayload) -> None:
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
    def anomalies(self) -> Anomalies:
        """What is odd about the points."""
        return find_anomalies(self._resource_metrics)

    def encode(self, numbers: Collection[int]) -> ExportRequest:
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
