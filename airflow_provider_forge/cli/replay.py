"""`replay`: deliver an interval from the archive, or with `--dry-run` only count the points."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_forge.cli.context import forge_access, otlp_access
from airflow_provider_forge.cli.dry_run import NOTE, open_receiver, open_store
from airflow_provider_forge.cli.times import Times
from airflow_provider_forge.connections.archive import open_archive_source
from airflow_provider_forge.connections.ledger import open_delivery_ledger
from airflow_provider_forge.delivery.destination import Destination
from airflow_provider_forge.delivery.exporter import Exporter, Resource
from airflow_provider_forge.delivery.progress import DeliveryStats, Progress, available_windows
from airflow_provider_forge.delivery.sender import Policy
from airflow_provider_forge.windows import MAX_INTERVAL, Window

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
    problems: list[str] = []
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
                    problems += destination.progress.problems
        finally:
            result = [{"day": day, **stats.to_json()} for day, stats in days.items()]
            output.result = {"dry_run": options.dry_run, "days": result}
            if not options.json:
                _print(output, result, dry_run=options.dry_run)
    if options.json:
        output.json({**output.result, "problems": problems})
    for problem in problems:
        output.problem(problem)
    return 1 if problems else 0


def _exporter(options: Namespace, forge: ForgeAccess, otlp: OtlpAccess, receiver: OtlpClient) -> Exporter:
    source = open_archive_source(forge, options.environments, options.metrics)
    store = open_store(options, otlp)
    ledger = open_delivery_ledger(forge, store, options.otlp_conn_id, receiver.endpoint)
    return Exporter(source, [Destination(receiver, ledger)], Policy(), Resource(forge.service_name))


def _print(output: Output, days: list[dict[str, Any]], *, dry_run: bool) -> None:
    if days:
        output.table(COLUMNS, [(day["day"], *(day[field] for field in _FIELDS)) for day in days])
    if dry_run:
        output.note(NOTE)
