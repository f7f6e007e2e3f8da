"""`usage`: show the usage, cost and forecast of a month."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_forge.cli.context import forge_access
from airflow_provider_forge.exceptions import ConfigurationError, QueryRefused, WindowExpired
from airflow_provider_forge.gateway.queries import GROUPINGS, RESOURCES
from airflow_provider_forge.usage.months import FORECAST_METHOD, month_of
from airflow_provider_forge.usage.prices import load_prices, parse_amount
from airflow_provider_forge.usage.reading import read_resources
from airflow_provider_forge.usage.report import (
    exact_amount,
    format_amount,
    rows_of,
    short_amount,
    short_cost,
    total_of,
)

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping
    from decimal import Decimal

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.connections.forge import ForgeAccess
    from airflow_provider_forge.gateway.usage import ResourceUsage
    from airflow_provider_forge.usage.months import Group
    from airflow_provider_forge.usage.prices import Prices
    from airflow_provider_forge.usage.reading import Reading
    from airflow_provider_forge.usage.report import Row

__all__ = ["run"]

KEPT = dt.timedelta(days=60)
"""How far back the gateway keeps usage, approximately."""

FORECAST_FROM = dt.timedelta(days=8)
"""How far back to read, for the complete days that the forecast needs."""


class Figures(NamedTuple):
    """Formats of the figures in a table: an amount, US dollars, a part of which 1 is the whole, and a day."""

    amount: Callable[[Decimal], str]
    cost: Callable[[Decimal], str]
    part: Callable[[Decimal], str]
    day: str


FOR_PEOPLE = Figures(short_amount, short_cost, "{:.1%}".format, "%d %b")
FOR_PROGRAMS = Figures(exact_amount, exact_amount, lambda part: exact_amount(round(part, 6)), "%Y-%m-%d")

SHORT_NAMES = {"PART": "OF FREE", "FORECAST USD": "FORECAST"}
"""Names of columns on a terminal, where a row is to be a line of 80 columns."""


def run(options: Namespace, output: Output) -> int:
    """Print the usage; return 1 if the cost exceeds `--fail-above`, or if a resource could not be read."""
    now = dt.datetime.now(dt.timezone.utc)
    month = _month(options.month, now)
    limit = None if options.fail_above is None else parse_amount("--fail-above", options.fail_above)
    forge = forge_access(options)
    prices = forge.usage_prices if options.prices is None else load_prices(options.prices, "--prices")
    with output.busy("Asking Atlassian for each resource, within the rate limit…"):
        reading = _read(forge, prices, month, now, GROUPINGS.get(options.by))
    if not reading.usages:
        reading.check()
    if _may_be_lost(month, now):
        output.note(f"Atlassian keeps the usage of about {KEPT.days} days; {month} began before")
    rows = rows_of(reading.usages, month)
    names = _names(forge, rows)
    cost, forecast = total_of(rows)
    running = month == month_of(now.date())
    figures = FOR_PEOPLE if output.is_table else FOR_PROGRAMS
    if options.json:
        output.json(_to_json(month, rows, names, prices, reading))
    elif options.by:
        output.table(*_groups_table(rows, names, options.by, figures))
    else:
        columns, lines = _table(rows, figures, running=running)
        output.table(*(_for_people(columns, lines) if output.is_table else (columns, lines)))
    total = f"cost ${short_cost(cost)}"
    if running:
        total = (
            f"cost so far ${short_cost(cost)}, forecast ${short_cost(forecast)} (each day to come:"
            f" {FORECAST_METHOD})"
        )
    output.note(f"Usage of {month}: {total}. Prices: {prices.as_of}")
    for resource, error in reading.left_out.items():
        output.problem(f"{resource} is left out: {error}")
    if limit is not None and cost > limit:
        output.problem(f"The cost of {month}, ${format_amount(cost)}, is above ${format_amount(limit)}")
        return 1
    return 1 if reading.failed else 0


def _month(text: str | None, now: dt.datetime) -> str:
    if text is None:
        return month_of(now.date())
    if not re.fullmatch("2[0-9]{3}-(0[1-9]|1[0-2])", text):
        raise ConfigurationError("--month", f"{text!r} is not a month; give one such as 2026-11")
    if text > month_of(now.date()):
        raise ConfigurationError("--month", f"{text} has not begun")
    return text


def _may_be_lost(month: str, now: dt.datetime) -> bool:
    """Return whether Atlassian may no longer have the beginning of a month: it does not say exactly."""
    return month <= month_of((now - KEPT).date())


def _read(forge: ForgeAccess, prices: Prices, month: str, now: dt.datetime, group_by: str | None) -> Reading:
    """Read the usage of all resources.

    Raises:
        WindowExpired: The first one is refused for a month that is probably too old, as all others would be.
    """
    first = dt.datetime.fromisoformat(f"{month}-01").replace(tzinfo=dt.timezone.utc)
    end = min(now, (first + dt.timedelta(days=31)).replace(day=1))
    start = first
    if end == now:  # the forecast looks back, at the beginning of a month into the one before
        day = (now - FORECAST_FROM).date()
        start = min(first, dt.datetime.combine(day, dt.time(), dt.timezone.utc))

    def fetch(resource: str) -> ResourceUsage:
        try:
            return forge.fetch_usage(resource, start, end, None, group_by)
        except QueryRefused as error:
            if resource == RESOURCES[0] and _may_be_lost(month, now):
                raise WindowExpired(
                    f"--month: Atlassian refused {month}: it keeps the usage of about {KEPT.days} days. Give"
                    f" {month_of((now - KEPT).replace(day=1).date() + dt.timedelta(days=31))} or later",
                    request_id=error.request_id,
                ) from error
            raise

    return read_resources(fetch, RESOURCES, prices, start)


def _names(forge: ForgeAccess, rows: list[Row]) -> Mapping[Group, str]:
    """Return a name for each environment and site."""
    groups = {group for row in rows for group in row.groups}
    ids = sorted({group.environment_id for group in groups if group.environment_id})
    names = {each.id: each.name or each.id for each in forge.find_environments(ids)} if ids else {}
    return {group: group.site or names.get(group.environment_id or "", "") for group in groups}


def _table(
    rows: list[Row], figures: Figures, *, running: bool
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    columns = ("RESOURCE", "USED", "FREE", "UNIT", "PART", "COST USD")
    lines = [
        (
            row.resource,
            figures.amount(row.used),
            figures.amount(row.allowance),
            row.unit,
            "" if row.utilization is None else figures.part(row.utilization),
            figures.cost(row.cost),
        )
        for row in rows
    ]
    cost, forecast = total_of(rows)
    lines.append(("total", "", "", "", "", figures.cost(cost)))
    if not running:
        return columns, lines
    forecasts = [figures.cost(round(row.forecast.cost, 6)) if row.forecast else "" for row in rows]
    ends = [
        f"{row.forecast.exhausted_at:{figures.day}}" if row.forecast and row.forecast.exhausted_at else ""
        for row in rows
    ]
    more = [*zip(forecasts, ends, strict=True), (figures.cost(forecast), "")]
    return (*columns, "FORECAST USD", "USED UP"), [
        (*line, *added) for line, added in zip(lines, more, strict=True)
    ]


def _for_people(columns: tuple[str, ...], lines: list[tuple[Any, ...]]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows of a terminal: the part of the allowance makes up for the allowance."""
    shown = [index for index, name in enumerate(columns) if name != "FREE"]
    names = [SHORT_NAMES.get(columns[index], columns[index]) for index in shown]
    return names, [[line[index] for index in shown] for line in lines]


def _groups_table(
    rows: list[Row], names: Mapping[Group, str], by: str, figures: Figures
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    columns = (by.upper(), "RESOURCE", "USED", "UNIT", "PART", "COST USD")
    lines = [
        (
            names[group],
            row.resource,
            figures.amount(used),
            row.unit,
            figures.part(used / row.used) if row.used else "",
            figures.cost(cost),
        )
        for row in rows
        for group, (used, cost) in row.groups.items()
        if used
    ]
    return columns, sorted(lines, key=lambda line: line[0])


def _to_json(
    month: str, rows: list[Row], names: Mapping[Group, str], prices: Prices, reading: Reading
) -> dict[str, Any]:
    cost, forecast = total_of(rows)
    return {
        "month": month,
        "currency": "USD",
        "prices": prices.as_of,
        "cost": str(cost),
        "forecast": str(forecast),
        "forecast_method": FORECAST_METHOD,
        "resources": [
            {
                **row.to_json(),
                "groups": [
                    {"name": names[group], "used": exact_amount(used), "cost": exact_amount(part)}
                    for group, (used, part) in row.groups.items()
                    if names[group]
                ],
            }
            for row in rows
        ],
        "left_out": {name: str(error) for name, error in reading.left_out.items()},
    }
