from __future__ import annotations

import base64
import contextlib
import datetime as dt
import email.utils
import gzip
import logging
import random
import socket
import ssl
import struct
import threading
import traceback

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from airflow_provider_forge import __version__
from airflow_provider_forge.exceptions import (
    ExportRefused,
    ForgeError,
    PointsRejected,
    ReceiverUnavailable,
    RequestTooLarge,
)
from airflow_provider_forge.otlp.client import SUSPICIOUS_BYTES, OtlpClient
from airflow_provider_forge.otlp.endpoint import (
    HTTP_JSON,
    HTTP_PROTOBUF,
    PROTOCOLS,
    Endpoint,
    metrics_url,
)
from airflow_provider_forge.otlp.replies import MAX_REPLY
from airflow_provider_forge.otlp.requests import ExportRequest, encode_request
from airflow_provider_forge.sandbox import Fault, OtlpSink
from demo.waiting import wait_for
from tests.certificates import make_certificate
from tests.otlp.building import entry, gauge, metric, point
from tests.otlp.endpoints import endpoint_of
from tests.raw_server import RawRequest, raw_server, response

CANARY = "hunter2-canary"
BASIC = f"Basic {base64.b64encode(f'123:{CANARY}'.encode()).decode()}"
JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def an_export(protocol: str = HTTP_PROTOBUF) -> ExportRequest:
    """Return a request with three points, from 05:00 to 05:01 UTC."""
    times = ({"timeUnixNano": "1795410000000000000"}, {"timeUnixNano": "1795410060000000000"})
    metrics = (
        metric("forge_api_request_count", *(point(**time) for time in times)),
        gauge("cpu", point(**times[0])),
    )
    return encode_request([entry(*metrics)], protocol)


def an_export_of(size: int) -> ExportRequest:
    """Return a request of so many bytes, which compress well."""
    frame = encode_request([entry(metric("x", point()), schemaUrl="")], HTTP_JSON).body
    return encode_request([entry(metric("x", point()), schemaUrl="x" * (size - len(frame)))], HTTP_JSON)


LARGE = an_export_of(16 * 1024 * 1024)


def send(url: str, protocol: str = HTTP_PROTOBUF, export: ExportRequest | None = None, **settings) -> None:
    """Send it as bearer of the canary."""
    settings = {"headers": {"Authorization": f"Bearer {CANARY}"}, **settings}
    with OtlpClient(endpoint_of(metrics_url(url), protocol=protocol, **settings)) as client:
        client.export(export or an_export(protocol))


def failure(url: str, kind: type[ForgeError], protocol: str = HTTP_PROTOBUF, **settings) -> ForgeError:
    """Send it, and return the error; whatever it is, the canary is nowhere in it."""
    with pytest.raises(kind) as raised:
        send(url, protocol, **settings)
    assert type(raised.value) is kind
    assert CANARY not in "".join(traceback.format_exception(raised.value))
    return raised.value


def partial_success(rejected: int = 0, message: str = "") -> bytes:
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = rejected
    answer.partial_success.error_message = message
    return answer.SerializeToString()


REJECTED = b'{"partialSuccess":{"rejectedDataPoints":"2","errorMessage":"too old"}}'


# ---- what is sent


@pytest.mark.parametrize(
    ("protocol", "content_type"), [(HTTP_JSON, "application/json"), (HTTP_PROTOBUF, "application/x-protobuf")]
)
@pytest.mark.parametrize(("compression", "encoding"), [("gzip", "gzip"), ("none", None)])
def test_a_request(start_receiver, protocol, content_type, compression, encoding):
    receiver = start_receiver()
    send(f"{receiver.url}/otlp", protocol, compression=compression)
    ((path, headers, body),) = receiver.requests
    assert path == "/otlp/v1/metrics"
    assert headers.get_all("Content-Type") == [content_type]
    assert headers.get_all("Content-Encoding", [None]) == [encoding]
    assert headers.get_all("User-Agent") == [f"airflow-provider-forge/{__version__}"]
    assert headers.get_all("Authorization") == [f"Bearer {CANARY}"]
    assert (gzip.decompress(body) if encoding else body) == an_export(protocol).body


def test_headers_of_the_user(start_receiver):
    receiver = start_receiver()
    send(receiver.url, headers={"X-Api-Key": CANARY, "X-Scope-OrgID": "tenant", "user-agent": "mine/1"})
    ((_, headers, _),) = receiver.requests
    assert headers.get_all("X-Api-Key") == [CANARY]
    assert headers.get_all("X-Scope-OrgID") == ["tenant"]
    assert headers.get_all("User-Agent") == ["mine/1"]
    assert "Authorization" not in headers


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_the_sink_accepts_all_points(sink, protocol, compression):
    send(sink.url, protocol, compression=compression)
    (request,) = sink.requests
    assert request.body == an_export(protocol).body
    assert request.content_encoding == ("gzip" if compression == "gzip" else "")
    assert sink.summary() == {**sink.summary(), "requests": 1, "points": 3, "refused": 0, "rejected": 0}


