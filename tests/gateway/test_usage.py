"""All pages of usage over real sockets, and what may be wrong with them."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    BrokenAnswer,
    GatewayUnavailable,
    QueryRefused,
    RateLimited,
)
from airflow_provider_forge.gateway import usage as usage_module
from airflow_provider_forge.gateway.usage import UsageQuery, read_usage
from airflow_provider_forge.sandbox import Fault, Scenario
from airflow_provider_forge.sandbox.environments import DEFAULT_APP
from airflow_provider_forge.sandbox.server import Reply
from airflow_provider_forge.windows import Window
from tests.gateway.conftest import NOW

START = datetime(2026, 3, 1, tzinfo=timezone.utc)
END = datetime(2026, 3, 11, tzinfo=timezone.utc)
RESOURCE = "FUNCTION_COMPUTE"


@pytest.fixture
def read(gateway, connect):
    """Return a function that reads usage from the gateway."""

    def read(on=None, **changes):
        query = {"app_id": DEFAULT_APP, "resource": RESOURCE, "interval": Window(START, END), **changes}
        return read_usage(connect(on or gateway), UsageQuery(**query), NOW)

    return read


def amounts(usage):
    found = defaultdict(Decimal)
    for each in usage.periods:
        found[each.start.date(), each.site or each.environment_id] += each.amount
    return dict(found)


def truth(gateway, **arguments):
    found = gateway.usage(START, END, resources=[RESOURCE], at=NOW, **arguments)
    return {(each.day, each.group): each.amount for each in found}


@pytest.mark.parametrize("scenario", [Scenario(), Scenario(environment_ids="ari")])
def test_it_reads_what_is_true_by_environment_by_site_and_in_total(start_gateway, read, scenario):
    gateway = start_gateway(scenario)
    by_environment = truth(gateway)
    assert amounts(read(gateway, group_by="ENVIRONMENT_ID")) == by_environment
    assert amounts(read(gateway, group_by="CONTEXT_ARI")) == truth(gateway, by_site=True)
    totals = read(gateway)
    days = defaultdict(Decimal)
    for (day, _), amount in by_environment.items():
        days[day, None] += amount
    assert amounts(totals) == days
    first = totals.periods[0]
    assert (first.period, first.resolution, first.unit) == ("2026-03-01", "ONE_DAY", "GB-seconds")
    assert first.start == START
    assert totals.observed_at == NOW
    assert len(totals.request_ids) == 1


def test_environments_are_read_one_by_one(gateway, read):
    ids = tuple(each.id for each in gateway.environments if each.key in ("staging", "production"))
    usage = read(environment_ids=ids, group_by="CONTEXT_ARI")
    assert {each.environment_id for each in usage.periods} == set(ids)
    assert amounts(usage) == truth(gateway, environments=["staging", "production"], by_site=True)


@pytest.mark.parametrize("unit", ["periods", "groups"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 40, 100])
def test_it_reads_all_pages_of_any_size(start_gateway, read, unit, size):
    """10 days of 4 environments: sizes that divide them, that do not, and that exceed them."""
    gateway = start_gateway(Scenario(usage_page_size=size, usage_page_unit=unit))
    assert amounts(read(gateway, group_by="ENVIRONMENT_ID")) == truth(gateway)
    assert len(read(gateway).periods) == 10


def test_a_gateway_that_ignores_the_page_is_not_counted_twice(gateway, read, monkeypatch):
    gateway = ignore_pages(gateway, monkeypatch)
    with pytest.raises(BrokenAnswer, match="repeat each other"):
        read(gateway, group_by="ENVIRONMENT_ID")


def ignore_pages(gateway, monkeypatch):
    real = gateway.respond

    def respond(request):
        body = json.loads(request.body)
        body["variables"]["filters"]["page"] = 1
        reply = real(
            type(request)(request.method, request.path, "", request.headers, json.dumps(body).encode())
        )
        answer = json.loads(reply.body)
        answer["data"]["ecosystem"]["devConsole"]["appResourceUsage"]["pagination"]["pageSize"] = 10
        return type(reply).of_json(answer)

    monkeypatch.setattr(gateway, "respond", respond)
    return gateway


def test_a_list_without_end_is_given_up(start_gateway, read, monkeypatch):
    monkeypatch.setattr(usage_module, "MAX_PAGES", 3)
    with pytest.raises(BrokenAnswer, match="has no end: 3 pages"):
        read(start_gateway(Scenario(usage_page_size=1)))


@pytest.mark.parametrize(
    ("scenario", "error"),
    [
        (Scenario(refused_resources=frozenset({RESOURCE})), AccessForbidden),
        (Scenario(unknown_resources=frozenset({RESOURCE})), QueryRefused),
        (Scenario(forbidden_apps=frozenset({DEFAULT_APP})), AccessForbidden),
    ],
)
def test_a_refusal_is_an_error_of_the_tree(start_gateway, read, scenario, error):
    gateway = start_gateway(scenario)
    with pytest.raises(error) as raised:
        read(gateway)
    assert raised.value.request_id == gateway.calls[-1].request_id


def test_a_token_without_the_scope_is_told_which(start_gateway, read):
    with pytest.raises(AccessForbidden, match="with the scopes read:app-usage:forge"):
        read(start_gateway(Scenario(insufficient_scopes=True)))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("query_error", operation="appResourceUsage"), GatewayUnavailable),
        (Fault("query_error", status_code=429), RateLimited),
        (Fault("null", level="appResourceUsage"), BrokenAnswer),
        (Fault("null", level="resourceUsage"), BrokenAnswer),
        (Fault("null", level="devConsole"), BrokenAnswer),
        (Fault("null", level="ecosystem"), BrokenAnswer),
        (Fault("truncate"), GatewayUnavailable),
        (Fault("status", status=504), GatewayUnavailable),
    ],
)
def test_a_failure_is_an_error_even_beside_data(gateway, read, fault, error):
    gateway.add_fault(fault)
    with pytest.raises(error):
        read()


def answering(monkeypatch, gateway, **fields):
    """Let the gateway answer with one period, which has these fields."""
    period = {"period": "2026-03-01", "resolution": "ONE_DAY", "tokensConsumed": "1.5", "tokenUnit": "GB"}
    page = {
        "error": None,
        "pagination": {"page": 1, "pageSize": 100},
        "resourceUsage": [{**period, **fields}],
    }
    content = {"data": {"ecosystem": {"devConsole": {"appResourceUsage": page}}}}
    monkeypatch.setattr(gateway, "respond", lambda request: Reply.of_json(content))


@pytest.mark.parametrize(
    ("period", "start"),
    [
        ("2026-03-01", START),
        ("2026-03-01T05:00", START + timedelta(hours=5)),
        ("2026-03-01T05:00:00Z", START + timedelta(hours=5)),
        ("2026-03-01T05:00:00.000+02:00", START + timedelta(hours=3)),
    ],
)
def test_a_period_is_a_date_or_a_time_in_utc(gateway, read, monkeypatch, period, start):
    answering(monkeypatch, gateway, period=period)
    [found] = read().periods
    assert (found.period, found.start, found.amount) == (period, start, Decimal("1.5"))


@pytest.mark.parametrize(
    "fields",
    [
        *({"tokensConsumed": amount} for amount in (None, "", "many", "NaN", "Infinity", "1,5")),
        *({"period": period} for period in ("", "yesterday", "12:00", "2026-13-01")),
        *({"period": period} for period in ("2026-03-01/P1D", "9999-12-31T23:00-14:00")),
        # Amounts whose sums overflow, and periods that were not asked for.
        *({"tokensConsumed": amount} for amount in ("1e19", "1e309", "-1e999999", "1e-999999")),
        *({"period": period} for period in ("9999-12-31", "0001-01-01", "2200-01-01", "1970-01-01")),
        {"tokensConsumed": 1.5},
    ],
)
def test_a_malformed_period_is_an_error(gateway, read, monkeypatch, fields):
    answering(monkeypatch, gateway, **fields)
    with pytest.raises(BrokenAnswer):
        read()


def test_a_secret_in_a_malformed_period_is_masked(gateway, read, monkeypatch):
    answering(monkeypatch, gateway, period=f"of {gateway.api_token}")
    with pytest.raises(BrokenAnswer, match=r"'of \*\*\*' as a period"):
        read()


@pytest.mark.parametrize("amount", ["0", "-0.0", "0e999999", "0e-999999"])
def test_nothing_is_nothing_in_any_exponent(gateway, read, monkeypatch, amount):
    answering(monkeypatch, gateway, tokensConsumed=amount)
    assert str(read().periods[0].amount) == "0"


def test_every_amount_is_exact(gateway, read, monkeypatch):
    answering(monkeypatch, gateway, tokensConsumed="123456789012345678.000001")
    assert read().periods[0].amount == Decimal("123456789012345678.000001")
