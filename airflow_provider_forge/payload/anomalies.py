"""Finds anomalies in metrics: they are sent unchanged, and reported to the user.

An anomaly is a duplicate point, overlapping points of one series, or conflicting types or units of a metric.
"""

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

__all__ = ["Anomalies", "AnomalyPrecheck", "find_anomalies"]


@dataclass(frozen=True)
class Anomalies:
    """Anomalies that a backend may count twice or reject.

    Attributes:
        duplicates: Number of points that are equal to another point.
        overlaps: Number of points that overlap in time with a different point of their series.
        conflicts: Names of metrics with more than one type or unit.
    """

    duplicates: int = 0
    overlaps: int = 0
    conflicts: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = []
        if self.duplicates:
            parts.append(f"{self.duplicates} duplicate points")
        if self.overlaps:
            parts.append(f"{self.overlaps} points overlap others of their series")
        if self.conflicts:
            parts.append(f"conflicting types or units of {', '.join(self.conflicts)}")
        return "; ".join(parts)


@dataclass
class AnomalyPrecheck:
    """A fast check of the points of all metrics of one name, during the reader's single pass.

    Attributes:
        types_and_units: The metrics' types and units.
        has_delta: Whether a metric has delta temporality.
        points: Number of points.
        keys: Keys of the points; points of the same series and times have the same key.
        intervals: Start and time of the points, in nanoseconds since the epoch; 0 if a point has none.
    """

    types_and_units: set[tuple[str, str]] = field(default_factory=set)
    has_delta: bool = False
    points: int = 0
    keys: set[bytes] = field(default_factory=set)
    intervals: set[tuple[int, int]] = field(default_factory=set)

    @property
    def is_clean(self) -> bool:
        """Whether there are certainly no anomalies; if False, `find_anomalies` may still find none."""
        if len(self.types_and_units) > 1 or len(self.keys) < self.points:
            return False
        ordered = sorted((time, start if self.has_delta else 0) for start, time in self.intervals)
        # If the intervals of all series together do not overlap, those of each series do not either.
        return all(
            before < time and before <= (start or time)
            for (before, _), (time, start) in itertools.pairwise(ordered)
        )


def find_anomalies(resource_metrics: list[Json]) -> Anomalies:
    """Find the anomalies in decoded OTLP/JSON.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    types_and_units: dict[str, set[tuple[str | None, str]]] = defaultdict(set)
    series: dict[bytes, list[Json]] = defaultdict(list)
    deltas: set[bytes] = set()
    for metric in metrics_of(resource_metrics):
        name, kind = str(metric.get("name")), kind_of(metric)
        types_and_units[name].add((kind, str(metric.get("unit") or "")))
        for point in points_of(metric):
            key = _series_key(name, point)
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
        duplicates, overlaps, tuple(sorted(name for name, found in types_and_units.items() if len(found) > 1))
    )


def _series_key(name: str, point: Json) -> bytes:
    pairs = sorted(canonical(entry) for entry in entries(point, "attributes"))
    return b"\n".join([name.encode(), *pairs])


def _overlapping(points: Iterable[Json], *, delta: bool) -> Iterator[bool]:
    """Yield for each point, ordered by time, whether it overlaps an earlier one.

    The points of a cumulative sum share their start, and those of a gauge have none: only equal times count
    as an overlap of these.
    """
    latest = 0
    for point in sorted(points, key=lambda point: nanoseconds(point, "timeUnixNano")):
        time = nanoseconds(point, "timeUnixNano")
        start = nanoseconds(point, "startTimeUnixNano") if delta else 0
        yield bool(latest) and ((start or time) < latest or time == latest)
        latest = max(latest, time)
