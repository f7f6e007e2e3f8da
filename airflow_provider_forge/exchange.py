"""Bounds of one HTTP exchange: in bytes, even after decompression, and in time, even if bytes trickle in."""

from __future__ import annotations

import math
import re
import time
import zlib
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ACCEPT_ENCODING", "BodyUnreadable", "Wire", "read_body"]

ACCEPT_ENCODING = "gzip, deflate"
"""The content codings that `read_body` decodes. By default, httpx accepts all that are installed."""

MAX_CODINGS = 4
"""Maximum number of content codings of one body; a well-behaved server applies one."""

MAX_MEMBERS = 65536
"""Maximum number of members of a gzip body: 4 GiB of bgzip's 64 KiB."""

_NO_CODING = ("", "identity")
_SHOWN = 30
_PIECE = 16 * 1024
_MAX_HEAD = 64 * 1024
_SHORTEST_TIMEOUT = 0.001
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: [^\r\n]*)?\r?\n")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class BodyUnreadable(Exception):
    """The body of a response cannot be read completely; its status and headers can.

    Attributes:
        reason: The reason, as a clause: `its content coding 'br' is not known`.
        content: The part of the body that could be read, decoded as far as possible.
        too_large: Whether the body exceeds the limit.
    """

    def __init__(self, reason: str, content: bytes, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.content = content
        self.too_large = too_large


def read_body(response: httpx.Response, *, limit: int) -> bytes:
    """Read the body of a streamed response, and return it decoded.

    Memory use is limited to a small multiple of the limit for any response. httpx's own decoders decompress
    a whole chunk at once, up to a thousand times its size, and again for each further coding.

    Args:
        response: An unread response from `httpx.Client.stream`.
        limit: Maximum size in bytes of the body, as received and after each content coding.

    Raises:
        BodyUnreadable: The body exceeds the limit, the connection broke, or a coding is unknown or invalid.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in response.iter_raw():
            chunks.append(chunk[: limit - size])
            size += len(chunk)
            if size > limit:
                content = _decode_leniently(response, b"".join(chunks), limit)
                raise BodyUnreadable(f"it is larger than {limit} bytes", content, too_large=True)
    except httpx.RequestError as error:
        content = _decode_leniently(response, b"".join(chunks), limit)
        raise BodyUnreadable(f"the connection broke ({type(error).__name__})", content) from error
    raw = b"".join(chunks)
    del chunks
    return _decode(response, raw, limit)


def _decode(response: httpx.Response, raw: bytes, limit: int) -> bytes:
    header = ",".join(response.headers.get_list("content-encoding"))
    codings = [coding for each in header.split(",") if (coding := each.strip().lower()) not in _NO_CODING]
    if not raw or not codings:
        return raw
    if len(codings) > MAX_CODINGS:
        raise BodyUnreadable(f"it has {len(codings)} nested content codings", raw)
    content = raw
    for coding in reversed(codings):
        content = _decompress(coding, content, limit)
    return content


def _decode_leniently(response: httpx.Response, raw: bytes, limit: int) -> bytes:
    try:
        return _decode(response, raw, limit)
    except BodyUnreadable as error:
        return error.content


def _decompress(coding: str, raw: bytes, limit: int) -> bytes:
    """Decode one coding. If the body is not in it, the error contains the body as received."""
    wbits = _window_bits(coding, raw)
    decoder = zlib.decompressobj(wbits)
    parts: list[bytes] = []
    size, members = 0, 1
    for start in range(0, len(raw), _PIECE):
        piece = raw[start : start + _PIECE]
        while piece:
            try:
                part = decoder.decompress(piece, limit - size + 1)
            except zlib.error as error:
                content = b"".join(parts) or raw
                raise BodyUnreadable(f"it is not valid {coding}", content) from error
            parts.append(part)
            size += len(part)
            if size > limit:
                raise BodyUnreadable(
                    f"it is larger than {limit} bytes decompressed", b"".join(parts), too_large=True
                )
            piece = decoder.unused_data.lstrip(b"\0")
            if piece:  # a gzip body may have several members in succession
                members += 1
                decoder = zlib.decompressobj(wbits)
            if members > MAX_MEMBERS:
                raise BodyUnreadable(f"it has more than {MAX_MEMBERS} members", b"".join(parts))
    if not decoder.eof:
        raise BodyUnreadable("it is truncated", b"".join(parts))
    return b"".join(parts)


def _window_bits(coding: str, raw: bytes) -> int:
    if coding in ("gzip", "x-gzip"):
        return zlib.MAX_WBITS + 16
    if coding == "deflate":
        # RFC 9110 requires zlib's header, but HTTP clients have always accepted bodies without it.
        has_header = raw[0] & 0x0F == zlib.DEFLATED and int.from_bytes(raw[:2], "big") % 31 == 0
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
    raise BodyUnreadable(f"its content coding {coding[:_SHOWN]!r} is not known", raw)


class Wire:
    """Observes the connections of an `httpx.Client`: limits calls in time, records the head of responses.

    httpx's timeouts only limit the time between two bytes, and h11 discards a status line that is followed
    by invalid headers. Pass `extensions={"trace": wire.trace}` with each request. Supports one call at a
    time.

    Args:
        clock: Returns the current time in seconds.

    Attributes:
        sent: Whether the last request was sent completely, so that the server may have acted on it.
        head: The first bytes of the response, up to 64 KiB.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = math.inf
        self._in_tunnel = False
        self.sent = False
        self.head = b""

    def begin(self, seconds: float) -> None:
        """Start timing a call, whose maximum duration in seconds includes connecting."""
        self._deadline = self._clock() + seconds
        self._in_tunnel, self.sent, self.head = False, False, b""

    def extend(self, seconds: float) -> None:
        """Extend the call's maximum duration, by time that was not spent on it."""
        self._deadline += seconds

    @property
    def expired(self) -> bool:
        """Whether the call has reached its maximum duration."""
        return self._clock() >= self._deadline

    @property
    def status(self) -> int | None:
        """The server's status; None until its status line has arrived. Ignores interim responses (1xx)."""
        return None if self._in_tunnel else self._parse_head()[0]

    @property
    def proxy_status(self) -> int | None:
        """The status with which a proxy refused a tunnel to the server; None if none did."""
        return self._parse_head()[0] if self._in_tunnel else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the last response that have arrived, with names in lower case."""
        lines = (line.decode("latin-1").partition(":") for line in self._parse_head()[1].splitlines()[1:])
        return {name.strip().lower(): value.strip() for name, _, value in lines if name.strip()}

    @property
    def rest(self) -> bytes:
        """The bytes after the head of the last response, in its transfer coding."""
        return self._parse_head()[2]

    def _parse_head(self) -> tuple[int | None, bytes, bytes]:
        text = self.head
        while found := _STATUS_LINE.match(text):
            end = _END_OF_HEAD.search(text)
            head, rest = (text[: end.start()], text[end.end() :]) if end else (text, b"")
            if not found[1].startswith(b"1"):
                return int(found[1]), head, rest
            text = rest
        return None, b"", b""

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle an event of a call: see httpx's request extension `trace`."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._observe(info["return_value"])
        elif event.endswith("send_request_headers.started"):
            self._in_tunnel = info["request"].method == b"CONNECT"
            self.sent, self.head = False, b""
        elif event.endswith("send_request_body.complete"):
            self.sent = not self._in_tunnel

    def _observe(self, stream: Any) -> None:
        read, write = stream.read, stream.write

        def read_in_time(max_bytes: int, timeout: float | None = None) -> bytes:
            data: bytes = read(max_bytes, timeout=self._remaining(timeout))
            if len(self.head) < _MAX_HEAD:
                self.head += data
            return data

        def write_in_time(buffer: bytes, timeout: float | None = None) -> None:
            # In pieces, because the timeout is per system call, each of which may send only a few bytes.
            for start in range(0, len(buffer), _PIECE):
                try:
                    write(buffer[start : start + _PIECE], timeout=self._remaining(timeout))
                except httpcore.WriteTimeout as error:
                    if not stream.get_extra_info("is_readable"):
                        raise
                    # The server has answered, and reads no more. After this error, httpcore reads the answer.
                    raise httpcore.WriteError(str(error)) from error

        stream.read, stream.write = read_in_time, write_in_time

    def _remaining(self, timeout: float | None) -> float:
        left = self._deadline - self._clock()
        return max(left if timeout is None else min(timeout, left), _SHORTEST_TIMEOUT)
