"""JSON text that strict readers refuse, although it has only one meaning.

Half of a surrogate pair, bytes that are no UTF-8, raw control characters in a string, `NaN`, and numbers that
no double can hold: each would make the whole text unreadable. `repair` spells them as strict JSON, so that
the rest of the text can be read.
"""

from __future__ import annotations

import json
import math
import re
from typing import TypeVar

import msgspec

__all__ = ["UNREADABLE", "decode_or_repair", "repair"]

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `msgspec.json.decode` raises for a text that is not strict JSON."""

DEEPEST = 200
"""Arrays and objects within each other that are kept. Protobuf reads 100 messages deep."""

Kind = TypeVar("Kind")

_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?Infinity|NaN|-?[0-9][0-9.eE+-]*', re.DOTALL)
_ODD_IN_STRING = re.compile(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a whole pair
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half of one
    r"|(\\.)"
    r"|([\x00-\x1f])",
    re.DOTALL,
)
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_LONGEST_NUMBER = 400
"""Letters; Python refuses to read a number of thousands of digits."""


def decode_or_repair(text: bytes | msgspec.Raw, kind: type[Kind]) -> tuple[Kind, bool]:
    """Decode JSON; if it is not strict JSON, decode it repaired.

    Args:
        text: JSON text.
        kind: Type to decode it as.

    Returns:
        The value, and whether the text had to be repaired.

    Raises:
        msgspec.ValidationError: The JSON has another shape than `kind`.
        Exception: It is no JSON even when repaired; one of `UNREADABLE`.
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
    """Return the text with everything that has one meaning spelled as strict JSON has it.

    A number that no double can hold becomes a string of its digits, `NaN` and `Infinity` become the strings
    that protobuf's JSON has for them, and broken characters become U+FFFD. A text that is cut off stays so.

    Args:
        text: JSON text in UTF-8, UTF-16 or UTF-32.
        shallow: Whether to replace what is nested more than `DEEPEST` deep, by a value of another type: a
            reader that knows the shape then sees that something is wrong with it.
    """
    letters = _TOKENS.sub(_repaired_token, text.decode(json.detect_encoding(text), "replace"))
    return (_cut_depth(letters) if shallow else letters).encode()


def _repaired_token(match: re.Match[str]) -> str:
    token = match[0]
    if token[0] == '"':
        return _ODD_IN_STRING.sub(_repaired_letter, token)
    if token[-1] in "Ny":
        return f'"{token}"'
    return f'"{token}"' if _is_too_large(token) else token


def _repaired_letter(match: re.Match[str]) -> str:
    _, half, _, control = match.groups()
    if half:
        return "\\ufffd"
    return f"\\u{ord(control):04x}" if control else match[0]


def _is_too_large(number: str) -> bool:
    try:
        return len(number) > _LONGEST_NUMBER or math.isinf(float(number))
    except ValueError:
        return False  # no number; the strict reader says so


def _cut_depth(text: str) -> str:
    kept: list[str] = []
    depth = at = 0
    for match in _BRACKETS.finditer(text):
        found = match[0]
        if found in "[{":
            depth += 1
            if depth == DEEPEST + 1:
                kept.append(text[at : match.start()] + ("[]" if found == "{" else "{}"))
        elif found in "]}":
            depth -= 1
            if depth == DEEPEST:
                at = match.end()
    return "".join(kept) + (text[at:] if depth <= DEEPEST else "")
