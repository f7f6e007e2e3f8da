"""`coverage`: the last 14 days, hour by hour, and how to heal what is missing."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from rich.text import Text

from airflow_provider_forge.cli.connections import forge_hook, otlp_hook
from airflow_provider_forge.cli.ledgers import ledger_store
from airflow_provider_forge.delivery import picture
from airflow_provider_forge.delivery.coverage import EXPECTED_AFTER, Outcome, find_coverage
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.gateway.windows import RETENTION
from airflow_provider_forge.hooks.ledger import open_ledger

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.delivery.coverage import Coverage, Gap

__all__ = ["run"]

STYLES = {
    Outcome.EMPTY: "green",
    Outcome.DELIVERED: "green",
    Outcome.REJECTED: "yellow",
    Outcome.FAILED: "red",
    Outcome.MISSING: "red",
}


def run(options: Namespace, output: Output) -> int:
    """Print the coverage; 1 where something is missing, failed or rejected."""
    now = dt.datetime.now(dt.timezone.utc)
    forge, otlp = forge_hook(options), otlp_hook(options)
    endpoint = otlp.endpoint()
    ledger = open_ledger(ledger_store(options, otlp), forge.app_id, endpoint.destination)
    keep = min(RETENTION, endpoint.max_age or RETENTION)
    with output.busy("Reading the record of deliveries…"):
        coverage = find_coverage(ledger, now, keep=keep, expected_after=EXPECTED_AFTER)
    if coverage is None:
        raise ConfigurationError(
            "ledger",
            f"{ledger.store.name} has no record of this app and destination: nothing was delivered yet, or"
            " the record is elsewhere",
        )
    expiring = coverage.expiring(now, dt.timedelta(hours=options.alert_before))
    if options.json:
        output.json(_to_json(coverage, expiring, options.dag_id))
    else:
        _print(output, coverage, expiring, now, options.dag_id)
    bad = (Outcome.MISSING, Outcome.FAILED, Outcome.REJECTED)
    return 1 if any(coverage.count(outcome) for outcome in bad) else 0


def _print(output: Output, coverage: Coverage, expiring: list[Gap], now: dt.datetime, dag_id: str) -> None:
    _print_days(output, coverage)
    output.line()
    output.line(picture.tell_counts(coverage))
    output.line(f"Environments: {', '.join(coverage.environments)}. Metrics: {', '.join(coverage.metrics)}")
    for gap in coverage.gaps():
        soon = gap in expiring
        output.line()
        output.line(picture.describe(gap, now, soon=soon), style="red" if soon else "")
        output.line(f"  {picture.backfill(gap, dag_id)}")


def _print_days(output: Output, coverage: Coverage) -> None:
    output.line(picture.HEADING)
    for day, hours in picture.day_rows(coverage):
        line = Text(f"{day} ")
        for outcome in hours:
            sign = picture.SIGNS[outcome] if outcome else " "
            line.append(f"{sign:<{picture.WIDTH}}", style=STYLES.get(outcome, "") if outcome else "")
        line.rstrip()
        output.line(line)
    output.line(picture.LEGEND)


def _to_json(coverage: Coverage, expiring: list[Gap], dag_id: str) -> dict[str, Any]:
    return {
        "environments": coverage.environments,
        "metrics": coverage.metrics,
        "windows": {outcome.value: coverage.count(outcome) for outcome in Outcome},
        "hours": [
            {"hour": picture.time(hour), "outcome": outcome.value}
            for hour, outcome in coverage.hours().items()
        ],
        "gaps": [
            {
                "start": picture.time(gap.start),
                "end": picture.time(gap.end),
                "windows": {
                    outcome.value: count
                    for outcome in (Outcome.FAILED, Outcome.MISSING)
                    if (count := sum(quarter.outcome is outcome for quarter in gap.quarters))
                },
                "expires": picture.time(gap.expires),
                "expiring_soon": gap in expiring,
                "backfill": picture.backfill(gap, dag_id),
            }
            for gap in coverage.gaps()
        ],
    }
