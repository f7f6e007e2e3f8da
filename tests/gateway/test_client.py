"""One test for each way in which a call can end, over real sockets: see the facts in `read_response`."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import socket
import threading
import traceback
import zlib
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    BrokenAnswer,
    ConfigurationError,
    CredentialsRefused,
    FinalError,
    ForgeError,
    GatewayUnavailable,
    QueryRefused,
    RateLimited,
    RetryableError,
    WindowExpired,
    WindowTooLarge,
)
from airflow_provider_forge.gateway import transport
from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.gateway.ratelimit import LimitUsage
from airflow_provider_forge.http import USER_AGENT
from airflow_provider_forge.sandbox import Fault, Scenario
from airflow_provider_forge.sandbox import environments as sandbox_environments
from airflow_provider_forge.sandbox.server import Reply
from airflow_provider_forge.windows import Window, parse_time

if TYPE_CHECKING:
    from airflow_provider_forge.gateway.budget import Priority

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
PRODUCTION = Environment("8cb293d5-be08-47ae-a75c-95b89da5ad1d", "production")
TOKEN = "c4n4ry-t0ken-of-the-account"
BASIC = base64.b64encode(f"dev@example.com:{TOKEN}".encode()).decode()
COUNT = "FORGE_BACKEND_INVOCATION_COUNT"


def assert_tells_no_secret(error: BaseException) -> None:
    """Neither the error nor anything that it was raised from has the token in what would be printed."""
    printed = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert TOKEN not in printed
    assert BASIC not in printed


@pytest.fixture
def canary_gateway(start_gateway):
    return start_gateway(api_token=TOKEN)


@pytest.fixture
def fail(canary_gateway, connect, window):
    """Make one call for metrics and return the error that it ends in."""

    def fail(*faults: Fault, gateway=canary_gateway, **options) -> ForgeError:
        for fault in faults:
            gateway.add_fault(fault)
        with pytest.raises(ForgeError) as caught:
            connect(gateway, **options).app_metrics(APP, window, [PRODUCTION], [COUNT])
        error = caught.value
        assert_tells_no_secret(error)
        assert isinstance(error, RetryableError) != isinstance(error, FinalError)
        return pickle.loads(pickle.dumps(error))

    return fail


# What is asked, and what comes back


def test_a_call_has_the_published_headers_and_variables(canary_gateway, connect, window):
    staging = next(each for each in canary_gateway.environments if each.key == "staging")
    environments = [PRODUCTION, Environment(staging.id, "staging")]
    connect(canary_gateway).app_metrics(APP, window, environments, [COUNT, "FORGE_API_REQUEST_COUNT"])
    (request,) = canary_gateway.requests
    assert request.method == "POST"
    assert request.headers["Authorization"] == f"Basic {BASIC}"
    assert request.headers["X-ExperimentalApi"] == "ForgeMetricsQuery"
    assert request.headers["User-Agent"] == USER_AGENT
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body)["variables"] == {
        "appId": f"ari:cloud:ecosystem::app/{APP}",
        "query": {
            "filters": {
                "environments": [PRODUCTION.id, staging.id],
                "interval": {"start": "2026-03-10T10:00:00.000Z", "end": "2026-03-10T10:15:00.000Z"},
                "metrics": [COUNT, "FORGE_API_REQUEST_COUNT"],
            }
        },
    }


@pytest.mark.parametrize("email", ["dev@example.com", "jürgen@bücher.example"])
def test_an_account_can_have_any_letters(start_gateway, connect, window, email):
    gateway = start_gateway(email=email, api_token="tökén")
    connect(gateway).app_metrics(APP, window, [PRODUCTION], [COUNT])
    assert [call.outcome for call in gateway.calls] == ["ok"]


def test_the_metrics_are_the_gateways_byte_for_byte(gateway, client, window):
    answer = client.app_metrics(APP, window, [PRODUCTION], [COUNT])
    (reply,) = gateway.replies
    resource_metrics = json.loads(reply.body)["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]
    assert json.loads(answer.resource_metrics) == resource_metrics["resourceMetrics"] != []
    assert answer.resource_metrics in reply.body
    assert (answer.app_id, answer.window) == (APP, window)
    assert (answer.environments, answer.metrics) == ((PRODUCTION,), (COUNT,))
    assert answer.request_id == gateway.calls[0].request_id
    assert answer.elapsed > 0
    assert answer.waited >= 0


def test_no_traffic_is_an_empty_array_and_no_error(gateway, client, window):
    gateway.add_fault(Fault("empty"))
    assert client.app_metrics(APP, window, [PRODUCTION], [COUNT]).resource_metrics == b"[]"


@pytest.mark.parametrize("place", ["body", "x-request-id", "x-trace-id"])
def test_the_request_id_of_a_response_is_found_in_any_place(start_gateway, connect, window, place):
    gateway = start_gateway(Scenario(request_id_in=frozenset({place})))
    answer = connect(gateway).app_metrics(APP, window, [PRODUCTION], [COUNT])
    assert answer.request_id == gateway.calls[0].request_id


# Before any call


def test_fifteen_minutes_are_the_most(gateway, client, window):
    longer = Window(window.start, window.end + timedelta(milliseconds=1))
    with pytest.raises(ConfigurationError, match="15 minutes") as caught:
        client.app_metrics(APP, longer, [PRODUCTION], [COUNT])
    assert caught.value.field == "end"
    assert gateway.calls == []


def test_fourteen_days_back_is_the_edge(gateway, client, clock):
    edge = parse_time("start", clock.now - timedelta(days=14))
    client.app_metrics(APP, Window(edge, edge + timedelta(minutes=1)), [PRODUCTION], [COUNT])
    with pytest.raises(WindowExpired, match="14 days") as caught:
        client.app_metrics(APP, Window(edge - timedelta(seconds=1), edge), [PRODUCTION], [COUNT])
    assert isinstance(caught.value, FinalError)
    assert [call.outcome for call in gateway.calls] == ["ok"]


# Channel 1: the HTTP status, and what happens to connections

CREDENTIALS = ("login", "password", "expire", "https://id.atlassian.com/manage/api-tokens")
FORBIDDEN = ("owns the app", "app_id", "token")
REFUSED = ("metrics", "environments", "app_id", "times")
HOST = ("host", "https://api.atlassian.com/graphql")
TOO_MANY = ("too many calls", "rate_limit_calls")
FAILED = ("The gateway failed", "https://developer.status.atlassian.com")
HALVES = ("halves", "fewer environments or metrics", "timeout", "https://developer.status.atlassian.com")


@pytest.mark.parametrize("body", ["status", "html"])
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, CredentialsRefused, CREDENTIALS),
        (403, AccessForbidden, FORBIDDEN),
        (429, RateLimited, TOO_MANY),
        (400, QueryRefused, REFUSED),
        (404, QueryRefused, HOST),
        (405, QueryRefused, HOST),
        (408, WindowTooLarge, HALVES),
        (413, WindowTooLarge, HALVES),
        (504, WindowTooLarge, HALVES),
        (500, GatewayUnavailable, FAILED),
        (502, GatewayUnavailable, FAILED),
        (503, GatewayUnavailable, FAILED),
    ],
)
def test_an_http_status(canary_gateway, fail, body, status, kind, words):
    if (body, status) == ("html", 403):
        kind, words = GatewayUnavailable, ("page of HTML", "firewall", "proxy", "IP allowlist")
    error = fail(Fault(body, status=status))
    assert type(error) is kind
    assert error.request_id == canary_gateway.calls[-1].request_id
    for word in (str(status), *words):
        assert word in error.message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_with_the_credentials(canary_gateway, fail, status):
    error = fail(Fault("redirect", status=status, location="/elsewhere"))
    assert type(error) is QueryRefused
    assert "check the forge connection's host" in error.message.lower()
    assert len(canary_gateway.requests) == 1


def test_a_bad_token_is_refused_by_the_gateway(canary_gateway, fail):
    error = fail(api_token="expired-token")
    assert type(error) is CredentialsRefused
    assert error.request_id == canary_gateway.calls[0].request_id
    assert "expired-token" not in str(error)


WAITS = [
    ("seconds", 50),
    ("http_date", 50),
    # Without seconds, rounded up to the minute: 20:01:10 becomes 20:02.
    ("iso", 100),
    ("reset", 100),
    ("query_error", None),
    ("errors", None),
]


@pytest.mark.parametrize(("channel", "retry_after"), WAITS)
def test_the_rate_limit_in_every_form_has_a_retry_after(
    start_gateway, connect, fail, clock, channel, retry_after
):
    limit = {"rate_limit_calls": 1, "rate_limit_seconds": 60.0, "api_token": TOKEN}
    gateway = start_gateway(Scenario(rate_limit_channel=channel), **limit)
    connect(gateway).environments(APP)
    # The place is free again at 20:01:10, which is 50 s from now.
    clock.advance(seconds=10)
    error = fail(gateway=gateway)
    assert type(error) is RateLimited
    assert error.retry_after == retry_after
    assert error.request_id == gateway.calls[-1].request_id
    for word in TOO_MANY:
        assert word in error.message


@pytest.mark.parametrize(("channel", "retry_after"), WAITS)
def test_a_look_up_over_the_limit_is_rate_limited_too(start_gateway, connect, clock, channel, retry_after):
    gateway = start_gateway(Scenario(rate_limit_channel=channel), rate_limit_calls=1)
    client = connect(gateway)
    client.environments(APP)
    clock.advance(seconds=10)
    with pytest.raises(RateLimited) as caught:
        client.environments(APP)
    assert caught.value.retry_after == retry_after


@pytest.mark.parametrize("status", [429, 503, 504])
@pytest.mark.parametrize(
    ("headers", "retry_after"),
    [
        ({"retry_after": "17"}, 17),
        ({"retry_after": "Tue, 10 Mar 2026 20:00:30 GMT"}, 20),
        ({"retry_after": "2026-03-10T20:01Z"}, 50),
        ({"rate_limit_reset": "2026-03-10T20:01Z"}, 50),
        ({"retry_after": "17", "rate_limit_reset": "2026-03-10T20:01Z"}, 17),
        ({"retry_after": "soon", "rate_limit_reset": "2026-03-10T20:01Z"}, 50),
        ({"retry_after": "2026-03-10T19:59Z"}, 0),
        ({"retry_after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_computed_with_the_clients_clock(fail, status, headers, retry_after):
    assert fail(Fault("status", status=status, **headers)).retry_after == retry_after


def test_a_gateway_that_stays_silent(fail):
    error = fail(Fault("hang"), timeout=0.2)
    assert type(error) is WindowTooLarge
    for word in ("ReadTimeout", "127.0.0.1", *HALVES):
        assert word in error.message


def test_a_gateway_that_is_silent_about_long_windows_only(gateway, connect, window):
    gateway.add_fault(Fault("hang", longer_than=450))
    client = connect(gateway, timeout=0.5)
    with pytest.raises(WindowTooLarge):
        client.app_metrics(APP, window, [PRODUCTION], [COUNT])
    half = Window(window.start, window.start + timedelta(minutes=7.5))
    assert client.app_metrics(APP, half, [PRODUCTION], [COUNT]).resource_metrics != b"[]"


TOO_MUCH_FOR_A_LOOK_UP = [
    (
        Fault("hang"),
        GatewayUnavailable,
        ("ReadTimeout", "If this persists", "host, timeout and network"),
    ),
    (Fault("status", status=408), GatewayUnavailable, FAILED),
    (Fault("status", status=413), QueryRefused, REFUSED),
    (Fault("status", status=504), GatewayUnavailable, FAILED),
    (Fault("errors", status_code=504), GatewayUnavailable, FAILED),
    (Fault("errors", status_code=None, classification="ExecutionAborted"), GatewayUnavailable, FAILED),
]


@pytest.mark.parametrize(
    ("fault", "kind", "words"), TOO_MUCH_FOR_A_LOOK_UP, ids=lambda value: str(value)[:60]
)
def test_a_look_up_is_not_split(gateway, connect, fault, kind, words):
    gateway.add_fault(fault)
    with pytest.raises(kind) as caught:
        connect(gateway, timeout=0.5).environments(APP)
    for word in words:
        assert word in caught.value.message


def test_a_gateway_that_is_not_there(fail, canary_gateway):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = fail(url=f"http://127.0.0.1:{unused.getsockname()[1]}/graphql")
    assert type(error) is GatewayUnavailable
    assert "ConnectError" in error.message
    assert "host, timeout and network" in error.message


def test_a_connection_reset_before_the_response(fail):
    assert type(fail(Fault("reset"))) is GatewayUnavailable


@pytest.mark.parametrize("kind", ["reset_mid_body", "truncate"])
def test_a_connection_that_ends_within_the_body(canary_gateway, fail, kind):
    error = fail(Fault(kind))
    assert type(error) is GatewayUnavailable
    # The headers had come, and with them the id that Atlassian's support asks for.
    assert error.request_id == canary_gateway.calls[0].request_id


@pytest.mark.parametrize(
    "fault",
    [
        Fault("html", status=200),
        Fault("body", body='{"data": {"ecosystem": {"forgeMe'),
        Fault("body", body=""),
        Fault("body", body="[]"),
        Fault("body", body='"data"'),
    ],
    ids=["HTML", "truncated JSON", "nothing", "an array", "a string"],
)
def test_success_without_a_body(canary_gateway, fail, fault):
    error = fail(fault)
    assert type(error) is BrokenAnswer
    assert error.request_id == canary_gateway.calls[0].request_id
    assert "cut off or not GraphQL" in error.message
    assert "check the Connection's host" in error.message


# Channel 2: `errors` at the top level

NOTHING = {"status_code": None, "error_type": None, "classification": None}
ERRORS = [
    ({"status_code": 401}, CredentialsRefused, CREDENTIALS),
    ({"status_code": 403}, AccessForbidden, FORBIDDEN),
    ({"status_code": 429}, RateLimited, TOO_MANY),
    ({"status_code": 400}, QueryRefused, REFUSED),
    ({"status_code": 404}, QueryRefused, REFUSED),
    ({"status_code": 500}, GatewayUnavailable, FAILED),
    ({"status_code": 408}, WindowTooLarge, HALVES),
    ({"status_code": 413}, WindowTooLarge, HALVES),
    ({"status_code": 504}, WindowTooLarge, HALVES),
    ({"error_type": "UNAUTHENTICATED"}, CredentialsRefused, CREDENTIALS),
    ({"error_type": "UNAUTHORIZED"}, CredentialsRefused, CREDENTIALS),
    ({"error_type": "FORBIDDEN"}, AccessForbidden, FORBIDDEN),
    ({"error_type": "RATE_LIMITED"}, RateLimited, TOO_MANY),
    ({"error_type": "BAD_REQUEST"}, QueryRefused, REFUSED),
    ({"error_type": "TIMEOUT"}, WindowTooLarge, HALVES),
    ({"error_type": "QUERY_TOO_COMPLEX", "status_code": 400}, WindowTooLarge, HALVES),
    # Unknown, and the same each time: more likely a refusal than an outage.
    ({"error_type": "A_TYPE_OF_2031"}, QueryRefused, ("A_TYPE_OF_2031", *REFUSED)),
    ({"classification": "Unauthorized"}, CredentialsRefused, CREDENTIALS),
    ({"classification": "Forbidden"}, AccessForbidden, FORBIDDEN),
    ({"classification": "RateLimited"}, RateLimited, TOO_MANY),
    ({"classification": "ValidationError"}, QueryRefused, REFUSED),
    ({"classification": "DataFetchingException"}, GatewayUnavailable, FAILED),
    ({"classification": "ExecutionAborted"}, WindowTooLarge, HALVES),
    ({}, GatewayUnavailable, FAILED),
    ({"message": None}, GatewayUnavailable, FAILED),
    ({"extensions": "empty"}, GatewayUnavailable, FAILED),
    ({"extensions": "null"}, GatewayUnavailable, FAILED),
    ({"extensions": "null", "message": None}, GatewayUnavailable, FAILED),
]


@pytest.mark.parametrize("channel", ["errors", "errors_with_data"])
@pytest.mark.parametrize(("parts", "kind", "words"), ERRORS, ids=lambda value: str(value)[:60])
def test_errors_with_and_without_data(canary_gateway, fail, channel, parts, kind, words):
    error = fail(Fault(channel, **{**NOTHING, **parts}))
    assert type(error) is kind
    assert error.request_id == canary_gateway.calls[-1].request_id
    for word in words:
        assert word in error.message
    assert (Fault("errors").message in error.message) == ("message" not in parts)


@pytest.mark.parametrize("level", ["data", "ecosystem", "forgeMetrics", "appMetrics"])
def test_errors_beside_partial_data(fail, level):
    error = fail(Fault("errors_with_data", level=level, **{**NOTHING, "status_code": 403}))
    assert type(error) is AccessForbidden


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_errors_with_an_http_status_of_their_own(fail, status):
    kinds = {400: QueryRefused, 401: CredentialsRefused, 403: AccessForbidden, 429: RateLimited}
    error = fail(Fault("errors", status=status, **NOTHING))
    assert type(error) is kinds.get(status, GatewayUnavailable)


# Channel 3: a `QueryError` in place of the data

QUERY_ERRORS = [parts for parts in ERRORS if "classification" not in parts[0]]


@pytest.mark.parametrize("identifier", [None, APP])
@pytest.mark.parametrize(("parts", "kind", "words"), QUERY_ERRORS, ids=lambda value: str(value)[:60])
def test_a_query_error_with_any_part_missing(canary_gateway, fail, parts, kind, words, identifier):
    error = fail(Fault("query_error", identifier=identifier, **{**NOTHING, **parts}))
    assert type(error) is kind
    assert error.request_id == canary_gateway.calls[-1].request_id
    for word in words:
        assert word in error.message


def test_a_rate_limit_as_a_query_error_carries_the_headers_word(fail):
    error = fail(Fault("query_error", status_code=429, retry_after="17"))
    assert (type(error), error.retry_after) == (RateLimited, 17)


def test_an_unknown_label_fails_the_whole_query(gateway, client, window):
    with pytest.raises(QueryRefused, match="Check the requested metrics"):
        client.app_metrics(APP, window, [PRODUCTION], [COUNT, "FORGE_METRIC_OF_2031"])
    assert b"FORGE_METRIC_OF_2031" in gateway.requests[0].body


def test_an_app_of_another_account(start_gateway, connect, window):
    gateway = start_gateway(Scenario(forbidden_apps=frozenset({APP})))
    with pytest.raises(AccessForbidden, match="owns the app"):
        connect(gateway).app_metrics(APP, window, [PRODUCTION], [COUNT])
    with pytest.raises(AccessForbidden, match="owns the app"):
        connect(gateway).environments(APP)


# Channel 4: null where data should be


@pytest.mark.parametrize("level", ["data", "ecosystem", "forgeMetrics", "appMetrics"])
def test_null_at_a_level(canary_gateway, fail, level):
    error = fail(Fault("null", level=level))
    assert type(error) is BrokenAnswer
    assert error.request_id == canary_gateway.calls[0].request_id
    assert f"null as {level}" in error.message
    assert "developer console" in error.message


def test_null_in_place_of_the_metrics_is_an_empty_query_error(fail):
    assert type(fail(Fault("null", level="resourceMetrics"))) is GatewayUnavailable


@pytest.mark.parametrize(
    "data",
    ["{}", '{"ecosystem": {}}', '{"ecosystem": 5}', '{"ecosystem": {"forgeMetrics": []}}', "[]", '"x"'],
)
def test_data_of_another_shape(fail, data):
    assert type(fail(Fault("body", body=f'{{"data": {data}}}'))) is BrokenAnswer


@pytest.mark.parametrize("metrics", ["{}", '"x"', "5", "true"])
def test_metrics_that_are_not_an_array(fail, metrics):
    result = f'{{"resourceMetrics": {metrics}}}'
    body = f'{{"data": {{"ecosystem": {{"forgeMetrics": {{"appMetrics": {result}}}}}}}}}'
    assert type(fail(Fault("body", body=body))) is BrokenAnswer


# Every channel


@pytest.mark.parametrize("place", ["body", "x-request-id", "x-trace-id"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("errors"),
        Fault("errors_with_data"),
        Fault("query_error"),
        Fault("null"),
        # These have a body of their own, and so only headers for an id.
        Fault("status"),
        Fault("html", status=200),
    ],
    ids=lambda fault: fault.kind,
)
def test_the_request_id_of_a_failure_is_found_wherever_it_is(start_gateway, fail, place, fault):
    gateway = start_gateway(Scenario(request_id_in=frozenset({place})), api_token=TOKEN)
    error = fail(fault, gateway=gateway)
    known = place != "body" or fault.kind not in {"status", "html"}
    assert error.request_id == (gateway.calls[0].request_id if known else None)
    assert (f"(request id {error.request_id})" in str(error)) == known


@pytest.mark.parametrize("kind", ["errors", "errors_with_data", "query_error", "status"])
@pytest.mark.parametrize("secret", [TOKEN, BASIC])
def test_a_gateway_that_repeats_the_credentials_is_not_quoted_with_them(fail, kind, secret):
    message = f"Header 'Basic {secret}' is bad"
    body = json.dumps({"errors": [{"message": message}]}) if kind == "status" else None
    error = fail(Fault(kind, message=message, body=body))
    assert "Header 'Basic ***' is bad" in error.message


# Looking environments up


@pytest.mark.parametrize("ids", ["uuid", "ari"])
def test_the_environments_of_an_app(start_gateway, connect, ids):
    gateway = start_gateway(Scenario(environment_ids=ids))
    found = connect(gateway).environments(APP)
    assert {each.name for each in found} == {"development", "staging", "production", "feature-x"}
    assert {each.id for each in found} == {each.id for each in gateway.environments}
    assert PRODUCTION in found
    assert len(gateway.calls) == 1


@pytest.mark.parametrize(("count", "calls"), [(100, 1), (101, 2), (250, 3)])
def test_more_than_a_hundred_environments_take_more_calls(gateway, client, monkeypatch, count, calls):
    types = {f"custom-{number}": "DEVELOPMENT" for number in range(count)}
    monkeypatch.setattr(sandbox_environments, "_TYPES", types)
    assert [each.name for each in client.environments(APP)] == list(types)
    assert [call.operation for call in gateway.calls] == ["app"] * calls


NEXT = '{"nodes": [], "pageInfo": {"hasNextPage": true, "endCursor": %s}}'
PAGE_BEFORE = f'"data": {{"app": {{"environmentsPage": {NEXT}}}}}'


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ('"data": null', BrokenAnswer),
        ('"data": {"app": null}', AccessForbidden),
        ('"data": {"app": {"environmentsPage": null}}', BrokenAnswer),
        ('"data": {"app": {"environmentsPage": {"nodes": null}}}', BrokenAnswer),
        # Pages that would be asked for again and again.
        (PAGE_BEFORE % "null", BrokenAnswer),
        (PAGE_BEFORE % '"x"', BrokenAnswer),
        ('"data": {}, "errors": [{"extensions": {"statusCode": 403}}]', AccessForbidden),
    ],
)
def test_a_look_up_without_environments(gateway, client, page, kind):
    gateway.add_fault(Fault("body", body=f"{{{page}}}", operation="app"))
    with pytest.raises(ForgeError) as caught:
        client.environments(APP)
    assert type(caught.value) is kind
    assert caught.value.request_id == gateway.calls[-1].request_id
    assert len(gateway.calls) <= 2


def test_environments_that_are_null_are_passed_over(gateway, client):
    page = '{"nodes": [null], "pageInfo": {"hasNextPage": false}}'
    gateway.add_fault(Fault("body", body=f'{{"data": {{"app": {{"environmentsPage": {page}}}}}}}'))
    assert client.environments(APP) == []


@pytest.mark.parametrize("cursors", [[f"c{number}" for number in range(100)], ["a", "b", "a", "b"]])
def test_a_list_of_environments_has_an_end(gateway, client, monkeypatch, cursors):
    left = iter(cursors)
    page = '{"data": {"app": {"environmentsPage": %s}}}'

    def respond(request):
        gateway.requests.append(request)
        return Reply(200, (page % (NEXT % json.dumps(next(left)))).encode())

    monkeypatch.setattr(gateway, "respond", respond)
    with pytest.raises(BrokenAnswer, match="environments"):
        client.environments(APP)
    assert len(gateway.requests) == (20 if len(cursors) > 20 else 3)


def test_an_unknown_failure_is_tried_a_few_times(canary_gateway, fail, connect, window):
    fault = Fault("errors", **{**NOTHING, "classification": "NewIn2031"})
    error = fail(fault)
    assert type(error) is QueryRefused
    assert "NewIn2031" in error.message
    assert error.request_id == canary_gateway.calls[-1].request_id
    assert len(canary_gateway.calls) == 3


def test_it_may_pass(gateway, client, window):
    gateway.add_fault(Fault("errors", max_times=2, **{**NOTHING, "classification": "NewIn2031"}))
    assert client.app_metrics(APP, window, [PRODUCTION], [COUNT]).resource_metrics
    assert len(gateway.calls) == 3


# The limiter


class CountingLimiter:
    """Gives a place at once, and writes down what happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.usage = LimitUsage()

    def acquire(self, *, priority: Priority, patience: float | None) -> SimpleNamespace:
        self.events.append("acquired")
        events = self.events
        return SimpleNamespace(
            waited=1.25, confirm=lambda: events.append("used") or 0.0, settle=lambda: events.append("settled")
        )

    def blocked_for(self, credentials: str) -> float:
        return 0.0


