"""`coverage`: the last 14 days, hour by hour, and how to heal what is missing."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from rich.text import Text

from airflow_provider_forge.cli.connections import forge_hook, otlp_hook
from airflow_provider_forge.cli.ledgers import ledger_store
from airflow_provider_forge.delivery.coverage import Outcome, find_coverage
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.gateway.windows import LONGEST, RETENTION, iso
from airflow_provider_forge.hooks.ledger import open_ledger

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.delivery.coverage import Coverage, Gap

__all__ = ["run"]

EXPECTED_AFTER = dt.timedelta(minutes=30)
"""How long after its end a window may still be on its way: its settle time, its turn, a retry or two."""

SIGNS = {
    Outcome.PENDING: (" ", ""),
    Outcome.EMPTY: ("·", "green"),
    Outcome.DELIVERED: ("■", "green"),
    Outcome.REJECTED: ("R", "yellow"),
    Outcome.FAILED: ("!", "red"),
    Outcome.MISSING: ("x", "red"),
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
    counts = ", ".join(f"{coverage.count(outcome)} {outcome.value}" for outcome in Outcome)
    output.line()
    output.line(f"{len(coverage.quarters)} windows of 15 minutes: {counts}")
    output.line(f"Environments: {', '.join(coverage.environments)}. Metrics: {', '.join(coverage.metrics)}")
    for gap in coverage.gaps():
        hours = (gap.expires - now).total_seconds() / 3600
        soon = "expiring soon, " if gap in expiring else ""
        outcomes = " and ".join(sorted({quarter.outcome.value for quarter in gap.quarters}))
        output.line()
        output.line(
            f"{_time(gap.start)} to {_time(gap.end)}: {len(gap.quarters)} {outcomes},"
            f" {soon}{max(hours, 0):.0f} h left",
            style="red" if soon else "",
        )
        output.line(f"  {_backfill(gap, dag_id)}")


def _print_days(output: Output, coverage: Coverage) -> None:
    hours = coverage.hours()
    # With a sign in every second column, a day fits into a terminal of 80.
    output.line(f"{'UTC':<11}" + "".join(f"{hour:<4}" for hour in range(0, 24, 2)).rstrip())
    for day in sorted({hour.date() for hour in hours}):
        line = Text(f"{day} ")
        for number in range(24):
            hour = dt.datetime.combine(day, dt.time(number), dt.timezone.utc)
            sign, style = SIGNS[hours[hour]] if hour in hours else (" ", "")
            line.append(f"{sign:<2}", style=style)
        line.rstrip()
        output.line(line)
    output.line("  ".join(f"{sign} {outcome.value}" for outcome, (sign, _) in SIGNS.items() if sign.strip()))


def _to_json(coverage: Coverage, expiring: list[Gap], dag_id: str) -> dict[str, Any]:
    return {
        "environments": coverage.environments,
        "metrics": coverage.metrics,
        "windows": {outcome.value: coverage.count(outcome) for outcome in Outcome},
        "hours": [
            {"hour": _time(hour), "outcome": outcome.value} for hour, outcome in coverage.hours().items()
        ],
        "gaps": [
            {
                "start": _time(gap.start),
                "end": _time(gap.end),
                "windows": {
                    outcome.value: count
                    for outcome in (Outcome.FAILED, Outcome.MISSING)
                    if (count := sum(quarter.outcome is outcome for quarter in gap.quarters))
                },
                "expires": _time(gap.expires),
                "expiring_soon": gap in expiring,
                "backfill": _backfill(gap, dag_id),
            }
            for gap in coverage.gaps()
        ],
    }


def _backfill(gap: Gap, dag_id: str) -> str:
    """Return the command that heals a gap; its last date is that of the last window's start."""
    return (
        f"airflow backfill create --dag-id {dag_id} --from-date {_time(gap.start)}"
        f" --to-date {_time(gap.end - LONGEST)} --reprocess-behavior failed --max-active-runs 8"
    )


def _time(moment: dt.datetime) -> str:
    return iso(moment).replace(".000Z", "Z")
