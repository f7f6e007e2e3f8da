"""`send`: deliver an interval by hand, or with `--dry-run` print the requests that it would send."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.cli.context import forge_access, otlp_access
from airflow_provider_forge.cli.dry_run import NOTE, TO_SEND, DryClient, open_receiver, open_store
from airflow_provider_forge.cli.listing import WindowTable
from airflow_provider_forge.cli.times import Times
from airflow_provider_forge.connections.archive import open_gateway_source
from airflow_provider_forge.connections.ledger import open_delivery_ledger
from airflow_provider_forge.delivery.destination import Destination
from airflow_provider_forge.delivery.exporter import Exporter, Resource
from airflow_provider_forge.delivery.progress import Progress, available_windows
from airflow_provider_forge.delivery.sender import Policy
from airflow_provider_forge.delivery.stores import InMemoryStore
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import MINUTE, SETTLE_DELAY, Window, format_time

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.connections.forge import ForgeAccess
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.client import OtlpClient

__all__ = ["run"]

_FIELDS = ("points", "sent", "unchanged", "changed", "ambiguous", "rejected", "batches")
_ALWAYS = ("points", "sent")
"""Totals that are shown even if they are 0."""


def run(options: Namespace, output: Output) -> int:
    """Deliver the interval's windows, oldest first; return 1 if points were rejected or left out."""
    now = dt.datetime.now(dt.timezone.utc)
    interval = Times(options, now, output).interval()
    _check_settled(interval, now)
    forge, otlp = forge_access(options), otlp_access(options)
    store = InMemoryStore() if options.no_ledger else open_store(options, otlp)
    done: list[dict[str, Any]] = []
    output.result = {"dry_run": options.dry_run, "windows": done}
    with open_receiver(options, otlp) as receiver:
        exporter = _exporter(options, forge, receiver, store)
        windows, _ = available_windows(interval, now, "fail", receiver.endpoint)
        words = _words(options)
        table = WindowTable(output, ("WINDOW", *(words.get(name, name).upper() for name in _FIELDS)))
        try:
            with output.progress(windows, Window.humanize) as begun:
                for window in begun:
                    done.append(_deliver(window, exporter))
                    if not options.json:
                        table.add(window, [done[-1][name] for name in _FIELDS])
        finally:
            if not options.json:
                _summarize(options, output, windows, done)
            # Those of a window that failed halfway, too.
            problems = exporter.destinations[0].stats.delivery.problems
            for problem in problems:
                output.problem(problem.message)
    if options.json:
        output.json(output.result)
    return 1 if problems else 0


def _check_settled(interval: Window, now: dt.datetime) -> None:
    """Check that the interval has settled: otherwise its late data would never be fetched."""
    if interval.end + SETTLE_DELAY > now:
        raise ConfigurationError(
            "--end",
            f"{format_time(interval.end, 'seconds')} is less than {SETTLE_DELAY // MINUTE} minutes ago, so"
            f" data may still arrive; give {format_time(Window.last_settled(now).end)} or earlier",
        )


def _exporter(options: Namespace, forge: ForgeAccess, receiver: OtlpClient, store: Store) -> Exporter:
    ledger = open_delivery_ledger(forge, store, options.otlp_conn_id, receiver.endpoint)
    return Exporter(
        open_gateway_source(forge, options.environments, options.metrics, keep=not options.dry_run),
        [Destination(receiver, ledger)],
        Policy(resend=options.resend),
        Resource(forge.service_name),
    )


def _deliver(window: Window, exporter: Exporter) -> dict[str, Any]:
    [destination] = exporter.destinations
    destination.progress = Progress.begin([window], [], expired=0)
    receiver = destination.receiver
    before = len(receiver.batches) if isinstance(receiver, DryClient) else 0
    exporter.export()
    done = {
        "window": str(window),
        **destination.progress.stats.to_json(),
        "problems": destination.progress.problems,
    }
    if isinstance(receiver, DryClient):
        done["requests"] = [dataclasses.asdict(batch) for batch in receiver.batches[before:]]
    return done


def _words(options: Namespace) -> dict[str, str]:
    """Return the words for fields that are not named as they are."""
    return {"batches": "requests", **({"sent": TO_SEND} if options.dry_run else {})}


def _summarize(
    options: Namespace, output: Output, windows: Sequence[Window], done: list[dict[str, Any]]
) -> None:
    if not done:
        return
    words = _words(options)
    if options.resend:  # these are sent, too
        words |= {"unchanged": "of them delivered before", "changed": "of them delivered with other values"}
    totals = {name: sum(window[name] for window in done) for name in _FIELDS[:-1]}
    counts = ", ".join(
        f"{total:,} {words.get(name, name)}" for name, total in totals.items() if total or name in _ALWAYS
    )
    if options.dry_run and any(one["requests"] for one in done):
        output.line()
        table = WindowTable(output, ("REQUEST OF", "POINTS", "BYTES", "AS SENT"), text="METRICS")
        for window, one in zip(windows, done, strict=False):
            for batch in one["requests"]:
                values = (batch["points"], batch["bytes"], batch["bytes_sent"], ", ".join(batch["metrics"]))
                table.add(window, values)
    output.note(f"{len(done):,} of {len(windows):,} windows: {counts}")
    if options.dry_run:
        output.note(NOTE)