def test_one_client_sends_many_requests(sink):
    with OtlpClient(Endpoint(metrics_url(sink.url))) as client:
        for _ in range(3):
            client.export(an_export())
    assert len(sink.requests) == 3


# ---- success


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b"{}"),
        (JSON, b'{"partialSuccess":{}}'),
        (JSON, b'{"partialSuccess":null}'),
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":"0","errorMessage":""}}'),
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":0}}'),
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":null,"errorMessage":null}}'),
        ({"Content-Type": "application/json; charset=utf-8"}, b" {} "),
        (JSON, b""),
        (JSON, b"\n\x00"),
        (JSON, b"null"),
        (JSON, b"[]"),
        (PROTOBUF, b""),
        (PROTOBUF, b"\n\x00"),
        (PROTOBUF, b"\n\x02\x08\x00"),
        ({}, b""),
        ({}, b"\n\x00"),
        ({"Content-Type": "text/plain"}, b"OK"),
        ({"Content-Type": "text/plain; charset=utf-8"}, b"\n\x00"),
    ],
)
def test_success(start_receiver, caplog, status, headers, body):
    receiver = start_receiver(status, body, headers)
    send(receiver.url)
    assert len(receiver.requests) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_success_without_a_body(start_receiver):
    send(start_receiver(204).url)


def test_a_success_with_invalid_protobuf_is_a_warning(start_receiver, caplog):
    send(start_receiver(200, b"\xff\xff", PROTOBUF).url)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "protobuf" in record.getMessage()


@pytest.mark.parametrize("content_type", ["text/html", "text/html; charset=utf-8", "Text/HTML", "text/plain"])
@pytest.mark.parametrize("start", ["<html>", "\ufeff <!DOCTYPE html>", "<?xml version='1.0'?><Error>"])
def test_a_page_is_not_a_success(start_receiver, content_type, start):
    page = f"{start}Log in, {CANARY}".encode()
    error = failure(start_receiver(200, page, {"Content-Type": content_type}).url, ExportRefused)
    assert "HTML" in str(error)
    assert "host" in str(error)
    assert (error.status, error.maybe_stored) == (None, True)


def warning_in(caplog) -> str:
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return record.getMessage()


