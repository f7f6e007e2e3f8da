"""Prices: Atlassian's own example, three months computed by hand, and what a user may put in their place."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.gateway.queries import RESOURCES
from airflow_provider_forge.usage.prices import load_prices
from tests.usage.examples import EXAMPLES

PRICES = load_prices()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_month_costs_what_was_computed_by_hand(name):
    usage, total = EXAMPLES[name]
    costs = {
        resource: PRICES.resources[resource].cost(Decimal(used)) for resource, (used, _) in usage.items()
    }
    assert costs == {resource: Decimal(cost) for resource, (_, cost) in usage.items()}
    assert sum(costs.values()) == Decimal(total)


def test_every_resource_of_the_schema_has_a_price_and_they_have_a_date():
    assert tuple(PRICES.resources) == RESOURCES
    assert PRICES.as_of == "2026-08"
    assert all(price.unit for price in PRICES.resources.values())


@pytest.mark.parametrize("how", ["object", "text", "file"])
def test_a_user_replaces_some(how, tmp_path):
    custom = {"LLM_INPUT": {"price": "0.2", "allowance": 10}, "SQL_REQUESTS": {"price": 2.5}}
    if how == "text":
        custom = json.dumps(custom)
    if how == "file":
        path = tmp_path / "prices.json"
        path.write_text(json.dumps(custom))
        custom = str(path)
    prices = load_prices(custom)
    assert prices.as_of == "custom"
    assert prices.resources["LLM_INPUT"].cost(Decimal(15)) == Decimal("1.0")
    # The allowance and the million are the published ones.
    assert prices.resources["SQL_REQUESTS"].cost(Decimal(1_100_000)) == Decimal("2.5")
    assert prices.resources["KVS_READ"] == PRICES.resources["KVS_READ"]


def test_a_price_can_be_for_another_unit():
    price = {"price": "0.5", "allowance": "100", "per": "1000", "unit": "MB"}
    changed = load_prices({"KVS_READ": price}).resources["KVS_READ"]
    assert changed.unit == "MB"
    assert changed.cost(Decimal(2100)) == 1
    assert (
        load_prices({"KVS_READ": {"price": "0.055", "unit": "GB"}}).resources["KVS_READ"]
        == (PRICES.resources["KVS_READ"])
    )


@pytest.mark.parametrize(
    ("custom", "field"),
    [
        ("/no/such/file.json", "prices"),
        ("/a\0b", "prices"),
        ("/" + "a" * 5000, "prices"),
        ("{", "prices"),
        ('{"KVS_READ":' * 100_000, "prices"),
        ("[]", "prices"),
        ("{} {}", "prices"),
        ({"NO_SUCH": {"price": 1}}, "prices"),
        ({"KVS_READ": 1}, "prices: KVS_READ"),
        ({"KVS_READ": {"allowance": 1}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": -1}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": "-0.01"}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": None}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": "free"}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": True}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": float("nan")}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": "1e400"}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": "snan"}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": ""}}, "prices: KVS_READ: price"),
        ({"KVS_READ": {"price": 1, "allowance": -1}}, "prices: KVS_READ: allowance"),
        ({"KVS_READ": {"price": 1, "per": 0}}, "prices: KVS_READ: per"),
        ({"KVS_READ": {"price": 1, "units": "GB"}}, "prices: KVS_READ: units"),
        ({"KVS_READ": {"price": 1, "unit": ""}}, "prices: KVS_READ: unit"),
        ({"KVS_READ": {"price": 1, "unit": 1}}, "prices: KVS_READ: unit"),
        ({"KVS_READ": {"price": 1, "unit": "G\ud800B"}}, "prices: KVS_READ: unit"),
        ({"KVS_READ": {"price": 1, "unit": "MB", "per": 1}}, "prices: KVS_READ: allowance"),
        ({"KVS_READ": {"price": 1, "unit": "MB", "allowance": 1}}, "prices: KVS_READ: per"),
    ],
)
def test_a_wrong_price_names_its_field(custom, field, tmp_path):
    if isinstance(custom, str) and not custom.startswith(("/", "{")):
        path = tmp_path / "prices.json"
        path.write_text(custom)
        custom = str(path)
    with pytest.raises(ConfigurationError) as raised:
        load_prices(custom)
    assert raised.value.field == field
