"""`coverage`: the last 14 days, hour by hour, and how to heal what is missing."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from rich.text import Text

from airflow_provider_forge.cli.connections import forge_hook, otlp_hook
from airflow_provider_forge.cli.ledgers import ledger_store
from airflow_provider_forge.coverage import report
from airflow_provider_forge.coverage.coverage import EXPECTED_AFTER, WindowStatus, find_coverage
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.utils.ledger import open_ledger
from airflow_provider_forge.windows import RETENTION

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.coverage.coverage import Coverage

__all__ = ["run"]

STYLES = {
    WindowStatus.EMPTY: "green",
    WindowStatus.DELIVERED: "green",
    WindowStatus.REJECTED: "yellow",
    WindowStatus.FAILED: "red",
    WindowStatus.MISSING: "red",
}

EXPIRING_STYLE = "bold red"


def run(options: Namespace, output: Output) -> int:
    """Print the coverage; 1 where something is missing, failed or rejected."""
    now = dt.datetime.now(dt.timezone.utc)
    forge, otlp = forge_hook(options), otlp_hook(options)
    endpoint = otlp.endpoint()
    ledger = open_ledger(ledger_store(options, otlp, snapshot=True), forge.app_id, endpoint.destination)
    keep = min(RETENTION, endpoint.max_age or RETENTION)
    with output.busy("Reading the record of deliveries…"):
        coverage = find_coverage(ledger, now, keep=keep, expected_after=EXPECTED_AFTER)
    if coverage is None:
        raise ConfigurationError(
            "ledger",
            f"{ledger.store.name} has no record of this app and destination: nothing was delivered yet, or"
            " the record is elsewhere",
        )
    alert_before = dt.timedelta(hours=options.alert_before)
    if options.json:
        output.json(_to_json(coverage, now, alert_before, options.dag_id))
    else:
        _print(output, coverage, now, alert_before, options.dag_id)
    bad = (WindowStatus.MISSING, WindowStatus.FAILED, WindowStatus.REJECTED)
    return 1 if any(coverage.count(outcome) for outcome in bad) else 0


def _print(
    output: Output, coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, dag_id: str
) -> None:
    _print_days(output, report.day_rows(coverage, now, alert_before))
    output.line()
    output.line(report.describe_counts(coverage))
    output.line(f"Environments: {', '.join(coverage.environments)}. Metrics: {', '.join(coverage.metrics)}")
    expiring = coverage.expiring(now, alert_before)
    gaps = coverage.gaps()
    if gaps:
        output.line()
        output.line(report.before_backfill(dag_id))
    for gap in gaps:
        soon = gap in expiring
        output.line()
        output.line(report.describe_gap(gap, now, soon=soon), style="red" if soon else "")
        output.line(f"  {report.backfill_command(gap, dag_id)}")


def _print_days(output: Output, days: list[tuple[dt.date, list[report.Hour | None]]]) -> None:
    output.line(report.HEADING)
    for day, hours in days:
        line = Text(f"{day} ")
        for hour in hours:
            line.append(f"{hour.sign if hour else ' ':<{report.WIDTH}}", style=_style(hour))
        line.rstrip()
        output.line(line)
    output.line(report.LEGEND)


def _style(hour: report.Hour | None) -> str:
    if hour is None:
        return ""
    return EXPIRING_STYLE if hour.expiring else STYLES.get(hour.outcome, "")


def _to_json(coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, dag_id: str) -> dict[str, Any]:
    expiring = coverage.expiring(now, alert_before)
    expiring_hours = coverage.expiring_hours(now, alert_before)
    return {
        "environments": coverage.environments,
        "metrics": coverage.metrics,
        "windows": {outcome.value: coverage.count(outcome) for outcome in WindowStatus},
        "hours": [
            {
                "hour": report.format_time(hour),
                "outcome": outcome.value,
                "expiring_soon": hour in expiring_hours,
            }
            for hour, outcome in coverage.hours().items()
        ],
        "gaps": [
            {
                "start": report.format_time(gap.start),
                "end": report.format_time(gap.end),
                "windows": {
                    outcome.value: count
                    for outcome in (WindowStatus.FAILED, WindowStatus.MISSING)
                    if (count := sum(quarter.outcome is outcome for quarter in gap.quarters))
                },
                "expires": report.format_time(gap.expires),
                "expiring_soon": gap in expiring,
                "backfill": report.backfill_command(gap, dag_id),
            }
            for gap in coverage.gaps()
        ],
    }