UNREADABLE = {
    "labelled gzip, and plain": response(200, b"{}", "Content-Encoding: gzip"),
    "labelled deflate, and garbage": response(200, b"\x00\x01garbage", "Content-Encoding: deflate"),
    "an unknown coding": response(200, b"{}", "Content-Encoding: br"),
    "a header that is none": b"HTTP/1.1 200 OK\r\nContent-Type : x\r\nContent-Length: 2\r\n\r\n{}",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "larger than any answer": response(200, b" " * (MAX_REPLY + 1)),
    "a bomb": response(200, gzip.compress(bytes(2 * MAX_REPLY)), "Content-Encoding: gzip"),
    "a bomb in a bomb": response(
        200, gzip.compress(gzip.compress(bytes(100 * MAX_REPLY))), "Content-Encoding: gzip, gzip"
    ),
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_a_success_whose_body_cannot_be_read_is_a_success_with_a_warning(answer, caplog):
    with raw_server(lambda _: answer) as receiver:
        send(receiver.url)
    assert len(receiver.requests) == 1
    assert "It is not known whether it rejected points" in warning_in(caplog)


BROKEN_OFF = {
    "after the status line": b"HTTP/1.1 200 OK\r\n",
    "in the headers": b"HTTP/1.1 200 OK\r\nContent-Le",
    "in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
}


@pytest.mark.parametrize("ending", ["closed", "silent", "reset"])
@pytest.mark.parametrize("said", BROKEN_OFF.values(), ids=BROKEN_OFF)
def test_a_success_that_breaks_off_is_one(said, ending, caplog):
    def answer(request: RawRequest) -> None:
        request.connection.sendall(said)
        if ending == "silent":
            receiver.released.wait(30)
        elif ending == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with raw_server(answer) as receiver:
        send(receiver.url, timeout=0.5)
    assert "It is not known whether it rejected points" in warning_in(caplog)


@pytest.mark.parametrize("status", [400, 503])
def test_a_truncated_failure_is_classified_by_its_status(status):
    answer = f"HTTP/1.1 {status} X\r\nRetry-After : 7\r\n\r\nbad unit".encode()
    with raw_server(lambda _: answer) as receiver, pytest.raises(ForgeError, match="bad unit") as raised:
        send(receiver.url)
    assert isinstance(raised.value, ReceiverUnavailable if status == 503 else ExportRefused)
    assert getattr(raised.value, "retry_after", 7) == 7


def test_a_rejection_is_read_in_a_body_that_is_not_whole():
    answer = response(200, b'{"partialSuccess":{"rejectedDataPoints":"2"}}', "Content-Encoding: gzip")
    with raw_server(lambda _: answer) as receiver, pytest.raises(PointsRejected) as raised:
        send(receiver.url)
    assert raised.value.rejected == 2


@contextlib.contextmanager
def impatient_receiver(answer: bytes, ending: str):
    """Answers as soon as it has read the beginning of a request, and reads no more of it."""
    released = threading.Event()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(answer)
            if ending == "silent":
                released.wait(30)
            elif ending == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                connection.shutdown(socket.SHUT_WR)
                released.wait(1)

    with socket.socket() as listener:
        # What fits into the sockets' buffers counts as sent.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            released.set()


@pytest.mark.parametrize("ending", ["closed", "silent", "reset"])
@pytest.mark.parametrize("status", [200, 204])
def test_a_success_before_the_whole_request_was_sent_is_none(status, ending):
    with impatient_receiver(response(status), ending) as url:
        error = failure(url, ReceiverUnavailable, HTTP_JSON, export=LARGE, compression="none", timeout=0.5)
    assert error.maybe_stored
    if ending != "reset":  # which may discard the answer
        assert f"answered {status} before it had received the whole request" in str(error)


@pytest.mark.parametrize(("status", "kind"), [(413, RequestTooLarge), (503, ReceiverUnavailable)])
@pytest.mark.parametrize("ending", ["closed", "silent"])
def test_an_early_refusal_is_read(status, kind, ending):
    with impatient_receiver(response(status), ending) as url:
        error = failure(url, kind, HTTP_JSON, export=LARGE, compression="none", timeout=0.5)
    assert f"answered {status}" in str(error)


@pytest.mark.parametrize(
    "first",
    [
        response(200) + response(200),
        response(200, b"{}") + response(200)[:20],
        b"HTTP/1.1 204 X\r\n\r\n" + response(200),
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + response(200),
    ],
)
def test_a_second_reply_to_one_request_is_not_the_reply_to_the_next(first):
    answers = [first, response(503), response(200)]
    with (
        raw_server(lambda request: answers[request.number - 1]) as receiver,
        OtlpClient(endpoint_of(metrics_url(receiver.url))) as client,
    ):
        client.export(an_export())
        with pytest.raises(ReceiverUnavailable) as raised:
            client.export(an_export())
        # The reply to the first was there before the receiver had read the second.
        wait_for(lambda: len(receiver.requests) == 2, timeout=10, what="the second request")
        assert client.export(an_export()) is None
    assert raised.value.maybe_stored or "503" in str(raised.value)
    assert len(receiver.requests) == 3


NOT_OTLP = {
    "text": ({"Content-Type": "text/plain"}, b"Access denied by policy", "Access denied"),
    "an error in JSON": (JSON, b'{"error":"invalid api key"}', "invalid api key"),
    "a status in JSON": (JSON, b'{"code":16,"message":"not for hunter2-canary"}', "not for ***"),
    "GraphQL": (JSON, b'{"errors":[{"message":"no"}]}', "it is not OTLP"),
    "an array": (JSON, b'[{"partialSuccess":{}}]', "it is not OTLP"),
    "a string": (JSON, b'"denied"', "denied"),
    "a status in protobuf": (PROTOBUF, b"\x08\x10\x12\x04nope", "nope"),
}


@pytest.mark.parametrize(("headers", "body", "says"), NOT_OTLP.values(), ids=NOT_OTLP)
def test_a_success_whose_body_is_not_otlp_is_a_success_with_a_warning(
    start_receiver, caplog, headers, body, says
):
    send(start_receiver(200, body, headers).url)
    warning = warning_in(caplog)
    assert says in warning
    assert "It is not known whether it rejected points" in warning
    assert CANARY not in caplog.text


# ---- partial success


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":"2","errorMessage":"too old"}}'),
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":2,"errorMessage":"too old"}}'),
        # JSON knows no whole numbers, and protobuf's JSON takes these.
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":2.0,"errorMessage":"too old"}}'),
        ({}, b'{"partialSuccess":{"rejectedDataPoints":"2","errorMessage":"too old"}}'),
        (PROTOBUF, partial_success(2, "too old")),
        # A message in several parts.
        (PROTOBUF, b"\n\x00" + partial_success(2) + partial_success(0, "too old")),
        (PROTOBUF, b"\x12\x00" + partial_success(2, "too old")),
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":2},"partialSuccess":{"errorMessage":"too old"}}'),
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":2,"errorMessage":"too old"},"partialSuccess":null}'),
        (
            JSON,
            (
                b'{"partialSuccess":{"rejectedDataPoints":0},"partial_success":'
                b'{"rejected_data_points":2,"error_message":"too old"}}'
            ),
        ),
        ({"Content-Type": "application/x-protobuf; proto=x"}, partial_success(2, "too old")),
    ],
)
def test_rejected_points(start_receiver, protocol, headers, body):
    receiver = start_receiver(200, body, headers)
    error = failure(receiver.url, PointsRejected, protocol)
    assert error.rejected == 2
    assert "rejected 2 of 3 points" in str(error)
    assert "too old" in str(error)
    assert "forge_api_request_count, cpu" in str(error)
    assert "from 2026-11-23T05:00:00Z to 2026-11-23T05:01:00Z" in str(error)
    assert len(receiver.requests) == 1


