"""JSON text that strict decoders reject although its meaning is clear."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from airflow_provider_forge.json_text import MAX_DEPTH, UNREADABLE, decode_or_repair, repair


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"/a\\ud83d"', "/a\ufffd"),
        (b'"\\ude00b"', "\ufffdb"),
        (b'"\\uD83D\\uD83D\\uDE00"', "\ufffd\U0001f600"),
        (b'"\\\\ud83d\\ud83d"', "\\ud83d\ufffd"),
        (b'"\\ud83d\\n"', "\ufffd\n"),
        (b'{"\\ud83d":1}', {"\ufffd": 1}),
        (b'"M\xfcller"', "M\ufffdller"),
        (b'"a\nb\x00\\"c"', 'a\nb\0"c'),
        (b'[NaN,Infinity,-Infinity,"NaN"]', ["NaN", "Infinity", "-Infinity", "NaN"]),
        (b"[1e999,-1e999,1.5,12]", ["1e999", "-1e999", 1.5, 12]),
        (b"[%b]" % (b"9" * 5000), ["9" * 5000]),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        ('{"ü":1}'.encode("utf-16"), {"ü": 1}),
    ],
)
def test_text_with_a_clear_meaning_is_repaired(text, value):
    assert decode_or_repair(text, Any) == (value, True)
    assert msgspec.json.decode(repair(text)) == value


@pytest.mark.parametrize("text", [b'{"a":"\\ud83d\\ude00 \\\\ud83d","b":[1.5,-0,1e3]}', b"[]", b'"\\u0001"'])
def test_strict_json_stays_as_it_is(text):
    assert decode_or_repair(text, Any) == (msgspec.json.decode(text), False)
    assert repair(text) == text


@pytest.mark.parametrize(
    "text", [b"", b"{", b'["\\ud83d"', b'"\\x"', b"[1,]", b"01", b"<html>", b'{"a":1}}', b"1.2.3"]
)
def test_truncated_text_and_other_text_than_json_stay_unreadable(text):
    with pytest.raises(UNREADABLE):
        decode_or_repair(text, Any)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_replaced_by_a_value_of_another_type(opening, closing):
    deep = opening * 100_000 + b"1" + closing * 100_000
    value, repaired = decode_or_repair(b'{"deep":%b,"after":"[{"}' % deep, Any)
    assert repaired
    assert value["after"] == "[{"
    value, depth = value["deep"], 0
    kind = type(value)
    while type(value) is kind:
        value, depth = (value[0] if kind is list else value["a"]), depth + 1
    assert (value, depth) == ({} if kind is list else [], MAX_DEPTH - 1)


def test_another_shape_still_raises():
    with pytest.raises(msgspec.ValidationError):
        decode_or_repair(b'{"a":1}', list[int])
