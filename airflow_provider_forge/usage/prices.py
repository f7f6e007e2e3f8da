"""Atlassian's prices and free allowances, as data that a user can replace."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Price", "Prices", "load_prices", "parse_amount"]

_EXAMPLE = '{"LLM_INPUT": {"price": "0.10", "allowance": "0"}}'


@dataclass(frozen=True)
class Price:
    """The price of one resource in US dollars.

    Attributes:
        unit: Unit of the usage, such as `GB-seconds`.
        allowance: Free usage of an app in a calendar month.
        price: Price of `per` units above the allowance.
        per: Number of units.
    """

    unit: str
    allowance: Decimal
    price: Decimal
    per: Decimal = Decimal(1)

    def cost(self, used: Decimal) -> Decimal:
        """Return the cost of a month's usage in US dollars."""
        return max(used - self.allowance, Decimal(0)) * self.price / self.per


@dataclass(frozen=True)
class Prices:
    """The prices of all resources.

    Attributes:
        as_of: When they were read from Atlassian's page; `custom` if a user has replaced some.
        resources: Prices by resource.
    """

    as_of: str
    resources: Mapping[str, Price]


def load_prices(custom: Mapping[str, Any] | str | None = None, field: str = "prices") -> Prices:
    """Return the published prices, with those of a user in their place.

    Args:
        custom: Entries by resource, or the path of a JSON file with them, or their JSON text. An entry has a
            `price`, and may have an `allowance` and a `per`; otherwise the published ones apply. With another
            `unit` it has all four.
        field: Name of the argument, for errors.

    Raises:
        ConfigurationError: The file cannot be read, or an entry is wrong or incomplete.
    """
    text = resources.files("airflow_provider_forge.usage").joinpath("prices.json").read_text("utf-8")
    published = json.loads(text)
    prices = {
        name: Price(
            entry["unit"],
            Decimal(entry["allowance"]),
            Decimal(entry["price"]),
            Decimal(entry.get("per", "1")),
        )
        for name, entry in published["resources"].items()
    }
    if custom is None or custom == {}:
        return Prices(published["as_of"], prices)
    for name, entry in _entries(custom, field).items():
        if name not in prices:
            raise ConfigurationError(field, f"{name!r} is not one of {', '.join(prices)}")
        prices[name] = _changed(prices[name], entry, f"{field}: {name}")
    return Prices("custom", prices)


def _entries(custom: Mapping[str, Any] | str, field: str) -> Mapping[str, Any]:
    content: Any = custom
    if isinstance(custom, str):
        text = custom
        if not custom.lstrip().startswith("{"):
            try:
                text = Path(custom).read_text("utf-8")
            except (OSError, ValueError) as error:  # not UTF-8, or a NUL in the path
                raise ConfigurationError(
                    field, f"cannot read {custom!r} ({type(error).__name__}): give the path of a JSON file"
                ) from error
        try:
            # Floats would not be exact.
            content = json.loads(text, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(field, f"is not JSON ({error}); for example {_EXAMPLE}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(field, f"is not an object of resources; for example {_EXAMPLE}")
    return content


def _changed(published: Price, entry: Any, field: str) -> Price:
    if not isinstance(entry, dict):
        raise ConfigurationError(field, f"is not an object; for example {_EXAMPLE}")
    if unknown := sorted(entry.keys() - {"price", "allowance", "per", "unit"}):
        raise ConfigurationError(f"{field}: {unknown[0]}", "is not one of price, allowance, per, unit")
    if "price" not in entry:
        raise ConfigurationError(f"{field}: price", "is missing: give a price in US dollars")
    unit = _changed_unit(published, entry, field)
    amounts = {
        name: parse_amount(f"{field}: {name}", value) for name, value in entry.items() if name != "unit"
    }
    price = replace(published, unit=unit, **amounts)
    if not price.per:
        raise ConfigurationError(f"{field}: per", "is 0: give the number of units that the price is for")
    return price


def _changed_unit(published: Price, entry: Mapping[str, Any], field: str) -> str:
    """Return the unit of an entry; Atlassian's amounts do not apply to another one."""
    unit = entry.get("unit", published.unit)
    if not isinstance(unit, str) or not unit.strip() or not unit.isprintable():
        raise ConfigurationError(f"{field}: unit", "is not the name of a unit, such as GB-hours")
    for name in ("allowance", "per"):
        if unit != published.unit and name not in entry:
            raise ConfigurationError(
                f"{field}: {name}", f"is missing: Atlassian's is for {published.unit}, not {unit}"
            )
    return unit


def parse_amount(field: str, value: Any) -> Decimal:
    """Return a number of 0 or more, such as a price or a budget.

    Raises:
        ConfigurationError: The value is no such number.
    """
    try:
        # A float in Python code is meant as it is written.
        number = Decimal("NaN") if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    # It is sent as a float in the end.
    if not number.is_finite() or number < 0 or math.isinf(float(number)):
        raise ConfigurationError(field, f"{value!r} is not a number of 0 or more")
    return number
