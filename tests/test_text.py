from __future__ import annotations

import base64
import html
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_forge.exceptions import ConfigurationError, ForgeError
from airflow_provider_forge.text import get_logger, is_storable, printable, sanitize, visible

SECRET = "s3/cr+t~t0k&n=of the <account>"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("It failed", "It failed"),
        ("two\nlines,\r\n\ta tab", "two lines, a tab"),
        ("\x1b[31mred\x1b]0;title\x07", "[31mred ]0;title"),
        ("\x9b31mred\u2028line\u2029\x85", "31mred line"),
        # Overrides of direction, and what has no width.
        ("a\u202eb\u2066c\u200bd\u2060e\ufefff\u00adg", "a b c d e f g"),
        ("\u3164a\u115fb\ufe0fc\u034fd", "a b c d"),
        ("half \ud800 a pair", "half a pair"),
        ("Größe 測定 😀", "Größe 測定 😀"),
        ("line\n::group::evil", "line :group::evil"),
        ("x::endgroup::", "x:endgroup::"),
        (":::::GROUP::x ##[group]y", ":GROUP::x #[group]y"),
        (":\u200b:group::", ": :group::"),
        ("fd00::1 and std::string", "fd00::1 and std::string"),
        (7, "7"),
        ("", ""),
    ],
)
def test_a_text_from_outside_becomes_one_printable_line(said, shown):
    assert sanitize(said) == shown


@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    line = printable(text)
    assert line.isprintable()
    assert "::group" not in line.lower()
    assert printable(line) == line


def test_it_is_short():
    assert sanitize("x" * 301) == "x" * 300 + "…"
    assert sanitize("x" * 10**6, most=10) == "x" * 10 + "…"


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        SECRET.upper(),
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote(SECRET, safe="").lower(),
        urllib.parse.quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        html.escape(SECRET),
        SECRET.encode().hex(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        # In pieces, which people would read as one.
        SECRET[:14] + "\n" + SECRET[14:],
        "\u200b".join(SECRET),
        " ".join(SECRET),
        SECRET[:-1],
        SECRET[3:],
    ],
)
def test_a_secret_is_hidden_however_it_is_spelled(spelled):
    assert sanitize(f"bad: {spelled} !", [SECRET], most=10_000) == "bad: *** !"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "me@example.com:"])
def test_so_is_one_within_base64(before):
    encoded = base64.b64encode(f"{before}{SECRET}, and more".encode()).decode()
    shown = sanitize(encoded, [SECRET])
    assert "***" in shown
    # What is left over is what stood around it, and up to a letter of the secret's own on each side.
    assert len(shown) <= len(encoded) - len(SECRET) * 8 // 6 + 2 * len("***")


def test_pieces_that_are_far_apart_are_hidden_each():
    assert sanitize(f"{SECRET[:14]} … {SECRET[-14:]}", [SECRET]) == "*** … ***"


@pytest.mark.parametrize("secret", ["", "a", "short"])
def test_a_secret_that_is_too_short_is_not_masked(secret):
    assert sanitize("a short banana", [secret]) == "a short banana"


def test_a_secret_is_masked_before_the_text_is_truncated():
    assert "s3/" not in sanitize("x" * 295 + SECRET, [SECRET])


def test_each_occurrence_is_masked():
    assert sanitize("s3cr3t-t0kens3cr3t-t0ken", ["s3cr3t-t0ken"]) == "******"


@given(st.text(), st.text(min_size=6).filter(lambda text: "*" not in text))
def test_no_secret_is_left_whole(text, secret):
    shown = sanitize(text + secret + text, [secret], most=10**6)
    clean = printable(secret)
    if len("".join(clean.split())) >= 6:
        assert clean not in shown


EVIL = "x\x1b]0;pwned\x07\n::group::evil\n2026-11-27 ERROR forged line"
TAMED = "x ]0;pwned :group::evil 2026-11-27 ERROR forged line"


def test_a_log_line_with_any_arguments_stays_one_line(caplog):
    log = get_logger("airflow_provider_forge.some_module")
    assert get_logger(log.name) is log
    log.warning("%s and %d of %.1f: %s", EVIL, 3, 2.5, ValueError(EVIL))
    assert caplog.messages == [f"{TAMED} and 3 of 2.5: {TAMED}"]
    log.warning("%s", "x" * 10**6)
    assert len(caplog.messages[-1]) < 5000


def test_so_does_each_error_of_this_provider():
    error = ForgeError(EVIL, request_id=EVIL + "r" * 10**5)
    assert error.message == TAMED
    assert str(error).startswith(f"{TAMED} (request id {TAMED}")
    assert len(error.request_id) <= 101
    assert str(error).isprintable()
    wrong = ConfigurationError(EVIL, EVIL)
    assert (wrong.field, wrong.problem, str(wrong)) == (TAMED, TAMED, f"{TAMED}: {TAMED}")


def test_the_layout_of_a_line_is_preserved_on_request():
    assert visible("a  b\x1b\u202e  é\n") == "a  b    é "


@pytest.mark.parametrize("value", ["", "é\U0001f600", 5, None, [1, ["a"]], {"a": {"b": ["\n"]}}, ["a"] * 3])
def test_text_with_an_encoding_can_be_stored(value):
    assert is_storable(value)


@pytest.mark.parametrize("letter", ["\0", "\ud800"])
def test_text_without_one_is_found_at_any_depth(letter):
    deep: object = f"a{letter}b"
    for _ in range(5000):
        deep = [deep]
    for value in (letter, [1, {"a": (letter,)}], {letter: 1}, deep):
        assert not is_storable(value)