# Go's server guesses a content type where the receiver sets none.
@pytest.mark.parametrize("content_type", [{}, {"Content-Type": "application/octet-stream"}])
def test_points_rejected_in_protobuf_without_a_content_type(start_receiver, content_type):
    error = failure(start_receiver(200, partial_success(2, "too old"), content_type).url, PointsRejected)
    assert error.rejected == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_points_rejected_by_the_sink(sink, protocol):
    sink.add_fault(Fault("partial_success", rejected=1, message=f"not for {CANARY}"))
    error = failure(sink.url, PointsRejected, protocol)
    assert error.rejected == 1
    assert "not for ***" in str(error)
    assert sink.summary()["points"] == 2


def test_rejected_without_a_word(start_receiver):
    error = failure(start_receiver(200, partial_success(3), PROTOBUF).url, PointsRejected)
    assert "rejected 3 of 3 points (no reason given)" in str(error)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b'{"partialSuccess":{"errorMessage":"use gzip, hunter2-canary"}}'),
        (JSON, b'{"partialSuccess":{"rejectedDataPoints":"0","errorMessage":"use gzip, hunter2-canary"}}'),
        (PROTOBUF, partial_success(0, f"use gzip, {CANARY}")),
    ],
)
def test_a_message_without_rejected_points_is_a_warning(start_receiver, caplog, headers, body):
    send(start_receiver(200, body, headers).url)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "use gzip, ***" in record.getMessage()
    assert "all" not in record.getMessage()
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("number", "rejected", "says"),
    [
        ("60", 3, "rejected up to 3 of 3 points"),
        (str(10**19), 0, "an impossible number"),
        ("-5", 0, "an impossible number"),
        ("1e300", 0, "an impossible number"),
        ("9" * 5000, 0, "an impossible number"),
        ("2.5", 0, "an impossible number"),
        ("2.0", 2, "rejected 2 of 3 points"),
        ("2e0", 2, "rejected 2 of 3 points"),
    ],
)
@pytest.mark.parametrize("quoted", [True, False])
def test_the_number_of_rejected_points_is_checked(start_receiver, number, rejected, says, quoted):
    value = f'"{number}"' if quoted else number
    body = b'{"partialSuccess":{"rejectedDataPoints":%b}}' % value.encode()
    error = failure(start_receiver(200, body, JSON).url, PointsRejected)
    assert error.rejected == rejected
    assert says in str(error)
    assert len(str(error)) < 400


IMPERFECT = {
    "byte order mark": "\ufeff".encode() + REJECTED,
    "UTF-16": REJECTED.decode().encode("utf-16"),
    "letters of another encoding": REJECTED.replace(b"too old", b"too old \xfc"),
    "a control character": REJECTED.replace(b"too old", b"too old \n \x1b[31m"),
    "half of a surrogate pair": REJECTED.replace(b"too old", b"too old \\ud83d"),
    "original names": b'{"partial_success":{"rejected_data_points":2,"error_message":"too old"}}',
    "another line": REJECTED + b"\n{}",
    "protobuf, cut in a letter": b"\x0a\x0d\x08\x02\x12\x09too old \xc3",
}


