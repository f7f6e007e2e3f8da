from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest

from airflow_provider_forge.sandbox import Scenario, over_limit
from tests.sandbox.asking import NOW, PAGE_QUERY, app_metrics


def test_the_sixth_call_within_any_minute_is_refused_and_costs_nothing(start_gateway):
    client = start_gateway(rate_limit_calls=5)
    statuses = []
    for seconds in (0, 10, 20, 30, 40, 59.9, 60, 61, 70):
        client.clock.now = NOW.timestamp() + seconds
        statuses.append(client.metrics().status_code)
    assert statuses == [200, 200, 200, 200, 200, 429, 200, 429, 200]
    assert client.gateway.violations == 2
    assert [call.outcome for call in client.gateway.calls if call.status == 429] == ["refused", "refused"]
    assert client.gateway.calls[5].start is not None


def test_fixed_minutes_start_with_the_clock(start_gateway):
    client = start_gateway(Scenario(rate_limit_window="fixed"), rate_limit_calls=2)
    statuses = []
    for seconds in (50, 55, 59, 60, 61, 62):
        client.clock.now = NOW.timestamp() + seconds
        statuses.append(client.metrics().status_code)
    assert statuses == [200, 200, 429, 200, 200, 429]


def test_lookups_and_invalid_queries_count_and_strangers_do_not(start_gateway):
    client = start_gateway(rate_limit_calls=2)
    client.post("{", auth=None)
    client.post(PAGE_QUERY, {"id": client.gateway.app_id, "first": 1})
    client.post("{")
    assert client.metrics().status_code == 429


@pytest.mark.parametrize("calls", [0, None])
def test_there_may_be_no_limit(start_gateway, calls):
    client = start_gateway(rate_limit_calls=calls)
    assert [client.metrics().status_code for _ in range(8)] == [200] * 8
    assert client.gateway.over_limit() == 0


def refused(start_gateway, channel):
    client = start_gateway(Scenario(rate_limit_channel=channel), rate_limit_calls=1)
    client.clock.now = NOW.timestamp() + 0.5
    client.metrics()
    client.clock.now += 7.0
    return client, client.metrics()


# The call at 20:00:00.5 leaves the window at 20:01:00.5.
FREE_AT = NOW + timedelta(seconds=60.5)


def test_refused_in_seconds(start_gateway):
    _, response = refused(start_gateway, "seconds")
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "53"


def test_refused_until_an_http_date(start_gateway):
    _, response = refused(start_gateway, "http_date")
    assert response.status_code == 429
    assert parsedate_to_datetime(response.headers["Retry-After"]) == NOW + timedelta(seconds=61)


@pytest.mark.parametrize(("channel", "header"), [("iso", "Retry-After"), ("reset", "X-RateLimit-Reset")])
def test_refused_until_an_iso_minute_that_is_never_too_early(start_gateway, channel, header):
    _, response = refused(start_gateway, channel)
    assert response.status_code == 429
    assert {"retry-after", "x-ratelimit-reset"} & set(response.headers) == {header.lower()}
    until = datetime.strptime(response.headers[header], "%Y-%m-%dT%H:%MZ").replace(tzinfo=timezone.utc)
    assert until == NOW + timedelta(minutes=2) >= FREE_AT


def test_refused_by_a_query_error(start_gateway):
    client, response = refused(start_gateway, "query_error")
    assert app_metrics(response)["extensions"] == [{"statusCode": 429, "errorType": "RATE_LIMITED"}]
    lookup = client.post(PAGE_QUERY, {"id": client.gateway.app_id, "first": 1})
    assert lookup.json()["errors"][0]["extensions"]["statusCode"] == 429
    assert client.gateway.violations == 2


def test_refused_by_errors(start_gateway):
    _, response = refused(start_gateway, "errors")
    assert response.status_code == 200
    assert response.json()["data"] is None
    assert response.json()["errors"][0]["extensions"]["statusCode"] == 429


def test_over_limit_counts_the_periods_that_hold_too_much():
    assert over_limit([0, 1, 2, 3, 4, 60], 5, 60) == 0
    assert over_limit([59.9, 0, 1, 2, 3, 4], 5, 60) == 1
    assert over_limit([0, 0, 0, 1, 1], 2, 1) == 1
    assert over_limit([], 5, 60) == 0


def test_the_gateway_counts_with_its_own_limit_by_default(start_gateway):
    client = start_gateway(rate_limit_calls=2, rate_limit_seconds=10.0)
    for seconds in (0, 5, 10, 15):
        client.clock.now = NOW.timestamp() + seconds
        client.metrics()
    assert client.gateway.over_limit() == 0
    assert client.gateway.over_limit(calls=1) == 3
    assert client.gateway.over_limit(seconds=10.1) == 2


def test_calls_at_the_same_time_share_one_limit(start_gateway):
    client = start_gateway(rate_limit_calls=5)
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: client.metrics().status_code, range(24)))
    assert sorted(statuses) == [200] * 5 + [429] * 19
    assert client.gateway.violations == 19
    assert len({call.request_id for call in client.gateway.calls}) == 24
