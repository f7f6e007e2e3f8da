"""The command `usage`: a month as a table, by environment or site, and as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_provider_forge.cli import usage as usage_command
from airflow_provider_forge.cli.main import main
from airflow_provider_forge.cli.usage import KEPT
from airflow_provider_forge.exceptions import QueryRefused
from airflow_provider_forge.gateway import usage as usage_module
from airflow_provider_forge.gateway.queries import RESOURCES
from airflow_provider_forge.sandbox import SandboxGateway, Scenario
from airflow_provider_forge.usage.prices import load_prices
from airflow_provider_forge.usage.report import short_amount, short_cost
from tests.usage.examples import EXAMPLES, reading

NOW = datetime.now(timezone.utc)
FIRST = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
MONTH = f"{NOW:%Y-%m}"


@pytest.fixture
def gateway():
    with SandboxGateway(rate_limit_calls=0) as running:
        yield running


@pytest.fixture
def command(connect, sink, capsys):
    """Return a function that runs the command, and returns its status and its rows or JSON."""

    def command(gateway, *arguments, **forge):
        connect(gateway, sink, forge=forge)
        status = main(["usage", *arguments])
        said = capsys.readouterr()
        command.err = said.err
        if "--json" in arguments:
            return status, json.loads(said.out)
        return status, [line.split("\t") for line in said.out.splitlines()]

    return command


def used(gateway, start=FIRST, end=NOW):
    """Return the visible usage of a month by resource."""
    totals = defaultdict(Decimal)
    for each in gateway.usage(start, end, at=NOW):
        totals[each.resource] += each.amount
    return totals


def test_a_table_of_the_running_month(gateway, command):
    status, [header, *rows, total] = command(gateway)
    assert status == 0
    assert header == ["RESOURCE", "USED", "FREE", "UNIT", "PART", "COST USD", "FORECAST USD", "USED UP"]
    assert [row[0] for row in rows] == list(RESOURCES)
    amounts, prices = used(gateway), load_prices().resources
    costs = {name: prices[name].cost(amounts[name]) for name in RESOURCES}
    for name, *cells in rows:
        assert Decimal(cells[0]) == amounts[name]
        assert Decimal(cells[4]) == costs[name]
        assert Decimal(cells[5]) >= round(costs[name], 6) - Decimal("0.000001")
    assert total[0] == "total"
    assert Decimal(total[5]) == sum(costs.values())
    assert "mean of the last 7 complete days" in command.err


def test_the_month_before_has_no_forecast(gateway, command):
    before = (FIRST - timedelta(days=1)).replace(day=1)
    status, [header, *rows, _] = command(gateway, "--month", f"{before:%Y-%m}")
    assert status == 0
    assert header[-1] == "COST USD"
    assert "forecast" not in command.err
    amounts = used(gateway, before, FIRST)
    assert {row[0]: Decimal(row[1]) for row in rows} == amounts


def test_a_month_that_is_no_longer_kept_is_refused_in_one_line_after_one_call(gateway, command):
    assert command(gateway, "--month", "2025-01")[0] == 3
    [error] = command.err.splitlines()
    kept = NOW - KEPT
    later = (kept.replace(day=1) + timedelta(days=31)).replace(day=1)
    assert error.startswith(
        "--month: Atlassian refused 2025-01: it keeps the usage of about 60 days."
        f" Give {later:%Y-%m} or later (request id "
    )
    assert len(gateway.calls) == 1
    assert later > kept


def test_another_refusal_of_an_old_month_is_of_one_resource(gateway, command, monkeypatch):
    """Atlassian keeps *about* 60 days, so a month that began before may be there."""
    monkeypatch.setattr(usage_command, "KEPT", timedelta(days=1))
    read = usage_module.read_usage

    def refuse_one(client, query, now):
        if query.resource == "LLM_INPUT":
            raise QueryRefused("There is no such resource")
        return read(client, query, now)

    monkeypatch.setattr(usage_module, "read_usage", refuse_one)
    before = f"{FIRST - timedelta(days=1):%Y-%m}"
    status, found = command(gateway, "--month", before, "--json")
    assert (status, list(found["left_out"])) == (0, ["LLM_INPUT"])
    assert f"Atlassian keeps the usage of about 1 days; {before} began before" in command.err


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("0", "0"),
        ("217311.947587", "217,312"),
        ("1.332672", "1.33"),
        ("20.000", "20"),
        ("0.105962", "0.1060"),
        ("0.00032807", "0.0003281"),
        ("0.00009", "<0.0001"),
    ],
)
def test_an_amount_for_people_is_short(amount, words):
    assert short_amount(Decimal(amount)) == words


@pytest.mark.parametrize(
    ("cost", "words"),
    [("0", "0"), ("0.000328", "<0.01"), ("0.01", "0.01"), ("0.432799", "0.43"), ("12345.678", "12,345.68")],
)
def test_a_cost_for_people_is_in_cents_and_never_nothing(cost, words):
    assert short_cost(Decimal(cost)) == words


def test_figures_are_plain_for_programs(gateway, command):
    _, [_, *rows] = command(gateway, "--by", "site")
    for _, _, used, _, part, cost in rows:
        assert 0 < Decimal(part) <= 1
        assert min(Decimal(figure).as_tuple().exponent for figure in (used, part, cost)) >= -6


@pytest.mark.parametrize("by", ["environment", "site"])
def test_it_is_split(gateway, command, by):
    status, [header, *rows] = command(gateway, "--by", by)
    assert status == 0
    assert header[:2] == [by.upper(), "RESOURCE"]
    totals = defaultdict(Decimal)
    for _, resource, amount, *_ in rows:
        totals[resource] += Decimal(amount)
    assert totals == used(gateway)
    names = {row[0] for row in rows}
    if by == "environment":
        assert names == {"production", "staging", "development", "feature-x"}
    else:
        assert all(name.startswith("ari:cloud:") for name in names)


def test_json_is_exact(gateway, command):
    status, found = command(gateway, "--json", "--by", "environment")
    assert status == 0
    assert (found["month"], found["currency"], found["prices"]) == (MONTH, "USD", "2026-08")
    amounts, prices = used(gateway), load_prices().resources
    assert {each["resource"]: Decimal(each["used"]) for each in found["resources"]} == amounts
    costs = sum(prices[name].cost(amount) for name, amount in amounts.items())
    assert Decimal(found["cost"]) == costs
    assert found["forecast_method"] == "mean of the last 7 complete days"
    [compute, *_] = found["resources"]
    assert sum(Decimal(group["used"]) for group in compute["groups"]) == amounts["FUNCTION_COMPUTE"]


def test_a_cost_above_the_limit_is_status_1(gateway, command):
    assert command(gateway, "--fail-above", "1000000")[0] == 0
    assert command(gateway, "--fail-above", "0.01")[0] == 1
    assert "is above $0.01" in command.err


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_month_costs_what_was_computed_by_hand(gateway, command, monkeypatch, name):
    amounts, total = EXAMPLES[name]
    monkeypatch.setattr(
        usage_module, "read_usage", reading({key: used for key, (used, _) in amounts.items()})
    )
    status, found = command(gateway, "--json")
    assert status == 0
    costs = {each["resource"]: Decimal(each["cost"]) for each in found["resources"]}
    assert {key: cost for key, cost in costs.items() if cost} == {
        key: Decimal(cost) for key, (_, cost) in amounts.items() if Decimal(cost)
    }
    assert Decimal(found["cost"]) == Decimal(total)


def test_prices_come_from_a_file(gateway, command, tmp_path):
    prices = tmp_path / "prices.json"
    prices.write_text('{"LLM_INPUT": {"price": "1"}}')
    amounts = used(gateway)
    _, found = command(gateway, "--json", "--prices", str(prices))
    [llm] = [each for each in found["resources"] if each["resource"] == "LLM_INPUT"]
    assert Decimal(llm["cost"]) == amounts["LLM_INPUT"]
    assert found["prices"] == "custom"


def test_a_refused_resource_is_left_out_and_all_refused_is_an_error(command):
    with SandboxGateway(Scenario(refused_resources=frozenset({"LLM_INPUT"})), rate_limit_calls=0) as gateway:
        status, found = command(gateway, "--json")
        assert status == 0
        assert list(found["left_out"]) == ["LLM_INPUT"]
        assert "LLM_INPUT is left out" in command.err
    with SandboxGateway(Scenario(insufficient_scopes=True), rate_limit_calls=0) as gateway:
        assert command(gateway)[0] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--month", "11/2026"), "--month: '11/2026' is not a month"),
        (("--month", "2999-01"), "--month: 2999-01 has not begun"),
        (("--fail-above", "much"), "--fail-above: 'much' is not a number"),
        *(
            (("--fail-above", text), f"--fail-above: '{text}' is not a number")
            for text in ("-1", "nan", "inf", "1e400", "")
        ),
        *((("--month", text), f"--month: '{text}' is not a month") for text in ("", "0000-01", "2026-13")),
        *((("--prices", path), f"--prices: cannot read '{path}'") for path in ("/no/such.json", "")),
    ],
)
def test_a_wrong_option_names_itself(gateway, command, arguments, message):
    assert command(gateway, *arguments)[0] == 2
    assert message in command.err
    assert gateway.calls == []
