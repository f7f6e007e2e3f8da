"""Formats of tables."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from airflow_provider_forge.cli.output import Output
from airflow_provider_forge.gateway import ratelimit

COLUMNS = ("NAME", "NUMBER")
ROWS = [("a, b", 1118), ('c|"d"\x1b', 2)]


def printed(name, columns=80):
    file = io.StringIO()
    output = Output(file, io.StringIO(), name)
    output._console.width = columns
    output.table(COLUMNS, ROWS)
    return file.getvalue().splitlines()


def test_a_pipe_gets_columns_and_plain_numbers():
    assert printed(None) == ["NAME\tNUMBER", "a, b\t1118", 'c|"d"\t2']


def test_csv_can_be_read():
    assert list(csv.reader(printed("csv"))) == [["NAME", "NUMBER"], ["a, b", "1118"], ['c|"d"', "2"]]


def test_markdown_is_a_table_whatever_the_cells_contain():
    assert printed("markdown") == [
        "| NAME | NUMBER |",
        "| --- | --- |",
        "| a, b | 1118 |",
        '| c&#124;"d" | 2 |',
    ]


@pytest.mark.parametrize(("columns", "line"), [(80, "a, b    1,118"), (5, "NAME    a, b")])
def test_a_table_may_be_asked_for_in_a_pipe(columns, line):
    assert line in printed("table", columns)


def test_figures_are_aligned_to_the_right_and_empty_cells_have_no_line():
    def shown(columns):
        file = io.StringIO()
        output = Output(file, io.StringIO(), "table")
        output._console.width = columns
        output.table(("NAME", "COST", "DAY"), [("a", "<0.01", "26 Nov"), ("total", "1,234.56", "")])
        return file.getvalue().splitlines()

    assert [line.rstrip() for line in shown(80)] == [
        "NAME       COST  DAY",
        "a         <0.01  26 Nov",
        "total  1,234.56",
    ]
    assert shown(10)[-3:] == ["NAME  total", "COST  1,234.56", ""]


def test_progress_is_no_output_in_a_pipe():
    file, errors = io.StringIO(), io.StringIO()
    with Output(file, errors).progress(["a", "b"], str.upper) as steps:
        assert list(steps) == ["a", "b"]
    assert (file.getvalue(), errors.getvalue()) == ("", "")


@pytest.fixture
def screen(monkeypatch):
    """The standard output of a terminal with 80 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return io.StringIO()


def test_a_wait_for_the_rate_limit_is_shown_in_the_bar(screen):
    windows = ["27 Nov 14:00\u201314:15 UTC"] * 1344
    with Output(screen, io.StringIO()).progress(windows, str) as steps:
        next(steps)
        ratelimit.log.info("Waiting %.0f s or more for the rate limit", 138.0)
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue()).splitlines()
    [line] = {line for line in lines if "Waiting" in line}
    assert re.search(r"Waiting 138 s or more for the rate limit .* 0/1344 .* left", line)


def test_a_wait_for_the_rate_limit_is_shown_while_busy(screen):
    before = ratelimit.log.level, ratelimit.log.propagate, list(ratelimit.log.handlers)
    with Output(io.StringIO(), screen).busy("Asking…"):
        ratelimit.log.info("Waiting %.0f s or more for the rate limit", 38.0)
    assert "Waiting 38 s or more for the rate limit" in screen.getvalue()
    assert (ratelimit.log.level, ratelimit.log.propagate, list(ratelimit.log.handlers)) == before


def test_waits_are_notes_in_a_pipe():
    """A command in a script would be silent for a minute."""
    errors = io.StringIO()
    output = Output(io.StringIO(), errors)
    with output.busy("Asking…"):
        ratelimit.log.info("Waiting %.0f s or more for the rate limit", 38.0)
    with output.progress([1], str) as steps:
        for _ in steps:
            ratelimit.log.info("Waiting %.0f s or more for the rate limit", 39.0)
    assert errors.getvalue().splitlines() == [
        f"Waiting {seconds} s or more for the rate limit" for seconds in (38, 39)
    ]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_an_encoding_that_lacks_a_character_gets_its_escape(encoding):
    """As with a cron job's locale, or on Windows."""
    text = "\u2713 é \U0001f600"
    for write in (lambda output: output.json({"a": text}), lambda output: output.raw(f'{{"a": "{text}"}}')):
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        write(Output(file, io.StringIO()))
        assert json.loads(file.buffer.getvalue().decode(encoding)) == {"a": text}
    for format_ in ("table", "csv", None):
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        Output(file, io.StringIO(), format_).table(COLUMNS, [(text, 1)])
        file.flush()
        assert b"1" in file.buffer.getvalue()


def test_so_does_half_of_a_surrogate_pair():
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Output(file, io.StringIO()).raw("\ud800")
    assert file.buffer.getvalue() == b"\\ud800\n"