def test_every_call_uses_a_slot_and_confirms_it_when_it_leaves(gateway, connect, window, monkeypatch):
    monkeypatch.setattr(sandbox_environments, "_TYPES", dict.fromkeys(map(str, range(150)), "STAGING"))
    limiter = CountingLimiter()
    client = connect(gateway, limiter=limiter)
    client.environments(APP)
    assert limiter.events == ["acquired", "used", "settled"] * 2
    environment = Environment(gateway.environments[0].id)
    assert client.app_metrics(APP, window, [environment], [COUNT]).waited == 1.25
    assert limiter.events == ["acquired", "used", "settled"] * 3
    assert len(gateway.calls) == client.usage.calls == 3


@pytest.mark.parametrize("kind", ["reset", "truncate", "status"])
def test_a_failed_call_has_used_its_slot(fail, kind):
    limiter = CountingLimiter()
    fail(Fault(kind), limiter=limiter)
    assert limiter.events == ["acquired", "used", "settled"]


def test_a_call_that_never_left_is_not_confirmed(gateway, connect, window):
    limiter = CountingLimiter()
    client = connect(gateway, limiter=limiter)
    gateway.stop()
    with pytest.raises(GatewayUnavailable):
        client.app_metrics(APP, window, [PRODUCTION], [COUNT])
    assert limiter.events == ["acquired"]
    assert client.usage.calls == 0


