"""`replay`: deliver an interval from the archive, or with `--dry-run` only count the points."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_forge.cli.context import forge_access, otlp_access
from airflow_provider_forge.cli.dry_run import NOTE, TO_SEND, open_receiver, open_store
from airflow_provider_forge.cli.parser import PROGRAM
from airflow_provider_forge.cli.times import Times
from airflow_provider_forge.connections.archive import open_archive_source
from airflow_provider_forge.connections.ledger import open_delivery_ledger
from airflow_provider_forge.delivery.destination import Destination
from airflow_provider_forge.delivery.exporter import Exporter, Resource
from airflow_provider_forge.delivery.progress import DeliveryStats, Progress, available_windows
from airflow_provider_forge.delivery.sender import Policy
from airflow_provider_forge.exceptions import WindowNotArchived
from airflow_provider_forge.windows import (
    MAX_INTERVAL,
    MAX_WINDOW,
    RETENTION,
    Window,
    ceil,
    format_time,
    joined,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.connections.forge import ForgeAccess
    from airflow_provider_forge.connections.otlp import OtlpAccess
    from airflow_provider_forge.otlp.client import OtlpClient

__all__ = ["run"]

_FIELDS = ("replayed", "points", "sent", "unchanged", "changed", "ambiguous", "rejected", "batches")
COLUMNS = ("DAY", "WINDOWS", *(field.upper() for field in _FIELDS[1:-1]), "REQUESTS")


def run(options: Namespace, output: Output) -> int:
    """Deliver the interval's windows, oldest first; return 1 if some could not be delivered."""
    now = pendulum.now("UTC")
    times = Times(options, now, output, longest=MAX_INTERVAL)
    interval = Window(times.moment("--from", options.start), times.moment("--to", options.end))
    forge, otlp = forge_access(options), otlp_access(options)
    days: defaultdict[str, DeliveryStats] = defaultdict(DeliveryStats)
    missing: list[Window] = []
    endpoint = otlp.endpoint()
    # Before anything else: windows that are too old for the destination.
    windows, _ = available_windows(interval, now, "fail", endpoint, retention=None)
    with open_receiver(options, otlp) as receiver:
        exporter = _exporter(options, forge, otlp, receiver)
        [destination] = exporter.destinations
        try:
            with output.progress(windows, Window.humanize) as begun:
                for window in begun:
                    destination.progress = Progress.begin([window], [], expired=0)
                    exporter.export()
                    days[f"{window.start:%Y-%m-%d}"].include(destination.progress.stats)
                    found = destination.progress.stats.problems
                    if any(isinstance(problem, WindowNotArchived) for problem in found):
                        missing.append(window)
        finally:
            result = [{"day": day, **stats.to_json()} for day, stats in days.items()]
            output.result = {"dry_run": options.dry_run, "days": result}
            if not options.json:
                _print(output, result, dry_run=options.dry_run)
            # Those of a window that failed halfway, too.
            problems = [problem.message for problem in destination.stats.delivery.problems]
            problems += [_describe_gap(gap, now) for gap in joined(missing)]
            for problem in problems:
                output.problem(problem)
    if options.json:
        output.json({**output.result, "problems": problems})
    return 1 if problems else 0


def _exporter(options: Namespace, forge: ForgeAccess, otlp: OtlpAccess, receiver: OtlpClient) -> Exporter:
    source = open_archive_source(forge, options.environments, options.metrics)
    store = open_store(options, otlp)
    ledger = open_delivery_ledger(forge, store, options.otlp_conn_id, receiver.endpoint)
    return Exporter(source, [Destination(receiver, ledger)], Policy(), Resource(forge.service_name))


def _describe_gap(gap: Window, now: pendulum.DateTime) -> str:
    """Return a sentence about windows in a row that are not in the archive, and how to deliver them."""
    number = len(list(gap.split()))
    text = "1 window, {}, is" if number == 1 else f"{number:,} windows, {{}}, are"
    text = f"{text.format(gap.humanize(now.year))} not in the archive for these environments and metrics"
    start, end = max(gap.start, ceil(now - RETENTION, MAX_WINDOW)), min(gap.end, Window.last_settled(now).end)
    if start >= gap.end:
        return f"{text}, and Atlassian no longer has them"
    if start >= end:
        return f"{text}, and Atlassian may not have all points yet"
    whole = "it" if number == 1 else "them"
    part = whole if (start, end) == (gap.start, gap.end) else "those that Atlassian has"
    return f"{text}; `{PROGRAM} send --start {format_time(start)} --end {format_time(end)}` delivers {part}"


def _print(output: Output, days: list[dict[str, Any]], *, dry_run: bool) -> None:
    if days:
        columns = [TO_SEND.upper() if dry_run and name == "SENT" else name for name in COLUMNS]
        output.table(columns, [(day["day"], *(day[field] for field in _FIELDS)) for day in days])
    if dry_run:
        output.note(NOTE)
