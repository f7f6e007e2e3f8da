"""What a store of time series is to hold of points, and holds."""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_forge.sandbox import Point


class Total(NamedTuple):
    """Of all samples with one name.

    Attributes:
        samples: How many there are.
        value: Their sum.
    """

    samples: int
    value: float


Totals = dict[str, Total]

# As OTLP has it, and as Prometheus does.
OWN = ("forge.exporter.", "forge_exporter_")
"""How the names of the exporter's own metrics begin."""


def totals_of(points: Iterable[Point], name_of: Callable[[str], str]) -> Totals:
    """Return what is stored of delta sums and histograms: of these a count, a sum and cumulative buckets.

    Args:
        points: What was delivered.
        name_of: The receiver's name for a metric.
    """
    values: defaultdict[str, list[float]] = defaultdict(list)
    for point in points:
        for suffix, value in _numbers(point):
            values[name_of(point.metric) + suffix].append(value)
    return {name: Total(len(numbers), sum(numbers)) for name, numbers in values.items()}


def _numbers(point: Point) -> Iterator[tuple[str, float]]:
    data = point.data()
    if point.kind == "histogram":
        yield "_count", data.count
        yield "_sum", data.sum
        yield from (("_bucket", count) for count in accumulate(data.bucket_counts))
    else:
        yield "", data.as_int
