"""The month as a table: used, allowance, cost and forecast of each resource."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_forge.usage.months import Forecast, Group, Usage

__all__ = ["Row", "exact_amount", "format_amount", "rows_of", "short_amount", "short_cost", "total_of"]

MICRO = Decimal("0.000001")
CENT = Decimal("0.01")
LEAST = Decimal("0.0001")
"""The least amount that a table shows to people."""


@dataclass(frozen=True)
class Row:
    """One resource in one month.

    Attributes:
        used: Usage of the month, so far or as a whole.
        cost: Its cost in US dollars.
        forecast: Forecast of the month; None unless it is the running one.
        groups: Usage, and part of the cost rounded to six decimals, by environment or site, largest first.
    """

    resource: str
    unit: str
    used: Decimal
    allowance: Decimal
    cost: Decimal
    forecast: Forecast | None
    groups: Mapping[Group, tuple[Decimal, Decimal]]

    @property
    def utilization(self) -> Decimal | None:
        """Used part of the allowance; None without an allowance."""
        return self.used / self.allowance if self.allowance else None

    def describe(self) -> str:
        """Return one line of text."""
        share = "" if self.utilization is None else f" ({self.utilization:.1%})"
        line = (
            f"{self.resource}: {format_amount(self.used)} of {format_amount(self.allowance)} free"
            f" {self.unit}{share}, ${format_amount(self.cost)}"
        )
        if self.forecast is None:
            return line
        line += f", forecast {format_amount(self.forecast.used)}, ${format_amount(self.forecast.cost)}"
        if at := self.forecast.exhausted_at:
            line += f", allowance used up {at:%Y-%m-%d}"
        return line

    def to_json(self) -> dict[str, Any]:
        """Return JSON data, in which amounts are exact texts."""
        content: dict[str, Any] = {
            "resource": self.resource,
            "unit": self.unit,
            "used": exact_amount(self.used),
            "allowance": exact_amount(self.allowance),
            "cost": exact_amount(self.cost),
        }
        if self.forecast is not None:
            at = self.forecast.exhausted_at
            content["forecast"] = {
                "used": exact_amount(self.forecast.used.quantize(MICRO)),
                "cost": exact_amount(self.forecast.cost.quantize(MICRO)),
                "exhausted_at": at and at.isoformat(timespec="seconds"),
            }
        return content


def rows_of(usages: Iterable[Usage], month: str) -> list[Row]:
    """Return the rows of a month, such as `2026-11`."""
    return [
        Row(
            usage.resource,
            usage.price.unit,
            usage.used(month),
            usage.price.allowance,
            usage.cost(month),
            usage.forecast() if month == usage.month else None,
            _groups(usage, month),
        )
        for usage in usages
    ]


def _groups(usage: Usage, month: str) -> Mapping[Group, tuple[Decimal, Decimal]]:
    found = {
        group: (usage.used(month, group), usage.cost_of(month, group).quantize(MICRO)) for group in usage.days
    }
    return dict(sorted(found.items(), key=lambda entry: -entry[1][0]))


def total_of(rows: Iterable[Row]) -> tuple[Decimal, Decimal]:
    """Return the cost of all rows in US dollars, and its forecast; the cost again without a forecast."""
    rows = list(rows)
    cost = sum((row.cost for row in rows), Decimal(0))
    forecast = sum((row.forecast.cost if row.forecast else row.cost for row in rows), Decimal(0))
    return _plain(cost), _plain(forecast.quantize(MICRO))


def format_amount(amount: Decimal) -> str:
    """Return an amount for people, with up to six decimals and separators of thousands."""
    text = f"{amount:,.6f}"
    return text.rstrip("0").rstrip(".")


def short_amount(amount: Decimal) -> str:
    """Return an amount for a table: whole from 1,000, with two decimals from 1, else with four digits."""
    if 0 < amount < LEAST:
        return f"<{LEAST}"
    if amount == int(amount):
        return f"{amount:,.0f}"
    return f"{amount:.4g}" if amount < 1 else f"{amount:,.{0 if amount >= 1000 else 2}f}"


def short_cost(cost: Decimal) -> str:
    """Return US dollars for a table, in cents."""
    if 0 < cost < CENT:
        return f"<{CENT}"
    return f"{cost:,.2f}" if cost else "0"


def _plain(amount: Decimal) -> Decimal:
    """Return the amount without zeros at its end, and not in scientific notation."""
    return Decimal(exact_amount(amount))


def exact_amount(amount: Decimal) -> str:
    """Return an amount for programs, with all its decimals."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
