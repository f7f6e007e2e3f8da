"""What is odd in a set of metrics: it is sent as it came, but whoever runs the exporter should hear of it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.messages import (
    DELTA,
    Json,
    canonical,
    entries,
    kind_of,
    metrics_of,
    nanoseconds,
    points_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Anomalies", "Glance", "find_anomalies"]


@dataclass(frozen=True)
class Anomalies:
    """What backends may count twice, refuse or confuse.

    Attributes:
        duplicates: Points that repeat another in all they say.
        overlaps: Points that cover time which another point of the same series covers with another value.
        conflicts: Names of metrics that came with more than one type or unit.
    """

    duplicates: int = 0
    overlaps: int = 0
    conflicts: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = []
        if self.duplicates:
            parts.append(f"{self.duplicates} points came twice")
        if self.overlaps:
            parts.append(f"{self.overlaps} points overlap others of their series")
        if self.conflicts:
            parts.append(f"more than one type or unit for {', '.join(self.conflicts)}")
        return "; ".join(parts)


@dataclass
class Glance:
    """What is seen in passing of the points of all metrics of one name.

    Attributes:
        forms: The metrics' types and units.
        delta: Whether one of them is of delta temporality.
        points: Number of points.
        keys: For each point, the same for another one of its series and times.
        intervals: Their start and time, in nanoseconds since the epoch; 0 where it is left out.
    """

    forms: set[tuple[str, str]] = field(default_factory=set)
    delta: bool = False
    points: int = 0
    keys: set[bytes] = field(default_factory=set)
    intervals: set[tuple[int, int]] = field(default_factory=set)

    @property
    def plain(self) -> bool:
        """Whether `find_anomalies` would find nothing; where it is False, it may still find nothing."""
        if len(self.forms) > 1 or len(self.keys) < self.points:
            return False
        ordered = sorted((time, start if self.delta else 0) for start, time in self.intervals)
        # What holds for the intervals of all series together holds for those of each.
        return all(
            before < time and before <= (start or time)
            for (before, _), (time, start) in itertools.pairwise(ordered)
        )


def find_anomalies(resource_metrics: list[Json]) -> Anomalies:
    """Look through decoded OTLP/JSON.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    forms: dict[str, set[tuple[str | None, str]]] = defaultdict(set)
    series: dict[bytes, list[Json]] = defaultdict(list)
    deltas: set[bytes] = set()
    for metric in metrics_of(resource_metrics):
        name, kind = str(metric.get("name")), kind_of(metric)
        forms[name].add((kind, str(metric.get("unit") or "")))
        for point in points_of(metric):
            key = _series(name, point)
            series[key].append(point)
            if kind and metric[kind].get("aggregationTemporality") in DELTA:
                deltas.add(key)
    duplicates = overlaps = 0
    for key, points in series.items():
        if len(points) > 1:
            distinct = {canonical(point): point for point in points}
            duplicates += len(points) - len(distinct)
            overlaps += sum(_overlapping(distinct.values(), delta=key in deltas))
    return Anomalies(
        duplicates, overlaps, tuple(sorted(name for name, seen in forms.items() if len(seen) > 1))
    )


def _series(name: str, point: Json) -> bytes:
    pairs = sorted(canonical(entry) for entry in entries(point, "attributes"))
    return b"\n".join([name.encode(), *pairs])


def _overlapping(points: Iterable[Json], *, delta: bool) -> Iterator[bool]:
    """Yield for each point, in the order of time, whether it overlaps the ones before it.

    The points of a cumulative sum all begin at its start, and those of a gauge nowhere: there only a time
    that comes twice is odd.
    """
    latest = 0
    for point in sorted(points, key=lambda point: nanoseconds(point, "timeUnixNano")):
        time = nanoseconds(point, "timeUnixNano")
        start = nanoseconds(point, "startTimeUnixNano") if delta else 0
        yield bool(latest) and ((start or time) < latest or time == latest)
        latest = max(latest, time)
