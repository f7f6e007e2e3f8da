"""Answers that the sandbox cannot give. Those that it can give are in test_client.py, over real sockets."""

from __future__ import annotations

import json
import tracemalloc
from datetime import datetime, timezone
from typing import Any

import httpx
import msgspec
import pytest

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    BrokenAnswer,
    CredentialsRefused,
    ForgeError,
    GatewayUnavailable,
    QueryRefused,
    RateLimited,
    WindowTooLarge,
)
from airflow_provider_forge.gateway.responses import GatewayResponse, read_response

NOW = datetime(2021, 5, 10, 10, 59, 30, tzinfo=timezone.utc)


def read(
    body: Any,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    kind: Any = Any,
    splittable: bool = True,
) -> GatewayResponse:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.Response(status, content=content, headers=headers)
    return read_response(response, kind, now=NOW, secrets=["s3cr3t-t0ken"], splittable=splittable)


def failure(*arguments: Any, **options: Any) -> ForgeError:
    with pytest.raises(ForgeError) as caught:
        read(*arguments, **options)
    return caught.value


def errors(*extensions: Any) -> dict[str, Any]:
    return {"errors": [{"message": "no", "extensions": each} for each in extensions]}


class Kept(msgspec.Struct):
    a: msgspec.Raw


def test_the_data_of_a_good_response_is_kept_byte_for_byte():
    body = (
        b'{ "extensions": {"gateway": {"request_id": "abc"}}, "data" : {"a":  [1.0, "\\u00e9" ]} , "new": 1}'
    )
    answer = read(body, kind=Kept)
    assert bytes(answer.data.a) == b'[1.0, "\\u00e9" ]'
    assert answer.request_id == "abc"
    assert read(body).data == {"a": [1.0, "é"]}


def test_a_good_response_is_not_copied():
    body = b'{"data":{"a":[%b1]}}' % (b"1," * 10**6)
    read(b'{"data":{"a":[]}}', kind=Kept)
    response = httpx.Response(200, content=body)
    tracemalloc.start()
    answer = read_response(response, Kept, now=NOW, secrets=(), splittable=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(answer.data.a) > 2 * 10**6
    assert peak < 10**5


@pytest.mark.parametrize("no_errors", [{}, {"errors": None}, {"errors": []}])
def test_empty_errors_are_none(no_errors):
    assert read({"data": 1, **no_errors}, kind=int).data == 1


@pytest.mark.parametrize(
    ("extensions", "kind"),
    [
        ({"statusCode": 401}, CredentialsRefused),
        ({"statusCode": "401"}, CredentialsRefused),
        ({"statusCode": "many", "errorType": "FORBIDDEN"}, AccessForbidden),
        ({"statusCode": 429.0, "errorType": "RATE_LIMITED"}, RateLimited),
        ({"statusCode": None, "errorType": None, "classification": "RateLimited"}, RateLimited),
        # The stable parts disagree: the status is the more exact one, then the type.
        (
            {"statusCode": 503, "errorType": "FORBIDDEN", "classification": "ValidationError"},
            GatewayUnavailable,
        ),
        ({"errorType": "RATE_LIMITED", "classification": "DataFetchingException"}, RateLimited),
        ({"errorType": "NEW_IN_2031", "classification": "ValidationError"}, QueryRefused),
        ({"errorType": 7}, GatewayUnavailable),
        ({"errorType": {}}, GatewayUnavailable),
        # Lists as in `QueryError`, and things that are no extensions.
        ([{"statusCode": 403}], AccessForbidden),
        ([None, 1, {"statusCode": 429}], RateLimited),
        ([], GatewayUnavailable),
        ("Forbidden", GatewayUnavailable),
        (403, GatewayUnavailable),
        (None, GatewayUnavailable),
    ],
)
def test_an_error_is_classified_by_status_then_type_then_classification(extensions, kind):
    assert type(failure(errors(extensions))) is kind


@pytest.mark.parametrize(
    "error_type", ["RATE_LIMITED", "RateLimited", "rate-limited", "TOO_MANY_REQUESTS", "Throttled"]
)
def test_the_spelling_of_a_type_does_not_matter(error_type):
    assert type(failure(errors({"errorType": error_type}))) is RateLimited


@pytest.mark.parametrize(
    "message", ["401 Unauthorized", "Rate limit exceeded (429)", "Forbidden", "TIMEOUT", "query too complex"]
)
def test_the_text_of_a_message_decides_nothing(message):
    assert type(failure({"errors": [{"message": message}]})) is GatewayUnavailable


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        # What nobody can wait for is said first.
        ([500, 401], CredentialsRefused),
        ([429, 403], AccessForbidden),
        ([400, 429], RateLimited),
        # Only where all parts are refused would asking again change nothing.
        ([400, 404], QueryRefused),
        ([400, 500], GatewayUnavailable),
        ([408, 429], RateLimited),
        ([413, 401], CredentialsRefused),
        ([504, 403], AccessForbidden),
        # What halves of the window might mend is said before what they would not.
        ([400, 408], WindowTooLarge),
        ([413, 500], WindowTooLarge),
    ],
)
def test_of_several_errors_the_gravest_counts(statuses, kind):
    assert type(failure(errors(*({"statusCode": status} for status in statuses)))) is kind