@pytest.mark.parametrize("body", IMPERFECT.values(), ids=IMPERFECT)
@pytest.mark.parametrize("kind", ["application/json; charset=zlib", "application/x-protobuf", "text/plain"])
def test_rejections_are_read_in_an_imperfect_response(start_receiver, body, kind):
    error = failure(start_receiver(200, body, {"Content-Type": kind}).url, PointsRejected)
    assert error.rejected == 2
    assert "too old" in str(error)
    assert str(error).isprintable()


# ---- failure that is final


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (301, "host"),
        (302, "host"),
        (307, "host"),
        (308, "host"),
        (400, "protocol"),
        (401, "password.*auth_header"),
        (403, "password.*auth_header"),
        (404, "path.*host"),
        (405, "path.*host"),
        (408, "log"),
        (415, "protocol"),
        (418, "log"),
        (500, "log"),
        (501, "log"),
        (505, "log"),
    ],
)
@pytest.mark.parametrize("wait", [{}, {"Retry-After": "1"}])
def test_final(start_receiver, status, remedy, wait):
    elsewhere = start_receiver()
    location = {"Location": f"{elsewhere.url}/v1/metrics"} if status < 400 else {}
    receiver = start_receiver(status, b"", {**location, **wait})
    error = failure(receiver.url, ExportRefused)
    assert receiver.url.removeprefix("http://") in str(error)
    assert f"answered {status}" in str(error)
    assert (error.status, error.maybe_stored) == (status, status >= 500)
    _, _, said = str(error).partition("forbids retrying: ")
    assert all(word in said for word in remedy.split(".*"))
    # Nobody else is shown the metrics or the secret.
    assert (len(receiver.requests), elsewhere.requests) == (1, [])


@pytest.mark.parametrize("status", [400, 415])
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_receiver_that_may_take_no_gzip(start_receiver, status, compression):
    error = failure(start_receiver(status).url, ExportRefused, compression=compression)
    assert ("extra compression to none" in str(error)) is (compression == "gzip")


def test_407_is_a_proxys_word(start_receiver):
    assert "a proxy answered" in str(failure(start_receiver(407).url, ExportRefused))


@pytest.mark.parametrize("status", [304, 300])
def test_any_other_redirect_is_not_a_success_either(start_receiver, status):
    failure(start_receiver(status).url, ExportRefused)


# ---- too large


def test_a_request_that_is_too_large(sink):
    sink.add_fault(Fault("status", status=413))
    error = failure(sink.url, RequestTooLarge)
    assert (error.status, error.maybe_stored) == (413, False)
    for words in ("answered 413", "points: 3, bytes: ", "even single points", "the receiver's limit"):
        assert words in str(error)
    assert sink.points == []


@pytest.mark.parametrize(
    ("size", "kind"), [(SUSPICIOUS_BYTES, ExportRefused), (SUSPICIOUS_BYTES + 1, RequestTooLarge)]
)
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_400_to_a_large_body_is_a_collectors_word_for_too_large(start_receiver, size, kind, compression):
    export = an_export_of(size)
    assert len(export.body) == size
    receiver = start_receiver(400, b"http: request body too large")
    error = failure(receiver.url, kind, HTTP_JSON, export=export, compression=compression)
    assert (error.status, error.maybe_stored) == (400, False)
    assert ("single points" in str(error)) == (kind is RequestTooLarge)
    assert "http: request body too large" in str(error)


@pytest.mark.parametrize("status", [401, 403, 404, 415, 500])
def test_no_other_status_to_a_large_body_is_about_its_size(start_receiver, status):
    export = an_export_of(SUSPICIOUS_BYTES + 1)
    failure(start_receiver(status).url, ExportRefused, HTTP_JSON, export=export)


def test_a_sink_with_a_limit_accepts_requests_up_to_it():
    limit = SUSPICIOUS_BYTES + 100
    with OtlpSink(max_body_bytes=limit) as sink:
        send(sink.url, HTTP_JSON, an_export_of(limit))
        failure(sink.url, RequestTooLarge, HTTP_JSON, export=an_export_of(limit + 1))
        assert len(sink.points) == 1


def test_a_request_above_the_endpoints_limit_is_not_sent(sink):
    settings = {"export": an_export_of(2000), "compression": "none", "max_compressed_bytes": 1999}
    error = failure(sink.url, RequestTooLarge, HTTP_JSON, **settings)
    assert (error.status, error.maybe_stored) == (None, False)
    for words in (
        "Not sent",
        "points: 1, bytes: 2000",
        "as 2000 bytes",
        "max_compressed_bytes (1999)",
        "even single points",
    ):
        assert words in str(error)
    assert sink.summary()["requests"] == 0
    send(sink.url, HTTP_JSON, **{**settings, "max_compressed_bytes": 2000})
    assert len(sink.points) == 1


