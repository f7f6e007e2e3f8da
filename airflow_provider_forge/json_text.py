"""Repairs JSON text that strict decoders reject although its meaning is clear.

An unpaired surrogate, invalid UTF-8, a raw control character in a string, `NaN`, or a number beyond the range
of a double would each make the whole text unreadable. `repair` rewrites them as strict JSON, so that the rest
of the text can be decoded.
"""

from __future__ import annotations

import json
import math
import re
from typing import TypeVar

import msgspec

__all__ = ["UNREADABLE", "decode_or_repair", "repair"]

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions of `msgspec.json.decode` for a text that is not strict JSON."""

MAX_DEPTH = 200
"""Maximum depth of arrays and objects that is kept. Protobuf reads 100 levels of messages."""

Kind = TypeVar("Kind")

_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?Infinity|NaN|-?[0-9][0-9.eE+-]*', re.DOTALL)
_STRING_ESCAPES_AND_FAULTS = re.compile(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a surrogate pair
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # an unpaired surrogate
    r"|(\\.)"
    r"|([\x00-\x1f])",
    re.DOTALL,
)
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_MAX_NUMBER_CHARACTERS = 400
"""Maximum length of a number's text: Python does not convert text with thousands of digits."""


def decode_or_repair(text: bytes | msgspec.Raw, kind: type[Kind]) -> tuple[Kind, bool]:
    """Decode JSON, after a repair if it is not strict JSON.

    Args:
        text: JSON text.
        kind: Type of the value.

    Returns:
        The value, and whether the text was repaired.

    Raises:
        msgspec.ValidationError: The JSON does not match `kind`.
        Exception: The text is not JSON even after the repair; one of `UNREADABLE`.
    """
    try:
        return msgspec.json.decode(text, type=kind), False
    except UNREADABLE as error:
        repaired = repair(bytes(text), shallow=isinstance(error, RecursionError))
        if repaired == bytes(text):
            raise
    try:
        return msgspec.json.decode(repaired, type=kind), True
    except RecursionError:
        return msgspec.json.decode(repair(repaired, shallow=True), type=kind), True


def repair(text: bytes, *, shallow: bool = False) -> bytes:
    """Return the text as strict JSON.

    A number beyond the range of a double becomes a string of its digits, `NaN` and `Infinity` become the
    strings of protobuf's JSON, and invalid characters become U+FFFD. A truncated text stays truncated.

    Args:
        text: JSON text in UTF-8, UTF-16 or UTF-32.
        shallow: Whether to replace arrays and objects nested deeper than `MAX_DEPTH` by a value of the other
            type, so that a decoder that knows the shape recognizes that it is invalid.
    """
    repaired = _TOKENS.sub(_repair_token, text.decode(json.detect_encoding(text), "replace"))
    return (_cut_depth(repaired) if shallow else repaired).encode()


def _repair_token(match: re.Match[str]) -> str:
    token = match[0]
    if token[0] == '"':
        return _STRING_ESCAPES_AND_FAULTS.sub(_repair_character, token)
    if token[-1] in "Ny":
        return f'"{token}"'
    return f'"{token}"' if _is_too_large(token) else token


def _repair_character(match: re.Match[str]) -> str:
    _, unpaired, _, control = match.groups()
    if unpaired:
        return "\\ufffd"
    return f"\\u{ord(control):04x}" if control else match[0]


def _is_too_large(number: str) -> bool:
    try:
        return len(number) > _MAX_NUMBER_CHARACTERS or math.isinf(float(number))
    except ValueError:
        return False  # not a number; the strict decoder reports it


def _cut_depth(text: str) -> str:
    kept: list[str] = []
    depth = at = 0
    for match in _BRACKETS.finditer(text):
        found = match[0]
        if found in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept.append(text[at : match.start()] + ("[]" if found == "{" else "{}"))
        elif found in "]}":
            depth -= 1
            if depth == MAX_DEPTH:
                at = match.end()
    return "".join(kept) + (text[at:] if depth <= MAX_DEPTH else "")
