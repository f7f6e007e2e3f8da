"""Text from outside, made safe for logs, errors, XCom and terminals.

What servers and proxies say, and what metrics are called, may hold line breaks, terminal escapes, markers of
Airflow's log, or a secret that was sent there. All of it that people are shown goes through `quote`.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import urllib.parse
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["get_logger", "printable", "quote", "shorten", "visible"]

QUOTED = 300
"""Characters of a text that are shown by default."""

SHORTEST_SECRET = 6
"""Characters; to hide a shorter text would tear ordinary words apart."""

_PART = 12
"""Characters in a row of a secret that are hidden even if the rest of it is missing."""

LOGGED = 4000
"""Characters of one argument of a log line: a list of all metrics of a large app still fits."""

_READ = 20_000
"""Characters that are looked at: more than any server needs to say what is wrong."""

# Printable by Unicode's categories, and yet without a glyph of their own.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u3164\ufe00-\ufe0f\uffa0]")
# Airflow's UI opens and closes a section of the log wherever a line has one of these.
_MARKER = re.compile(":{2,}(?=(?:end)?group)|##(?=\\[(?:end)?group)", re.IGNORECASE)
_MASK = "***"


def quote(text: object, secrets: Iterable[str] = (), *, most: int = QUOTED) -> str:
    """Return a text from outside in one short, printable line, without any of the secrets.

    A secret is found in pieces, with characters between that are not visible, and in the encodings that
    servers repeat it in: base64, URL-quoted, escaped for JSON or HTML.

    Args:
        text: What to show; str is applied to it.
        secrets: What must not be shown.
        most: Characters that are shown; a longer text ends in an ellipsis.
    """
    line = printable(_hide(str(text)[:_READ], secrets))
    return line if len(line) <= most else line[:most] + "…"


def shorten(text: str, most: int) -> str:
    """Return a text of at most so many characters: a longer one with its beginning and its end."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 3]} … {text[-end:]}"


def printable(text: str) -> str:
    """Return a text in one line of visible characters, which opens no section of Airflow's log."""
    return _MARKER.sub(lambda found: found.group()[0], " ".join(visible(text).split()))


def visible(text: str) -> str:
    """Return a text with a space for each character that cannot be seen; its spaces stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in _INVISIBLE.sub(" ", text))


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, whose lines show what they are given as `printable` does."""
    logger = logging.getLogger(name)
    logger.addFilter(_clean_arguments)
    return logger


def _clean_arguments(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument if isinstance(argument, (int, float)) else quote(argument, most=LOGGED)
            for argument in record.args
        )
    return True


def _hide(text: str, secrets: Iterable[str]) -> str:
    """Return the text with each secret masked, as a whole or in part, however it is spelled."""
    spellings = _spellings(tuple(secrets))
    if not spellings:
        return text
    seen = [(index, letter) for index, letter in enumerate(text) if _is_visible(letter)]
    visible = "".join(letter for _, letter in seen)
    hidden = sorted(_spans(visible, spellings))
    for start, end in reversed(hidden):
        text = text[: seen[start][0]] + _MASK + text[seen[end - 1][0] + 1 :]
    return text


def _is_visible(letter: str) -> bool:
    return letter.isprintable() and not letter.isspace() and not _INVISIBLE.match(letter)


def _spans(text: str, spellings: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield where secrets are, first whole ones, then parts; no two overlap."""
    whole = re.compile("|".join(map(re.escape, spellings)), re.IGNORECASE)
    rest = list(text)
    for found in whole.finditer(text):
        rest[found.start() : found.end()] = " " * len(found.group())
        yield found.span()
    parts = {spelling[i : i + _PART] for spelling in spellings for i in range(len(spelling) - _PART + 1)}
    left = "".join(rest)
    start = end = -1
    for index in range(len(left) - _PART + 1):
        if left[index : index + _PART] not in parts:
            continue
        if index > end:
            if end > 0:
                yield start, end
            start = index
        end = index + _PART
    if end > 0:
        yield start, end


@lru_cache(maxsize=16)
def _spellings(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Return how servers may repeat the secrets, without white space, the longest first."""
    found = {
        "".join(filter(_is_visible, spelling))
        for secret in secrets
        if len(secret) >= SHORTEST_SECRET
        for spelling in _encodings(secret)
    }
    return tuple(sorted((each for each in found if len(each) >= SHORTEST_SECRET), key=len, reverse=True))


def _encodings(secret: str) -> Iterator[str]:
    yield secret
    yield urllib.parse.quote(secret, safe="")
    yield urllib.parse.quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    yield html.escape(secret)
    raw = secret.encode(errors="surrogatepass")
    yield raw.hex()
    # Within a longer text, base64 spells a secret in one of three ways: by what stands before it.
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        inner = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