@pytest.mark.parametrize(
    ("http_status", "status_code", "kind"),
    [
        (500, 401, CredentialsRefused),
        (400, 429, RateLimited),
        (500, 400, GatewayUnavailable),
        (400, 500, GatewayUnavailable),
        (400, 400, QueryRefused),
        (429, 500, RateLimited),
        (413, 500, WindowTooLarge),
        (500, 504, WindowTooLarge),
        (408, 429, RateLimited),
    ],
)
def test_the_http_status_counts_beside_the_errors(http_status, status_code, kind):
    assert type(failure(errors({"statusCode": status_code}), http_status)) is kind


TOO_LARGE = [
    ({"statusCode": 408}, GatewayUnavailable),
    ({"statusCode": 413}, QueryRefused),
    ({"statusCode": "504"}, GatewayUnavailable),
    ({"errorType": "TIMEOUT"}, GatewayUnavailable),
    ({"errorType": "GATEWAY_TIMEOUT"}, GatewayUnavailable),
    ({"errorType": "query-timed-out"}, GatewayUnavailable),
    ({"errorType": "Request timed out"}, GatewayUnavailable),
    ({"errorType": "ResponseTooLarge"}, GatewayUnavailable),
    ({"errorType": "PAYLOAD_TOO_LARGE"}, GatewayUnavailable),
    ({"errorType": "QUERY_TOO_COMPLEX"}, GatewayUnavailable),
    ({"classification": "ExecutionAborted"}, GatewayUnavailable),
    ({"classification": "MaxComplexityExceeded"}, GatewayUnavailable),
    # Beside a status or another type, which the look-up of environments goes by.
    ({"statusCode": 400, "errorType": "QUERY_TOO_COMPLEX"}, QueryRefused),
    ({"statusCode": 500, "classification": "ExecutionAborted"}, GatewayUnavailable),
    ({"errorType": "BAD_REQUEST", "classification": "ExecutionAborted"}, QueryRefused),
]


@pytest.mark.parametrize(("extensions", "of_look_up"), TOO_LARGE, ids=str)
@pytest.mark.parametrize("as_list", [False, True])
def test_a_window_too_large_is_recognized_by_status_or_type(extensions, of_look_up, as_list):
    headers = {"x-request-id": "abc", "retry-after": "17"}
    body = errors([None, extensions] if as_list else extensions)
    error = failure(body, headers=headers)
    assert type(error) is WindowTooLarge
    assert (error.request_id, error.retry_after) == ("abc", 17)
    assert type(failure(body, headers=headers, splittable=False)) is of_look_up


@pytest.mark.parametrize(("extensions", "of_look_up"), TOO_LARGE, ids=str)
def test_so_is_it_in_a_query_error(extensions, of_look_up):
    for splittable, kind in ((True, WindowTooLarge), (False, of_look_up)):
        answer = read({"data": 1}, headers={"x-request-id": "abc"}, splittable=splittable)
        with pytest.raises(ForgeError) as caught:
            answer.fail("no", [extensions])
        assert type(caught.value) is kind
        assert caught.value.request_id == "abc"


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_type_for_too_large_does_not_hide_a_graver_status(status):
    kinds = {401: CredentialsRefused, 403: AccessForbidden, 429: RateLimited}
    extensions = {"statusCode": status, "errorType": "QUERY_TOO_COMPLEX"}
    assert type(failure(errors(extensions))) is kinds[status]


def test_the_statuses_and_all_messages_are_in_the_error():
    error = failure(errors({"statusCode": 400}, {"statusCode": 404}), 422)
    assert "400, 404, 422: no; no" in str(error)


@pytest.mark.parametrize(
    "entries",
    [
        "boom",
        {"message": "boom"},
        ["boom"],
        [None],
        [{"message": None}],
        [{"message": {"text": "boom"}}],
        [{"message": ["boom"], "extensions": None}],
    ],
)
def test_errors_of_a_shape_of_their_own_are_errors(entries):
    assert type(failure({"data": {}, "errors": entries})) is GatewayUnavailable


