"""What is not GraphQL, and types that nobody knows: whose words are shown, and which error it is."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    CredentialsRefused,
    FinalError,
    ForgeError,
    GatewayUnavailable,
    QueryRefused,
    RateLimited,
    UnknownFailure,
)
from airflow_provider_forge.gateway.responses import read_response

NOW = datetime(2021, 5, 10, 10, 59, 30, tzinfo=timezone.utc)
SECRET = "s3cr3t-t0ken-of-the-account"
PAGE = {"content-type": "text/html", "server": "CloudFront"}


def failure(body: Any, status: int = 200, headers: dict[str, str] | None = None, via: str = "") -> ForgeError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.Response(status, content=content, headers=headers)
    with pytest.raises(ForgeError) as caught:
        read_response(response, dict, now=NOW, secrets=[SECRET], splittable=False, via=via)
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "words", "kind"),
    [
        (
            401,
            {"code": 401, "message": "Unauthorized; scope does not match"},
            "scope does not match",
            CredentialsRefused,
        ),
        (
            403,
            {"errorMessages": ["Your address is not allowed."], "errors": {}},
            "not allowed",
            AccessForbidden,
        ),
        (403, {"code": 403, "message": "Not yours"}, "Not yours", AccessForbidden),
        (
            429,
            {"status": 429, "error": "Too Many", "message": "cost limit exceeded"},
            "cost limit",
            RateLimited,
        ),
        (
            400,
            {"errors": [{"status": 400, "title": "Bad", "detail": "over 15 minutes"}]},
            "over 15",
            QueryRefused,
        ),
        (400, {"errors": [{"status": 400, "title": "Bad Request"}]}, "Bad Request", QueryRefused),
        (400, {"error": {"code": 3, "message": "nested"}}, "nested", QueryRefused),
        (400, {"error": "invalid_request", "error_description": "described"}, "described", QueryRefused),
        (503, b"upstream connect error", "upstream connect error", GatewayUnavailable),
        (500, {"message": {"of": "another form"}}, "500", GatewayUnavailable),
        (500, b'{"message": "cut o', "cut o", GatewayUnavailable),
        (500, b"\xff\xfe\x00", "500", GatewayUnavailable),
    ],
)
def test_the_message_of_the_responding_server_is_shown(status, body, words, kind):
    error = failure(body, status)
    assert type(error) is kind
    assert words in str(error)
    assert str(status) in str(error)


def test_an_html_page_is_described_by_its_title_and_its_server():
    page = b"<HTML><TITLE>ERROR: not\n satisfied &amp; <b>more</b></TITLE><body>" + b"x" * 10**6
    error = failure(page, 502, PAGE)
    assert "(502: a page of HTML from CloudFront, ERROR: not satisfied & more)" in str(error)
    assert "a page of HTML, Denied)" in str(failure(b"<h1>Denied</h1>", 502))


@pytest.mark.parametrize("headers", [PAGE, {}])
def test_a_403_with_an_html_page_is_retryable(headers):
    error = failure(b"<html><title>Request blocked</title></html>", 403, headers)
    assert type(error) is GatewayUnavailable
    assert "Request blocked" in str(error)
    for word in ("firewall", "proxy", "allowlist"):
        assert word in str(error)
    assert "owns the app" not in str(error)


def test_one_of_an_ip_allowlist_is_neither_and_stays():
    error = failure({"errorMessages": ["The IP address has been rejected."]}, 403)
    assert isinstance(error, FinalError)
    assert "IP allowlist" in str(error)
    assert "owns the app" not in str(error)


@pytest.mark.parametrize("body", [b"", {}, {"code": 403, "message": "Forbidden"}])
def test_one_of_the_gateways_own_is(body):
    assert "must belong to the account that owns the app" in str(failure(body, 403))


SCOPES = {
    "classification": "InsufficientOAuthScopes",
    "requiredScopes": ["read:app-metrics", "read:app\n::group::x"],
}


@pytest.mark.parametrize("status", [200, 403, 500])
@pytest.mark.parametrize("as_list", [True, False])
def test_a_token_without_the_scope_is_refused_for_good(status, as_list):
    extensions = [None, SCOPES] if as_list else SCOPES
    error = failure({"errors": [{"message": "no", "extensions": extensions}]}, status)
    assert type(error) is AccessForbidden
    assert "without scopes" in str(error)
    assert "read:app-metrics, read:app :group::x" in str(error)
    assert "owns the app" not in str(error)


@pytest.mark.parametrize("scopes", [None, "read:me", [], 7, {"a": 1}])
def test_missing_scopes_in_any_form(scopes):
    extensions = {"errorType": "INSUFFICIENT_OAUTH_SCOPES", "requiredScopes": scopes}
    error = failure({"errors": [{"message": None, "extensions": extensions}]})
    assert type(error) is AccessForbidden
    assert ("read:me" in str(error)) == (scopes == "read:me")


def test_scopes_in_the_text_are_a_hint_and_decide_nothing():
    said = failure({"code": 401, "message": "scope does not match"}, 401)
    assert "without scopes" in str(said)
    assert "without scopes" not in str(failure({"code": 401, "message": "no"}, 401))
    assert type(failure({"code": 500, "message": "InsufficientOAuthScopes"}, 500)) is GatewayUnavailable


@pytest.mark.parametrize(
    ("extensions", "status", "kind"),
    [
        ({"classification": "NewIn2031"}, 200, UnknownFailure),
        ({"errorType": "NEW_IN_2031", "statusCode": None}, 200, UnknownFailure),
        # A status says which it is.
        ({"classification": "NewIn2031", "statusCode": 400}, 200, QueryRefused),
        ({"classification": "NewIn2031"}, 400, QueryRefused),
        ({"classification": "NewIn2031", "statusCode": 503}, 200, GatewayUnavailable),
        ({"classification": "NewIn2031"}, 503, GatewayUnavailable),
        ({"classification": "NewIn2031", "errorType": "RATE_LIMITED"}, 200, RateLimited),
        ({"classification": ""}, 200, GatewayUnavailable),
        ({}, 200, GatewayUnavailable),
    ],
)
def test_an_unknown_type_is_distinguished_from_an_outage(extensions, status, kind):
    error = failure({"errors": [{"message": "no", "extensions": extensions}]}, status)
    assert type(error) is kind
    assert ("NewIn2031" in str(error) or "NEW_IN_2031" in str(error)) == (kind is UnknownFailure)


@pytest.mark.parametrize("place", ["words", "request id", "header"])
def test_neither_words_nor_ids_carry_secrets_or_control_characters(place):
    evil = f"x\x1b]0;pwned\x07\n::group::evil {SECRET} " + "y" * 10**5
    body: dict[str, Any] = {"errors": [{"message": evil if place == "words" else "no"}]}
    if place == "request id":
        body["extensions"] = {"gateway": {"request_id": evil}}
    headers = {"x-request-id": f"id\tof {SECRET} " + "y" * 500} if place == "header" else {}
    text = str(failure(body, 500, headers))
    assert text.isprintable()
    assert SECRET not in text
    assert "***" in text
    assert "::group" not in text
    assert len(text) < 1000


def test_the_proxy_that_may_have_answered_is_named():
    error = failure(b"<h1>Bad gateway</h1>", 502, via=" through the proxy http://p:3128 (HTTP_PROXY)")
    assert "(502 through the proxy http://p:3128 (HTTP_PROXY): a page" in str(error)


@pytest.mark.parametrize(
    "extensions",
    [
        {"errorType": f"NEW_{SECRET}"},
        {"classification": f"of {SECRET}"},
        {"errorType": "INSUFFICIENT_SCOPES", "requiredScopes": [f"read:{SECRET}"]},
    ],
)
def test_a_secret_in_a_type_or_a_scope_is_masked(extensions):
    error = failure({"errors": [{"message": "no", "extensions": extensions}]})
    assert SECRET not in str(error)
    assert "***" in str(error)


def nested(levels: int) -> Any:
    content: Any = "deep"
    for number in range(levels):
        content = {"message": content} if number % 2 else [content]
    return content


@pytest.mark.parametrize("status", [200, 403, 500])
@pytest.mark.parametrize("levels", [50, 900])
def test_a_message_nested_deeply_is_not_shown(status, levels):
    error = failure({"errors": [{"message": nested(levels)}], "message": nested(levels)}, status)
    assert "deep" not in str(error)


@pytest.mark.parametrize("code", [429, 429.0, "429", "429.0"])
def test_a_status_code_may_be_any_number(code):
    error = failure({"errors": [{"message": "slow down", "extensions": {"statusCode": code}}]})
    assert isinstance(error, RateLimited)
