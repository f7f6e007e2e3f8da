"""A receiver's answer, read as leniently as its points are counted strictly.

Receivers in the wild answer with nothing, with null, with an empty message in either encoding, with a byte
order mark or broken letters, and without saying which encoding it is: the body itself tells.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_forge.exchange import BodyUnreadable, read_body

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

__all__ = ["MAX_REPLY", "PartialSuccess", "Reply", "partial_success", "words"]

MAX_REPLY = 4 * 1024 * 1024
"""Bytes of an answer, unpacked: what OTLP 1.11 recommends as the limit that a client must have."""

_MARKS = (
    # UTF-32's little-endian mark begins with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WHOLE = re.compile(r"([+-]?[0-9]{1,30})(?:\.0*)?")
_FLOAT = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?[eE][+-]?[0-9]{1,3}")
_SIGN_BIT = 1 << 63
# As text, because Python refuses to read whole numbers of thousands of digits.
_JSON = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)


@dataclass(frozen=True)
class Reply:
    """An answer whose status is known.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        content: The body, decoded as far as it could be read.
        unread: Why the rest of it could not be read, as a clause; None if there is no rest.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    unread: str | None = None

    @classmethod
    def read(cls, response: httpx.Response) -> Reply:
        """Read a streamed response."""
        try:
            return cls(response.status_code, response.headers, read_body(response, limit=MAX_REPLY))
        except BodyUnreadable as error:
            return cls(response.status_code, response.headers, error.content, error.reason)

    @property
    def kind(self) -> str:
        """The content type that it says it has, in lower case."""
        return self.headers.get("content-type", "").lower()

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken the request, though maybe not all of its points."""
        return 200 <= self.status < 300

    @property
    def is_html(self) -> bool:
        """Whether it is a page for people, which no receiver of OTLP answers with."""
        return "html" in self.kind

    @property
    def redirects(self) -> bool:
        """Whether it names another URL."""
        return self.status in (301, 302, 303, 307, 308) and "location" in self.headers


class PartialSuccess(NamedTuple):
    """What an answer of 2xx says beside its status.

    Attributes:
        rejected: Number of points rejected; None if it says that there are some with a number that cannot be.
        message: The receiver's words; empty if there are none.
        readable: Whether the body is what its content type says.
    """

    rejected: int | None = 0
    message: str = ""
    readable: bool = True


def partial_success(reply: Reply) -> PartialSuccess:
    """Return what an answer of 2xx says of its points."""
    content = _json(reply.content)
    if isinstance(content, dict):
        found = _named(content, "partialSuccess", "partial_success")
        found = found if isinstance(found, dict) else {}
        message = _named(found, "errorMessage", "error_message")
        return PartialSuccess(
            _count(_named(found, "rejectedDataPoints", "rejected_data_points")), str(message or "")
        )
    try:
        cut_off = reply.unread is not None
        for number, value in _protobuf(reply.content, cut_off=cut_off):
            if number == 1 and isinstance(value, bytes):
                return _partial_success_in_protobuf(value, cut_off=cut_off)
    except ValueError:
        return PartialSuccess(readable="protobuf" not in reply.kind)
    return PartialSuccess()


def words(reply: Reply) -> str:
    """Return a failed answer's words: a `google.rpc.Status` in JSON or protobuf, or plain text."""
    if reply.is_html:
        return ""
    content = _json(reply.content)
    if isinstance(content, dict):
        return str(content.get("message") or content.get("error") or "")
    if "protobuf" in reply.kind:
        return reply.content.decode("ascii", errors="ignore")
    return _text(reply.content)


def _text(content: bytes) -> str:
    """Decode text without its charset label: Python knows codecs of that name that are no text."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    return content.decode("utf-8-sig", errors="replace")


def _json(content: bytes) -> Any:
    try:
        # Whatever follows the value says nothing, such as a second line.
        return _JSON.raw_decode(_text(content).lstrip())[0]
    except (ValueError, RecursionError):
        return None


def _named(message: dict[str, Any], *names: str) -> Any:
    """Return a field of protobuf's JSON, whose readers must take its original name, too."""
    return next((message[name] for name in names if message.get(name) is not None), None)


def _count(value: Any) -> int | None:
    """Return a number of points in protobuf's JSON: a number or text; None if it cannot be one."""
    if value is None or value is False or value == "":
        return 0
    text = value.strip() if isinstance(value, str) else ""
    if _FLOAT.fullmatch(text):
        number = float(text)
        return int(number) if 0 <= number < _SIGN_BIT and number.is_integer() else None
    whole = _WHOLE.fullmatch(text)
    return int(whole[1]) if whole and 0 <= int(whole[1]) < _SIGN_BIT else None


def _partial_success_in_protobuf(content: bytes, *, cut_off: bool) -> PartialSuccess:
    rejected: int | None = 0
    message = b""
    for number, value in _protobuf(content, cut_off=cut_off):
        if number == 1 and isinstance(value, int):
            rejected = value if value < _SIGN_BIT else None
        elif number == 2 and isinstance(value, bytes):
            # Some receivers cut a message in the middle of a letter, which protobuf's own reader refuses.
            message = value
    return PartialSuccess(rejected, message.decode("utf-8", errors="replace"))


def _protobuf(content: bytes, *, cut_off: bool) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message by their numbers; the last one as far as it goes if it may be cut off.

    Raises:
        ValueError: It is no protobuf, or cut off where it must not be.
    """
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, wire_type = key >> 3, key & 7
        if not number:
            raise ValueError("no field has the number 0")
        if wire_type == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _varint(content, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError("groups went out of use before OTLP")
        if at + size > len(content) and not cut_off:
            raise ValueError("it is cut off")
        yield number, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise ValueError("it is cut off")
