"""`fetch`: the metrics of one window, to look at."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from airflow_provider_forge.cli.cardinality import cardinalities
from airflow_provider_forge.cli.connections import forge_hook
from airflow_provider_forge.exceptions import BrokenAnswer, ConfigurationError
from airflow_provider_forge.otlp.messages import MalformedOtlp, decode
from airflow_provider_forge.text import sanitize
from airflow_provider_forge.windows import MAX_WINDOW, Window, parse_time

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.cardinality import Cardinality
    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.gateway.client import AppMetrics

__all__ = ["run"]


def run(options: Namespace, output: Output) -> int:
    """Print the metrics, or what Atlassian has sent."""
    window = _window(options)
    with output.busy(f"Asking Atlassian for {window}…"):
        metrics = forge_hook(options).fetch(window.start, window.end, options.environments, options.metrics)
    if options.json and not options.cardinality:
        # An ExportMetricsServiceRequest, byte for byte as Atlassian has it: ready for `curl` and a Collector.
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
