"""The ground truth: generated points, visible points, and the points of a response."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from airflow_provider_forge.sandbox.catalogue import METRICS, MINUTE_NS, Sample
from airflow_provider_forge.sandbox.traffic import samples_of_minute

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from airflow_provider_forge.sandbox.environments import Environment
    from airflow_provider_forge.sandbox.scenario import Scenario

__all__ = ["Truth"]

POINTS_FROM_OUTSIDE = 3


class Truth:
    """The data of one scenario.

    A point belongs to the minute in which its interval starts, and therefore to every period [start, end)
    that contains the start of that minute: adjacent periods partition the points.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    def generated(
        self,
        app: str,
        environments: Sequence[Environment],
        labels: Collection[str],
        start: datetime,
        end: datetime,
    ) -> Iterator[Sample]:
        """Yield the final form of all points of [start, end)."""
        first, stop = _minute(start), _minute(end)
        return (
            sample
            for sample in self._samples(app, environments, labels, range(first, stop))
            if math.isinf(sample.visible_until)
        )

    def visible(
        self,
        app: str,
        environments: Sequence[Environment],
        labels: Collection[str],
        start: datetime,
        end: datetime,
        at: float,
    ) -> Iterator[Sample]:
        """Yield the points of [start, end) that are visible at `at`, in seconds since the epoch."""
        minutes = range(_minute(start), _minute(end))
        samples = self._samples(app, environments, labels, minutes)
        return (sample for sample in samples if sample.is_visible(at))

    def answer(
        self,
        app: str,
        environments: Sequence[Environment],
        labels: Collection[str],
        start: datetime,
        end: datetime,
        at: float,
    ) -> list[Sample]:
        """Return the points of a response: the visible ones, and those that switches add."""
        samples = list(self.visible(app, environments, labels, start, end, at))
        if not (self._scenario.inclusive_ends or self._scenario.points_outside_window):
            return samples
        for minute in (_minute(start) - 1, _minute(end)):
            neighbors = self._samples(app, environments, labels, (minute,))
            samples += self._of_neighbor([n for n in neighbors if n.is_visible(at)], start)
        return samples

    def _of_neighbor(self, samples: list[Sample], start: datetime) -> list[Sample]:
        edge = _minute(start) * MINUTE_NS
        if self._scenario.inclusive_ends:
            on_edge = [sample for sample in samples if sample.time == edge]
            if on_edge:
                return on_edge
        return samples[:POINTS_FROM_OUTSIDE] if self._scenario.points_outside_window else []

    def _samples(
        self, app: str, environments: Sequence[Environment], labels: Collection[str], minutes: Sequence[int]
    ) -> Iterator[Sample]:
        unknown = set(labels) - METRICS.keys()
        if unknown:
            raise ValueError(f"no such metric labels: {sorted(unknown)}")
        for minute, environment in itertools.product(minutes, environments):
            for sample in samples_of_minute(self._scenario, app, environment, minute):
                if sample.label in labels:
                    yield sample


def _minute(time: datetime) -> int:
    return math.ceil(time.timestamp() / 60)
