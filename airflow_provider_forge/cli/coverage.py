"""`coverage`: the status of each hour of the last 14 days, and the commands that heal the gaps."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from rich.text import Text

from airflow_provider_forge.cli.api_store import ApiStore
from airflow_provider_forge.cli.commands import DAG_ID, FORGE_CONN_ID, OTLP_CONN_ID
from airflow_provider_forge.cli.context import forge_access, ledger_store, otlp_access
from airflow_provider_forge.cli.times import parse_duration
from airflow_provider_forge.connections.ledger import open_ledger
from airflow_provider_forge.coverage.coverage import EXPECTED_AFTER, WindowStatus, find_coverage
from airflow_provider_forge.coverage.document import to_document
from airflow_provider_forge.coverage.report import render
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import RETENTION, format_time

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.coverage.coverage import Coverage
    from airflow_provider_forge.delivery.stores import Store

__all__ = ["run"]


def run(options: Namespace, output: Output) -> int:
    """Print the coverage; return 1 if a window is missing, failed or rejected."""
    now = dt.datetime.now(dt.timezone.utc)
    alert_before = parse_duration("--alert-before", options.alert_before, RETENTION)
    forge, otlp = forge_access(options), otlp_access(options)
    endpoint = otlp.endpoint()
    store = ledger_store(options, otlp, snapshot=True)
    ledger = open_ledger(otlp.runtime, store, forge.app_id, endpoint.destination)
    keep = min(RETENTION, endpoint.limits.max_age or RETENTION)
    with output.busy("Reading the ledger…"):
        coverage = find_coverage(ledger, now, keep=keep, expected_after=EXPECTED_AFTER)
    if coverage is None:
        raise ConfigurationError(
            "ledger",
            f"{ledger.store.name} has no ledger of this app and destination: nothing was delivered yet, or"
            " the ledger is elsewhere",
        )
    if catchup := _find_catchup(options, output, store, now):
        coverage = coverage.with_catchup(catchup)
    if options.json:
        output.json(to_document(coverage, now, alert_before, options.dag_id))
    elif not output.is_text:
        output.table(*_table(coverage))
    else:
        for number, section in enumerate(render(coverage, now, alert_before, options.dag_id)):
            if number:
                output.line()
            for line in section:
                text = Text.assemble(*line)
                text.rstrip()
                output.line(text)
    bad = (WindowStatus.MISSING, WindowStatus.FAILED, WindowStatus.REJECTED)
    return 1 if any(coverage.count(status) for status in bad) else 0


def _find_catchup(options: Namespace, output: Output, store: Store, now: dt.datetime) -> dt.datetime | None:
    """Return where the catchup of the DAG is; None if it is unknown, or if there is none."""
    if not isinstance(store, ApiStore):
        return None  # only Airflow knows where its schedule is
    connections = options.forge_conn_id, options.otlp_conn_id
    if connections != (FORGE_CONN_ID, OTLP_CONN_ID) and options.dag_id == DAG_ID:
        output.note("A catchup that fills gaps is not seen: give --dag-id, the DAG of these Connections")
        return None
    return store.find_catchup(options.dag_id, now)


def _table(coverage: Coverage) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the columns and a row for each quarter hour; one that is not open does not expire."""
    rows = [
        (
            f"{format_time(quarter.start)}/{format_time(quarter.end)}",
            quarter.status.value,
            quarter.points,
            quarter.attempts,
            format_time(quarter.delivered_at, "seconds") if quarter.delivered_at else "",
            format_time(quarter.start + coverage.keep) if quarter.is_open else "",
        )
        for quarter in coverage.quarters
    ]
    return ("WINDOW", "STATUS", "POINTS", "ATTEMPTS", "DELIVERED", "EXPIRES"), rows
