"""How many series an answer has, and which attributes make them: what a backend charges for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.messages import canonical, data_points, entries, kind_of

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["Cardinality", "cardinalities"]


@dataclass
class Cardinality:
    """What one metric comes to.

    Attributes:
        name: The metric's.
        kind: Its OTLP type, such as `sum`.
        unit: As Atlassian has it.
        points: Number of data points.
        series: Their attributes, each set once.
        values: The different values of each attribute.
    """

    name: str
    kind: str
    unit: str
    points: int = 0
    series: set[bytes] = field(default_factory=set)
    values: dict[str, set[bytes]] = field(default_factory=dict)

    def add(self, point: Json) -> None:
        """Count a point."""
        attributes = entries(point, "attributes")
        self.points += 1
        self.series.add(b"\n".join(sorted(map(canonical, attributes))))
        for attribute in attributes:
            found = self.values.setdefault(str(attribute.get("key")), set())
            found.add(canonical({"value": attribute.get("value")}))

    def by_attribute(self) -> dict[str, int]:
        """Return the number of values of each attribute, the largest first."""
        counts = {key: len(values) for key, values in self.values.items()}
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def cardinalities(resource_metrics: list[Json]) -> list[Cardinality]:
    """Return those of all metrics, the one with the most series first.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    found: dict[str, Cardinality] = {}
    for metric, point in data_points(resource_metrics):
        name = str(metric.get("name"))
        one = found.setdefault(name, Cardinality(name, kind_of(metric) or "?", str(metric.get("unit") or "")))
        if point is not None:
            one.add(point)
    return sorted(found.values(), key=lambda one: (-len(one.series), one.name))
