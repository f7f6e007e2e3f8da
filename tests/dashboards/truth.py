"""The expected results, computed from served points without Prometheus: totals, ratios and quantiles."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_forge.delivery.telemetry import Instrument
    from airflow_provider_forge.sandbox import Point
    from tests.dashboards.day import App
    from tests.dashboards.exporter import Told

MINUTE = 60


class Sample(NamedTuple):
    """A point in the terms of a dashboard.

    Attributes:
        time: Seconds since the epoch.
        labels: Labels, by their names in Prometheus.
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
        """A frame with a single step over the whole period."""
        return Frame(self.start, self.step * self.count, 1)

    def moment(self, number: int) -> int:
        """Return a moment by its number, from 1."""
        return self.start + number * self.step

    def numbers(self, time: float, reach: int) -> range:
        """Return the numbers of the moments from a time on until `reach` seconds later, exclusive."""
        first = math.ceil((time - self.start) / self.step)
        last = math.ceil((time + reach - self.start) / self.step) - 1
        return range(max(first, 1), min(last, self.count) + 1)


class Table(dict[tuple[str, ...], dict[int, float]]):
    """Values by label values and number of the moment.

    Attributes:
        by: Names of the labels.
        optional: Label values that may replace others in the table.
    """

    def __init__(self, by: tuple[str, ...], optional: Iterable[tuple[str, ...]] = ()) -> None:
        super().__init__()
        self.by = by
        self.optional = set(optional)

    def map(self, change: Callable[[int, float], float | None]) -> Table:
        """Map each number and value; None drops the entry."""
        changed = Table(self.by, self.optional)
        for key, values in self.items():
            kept = {number: new for number, old in values.items() if (new := change(number, old)) is not None}
            if kept:
                changed[key] = kept
        return changed

    def joined(self, other: Table, change: Callable[[float, float | None], float | None]) -> Table:
        """Combine each value with that of the same labels and moment in another table, or None."""
        joined = Table(self.by, self.optional | other.optional)
        for key, values in self.items():
            others = other.get(key, {})
            changed = {number: change(value, others.get(number)) for number, value in values.items()}
            if kept := {number: value for number, value in changed.items() if value is not None}:
                joined[key] = kept
        return joined

    def counted(self, *by: str) -> Table:
        """Return the number of entries at each moment, by some of the labels."""
        counts = Table(by)
        places = [self.by.index(label) for label in by]
        for key, values in self.items():
            group = counts.setdefault(tuple(key[place] for place in places), {})
            for number in values:
                group[number] = group.get(number, 0) + 1
        return counts


class Truth:
    """The samples of one or more apps.

    Args:
        samples: Samples by the metric's name in Prometheus.
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
        """Reduce the samples in the period before each moment.

        Args:
            name: Name of the metric.
            by: Labels to group by.
            frame: The moments.
            reduce: Reduces a group's samples to a value.
            where: Filters samples by their labels.
            reach: Length of the period in seconds; by default one step, so that periods are adjacent.
            offset: Seconds from the end of the period to the moment.
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
    """Return the increase of cumulative series from minute to minute, without resets."""
    series = defaultdict(list)
    for sample in sorted(samples, key=lambda each: each.time):
        series[frozenset(sample.labels.items())].append(sample.value)
    return math.fsum(max(0, new - old) for each in series.values() for old, new in pairwise(each))


def quantile(share: float) -> Callable[[list[Sample]], float | None]:
    """Return a function that computes a quantile of histograms as documented by Prometheus."""

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
                # Prometheus interpolates exponentially between the bounds of exponential buckets.
                return low * (high / low) ** part if _is_exponential(buckets) else low + (high - low) * part
            before += count
        return None

    return of


def _is_exponential(buckets: Iterable[tuple[float, float]]) -> bool:
    return not any(math.isinf(high) for _, high in buckets)


def samples_of(app: App, name_of: Callable[[str], str]) -> dict[str, list[Sample]]:
    """Return the points that an app's gateway has served, by the metric names that `name_of` returns."""
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
    """Return the exporter's own metrics, by their names in Prometheus."""
    of_all = {"atlassian_forge_app_id": app, "forge_exporter_dag_id": dag}
    samples = defaultdict(list)
    for time, destination, measurements in told:
        for each in measurements:
            labels = {key.replace(".", "_"): text for key, text in each.attributes.items()}
            labels |= {**of_all, "forge_exporter_destination": destination}
            samples[own_name(each.instrument)].append(Sample(time, labels, each.value))
    return samples


def own_name(instrument: Instrument) -> str:
    """Return Prometheus' name for one of the exporter's own metrics."""
    unit = {"s": "_seconds", "1": "_ratio"}.get(instrument.unit, "")
    return instrument.name.replace(".", "_") + unit + ("_total" if instrument.adds_up else "")