def test_the_limit_is_of_the_bytes_after_compression(start_receiver):
    noise = random.Random(1).randbytes(1024).hex()
    export = encode_request([entry(metric("x", point()), schemaUrl=noise)], HTTP_JSON)
    receiver = start_receiver()
    send(receiver.url, HTTP_JSON, export)
    ((_, _, body),) = receiver.requests
    assert 1024 < len(body) < len(export.body)
    failure(receiver.url, RequestTooLarge, HTTP_JSON, export=export, max_compressed_bytes=len(body) - 1)
    send(receiver.url, HTTP_JSON, export, max_compressed_bytes=len(body))
    assert len(receiver.requests) == 2


# ---- failure that passes


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "30"}, 30.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
    ],
)
def test_retryable(start_receiver, status, headers, seconds):
    receiver = start_receiver(status, b"", headers)
    error = failure(receiver.url, ReceiverUnavailable)
    assert error.retry_after == seconds
    assert error.maybe_stored == (status in (502, 504))
    assert error.transient
    assert f"answered {status}" in str(error)
    assert len(receiver.requests) == 1


def test_retry_after_may_be_a_future_date(start_receiver):
    soon = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1)
    header = {"Retry-After": email.utils.format_datetime(soon, usegmt=True)}
    error = failure(start_receiver(503, b"", header).url, ReceiverUnavailable)
    assert 0 < error.retry_after <= 3600


@pytest.mark.parametrize(
    ("fault", "stored"),
    [
        (Fault("hang"), 0),
        (Fault("hang_after"), 3),
        (Fault("reset_before"), 0),
        (Fault("reset_after"), 3),
    ],
)
def test_no_answer(sink, fault, stored):
    sink.add_fault(fault)
    error = failure(sink.url, ReceiverUnavailable, timeout=0.3 if fault.kind.startswith("hang") else 30)
    assert "No answer from 127.0.0.1" in str(error)
    assert error.retry_after is None
    assert error.maybe_stored is True
    assert not error.transient
    assert len(sink.points) == stored


@pytest.mark.parametrize("kind", ["truncate", "reset_mid_body"])
def test_a_success_is_given_with_its_status_line(sink, kind, caplog):
    sink.add_fault(Fault(kind))
    send(sink.url, HTTP_JSON)
    assert "the body of its response cannot be read" in warning_in(caplog)


def test_connection_refused():
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        error = failure(f"http://127.0.0.1:{nobody_listens.getsockname()[1]}", ReceiverUnavailable)
    assert "ConnectError" in str(error)
    assert error.maybe_stored is False
    assert error.transient


def test_a_connection_that_is_never_accepted():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with contextlib.ExitStack() as waiting:
            # The kernel takes connections for it, until its queue is full.
            for _ in range(4):
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            error = failure(f"http://127.0.0.1:{full.getsockname()[1]}", ReceiverUnavailable, timeout=0.3)
    assert "ConnectTimeout" in str(error)
    assert error.maybe_stored is False


def test_a_proxy_that_refuses_everything(start_receiver, monkeypatch):
    proxy = start_receiver()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    error = failure("https://collector.example", ReceiverUnavailable)
    assert "ProxyError" in str(error)
    assert error.maybe_stored is False
    assert proxy.requests == []


def test_after_a_failure_the_client_can_be_used_again(sink):
    sink.add_fault(Fault("reset_before", max_times=1))
    sink.add_fault(Fault("status", status=503, max_times=1))
    with OtlpClient(Endpoint(metrics_url(sink.url))) as client:
        for _ in range(2):
            with pytest.raises(ReceiverUnavailable):
                client.export(an_export())
        client.export(an_export())
    assert len(sink.points) == 3


