"""Sanitizes untrusted text for logs, error messages, XCom and terminals.

Responses of servers and proxies, and names of metrics, may contain line breaks, terminal escapes, markers of
Airflow's log groups, or a secret that was sent in the request. `sanitize` is applied before any is shown.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import urllib.parse
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["did_you_mean", "get_logger", "is_storable", "printable", "sanitize", "shorten", "visible"]

DEFAULT_LENGTH = 300
"""Characters of a text that are shown by default."""

MIN_SECRET_LENGTH = 6
"""Characters. Masking a shorter secret would garble ordinary words."""

_FRAGMENT = 12
"""Consecutive characters of a secret that are masked even without the rest of it."""

MAX_LOG_ARGUMENT = 4000
"""Characters of one argument of a log line: enough for a list of all metrics of a large app."""

_MAX_INPUT = 20_000
"""Characters that are processed at all: more than the error message of any server."""

# Printable by Unicode's categories, but without a glyph.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u3164\ufe00-\ufe0f\uffa0]")
# Airflow's UI opens and closes a log group at each of these, anywhere in a line.
_MARKER = re.compile(":{2,}(?=(?:end)?group)|##(?=\\[(?:end)?group)", re.IGNORECASE)
_REPLACEMENT = "***"
# Half of a surrogate pair has no encoding; systems written in C end a text at NUL.
_NOT_STORABLE = re.compile(r"[\x00\ud800-\udfff]")


def sanitize(text: object, secrets: Iterable[str] = (), *, most: int = DEFAULT_LENGTH) -> str:
    """Return untrusted text as one short, printable line, with secrets masked.

    A secret is also masked if it is incomplete, contains invisible characters, or has one of the encodings
    in which servers echo it: base64, hexadecimal, URL-quoted, escaped for JSON or HTML.

    Args:
        text: The text; converted with `str`.
        secrets: The secrets to mask.
        most: Maximum length in characters; a longer text is truncated, with an ellipsis.
    """
    line = printable(_mask(str(text)[:_MAX_INPUT], secrets))
    return line if len(line) <= most else line[:most] + "…"


def shorten(text: str, most: int) -> str:
    """Return a text of at most `most` characters: the beginning and the end of a longer one."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 3]} … {text[-end:]}"


def printable(text: str) -> str:
    """Return a text as one line of visible characters, without markers of Airflow's log groups."""
    return _MARKER.sub(lambda found: found.group()[0], " ".join(visible(text).split()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the known word that was probably meant, after a space; empty if there is none.

    Args:
        word: The unknown word.
        known: Words to choose from. One that begins with the word goes before others.
    """
    import difflib  # only after a mistake

    names = {name.lower(): name for name in known}
    longer = [name for name in names if word and name.startswith(word.lower())]
    close = longer or difflib.get_close_matches(word.lower(), names, n=1)
    return f" Did you mean {names[close[0]]!r}?" if close else ""


def visible(text: str) -> str:
    """Return a text with each invisible character replaced by a space; its own spaces stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in _INVISIBLE.sub(" ", text))


def is_storable(value: object) -> bool:
    """Return whether all text in a JSON value can be sent and stored: it has an encoding, and no NUL.

    The escapes of JSON can express half of a surrogate pair, which has none. Python's error for it has the
    whole text.
    """
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            if _NOT_STORABLE.search(each):
                return False
        elif isinstance(each, Mapping):
            left += [*each, *each.values()]
        elif isinstance(each, (list, tuple)):
            left += each
    return True


def get_logger(name: str) -> logging.Logger:
    """Return a module's logger, which sanitizes the arguments of its log lines."""
    logger = logging.getLogger(name)
    logger.addFilter(_sanitize_arguments)
    return logger


def _sanitize_arguments(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument if isinstance(argument, (int, float)) else sanitize(argument, most=MAX_LOG_ARGUMENT)
            for argument in record.args
        )
    return True


def _mask(text: str, secrets: Iterable[str]) -> str:
    """Return the text with each secret masked, whole or in part, in each of its encodings."""
    spellings = _spellings(tuple(secrets))
    if not spellings:
        return text
    seen = [(index, letter) for index, letter in enumerate(text) if _is_visible(letter)]
    visible = "".join(letter for _, letter in seen)
    hidden = sorted(_spans(visible, spellings))
    for start, end in reversed(hidden):
        text = text[: seen[start][0]] + _REPLACEMENT + text[seen[end - 1][0] + 1 :]
    return text


def _is_visible(letter: str) -> bool:
    return letter.isprintable() and not letter.isspace() and not _INVISIBLE.match(letter)


def _spans(text: str, spellings: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield the positions of secrets, whole ones first, then fragments; no two overlap."""
    whole = re.compile("|".join(map(re.escape, spellings)), re.IGNORECASE)
    rest = list(text)
    for found in whole.finditer(text):
        rest[found.start() : found.end()] = " " * len(found.group())
        yield found.span()
    parts = {
        spelling[i : i + _FRAGMENT] for spelling in spellings for i in range(len(spelling) - _FRAGMENT + 1)
    }
    left = "".join(rest)
    start = end = -1
    for index in range(len(left) - _FRAGMENT + 1):
        if left[index : index + _FRAGMENT] not in parts:
            continue
        if index > end:
            if end > 0:
                yield start, end
            start = index
        end = index + _FRAGMENT
    if end > 0:
        yield start, end


@lru_cache(maxsize=16)
def _spellings(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the encodings in which servers may echo the secrets, without whitespace, longest first."""
    found = {
        "".join(filter(_is_visible, spelling))
        for secret in secrets
        if len(secret) >= MIN_SECRET_LENGTH
        for spelling in _encodings(secret)
    }
    return tuple(sorted((each for each in found if len(each) >= MIN_SECRET_LENGTH), key=len, reverse=True))


def _encodings(secret: str) -> Iterator[str]:
    yield secret
    yield urllib.parse.quote(secret, safe="")
    yield urllib.parse.quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    yield html.escape(secret)
    raw = secret.encode(errors="surrogatepass")
    yield raw.hex()
    # Within a longer text, a secret has one of three base64 encodings, by its offset modulo 3.
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        inner = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
