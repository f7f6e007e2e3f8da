"""One request to the gateway, and what can happen to it on the wire, which raw sockets do."""

from __future__ import annotations

import gzip
import json
import zlib
from types import SimpleNamespace

import httpx
import pytest

from airflow_provider_forge.exceptions import (
    BrokenAnswer,
    ConfigurationError,
    ForgeError,
    GatewayUnavailable,
    WindowTooLarge,
)
from airflow_provider_forge.gateway import transport
from airflow_provider_forge.gateway.ratelimit import LimitUsage
from airflow_provider_forge.gateway.transport import Transport
from tests.raw_server import RawRequest, raw_server, response

BODY = json.dumps({"data": {"a": "é" * 1000}}).encode()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Sender:
    """A transport, and what became of its calls."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        self.usage = LimitUsage()
        self.used = 0
        self.waited = 0.0
        self.elapsed = 0.0
        auth = httpx.BasicAuth("me@example.com", "s3cr3t-t0ken")
        self.transport = Transport(url, auth, ("s3cr3t-t0ken",), usage=self.usage, timeout=timeout)

    def post(self, *, splittable: bool = True) -> httpx.Response:
        place = SimpleNamespace(confirm=self._use, settle=lambda: None)
        whole, self.elapsed = self.transport.post({"query": "q"}, place, splittable=splittable)
        return whole

    def _use(self) -> float:
        self.used += 1
        return self.waited


def test_a_wait_for_the_slot_is_no_part_of_the_call():
    with raw_server(lambda _: response(200, BODY)) as server:
        sender = Sender(server.url)
        sender.waited = 1e6
        sender.post()
    assert sender.elapsed < 0


def failure(sender: Sender, **options) -> ForgeError:
    with pytest.raises(ForgeError) as caught:
        sender.post(**options)
    assert "s3cr3t" not in str(caught.value)
    return caught.value


MEMBERS = gzip.compress(BODY[:700]) + gzip.compress(BODY[700:])


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("GZIP", MEMBERS),
        ("gzip, x-gzip", gzip.compress(MEMBERS)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
    ],
)
def test_a_response_arrives_whole_in_each_coding(coding, body):
    with raw_server(lambda _: response(200, body, f"Content-Encoding: {coding}")) as server:
        assert Sender(server.url).post().content == BODY
    assert server.requests[0].headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("codings", [1, 2, 3])
@pytest.mark.parametrize(("splittable", "kind"), [(True, WindowTooLarge), (False, GatewayUnavailable)])
def test_the_limit_applies_to_decompressed_bytes_even_with_nested_codings(
    monkeypatch, codings, splittable, kind
):
    monkeypatch.setattr(transport, "MAX_SIZE", 100_000)
    body = b" " * 10**6
    for _ in range(codings):
        body = gzip.compress(body)
    header = f"Content-Encoding: {', '.join(['gzip'] * codings)}"
    with raw_server(lambda _: response(200, body, header, "X-Request-Id: abc")) as server:
        error = failure(Sender(server.url), splittable=splittable)
    assert type(error) is kind
    assert "more than 100000 bytes" in str(error)
    assert error.request_id == "abc"


@pytest.mark.parametrize(
    ("body", "coding"),
    [(b"{}", "gzip"), (b"{}", "br"), (gzip.compress(BODY)[:-9], "gzip"), (b"{}", ", ".join(["gzip"] * 9))],
)
def test_a_response_that_cannot_be_decompressed_is_broken_unless_its_status_decides(body, coding):
    header = f"Content-Encoding: {coding}"
    with raw_server(lambda _: response(200, body, header, "X-Request-Id: abc")) as server:
        error = failure(Sender(server.url))
    assert type(error) is BrokenAnswer
    assert error.request_id == "abc"
    with raw_server(lambda _: response(429, body, header)) as server:
        assert Sender(server.url).post().status_code == 429


def slowly(head: bytes, piece: bytes):
    """Answer with a head, and then with one piece after the other until the client has gone."""

    def answer(request: RawRequest) -> None:
        request.connection.sendall(head)
        request.connection.settimeout(0.01)
        while True:  # until the client hangs up, which sendall or recv tells
            request.connection.sendall(piece)
            try:
                if not request.connection.recv(1):
                    return
            except TimeoutError:
                pass

    return answer


HEAD = b"HTTP/1.1 200 OK\r\nX-Request-Id: abc\r\n"


@pytest.mark.parametrize(
    ("head", "piece", "kind"),
    [
        (HEAD + b"Content-Length: 1000000000\r\n\r\n", b" ", GatewayUnavailable),
        (HEAD, b"X-More: a\r\n", GatewayUnavailable),
        # It was on its way: half of it may be in time.
        (HEAD + b"Content-Length: 1000000000\r\n\r\n", b" " * 200_000, WindowTooLarge),
    ],
)
def test_a_call_ends_even_if_its_response_trickles(monkeypatch, head, piece, kind):
    monkeypatch.setattr(transport, "FLOWING", 100_000)
    with raw_server(slowly(head, piece)) as server:
        error = failure(Sender(server.url, timeout=0.25))
    assert type(error) is kind
    assert f"No complete response from 127.0.0.1:{server.port} within 0.75 s" in str(error)
    assert error.request_id == "abc"


def test_a_407_is_final_and_names_the_proxy(monkeypatch):
    with raw_server(lambda _: response(407)) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.replace("://", "://someone:Pr0xyS3cret@"))
        sender = Sender("http://gateway.example/graphql")
        error = failure(sender)
    assert isinstance(error, ConfigurationError)
    assert error.field == "HTTP_PROXY"
    assert "Pr0xyS3cret" not in str(error)
    assert server.requests[0].headers["proxy-authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("status", "kind"), [(407, ConfigurationError), (403, ConfigurationError), (502, GatewayUnavailable)]
)
def test_a_tunnel_that_is_not_opened_is_not_a_call(monkeypatch, status, kind):
    with raw_server(lambda _: response(status)) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        sender = Sender("https://gateway.example/graphql")
        error = failure(sender)
    assert type(error) is kind
    assert f"the proxy {server.url} (HTTPS_PROXY)" in str(error)
    assert str(status) in str(error)
    assert (sender.usage.calls, sender.used) == (0, 0)


@pytest.mark.parametrize("through_proxy", [True, False])
def test_a_call_is_counted_once(monkeypatch, through_proxy):
    with raw_server(lambda _: response(200, BODY)) as server:
        if through_proxy:
            monkeypatch.setenv("HTTP_PROXY", server.url)
        sender = Sender("http://gateway.example" if through_proxy else server.url)
        assert sender.post().content == BODY
    assert (sender.usage.calls, sender.used) == (1, 1)


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    with raw_server(lambda _: None) as server:
        pass
    monkeypatch.setenv("ALL_PROXY", server.url)
    error = failure(Sender("https://gateway.example/graphql"))
    assert type(error) is GatewayUnavailable
    assert f"No answer from gateway.example through the proxy {server.url} (ALL_PROXY)" in str(error)


@pytest.mark.parametrize("note", [b"caf\xe9", "Müller".encode()])
@pytest.mark.parametrize("status", [200, 401, 429])
def test_a_header_that_is_not_ascii_is_no_obstacle(status, note):
    answer = b"HTTP/1.1 %d X\r\nVia: 1.1 %b\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n" % (status, note)
    with raw_server(lambda _: answer) as server:
        whole = Sender(server.url).post()
    assert (whole.status_code, whole.headers["retry-after"]) == (status, "7")


@pytest.mark.parametrize("status", [401, 403, 429, 307, 503])
@pytest.mark.parametrize("line", ["Bad Header : x", "Location: http://[", "Content-Length: two"])
def test_a_failure_with_an_invalid_head_has_its_status(status, line):
    answer = f"HTTP/1.1 {status} X\r\nContent-Length: 4\r\nRetry-After: 7\r\n{line}\r\n\r\nbusy".encode()
    with raw_server(lambda _: answer) as server:
        whole = Sender(server.url).post()
    assert (whole.status_code, whole.headers["retry-after"]) == (status, "7")


def test_a_success_with_an_invalid_head_is_no_answer():
    with raw_server(lambda _: b"HTTP/1.1 200 X\r\nBad Header : x\r\n\r\n{}") as server:
        error = failure(Sender(server.url))
    assert type(error) is GatewayUnavailable
