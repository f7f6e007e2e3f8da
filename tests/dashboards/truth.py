"""What was served, and what follows from it: totals, ratios and quantiles, computed without Prometheus."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_forge.otlp.selftelemetry import Instrument
    from airflow_provider_forge.sandbox import Point
    from tests.dashboards.day import App
    from tests.dashboards.exporter import Told

MINUTE = 60


class Sample(NamedTuple):
    """A point in the terms of a dashboard.

    Attributes:
        time: Seconds since the epoch.
        labels: As Prometheus names them.
        value: A number, or a histogram's counts by the bounds of its buckets.
    """

    time: float
    labels: Mapping[str, str]
    value: float | dict[tuple[float, float], int]


@dataclass(frozen=True)
class Frame:
    """The moments `start + step`, `start + 2 * step` and so on, `count` of them; all in seconds."""

    start: int
    step: int
    count: int

    @property
    def whole(self) -> Frame:
        """One step over all of it."""
        return Frame(self.start, self.step * self.count, 1)

    def moment(self, number: int) -> int:
        """Return a moment, given its number from 1 on."""
        return self.start + number * self.step

    def numbers(self, time: float, reach: int) -> range:
        """Return the moments that are at most so long after a time, or at it: less than `reach` seconds."""
        first = math.ceil((time - self.start) / self.step)
        last = math.ceil((time + reach - self.start) / self.step) - 1
        return range(max(first, 1), min(last, self.count) + 1)


class Table(dict[tuple[str, ...], dict[int, float]]):
    """Values by labels' values and number of moment.

    Attributes:
        by: The labels' names.
        optional: Labels' values that are as good as others that are there.
    """

    def __init__(self, by: tuple[str, ...], optional: Iterable[tuple[str, ...]] = ()) -> None:
        super().__init__()
        self.by = by
        self.optional = set(optional)

    def map(self, change: Callable[[int, float], float | None]) -> Table:
        """Return what becomes of each number and value; None drops it."""
        changed = Table(self.by, self.optional)
        for key, values in self.items():
            kept = {number: new for number, old in values.items() if (new := change(number, old)) is not None}
            if kept:
                changed[key] = kept
        return changed

    def joined(self, other: Table, change: Callable[[float, float | None], float | None]) -> Table:
        """Return what becomes of each value and that of the same labels and moment in the other, or None."""
        joined = Table(self.by, self.optional | other.optional)
        for key, values in self.items():
            others = other.get(key, {})
            changed = {number: change(value, others.get(number)) for number, value in values.items()}
            if kept := {number: value for number, value in changed.items() if value is not None}:
                joined[key] = kept
        return joined

    def counted(self, *by: str) -> Table:
        """Return how many there are at each moment, by some of the labels."""
        counts = Table(by)
        places = [self.by.index(label) for label in by]
        for key, values in self.items():
            group = counts.setdefault(tuple(key[place] for place in places), {})
            for number in values:
                group[number] = group.get(number, 0) + 1
        return counts


class Truth:
    """The samples of one app, or of more.

    Args:
        samples: By name as Prometheus has it.
    """

    def __init__(self, samples: Mapping[str, list[Sample]]) -> None:
        self.samples = samples

    def reduced(
        self,
        name: str,
        by: tuple[str, ...],
        frame: Frame,
        reduce: Callable[[list[Sample]], float | None],
        *,
        where: Callable[[Mapping[str, str]], bool] = lambda _: True,
        reach: int | None = None,
        offset: int = 0,
    ) -> Table:
        """Return, for each moment, what is made of the samples of the time before it.

        Args:
            name: Of the metric.
            by: Labels that tell groups apart.
            frame: The moments.
            reduce: Makes a value of a group's samples.
            where: Chooses samples by their labels.
            reach: Length of that time in seconds; by default a step, so that it ends where the next begins.
            offset: How long before the moment it ends, in seconds.
        """
        groups: defaultdict[tuple[str, ...], defaultdict[int, list[Sample]]]
        groups = defaultdict(lambda: defaultdict(list))
        for sample in self.samples.get(name, ()):
            if where(sample.labels):
                key = tuple(sample.labels.get(label, "") for label in by)
                for number in frame.numbers(sample.time + offset, reach or frame.step):
                    groups[key][number].append(sample)
        table = Table(by)
        for key, moments in groups.items():
            values = {number: reduce(samples) for number, samples in moments.items()}
            if kept := {number: value for number, value in values.items() if value is not None}:
                table[key] = kept
        return table


def total(samples: list[Sample]) -> float:
    return math.fsum(sample.value for sample in samples)


def mean(samples: list[Sample]) -> float:
    return total(samples) / len(samples)


def highest(samples: list[Sample]) -> float:
    return max(sample.value for sample in samples)


def latest_by_series(samples: list[Sample]) -> list[float]:
    """Return each series' last value."""
    last = {frozenset(each.labels.items()): each for each in sorted(samples, key=lambda each: each.time)}
    return [each.value for each in last.values()]


