"""One call over HTTP, bounded in bytes, however they are compressed, and in time, however they trickle."""

from __future__ import annotations

import math
import re
import time
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

__all__ = ["ACCEPT_ENCODING", "BodyUnreadable", "Wire", "read_body"]

ACCEPT_ENCODING = "gzip, deflate"
"""The content codings that `read_body` decodes. httpx by itself would ask for all that are installed."""

MAX_CODINGS = 4
"""Content codings applied to one body, one over the other; a server that means well applies one."""

MAX_MEMBERS = 65536
"""Members of one gzip body: bgzip's of 64 KiB make 4 GiB of them."""

_NO_CODING = ("", "identity")
_SHOWN = 30
_PIECE = 16 * 1024
_MAX_HEAD = 64 * 1024
_SHORTEST_TIMEOUT = 0.001
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: [^\r\n]*)?\r?\n")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class BodyUnreadable(Exception):
    """The body of a response cannot be read to its end; its status and headers can.

    Attributes:
        reason: Why, as a clause: `its content coding 'br' is not known`.
        content: What could be read, decoded as far as possible.
        too_large: Whether the limit of bytes was reached.
    """

    def __init__(self, reason: str, content: bytes, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.content = content
        self.too_large = too_large


def read_body(response: httpx.Response, *, limit: int) -> bytes:
    """Read the body of a streamed response, and return it decoded.

    Memory stays within a small multiple of the limit, whatever the server sends: httpx's own decoders unpack
    a chunk whole, which is a thousand times its size, and once more for each coding.

    Args:
        response: From `httpx.Client.stream`, not read yet.
        limit: Maximum size in bytes of the body as it arrives, and after each content coding.

    Raises:
        BodyUnreadable: It is larger, the connection broke, or its coding is unknown or wrong.
    """
    import httpx

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
        raise BodyUnreadable(f"it broke off ({type(error).__name__})", content) from error
    raw = b"".join(chunks)
    del chunks
    return _decode(response, raw, limit)


def _decode(response: httpx.Response, raw: bytes, limit: int) -> bytes:
    header = ",".join(response.headers.get_list("content-encoding"))
    codings = [coding for each in header.split(",") if (coding := each.strip().lower()) not in _NO_CODING]
    if not raw or not codings:
        return raw
    if len(codings) > MAX_CODINGS:
        raise BodyUnreadable(f"it has {len(codings)} content codings, one over the other", raw)
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
    """Undo one coding; the error for a body that does not have it holds the body as it came."""
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
                raise BodyUnreadable(f"it is not the {coding} that it says", content) from error
            parts.append(part)
            size += len(part)
            if size > limit:
                raise BodyUnreadable(
                    f"it is larger than {limit} bytes unpacked", b"".join(parts), too_large=True
                )
            piece = decoder.unused_data.lstrip(b"\0")
            if piece:  # a gzip body may have several members, one after the other
                members += 1
                decoder = zlib.decompressobj(wbits)
            if members > MAX_MEMBERS:
                raise BodyUnreadable(f"it has more than {MAX_MEMBERS} members", b"".join(parts))
    if not decoder.eof:
        raise BodyUnreadable("it is cut off", b"".join(parts))
    return b"".join(parts)


def _window_bits(coding: str, raw: bytes) -> int:
    if coding in ("gzip", "x-gzip"):
        return zlib.MAX_WBITS + 16
    if coding == "deflate":
        # RFC 9110 says with zlib's header; servers that leave it out have always been understood, too.
        has_header = raw[0] & 0x0F == zlib.DEFLATED and int.from_bytes(raw[:2], "big") % 31 == 0
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
    raise BodyUnreadable(f"its content coding {coding[:_SHOWN]!r} is not known", raw)


class Wire:
    """The connections of one `httpx.Client`: bounds calls in time, and keeps the head of the last answer.

    httpx's timeouts bound the silence between two bytes only, and h11 discards a status line whose headers
    it does not like. Hand `trace` in with each request, as `extensions={"trace": wire.trace}`; for one call
    at a time.

    Args:
        clock: Returns the present in seconds.

    Attributes:
        sent: Whether the last request was handed over whole, so that the server may have acted on it.
        head: The first bytes that came in answer to it, up to 64 KiB.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = math.inf
        self._in_tunnel = False
        self.sent = False
        self.head = b""

    def begin(self, seconds: float) -> None:
        """Begin a call that may take this long as a whole, connecting included."""
        self._deadline = self._clock() + seconds
        self._in_tunnel, self.sent, self.head = False, False, b""

    @property
    def expired(self) -> bool:
        """Whether the call has taken as long as it may."""
        return self._clock() >= self._deadline

    @property
    def status(self) -> int | None:
        """The server's status, once its status line has arrived; interim answers have none."""
        return None if self._in_tunnel else self._parse_head()[0]

    @property
    def proxy_status(self) -> int | None:
        """The status with which a proxy refused to open a tunnel to the server; None if none did."""
        return self._parse_head()[0] if self._in_tunnel else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the last answer, names in lower case, read from whatever has arrived."""
        lines = (line.decode("latin-1").partition(":") for line in self._parse_head()[1].splitlines()[1:])
        return {name.strip().lower(): value.strip() for name, _, value in lines if name.strip()}

    @property
    def rest(self) -> bytes:
        """What has arrived after the head of the last answer, in its transfer coding."""
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
        """Take part in a call: see httpx's request extension `trace`."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._watch(info["return_value"])
        elif event.endswith("send_request_headers.started"):
            self._in_tunnel = info["request"].method == b"CONNECT"
            self.sent, self.head = False, b""
        elif event.endswith("send_request_body.complete"):
            self.sent = not self._in_tunnel

    def _watch(self, stream: Any) -> None:
        read, write = stream.read, stream.write

        def read_in_time(max_bytes: int, timeout: float | None = None) -> bytes:
            data: bytes = read(max_bytes, timeout=self._left(timeout))
            if len(self.head) < _MAX_HEAD:
                self.head += data
            return data

        def write_in_time(buffer: bytes, timeout: float | None = None) -> None:
            # In pieces, because the time given is that of each system call, and a call takes a few bytes.
            for start in range(0, len(buffer), _PIECE):
                write(buffer[start : start + _PIECE], timeout=self._left(timeout))

        stream.read, stream.write = read_in_time, write_in_time

    def _left(self, timeout: float | None) -> float:
        left = self._deadline - self._clock()
        return max(left if timeout is None else min(timeout, left), _SHORTEST_TIMEOUT)
