"""`fetch`: print the metrics of one window, or the number of series that a backend would charge for."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.cli.context import forge_access
from airflow_provider_forge.exceptions import BrokenAnswer, ConfigurationError
from airflow_provider_forge.otlp.messages import (
    MalformedOtlp,
    canonical,
    data_points,
    decode,
    entries,
    kind_of,
)
from airflow_provider_forge.text import sanitize
from airflow_provider_forge.windows import MAX_WINDOW, Window, parse_time

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["Cardinality", "cardinalities", "run"]


@dataclass
class Cardinality:
    """The number of series and points of one metric.

    Attributes:
        name: Name of the metric.
        kind: Its OTLP type, such as `sum`.
        unit: Its unit, as Atlassian sends it.
        points: Number of data points.
        series: Distinct sets of attributes.
        values: Distinct values by attribute.
    """

    name: str
    kind: str
    unit: str
    points: int = 0
    series: set[bytes] = field(default_factory=set)
    values: dict[str, set[bytes]] = field(default_factory=dict)

    def add(self, point: Json) -> None:
        """Count a data point."""
        attributes = entries(point, "attributes")
        self.points += 1
        self.series.add(b"\n".join(sorted(map(canonical, attributes))))
        for attribute in attributes:
            found = self.values.setdefault(str(attribute.get("key")), set())
            found.add(canonical({"value": attribute.get("value")}))

    def by_attribute(self) -> dict[str, int]:
        """Return the number of distinct values of each attribute, largest first."""
        counts = {key: len(values) for key, values in self.values.items()}
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def cardinalities(resource_metrics: list[Json]) -> list[Cardinality]:
    """Return the cardinality of each metric, largest first.

    Raises:
        MalformedOtlp: The argument is not OTLP/JSON.
    """
    found: dict[str, Cardinality] = {}
    for metric, point in data_points(resource_metrics):
        name = str(metric.get("name"))
        one = found.setdefault(name, Cardinality(name, kind_of(metric) or "?", str(metric.get("unit") or "")))
        if point is not None:
            one.add(point)
    return sorted(found.values(), key=lambda one: (-len(one.series), one.name))


def run(options: Namespace, output: Output) -> int:
    """Print a summary of the metrics, or with `--json` the response as Atlassian sent it."""
    window = _window(options)
    with output.busy(f"Asking Atlassian for {window}…"):
        metrics = forge_access(options).fetch(window.start, window.end, options.environments, options.metrics)
    if options.json and not options.cardinality:
        # An ExportMetricsServiceRequest, as Atlassian sent it: `curl` can post it to a Collector.
        output.raw(f'{{"resourceMetrics":{metrics.resource_metrics.decode()}}}')
        return 0
    try:
        found = cardinalities(decode(metrics.resource_metrics))
    except MalformedOtlp as error:
        raise BrokenAnswer(
            f"The gateway's metrics for {window} are not OTLP ({sanitize(error)}). --json shows them",
            request_id=metrics.request_id,
        ) from error
    if options.json:
        output.json(_to_json(metrics, found))
    elif options.cardinality:
        _print_cardinality(output, found)
    else:
        rows = [(one.name, one.kind, one.unit, one.points, len(one.series)) for one in found]
        output.table(("METRIC", "TYPE", "UNIT", "POINTS", "SERIES"), rows)
    output.note(
        f"{window}: {sum(one.points for one in found)} points in {metrics.elapsed:.2f} s, after"
        f" {metrics.waited:.1f} s of waiting for the rate limit (request id {metrics.request_id})"
    )
    return 0


def _window(options: Namespace) -> Window:
    if not options.start:
        if options.end:
            raise ConfigurationError("--start", "is missing beside --end")
        return Window.last_settled(dt.datetime.now(dt.timezone.utc))
    start = parse_time("--start", options.start)
    return Window(start, parse_time("--end", options.end) if options.end else start + MAX_WINDOW)


def _print_cardinality(output: Output, found: list[Cardinality]) -> None:
    rows = [
        (
            one.name,
            len(one.series),
            one.points,
            ", ".join(f"{key} {n}" for key, n in one.by_attribute().items()),
        )
        for one in found
    ]
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows), ""))
    output.table(("METRIC", "SERIES", "POINTS", "VALUES BY ATTRIBUTE"), rows)


def _to_json(metrics: AppMetrics, found: list[Cardinality]) -> dict[str, object]:
    return {
        "window": str(metrics.window),
        "series": sum(len(one.series) for one in found),
        "metrics": [
            {
                "name": one.name,
                "type": one.kind,
                "unit": one.unit,
                "points": one.points,
                "series": len(one.series),
                "attributes": one.by_attribute(),
            }
            for one in found
        ],
        "request_id": metrics.request_id,
    }