@pytest.mark.parametrize(("status", "transient"), [(407, False), (502, True), (503, True), (403, False)])
def test_a_proxy_that_opens_no_tunnel_is_named(monkeypatch, status, transient):
    with raw_server(lambda _: response(status)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:hunter2-proxy@"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        error = failure("https://collector.example", ReceiverUnavailable)
    assert f"the proxy answered {status}; check HTTPS_PROXY" in str(error)
    assert "hunter2-proxy" not in str(error)
    assert (error.maybe_stored, error.transient) == (False, transient)


def test_a_call_ends_at_its_maximum_duration():
    def drip(request: RawRequest) -> None:
        request.connection.sendall(b"HTTP")
        while not receiver.released.wait(0.01):
            request.connection.sendall(b"/")

    with raw_server(drip) as receiver:
        error = failure(receiver.url, ReceiverUnavailable, timeout=30, export_timeout=0.5)
    assert "the call took longer than 0.5 s as a whole" in str(error)
    assert error.maybe_stored is True


def test_a_request_that_was_not_handed_over_whole_is_not_stored():
    body = random.Random(1).randbytes(8 * 2**20).hex()
    export = encode_request([entry(metric("x", point()), schemaUrl=body)], HTTP_JSON)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # It takes the connection and reads nothing, until the buffers are full.
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        error = failure(url, ReceiverUnavailable, HTTP_JSON, export=export, timeout=0.5, compression="none")
    assert (error.maybe_stored, error.transient) == (False, True)


# ---- a receiver's words


@pytest.mark.parametrize("charset", ["hex", "zlib", "rot13", "idna", "undefined", "punycode", "uu", "\x00"])
def test_a_charset_that_is_not_for_text_is_ignored(charset):
    answer = response(400, b"bad unit " * 500, f"Content-Type: text/plain; charset={charset}")
    with raw_server(lambda _: answer) as receiver, pytest.raises(ForgeError):
        send(receiver.url)


@pytest.mark.parametrize("status", [400, 503])
def test_the_words_of_a_failure_without_end_are_cut(status):
    def endless(request: RawRequest) -> None:
        head = f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n"
        request.connection.sendall(head.encode())
        for _ in range(2 * MAX_REPLY // 2**16):
            request.connection.sendall(b"10000\r\n" + b"bad unit" * 2**13 + b"\r\n")

    with raw_server(endless) as receiver, pytest.raises(ForgeError, match=f"answered {status} .bad unit"):
        send(receiver.url)


def status_message(text: str) -> bytes:
    """Return a `google.rpc.Status`, written by hand: code 3, the message, and details."""
    details = AnyMessage(type_url="type.googleapis.com/x", value=b"\x00\xff").SerializeToString()
    said = text.encode()
    return bytes((0x08, 3, 0x12, len(said))) + said + bytes((0x1A, len(details))) + details


@pytest.mark.parametrize("kind", [(400, ExportRefused), (503, ReceiverUnavailable)])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b'{"code":3,"message":"bad unit"}'),
        ({"Content-Type": "application/json; charset=utf-8"}, b'{"message":"bad unit","details":[]}'),
        (JSON, b'{"error":"bad unit"}'),
        (PROTOBUF, status_message("bad unit")),
        ({"Content-Type": "text/plain"}, b"bad\r\n\tunit"),
        ({}, b"bad unit"),
    ],
)
def test_the_receivers_message_is_in_the_error(start_receiver, kind, headers, body):
    status, error = kind
    assert "bad unit" in str(failure(start_receiver(status, body, headers).url, error))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "text/html"}, b"<html>many words</html>"),
        (JSON, b"{}"),
        (JSON, b"null"),
        (JSON, b'{"message":null}'),
        ({}, b"\xff\xfe\x00"),
        (PROTOBUF, b"\xff" * 50),
    ],
)
def test_without_a_useful_message_the_status_is_enough(start_receiver, headers, body):
    error = failure(start_receiver(400, body, headers).url, ExportRefused)
    assert "answered 400" in str(error)
    assert "many words" not in str(error)
    assert str(error).isprintable()


def test_many_words_are_cut(start_receiver):
    error = failure(start_receiver(400, b"word " * 10_000).url, ExportRefused)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("status", [400, 401, 503])
@pytest.mark.parametrize("echo", [CANARY, f"Bearer {CANARY}", f"'{CANARY}'", "x" * 295 + CANARY])
@pytest.mark.parametrize(
    "headers_and_body",
    [
        lambda echo: (JSON, b'{"message":"token %b is bad"}' % echo.encode()),
        lambda echo: (JSON, b'{"error":{"token":"%b"}}' % echo.encode()),
        lambda echo: ({"Content-Type": "text/plain"}, b"Authorization: %b" % echo.encode()),
        lambda echo: (PROTOBUF, status_message(f"{echo:.100} is bad")),
    ],
)
def test_a_receiver_that_repeats_the_secret(start_receiver, headers_and_body, echo, status):
    headers, body = headers_and_body(echo)
    kind = ReceiverUnavailable if status == 503 else ExportRefused
    failure(start_receiver(status, body, headers).url, kind)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": CANARY},
        {"Authorization": f"Basic {CANARY}"},
        {"Authorization": f"Api-Token {CANARY} and more"},
        {"X-Scope": "tenant", "X-Other": f"a {CANARY}"},
    ],
)
def test_every_header_is_a_secret(start_receiver, headers):
    failure(start_receiver(400, b"no: %b and more" % CANARY.encode()).url, ExportRefused, headers=headers)