def test_a_window_that_expires_while_waiting_is_not_fetched(connect, gateway, clock, window):
    limiter = CountingLimiter()
    acquire = limiter.acquire
    limiter.acquire = lambda **how: clock.advance(days=15) or acquire(**how)
    with pytest.raises(WindowExpired):
        connect(gateway, limiter=limiter).app_metrics(APP, window, [PRODUCTION], [COUNT])
    assert limiter.events == ["acquired"]
    assert gateway.calls == []


def test_a_call_refused_beforehand_uses_no_slot(connect, gateway, clock, window):
    limiter = CountingLimiter()
    clock.advance(days=15)
    with pytest.raises(WindowExpired):
        connect(gateway, limiter=limiter).app_metrics(APP, window, [PRODUCTION], [COUNT])
    assert limiter.events == []


@pytest.fixture
def endless():
    """The URL of a gateway whose answer is small on the wire, and never ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            compressor = zlib.compressobj(wbits=31)
            with contextlib.suppress(ConnectionError):
                while True:
                    self.wfile.write(compressor.compress(b" " * 100_000))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/graphql"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("splittable", [True, False])
def test_an_endless_response_is_cut_off(canary_gateway, connect, window, endless, splittable, monkeypatch):
    monkeypatch.setattr(transport, "MAX_SIZE", 100_000)
    client = connect(canary_gateway, url=endless)
    call = (
        (client.app_metrics, APP, window, [PRODUCTION], [COUNT]) if splittable else (client.environments, APP)
    )
    with pytest.raises(
        ForgeError, match=r"more than 100000 bytes from 127\.0\.0\.1:[0-9]+ was not read to the end"
    ) as caught:
        call[0](*call[1:])
    assert type(caught.value) is (WindowTooLarge if splittable else GatewayUnavailable)
    assert_tells_no_secret(caught.value)