def test_a_message_is_quoted_short_in_one_line_and_without_secrets():
    message = "Your token s3cr3t-t0ken\nis bad. " + "x" * 1000
    text = str(failure({"errors": [{"message": message}]}))
    assert "Your token *** is bad." in text
    assert len(text) < 600
    assert text.isprintable()


def test_data_beside_errors_are_not_metrics():
    partial = {"data": {"ecosystem": {"forgeMetrics": {"appMetrics": {"resourceMetrics": []}}}}}
    assert type(failure({**partial, **errors({"statusCode": 500})})) is GatewayUnavailable


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"  ", b"null", b"[]", b'"data"', b"1", b"<html></html>", b"\xff\xfe", b"\x1f\x8b\x08\x00"),
        *(b'{"data": {"a": [1, 2', b'{"data": nope}', b'{"data": {}} {}', b'{"data": ' + b"[" * 100_000),
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_response_that_is_not_graphql_is_a_broken_answer(body):
    error = failure(body, headers={"content-type": "text/html", "x-request-id": "abc"})
    assert type(error) is BrokenAnswer
    assert error.request_id == "abc"
    assert f"{len(body)} bytes, text/html" in str(error)


@pytest.mark.parametrize("status", [100, 204, 301, 302, 307])
def test_a_response_without_a_body_is_not_mistaken_for_data(status):
    failure(b"", status)


@pytest.mark.parametrize(
    ("extensions", "headers", "found"),
    [
        ({"gateway": {"request_id": "b"}}, {"x-request-id": "r", "x-trace-id": "t"}, "b"),
        ({}, {"x-request-id": "r", "x-trace-id": "t"}, "r"),
        ({}, {"x-trace-id": "t"}, "t"),
        ({}, {}, None),
        ({"gateway": {"request_id": None}}, {"x-trace-id": "t"}, "t"),
        ({"gateway": {"request_id": 7}}, {}, "7"),
        ({"gateway": None}, {"x-request-id": "r"}, "r"),
        ({"gateway": "b"}, {"x-request-id": "r"}, "r"),
        (None, {"x-request-id": ""}, None),
        ("b", {"x-request-id": "r"}, "r"),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
def test_the_request_id_is_read_from_the_body_then_the_headers(extensions, headers, found, status):
    body = {"data": 1, "extensions": extensions}
    if status == 200:
        assert read(body, headers=headers).request_id == found
    assert failure({**body, "errors": ["x"]}, status, headers).request_id == found


def test_a_response_that_does_not_match_the_schema_is_broken():
    class Shape(msgspec.Struct):
        app: str

    with pytest.raises(BrokenAnswer, match="request id abc") as caught:
        read({"data": {"app": 5}}, headers={"x-request-id": "abc"}, kind=Shape)
    assert "does not match the schema" in str(caught.value)


def test_an_error_counts_for_more_than_the_shape():
    assert isinstance(
        failure({"data": {"app": 5}, **errors({"statusCode": 429})}, kind=dict[str, str]), RateLimited
    )


def test_null_as_data_is_broken():
    with pytest.raises(BrokenAnswer, match="null as data"):
        _ = read({"data": None}, kind=int).data


BROKEN_TEXTS = {
    "half a surrogate pair": b'"slow \\ud83d"',
    "bytes that are no UTF-8": b'"slow \xff\xc3"',
    "a control character": b'"slow\n\x1b[31m"',
    "no number": b"NaN",
    "a number that no double holds": b"1e999",
    "a number of thousands of digits": b"9" * 5000,
    "nested without end": b"[" * 50_000 + b"]" * 50_000,
    "a huge text": b'"' + b"x" * 10**6 + b'"',
}


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("field", ["message", "note", "extensions"])
@pytest.mark.parametrize("broken", BROKEN_TEXTS.values(), ids=BROKEN_TEXTS)
def test_broken_text_does_not_hide_the_kind_of_an_error(broken, field, status):
    error = b'"message":"no","extensions":{"statusCode":429,"errorType":"RATE_LIMITED"}'
    if field == "message":
        error = error.replace(b'"no"', broken)
    elif field == "note":
        error += b',"note":' + broken
    outside = b',"extensions":{"note":%b,"gateway":{"request_id":"abc"}}' % (
        broken if field == "extensions" else b"1"
    )
    found = failure(b'{"errors":[{%b}]%b}' % (error, outside), status)
    assert isinstance(found, RateLimited)
    assert str(found).isprintable()
    assert len(str(found)) < 1000
    assert found.request_id == "abc"


def test_broken_text_beside_the_data_does_not_hide_the_data():
    answer = read(b'{"extensions":{"note":"\\ud83d"},"data":{"a":[{"b":"\\ud83d"}]}}', kind=Kept)
    assert bytes(answer.data.a) == b'[{"b":"\\ufffd"}]'
