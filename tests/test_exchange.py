from __future__ import annotations

import gzip
import resource
import zlib

import httpx
import pytest

from airflow_provider_forge.exchange import (
    ACCEPT_ENCODING,
    MAX_CODINGS,
    MAX_MEMBERS,
    BodyUnreadable,
    Wire,
    read_body,
)
from tests.raw_server import RawRequest, raw_server, response

LIMIT = 4096
TEXT = b'{"partialSuccess":{}}'
RAW_DEFLATE = zlib.compressobj(wbits=-15)
HEADERLESS = RAW_DEFLATE.compress(TEXT) + RAW_DEFLATE.flush()


def read(answer, *, limit=LIMIT, seconds=30.0, clock=None) -> bytes:
    """Make one call, and read its answer."""
    wire = Wire(clock) if clock else Wire()
    wire.begin(seconds)
    with (
        raw_server(answer) as server,
        httpx.Client(timeout=5, trust_env=False) as client,
        client.stream("POST", server.url, content=b"x", extensions={"trace": wire.trace}) as reply,
    ):
        return read_body(reply, limit=limit)


def coded(body: bytes, coding: str) -> bytes:
    return response(200, body, f"Content-Encoding: {coding}")


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (TEXT, ""),
        (TEXT, "identity"),
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), "x-gzip"),
        (gzip.compress(TEXT), "GZIP"),
        (gzip.compress(TEXT[:5]) + gzip.compress(TEXT[5:]), "gzip"),
        (gzip.compress(TEXT) + bytes(20), "gzip"),
        (zlib.compress(TEXT), "deflate"),
        (HEADERLESS, "deflate"),
        (gzip.compress(zlib.compress(TEXT)), "deflate, gzip"),
    ],
)
def test_a_body_is_read_whole_in_each_coding(body, coding):
    assert read(lambda _: coded(body, coding)) == TEXT


def test_each_requested_coding_can_be_decoded():
    assert [coding.strip() for coding in ACCEPT_ENCODING.split(",")] == ["gzip", "deflate"]


def test_a_coding_without_a_body_is_not_an_error():
    assert read(lambda _: coded(b"", "gzip")) == b""


@pytest.mark.parametrize(
    ("body", "coding", "reason", "content"),
    [
        (TEXT, "gzip", "not valid gzip", TEXT),
        (b"\x00\x01garbage", "deflate", "not valid deflate", b"\x00\x01garbage"),
        (gzip.compress(TEXT)[:-8], "gzip", "truncated", TEXT),
        (TEXT, "br", "content coding 'br' is not known", TEXT),
        (TEXT, ",".join(["gzip"] * (MAX_CODINGS + 1)), "5 nested content codings", TEXT),
        (gzip.compress(TEXT) + b"garbage", "gzip", "not valid gzip", TEXT),
    ],
)
def test_a_body_that_cannot_be_decoded_is_handed_over_as_far_as_possible(body, coding, reason, content):
    with pytest.raises(BodyUnreadable, match=reason) as raised:
        read(lambda _: coded(body, coding))
    assert raised.value.content == content
    assert not raised.value.too_large


def test_a_body_that_breaks_off_is_handed_over_as_far_as_it_came():
    def half(request: RawRequest) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + TEXT)

    with pytest.raises(BodyUnreadable, match="the connection broke") as raised:
        read(half)
    assert raised.value.content == TEXT


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
@pytest.mark.parametrize("coding", ["identity", "gzip", "gzip, gzip"])
def test_the_limit_applies_to_received_and_to_decompressed_bytes(size, coding):
    body = b"x" * size
    for each in coding.split(", "):
        body = body if each == "identity" else gzip.compress(body)
    if size <= LIMIT:
        assert len(read(lambda _: coded(body, coding))) == size
        return
    with pytest.raises(BodyUnreadable, match=f"larger than {LIMIT} bytes") as raised:
        read(lambda _: coded(body, coding))
    assert raised.value.too_large


