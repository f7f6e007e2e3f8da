"""`fetch`: print the metrics of an interval, or the number of series that a backend would charge for."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.cli.context import forge_access
from airflow_provider_forge.cli.times import Times
from airflow_provider_forge.exceptions import BrokenAnswer
from airflow_provider_forge.otlp.messages import (
    MalformedOtlp,
    canonical,
    data_points,
    decode,
    entries,
    kind_of,
)
from airflow_provider_forge.text import sanitize
from airflow_provider_forge.windows import MAX_WINDOW, Window, expired_error

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
    """Print a summary of the metrics, or with `--json` the responses as Atlassian sent them."""
    now = dt.datetime.now(dt.timezone.utc)
    interval = Times(options, now, output).interval(length=MAX_WINDOW)
    if interval.expired(now):
        raise expired_error(interval, now)
    forge = forge_access(options)
    with output.progress(list(interval.split()), Window.humanize) as windows:
        answers = [
            forge.fetch(window.start, window.end, options.environments, options.metrics) for window in windows
        ]
    if options.json and not options.cardinality:
        # An ExportMetricsServiceRequest, as Atlassian sent it: `curl` can post it to a Collector.
        output.raw(f'{{"resourceMetrics":{_concatenate(answers)}}}')
        return 0
    found = cardinalities([one for answer in answers for one in _decode(answer)])
    points = sum(one.points for one in found)
    if options.json:
        output.json(_to_json(interval, answers, found))
    elif options.cardinality:
        _print_cardinality(output, found)
    else:
        rows = [(one.name, one.kind, one.unit, one.points, len(one.series)) for one in found]
        output.table(("METRIC", "TYPE", "UNIT", "POINTS", "SERIES"), rows)
        if any(one.kind == "sum" and one.unit == "s" for one in found):
            output.note("UNIT is Atlassian's own, which is s for counts. A delivery corrects it.")
    output.note(_summary(interval, points, answers))
    return 0


def _concatenate(answers: list[AppMetrics]) -> str:
    """Return one JSON array; that of a single answer unchanged, whatever it is, but in UTF-8."""
    arrays = [answer.resource_metrics.decode(errors="replace").strip() for answer in answers]
    if len(arrays) == 1:
        return arrays[0]
    contents = (array[1:-1].strip() for array in arrays if array.startswith("["))
    return f"[{','.join(filter(None, contents))}]"


def _decode(answer: AppMetrics) -> list[Json]:
    try:
        return decode(answer.resource_metrics)
    except MalformedOtlp as error:
        raise BrokenAnswer(
            f"The gateway's metrics for {answer.window.humanize()} are not OTLP ({sanitize(error)})."
            " --json shows them",
            request_id=answer.request_id,
        ) from error


def _summary(interval: Window, points: int, answers: list[AppMetrics]) -> str:
    elapsed, waited = (sum(getattr(each, name) for each in answers) for name in ("elapsed", "waited"))
    calls = f"{len(answers)} calls" if len(answers) > 1 else f"request id {answers[0].request_id}"
    return (
        f"{interval.humanize()}: {points:,} points in {elapsed:.2f} s, after {waited:.1f} s of waiting for"
        f" the rate limit ({calls})"
    )


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


def _to_json(interval: Window, answers: list[AppMetrics], found: list[Cardinality]) -> dict[str, object]:
    return {
        "window": str(interval),
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
        "request_ids": [answer.request_id for answer in answers],
    }
