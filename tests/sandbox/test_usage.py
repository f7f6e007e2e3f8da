"""The App resource usage API of the stand-in."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_provider_forge.sandbox import Fault, Scenario
from airflow_provider_forge.sandbox.usage import RESOURCES
from tests.sandbox.asking import DAY

QUERY = """
query Usage($appId: ID!, $filters: DevConsoleAppResourceUsageFiltersInput!, $groupBy: DevConsoleGroupBy) {
  ecosystem { devConsole { appResourceUsage(appId: $appId, filters: $filters, groupBy: $groupBy) {
    __typename
    ... on DevConsoleAppResourceUsageFlatResponse {
      error { message extensions { errorType statusCode } }
      pagination { page pageSize }
      resourceUsage { period resolution tokensConsumed tokenUnit }
    }
    ... on DevConsoleAppResourceUsageGroupedResponse {
      error { message extensions { errorType statusCode } }
      pagination { page pageSize }
      resourceUsage { period resolution groups { groupBy groupValue tokensConsumed tokenUnit } }
    }
  } } }
}
"""
START = DAY - timedelta(days=9)
END = DAY + timedelta(days=1)
RESOURCE = "FUNCTION_COMPUTE"


def post(client, *, group_by=None, resource=RESOURCE, start=START, end=END, **filters):
    interval = {"start": start.isoformat(), "end": end.isoformat()}
    variables = {
        "appId": client.gateway.app_id,
        "filters": {"resource": resource, "interval": interval, **filters},
        "groupBy": group_by,
    }
    return client.post(QUERY, variables)


def usage(client, **arguments):
    answer = post(client, **arguments).json()
    assert "errors" not in answer, answer
    return answer["data"]["ecosystem"]["devConsole"]["appResourceUsage"]


def flat(answer):
    return {each["period"]: Decimal(each["tokensConsumed"]) for each in answer["resourceUsage"]}


def groups(answer):
    return {
        (each["period"], group["groupValue"]): Decimal(group["tokensConsumed"])
        for each in answer["resourceUsage"]
        for group in each["groups"]
    }


def truth(client, **arguments):
    at = datetime.fromtimestamp(client.clock.now, timezone.utc)
    amounts = client.gateway.usage(START, END, resources=[RESOURCE], at=at, **arguments)
    return {(each.day.isoformat(), each.group): each.amount for each in amounts}


def test_days_are_decimal_texts_and_add_up_over_environments_and_sites(client):
    answer = usage(client)
    assert answer["__typename"] == "DevConsoleAppResourceUsageFlatResponse"
    assert answer["pagination"] == {"page": 1, "pageSize": 100}
    assert answer["error"] is None
    first = answer["resourceUsage"][0]
    assert first.keys() == {"period", "resolution", "tokensConsumed", "tokenUnit"}
    assert (first["period"], first["resolution"], first["tokenUnit"]) == (
        "2026-03-01",
        "ONE_DAY",
        "GB-seconds",
    )
    assert len(first["tokensConsumed"].partition(".")[2]) == 6
    days = flat(answer)
    for group_by, by_site in {"ENVIRONMENT_ID": False, "CONTEXT_ARI": True}.items():
        found = groups(usage(client, group_by=group_by))
        assert found == truth(client, by_site=by_site)
        totals = defaultdict(Decimal)
        for (day, _), amount in found.items():
            totals[day] += amount
        assert totals == days


def test_an_environment_and_sites_can_be_chosen(client):
    production = client.environment_id("production")
    of_production = flat(usage(client, environment=production))
    assert of_production == {
        day: amount for (day, _), amount in truth(client, environments=["production"]).items()
    }
    site = next(iter(truth(client, by_site=True)))[1]
    answer = usage(client, contextAris=[site])
    assert answer["__typename"] == "DevConsoleAppResourceUsageGroupedResponse"
    assert {group for _, group in groups(answer)} == {site}


def test_the_running_day_is_partial_and_days_are_revised(client):
    """The clock stands at 20:00 UTC of `DAY`; the latest refresh was at 12:00."""
    seen = defaultdict(set)
    for hours in range(0, 24 * 8, 12):
        client.clock.now = (DAY + timedelta(hours=11 + hours)).timestamp()
        for day, amount in flat(usage(client, start=DAY, end=DAY + timedelta(days=9))).items():
            seen[day].add(amount)
    final = {each.day.isoformat(): each.amount for each in truth_of_week(client)}
    first_day = sorted(seen[DAY.date().isoformat()])
    assert len(first_day) >= 2
    assert first_day[0] < Decimal("0.6") * max(first_day)
    assert sum(len(amounts) > 2 for amounts in seen.values()) >= 2
    assert max(seen) == (DAY + timedelta(days=7)).date().isoformat()
    # No amount is revised for more than a week.
    assert final[DAY.date().isoformat()] in seen[DAY.date().isoformat()]


def truth_of_week(client):
    by_day = defaultdict(Decimal)
    for each in client.gateway.usage(DAY, DAY + timedelta(days=7), resources=[RESOURCE]):
        by_day[each.day] += each.amount
    return [type("Day", (), {"day": day, "amount": amount}) for day, amount in by_day.items()]


def test_without_revisions_only_the_running_day_changes(start_gateway):
    client = start_gateway(Scenario(usage_revisions=False))
    final = client.gateway.usage(START, DAY, resources=[RESOURCE])
    at = datetime.fromtimestamp(client.clock.now, timezone.utc)
    assert client.gateway.usage(START, DAY, resources=[RESOURCE], at=at) == final


@pytest.mark.parametrize(("unit", "first", "last"), [("periods", 5, 5), ("groups", 2, 1)])
def test_pages_are_of_exactly_the_size_and_the_one_after_the_last_is_empty(start_gateway, unit, first, last):
    client = start_gateway(Scenario(usage_page_size=5, usage_page_unit=unit))
    whole = truth(client)
    found, page = {}, 1
    while part := groups(usage(client, group_by="ENVIRONMENT_ID", page=page)):
        if page == 1:
            assert len({day for day, _ in part}) == first
        assert not found.keys() & part.keys()
        found |= part
        page += 1
    assert found == whole
    assert page == (3 if unit == "periods" else 9)


def test_an_error_stands_beside_the_data(client):
    client.gateway.add_fault(Fault("query_error", operation="appResourceUsage", status_code=500))
    answer = usage(client)
    assert answer["error"]["extensions"] == [{"errorType": "SANDBOX_FAULT", "statusCode": 500}]
    assert flat(answer)


def test_a_resource_is_refused_and_one_is_unknown(start_gateway):
    client = start_gateway(
        Scenario(refused_resources=frozenset({"LLM_INPUT"}), unknown_resources=frozenset({"KVS_READ"}))
    )
    answer = usage(client, resource="LLM_INPUT")
    assert answer["resourceUsage"] == []
    assert answer["error"]["extensions"][0]["statusCode"] == 403
    refused = post(client, resource="KVS_READ").json()
    assert refused["errors"][0]["extensions"]["classification"] == "ValidationError"
    assert post(client, resource="NO_SUCH").json()["errors"]
    assert flat(usage(client))


def test_a_token_without_the_scope_is_refused(start_gateway):
    client = start_gateway(Scenario(insufficient_scopes=True))
    [error] = post(client).json()["errors"]
    assert error["extensions"]["classification"] == "InsufficientOAuthScopes"
    assert error["extensions"]["requiredScopes"]


@pytest.mark.parametrize(
    "wrong",
    [{"start": END, "end": START}, {"start": DAY - timedelta(days=90)}, {"page": 0}, {"environment": "x"}],
)
def test_a_wrong_question_is_refused(client, wrong):
    assert usage(client, **wrong)["error"]["extensions"][0]["statusCode"] == 400


def test_the_header_is_required(client):
    del client.headers["X-ExperimentalApi"]
    assert post(client).json()["errors"][0]["extensions"]["errorType"] == "EXPERIMENTAL_API"


def test_usage_has_a_limit_of_its_own(start_gateway):
    client = start_gateway(rate_limit_calls=2)
    assert [post(client).status_code for _ in range(3)] == [200, 200, 429]
    assert [client.metrics().status_code for _ in range(3)] == [200, 200, 429]
    assert client.gateway.violations == 2
    assert client.gateway.over_limit() > 0


def test_the_truth_can_be_asked_from_outside(client):
    url = client.gateway.url.replace("/graphql", "/sandbox/usage")
    times = {"start": START.isoformat(), "end": END.isoformat()}
    answer = client.http.get(url, params={**times, "resource": RESOURCE, "by": "site"}).json()
    [first, *_] = client.gateway.usage(START, END, resources=[RESOURCE], by_site=True)
    assert answer[0] == {
        "resource": RESOURCE,
        "day": "2026-03-01",
        "group": first.group,
        "amount": f"{first.amount:.6f}",
    }
    everything = client.http.get(url, params={**times, "at": END.isoformat()}).json()
    assert {each["resource"] for each in everything} == set(RESOURCES)
    assert client.http.get(url, params={**times, "by": "moon"}).status_code == 400


def test_requests_are_whole_numbers(client):
    amounts = client.gateway.usage(START, END, resources=["SQL_REQUESTS", "OS_REQUESTS"], by_site=True)
    assert amounts
    assert all(each.amount == int(each.amount) for each in amounts)
    assert min(each.day for each in amounts) == date(2026, 3, 1)
