"""A receiver's response, parsed leniently, but with a strict count of the rejected points.

Real receivers respond with an empty body, null, an empty message in either encoding, a byte order mark, or
invalid characters, and some without a content type. So the encoding is detected from the body.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_forge.exchange import BodyUnreadable, read_body
from airflow_provider_forge.http import is_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

__all__ = ["MAX_REPLY", "PartialSuccess", "Reply", "partial_success", "status_message"]

MAX_REPLY = 4 * 1024 * 1024
"""Maximum size in bytes of a decompressed response: the limit that OTLP 1.11 recommends for clients."""

_BYTE_ORDER_MARKS = (
    # UTF-32 first: its little-endian mark starts with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_INTEGER = re.compile(r"([+-]?[0-9]{1,30})(?:\.0*)?")
_FLOAT = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?[eE][+-]?[0-9]{1,3}")
_SIGN_BIT = 1 << 63
_ACKNOWLEDGEMENT = re.compile(r'\[\]|null|"?(?:ok|accepted|success)?[.!]?"?', re.IGNORECASE)
"""Bodies without a format that mean nothing but success."""


def _merge_repeated(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, in which a field that is present twice is merged, as protobuf does."""
    merged: dict[str, Any] = {}
    for name, value in fields:
        merged[name] = _merge(merged.get(name), value)
    return merged


def _merge(earlier: Any, later: Any) -> Any:
    if isinstance(earlier, dict) and isinstance(later, dict):
        return {**earlier, **later}
    return earlier if later is None else later


# Numbers stay text, because Python refuses to parse integers of thousands of digits.
_JSON = json.JSONDecoder(strict=False, parse_int=str, parse_float=str, object_pairs_hook=_merge_repeated)


@dataclass(frozen=True)
class Reply:
    """A response whose status is known, though maybe not its whole body.

    Attributes:
        status: HTTP status.
        headers: Headers, with names in lower case.
        content: The decompressed body, as far as it could be read.
        unread: Why the rest of the body could not be read, as a clause; None if all of it was read.
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
        """The content type, in lower case."""
        return self.headers.get("content-type", "").lower()

    @property
    def is_success(self) -> bool:
        """Whether the receiver accepted the request, though maybe not all of its points."""
        return 200 <= self.status < 300

    @property
    def is_page(self) -> bool:
        """Whether it is a page of HTML or XML, with which no OTLP receiver responds."""
        return is_page(self.kind, self.content)

    @property
    def redirects(self) -> bool:
        """Whether it redirects to another URL."""
        return self.status in (301, 302, 303, 307, 308) and "location" in self.headers


class PartialSuccess(NamedTuple):
    """The partial success in a 2xx response.

    Attributes:
        rejected: Number of rejected points; None if the response reports an impossible number.
        message: The receiver's message; empty if there is none.
        problem: Why the body is not an OTLP response, as a clause; None if it is one, or empty.
    """

    rejected: int | None = 0
    message: str = ""
    problem: str | None = None


def partial_success(reply: Reply) -> PartialSuccess:
    """Parse the partial success of a 2xx response; all points are accepted if there is none."""
    content = _json(reply.content)
    if isinstance(content, dict):
        return _partial_success_in_json(reply, content)
    cut_off = reply.unread is not None
    # A field that is present several times is one message, in several parts.
    found, is_found = bytearray(), False
    try:
        for number, value in _protobuf(reply.content, cut_off=cut_off):
            if number == 1 and isinstance(value, bytes):
                found += value
                is_found = True
    except ValueError:
        if "protobuf" in reply.kind:
            return PartialSuccess(problem="it is not valid protobuf, though its content type says so")
        is_said = _ACKNOWLEDGEMENT.fullmatch(_text(reply.content).strip())
        return PartialSuccess(problem=None if is_said else _not_otlp(reply))
    if reply.content and not is_found:
        return PartialSuccess(problem=_not_otlp(reply))
    return _partial_success_in_protobuf(bytes(found), cut_off=cut_off)


def status_message(reply: Reply) -> str:
    """Return the message of an error response: a `google.rpc.Status` in JSON or protobuf, or plain text."""
    if reply.is_page:
        return ""
    content = _json(reply.content)
    if isinstance(content, dict):
        return str(content.get("message") or content.get("error") or "")
    if "protobuf" in reply.kind:
        return reply.content.decode("ascii", errors="ignore")
    return _text(reply.content)


def _text(content: bytes) -> str:
    """Decode text, ignoring its charset parameter, which may name a Python codec that is not for text."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    return content.decode("utf-8-sig", errors="replace")


def _json(content: bytes) -> Any:
    try:
        # Anything after the value is ignored, such as a second line.
        return _JSON.raw_decode(_text(content).lstrip())[0]
    except (ValueError, RecursionError):
        return None


def _partial_success_in_json(reply: Reply, content: dict[str, Any]) -> PartialSuccess:
    """Parse protobuf's JSON, whose parsers must accept both spellings of a field's name."""
    names = ("partialSuccess", "partial_success")
    if content and not any(name in content for name in names):
        return PartialSuccess(problem=_not_otlp(reply))
    found = _merge(*(each if isinstance(each := content.get(name), dict) else None for name in names)) or {}
    counts = [_count(found.get(name)) for name in ("rejectedDataPoints", "rejected_data_points")]
    message = found.get("errorMessage") or found.get("error_message") or ""
    return PartialSuccess(None if None in counts else max(filter(None, counts), default=0), str(message))


def _not_otlp(reply: Reply) -> str:
    message = status_message(reply)
    return f"it is not OTLP, but {message!r}" if message else "it is not OTLP"


def _count(value: Any) -> int | None:
    """Parse a number of points in protobuf's JSON, a number or text; None if the number is impossible."""
    if value is None or value is False or value == "":
        return 0
    text = value.strip() if isinstance(value, str) else ""
    if _FLOAT.fullmatch(text):
        number = float(text)
        return int(number) if 0 <= number < _SIGN_BIT and number.is_integer() else None
    integer = _INTEGER.fullmatch(text)
    return int(integer[1]) if integer and 0 <= int(integer[1]) < _SIGN_BIT else None


def _partial_success_in_protobuf(content: bytes, *, cut_off: bool) -> PartialSuccess:
    rejected: int | None = 0
    message = b""
    for number, value in _protobuf(content, cut_off=cut_off):
        if number == 1 and isinstance(value, int):
            rejected = value if value < _SIGN_BIT else None
        elif number == 2 and isinstance(value, bytes):
            # Some receivers truncate a message within a character, which protobuf's own parser refuses.
            message = value
    return PartialSuccess(rejected, message.decode("utf-8", errors="replace"))


def _protobuf(content: bytes, *, cut_off: bool) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and value of each field of a message.

    Args:
        content: The message.
        cut_off: Whether it may be truncated; then the last value may be incomplete.

    Raises:
        ValueError: It is not valid protobuf, or is truncated though `cut_off` is false.
    """
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, wire_type = key >> 3, key & 7
        if not number:
            raise ValueError("a field has the number 0")
        if wire_type == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _varint(content, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError("it has a group, which OTLP does not use")
        if at + size > len(content) and not cut_off:
            raise ValueError("it is truncated")
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
    raise ValueError("it is truncated")