def mean_of_means(samples: list[Sample]) -> float:
    """Return the mean of the series' means."""
    series = defaultdict(list)
    for sample in samples:
        series[frozenset(sample.labels.items())].append(sample)
    means = [mean(each) for each in series.values()]
    return math.fsum(means) / len(means)


def grown(samples: list[Sample]) -> float:
    """Return by how much cumulative series have grown from minute to minute, resets apart."""
    series = defaultdict(list)
    for sample in sorted(samples, key=lambda each: each.time):
        series[frozenset(sample.labels.items())].append(sample.value)
    return math.fsum(max(0, new - old) for each in series.values() for old, new in pairwise(each))


def quantile(share: float) -> Callable[[list[Sample]], float | None]:
    """Return what makes a quantile of histograms, in the way that Prometheus documents."""

    def of(samples: list[Sample]) -> float | None:
        buckets: defaultdict[tuple[float, float], int] = defaultdict(int)
        for sample in samples:
            # Gauges of another app have the same name.
            if isinstance(sample.value, dict):
                for bounds, count in sample.value.items():
                    buckets[bounds] += count
        rank, before = share * sum(buckets.values()), 0
        for (low, high), count in sorted(buckets.items()):
            if count and before + count >= rank:
                if math.isinf(high):
                    return low
                part = (rank - before) / count
                # Between the bounds of exponential buckets, Prometheus goes up exponentially.
                return low * (high / low) ** part if _is_exponential(buckets) else low + (high - low) * part
            before += count
        return None

    return of


def _is_exponential(buckets: Iterable[tuple[float, float]]) -> bool:
    return not any(math.isinf(high) for _, high in buckets)


def samples_of(app: App, name_of: Callable[[str], str]) -> dict[str, list[Sample]]:
    """Return what an app's gateway has served, by the names that `name_of` gives to metrics."""
    samples = defaultdict(list)
    names = app.names
    for point in app.served():
        labels = {**dict(point.attributes), "atlassian_forge_app_id": app.id}
        if environment := labels.get("environmentId"):
            labels["deployment_environment_name"] = names[environment]
        for suffix, more, value in _values(point):
            sample = Sample(point.time / 10**9, {**labels, **more} if more else labels, value)
            samples[name_of(point.metric) + suffix].append(sample)
    return samples


def _values(point: Point) -> Iterable[tuple[str, dict[str, str], float | dict[tuple[float, float], int]]]:
    data = point.data()
    if point.kind == "histogram":
        bounds = [0.0, *data.explicit_bounds, math.inf]
        return [("", {}, dict(zip(pairwise(bounds), data.bucket_counts, strict=True)))]
    if point.kind == "exponentialHistogram":
        base, first = 2**2**-data.scale, data.positive.offset
        counts = enumerate(data.positive.bucket_counts, first)
        return [("", {}, {(base**index, base ** (index + 1)): count for index, count in counts})]
    if point.kind == "summary":
        quantiles = [("", {"quantile": f"{each.quantile:g}"}, each.value) for each in data.quantile_values]
        return [("_sum", {}, data.sum), ("_count", {}, data.count), *quantiles]
    return [("", {}, data.as_int or data.as_double)]


def own_samples(told: list[Told], app: str, dag: str) -> dict[str, list[Sample]]:
    """Return the exporter's own metrics, by the names that Prometheus gives them."""
    of_all = {"atlassian_forge_app_id": app, "forge_exporter_dag_id": dag}
    samples = defaultdict(list)
    for time, measurements in told:
        for each in measurements:
            labels = {key.replace(".", "_"): text for key, text in each.attributes.items()}
            samples[own_name(each.instrument)].append(Sample(time, {**labels, **of_all}, each.value))
    return samples


def own_name(instrument: Instrument) -> str:
    """Return the name that Prometheus gives to one of the exporter's own metrics."""
    suffix = ("_seconds" if instrument.unit == "s" else "") + ("_total" if instrument.adds_up else "")
    return instrument.name.replace(".", "_") + suffix