def test_many_members_do_not_evade_the_limit():
    empty = gzip.compress(b"")
    with pytest.raises(BodyUnreadable, match="members"):
        read(lambda _: coded(empty * (MAX_MEMBERS + 1), "gzip"), limit=4 * 2**20)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_decompression_bomb_uses_no_memory(layers):
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()
    if layers == 2:
        bomb = gzip.compress(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BodyUnreadable, match="larger than"):
        read(lambda _: coded(bomb, ", ".join(["gzip"] * layers)), limit=4 * 2**20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


class Clock:
    """Goes on by a second whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


DRIPS = {
    "status line": (b"", b"HTTP/1.1 200 OK and no end of it "),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
}


@pytest.mark.parametrize(("first", "piece"), DRIPS.values(), ids=DRIPS)
def test_a_trickling_response_ends_at_the_calls_maximum_duration(first, piece):
    def drip(request: RawRequest) -> None:
        request.connection.sendall(first)
        while not over.is_set():
            request.connection.sendall(piece)
            over.wait(0.005)

    wire = Wire(Clock())
    wire.begin(60)
    with raw_server(drip) as server, httpx.Client(timeout=30, trust_env=False) as client:
        over = server.released
        with (
            pytest.raises((httpx.ReadTimeout, BodyUnreadable)) as raised,
            client.stream("POST", server.url, content=b"x", extensions={"trace": wire.trace}) as reply,
        ):
            read_body(reply, limit=10**6)
        over.set()
    assert "ReadTimeout" in repr(raised.value) or isinstance(raised.value.__cause__, httpx.ReadTimeout)
    assert wire.expired
    assert wire.sent


def call(wire: Wire, answer) -> None:
    wire.begin(30)
    with raw_server(answer) as server, httpx.Client(timeout=5, trust_env=False) as client:
        client.post(server.url, content=b"x" * 100_000, extensions={"trace": wire.trace})


def test_the_head_of_a_response_that_h11_cannot_read():
    interim = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
    odd = interim + b"HTTP/1.1 503 Busy\r\nRetry-After : 7\r\nContent-Length: 2\r\n\r\n{}"
    wire = Wire()
    with pytest.raises(httpx.RemoteProtocolError):
        call(wire, lambda _: odd)
    assert (wire.status, wire.headers["retry-after"], wire.rest) == (503, "7", b"{}")


@pytest.mark.parametrize(
    "cut", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 O", b"HTTP/1.1 100 C\r\n\r\n", b"nonsense\r\n"]
)
def test_there_is_no_status_before_its_line_has_arrived(cut):
    def answer(request: RawRequest) -> None:
        request.connection.sendall(cut)

    wire = Wire()
    with pytest.raises(httpx.RemoteProtocolError):
        call(wire, answer)
    assert wire.status is None
    assert wire.sent


def test_the_head_is_that_of_the_last_call_on_a_reused_connection():
    wire = Wire()
    answers = {1: response(200, b"{}"), 2: None}
    with (
        raw_server(lambda request: answers[request.number]) as server,
        httpx.Client(timeout=5, trust_env=False) as client,
    ):
        wire.begin(30)
        client.post(server.url, content=b"x", extensions={"trace": wire.trace})
        assert wire.status == 200
        wire.begin(30)
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(server.url, content=b"x", extensions={"trace": wire.trace})
        assert (wire.status, wire.sent) == (None, True)


def test_the_response_of_a_tunnels_proxy_is_not_the_servers():
    def proxy(request: RawRequest) -> bytes | None:
        return b"HTTP/1.1 200 Connection established\r\n\r\n" if request.number == 1 else None

    wire = Wire()
    wire.begin(30)
    with (
        raw_server(proxy) as server,
        httpx.Client(proxy=server.url, timeout=0.5, trust_env=False) as client,
        pytest.raises(httpx.RequestError),
    ):
        client.post("https://receiver.example", content=b"x", extensions={"trace": wire.trace})
    assert (wire.status, wire.sent) == (None, False)


def test_a_proxy_that_refuses_a_tunnel_is_distinguished_from_the_server():
    wire = Wire()
    wire.begin(30)
    with (
        raw_server(lambda _: response(407)) as server,
        httpx.Client(proxy=server.url, timeout=5, trust_env=False) as client,
        pytest.raises(httpx.ProxyError),
    ):
        client.post("https://receiver.example", content=b"x", extensions={"trace": wire.trace})
    assert (wire.status, wire.proxy_status, wire.sent) == (None, 407, False)


def test_time_that_is_not_spent_on_a_call_does_not_count():
    now = [0.0]
    wire = Wire(lambda: now[0])
    wire.begin(10.0)
    now[0] = 60.0
    assert wire.expired
    wire.extend(55.0)
    assert not wire.expired


def test_a_connection_that_is_never_accepted_has_sent_nothing():
    wire = Wire()
    wire.begin(30)
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.post("http://127.0.0.1:1", content=b"x", extensions={"trace": wire.trace})
    assert (wire.status, wire.sent) == (None, False)