# ---- a request without points


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_probe_is_a_valid_request_without_points(sink, protocol):
    with OtlpClient(Endpoint(metrics_url(sink.url), protocol=protocol)) as client:
        reception = client.probe()
    assert (reception.host, reception.status) == (sink.url.removeprefix("http://"), 200)
    assert 0 < reception.elapsed < 10
    (request,) = sink.requests
    assert request.points == []
    assert len(request.message.resource_metrics) == 0


def test_a_probe_returns_the_receivers_name_without_our_secrets(start_receiver):
    receiver = start_receiver(headers={"Server": f"otel {CANARY}"})
    endpoint = Endpoint(metrics_url(receiver.url), headers={"X-Api-Key": CANARY})
    with OtlpClient(endpoint) as client:
        assert client.probe().server == "otel ***"


def test_a_probe_fails_as_an_export_does(start_receiver):
    with (
        OtlpClient(Endpoint(metrics_url(start_receiver(404).url))) as client,
        pytest.raises(ExportRefused, match="check the path"),
    ):
        client.probe()


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("certificates")
    return {name: make_certificate(path, name) for name in ("receiver", "exporter", "stranger")}


@pytest.fixture
def server_tls(certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["receiver"])
    return context


def test_a_self_signed_certificate_that_is_trusted(start_receiver, server_tls, certificates):
    receiver = start_receiver(tls=server_tls)
    send(receiver.url, ca_file=certificates["receiver"])
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("trusted", [None, "stranger"])
def test_a_self_signed_certificate_that_is_not(start_receiver, server_tls, certificates, trusted):
    receiver = start_receiver(tls=server_tls)
    error = failure(receiver.url, ReceiverUnavailable, ca_file=certificates.get(trusted))
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
    assert "the extra ca_file" in str(error)
    assert (error.maybe_stored, error.transient) == (False, False)
    assert receiver.requests == []


def test_a_certificate_for_another_name(start_receiver, server_tls, certificates):
    receiver = start_receiver(tls=server_tls)
    url = receiver.url.replace("127.0.0.1", "localhost")
    error = failure(url, ReceiverUnavailable, ca_file=certificates["receiver"])
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)


@pytest.mark.parametrize("with_key", [True, False])
def test_a_client_certificate(start_receiver, server_tls, certificates, with_key):
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_verify_locations(certificates["exporter"])
    receiver = start_receiver(tls=server_tls)
    exporter = certificates["exporter"]
    send(
        receiver.url,
        ca_file=certificates["receiver"],
        cert_file=exporter,
        key_file=exporter if with_key else None,
    )
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("shown", [None, "stranger"])
def test_a_client_certificate_that_is_missing_or_wrong(start_receiver, server_tls, certificates, shown):
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_verify_locations(certificates["exporter"])
    receiver = start_receiver(tls=server_tls)
    failure(
        receiver.url,
        ReceiverUnavailable,
        ca_file=certificates["receiver"],
        cert_file=certificates.get(shown),
    )
    assert receiver.requests == []


# ---- secrets


@pytest.mark.parametrize(
    ("settings", "path", "said"),
    [
        ({"headers": {"Authorization": BASIC}}, "", f"bad token {CANARY} for user 123"),
        ({"headers": {"authorization": BASIC.replace("Basic", "basic")}}, "", f"123:{CANARY}"),
        ({"headers": {"X-Api-Key": BASIC}}, "", BASIC.partition(" ")[2]),
        ({"headers": {}}, f"/ingest/{CANARY}-0123", f"no route for POST /ingest/{CANARY}-0123/v1/metrics"),
        ({"headers": {}}, f"/{CANARY}%2F0123", f"no route for {CANARY}/0123"),
    ],
)
@pytest.mark.parametrize("status", [200, 404])
def test_a_secret_that_the_receiver_quotes_is_masked(start_receiver, caplog, settings, path, said, status):
    body = b'{"partialSuccess":{"rejectedDataPoints":1,"errorMessage":"%b"},"message":"%b"}' % (
        2 * (said.encode(),)
    )
    kind = PointsRejected if status == 200 else ExportRefused
    error = failure(start_receiver(status, body, JSON).url + path, kind, **settings)
    assert "***" in str(error)
    assert CANARY not in caplog.text


def test_words_of_the_path_are_not_masked(start_receiver):
    body = b'{"message":"no route for /opentelemetry-collector/otlp/v1/metrics"}'
    error = failure(start_receiver(404, body, JSON).url + "/opentelemetry-collector/otlp", ExportRefused)
    assert "no route for /opentelemetry-collector/otlp/v1/metrics" in str(error)
