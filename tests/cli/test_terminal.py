"""Every command, in a pipe and on terminals: it says the same in each, and fits."""

from __future__ import annotations

import re
import time
from collections import Counter
from decimal import Decimal

import pendulum
import pytest
from airflow.cli import cli_parser

from airflow_provider_forge.cli.commands import COMMANDS
from demo.waiting import wait_for
from tests.cli.conftest import Done, Shell, screen

START = pendulum.yesterday("UTC").add(hours=10)
WINDOW = f"--start {START.isoformat()} --end {START.add(minutes=5).isoformat()}"
INTERVAL = f"--start {START.isoformat()} --end {START.add(minutes=30).isoformat()}"
FROM_TO = f"--from {START.isoformat()} --to {START.add(minutes=30).isoformat()}"

# What each ends with; `coverage` finds all but half an hour missing.
LINES = {
    "check": 0,
    "apps": 0,
    "environments": 0,
    f"fetch {WINDOW}": 0,
    f"fetch --cardinality {WINDOW}": 0,
    f"send --dry-run --no-ledger {INTERVAL}": 0,
    f"send --resend {INTERVAL}": 0,
    f"replay --dry-run {FROM_TO}": 0,
    f"archive ls {FROM_TO}": 0,
    f"archive verify {FROM_TO}": 0,
    "usage": 0,
    "coverage": 1,
    # What goes wrong.
    "environments --forge-conn-id nowhere": 2,
    f"send {INTERVAL} --ledger-url bucket": 2,
    "fetch --start 2020-01-01T00:00:00Z": 3,
}

SHORTER = {"apps", "usage", f"archive ls {FROM_TO}"}
"""Commands whose table has fewer columns on a terminal, or figures of fewer digits."""

QUICK = {"check", f"send --resend {INTERVAL}", "environments --forge-conn-id nowhere"}

WIDE = 400
"""Columns in which the longest message fits, with the path of a temporary directory."""

AIRFLOW_HAS_COMMANDS = "forge" in cli_parser.ALL_COMMANDS_DICT


@pytest.fixture
def recorded(shell, tmp_path):
    """The shell, with something on record and in the archive."""
    shell.connections["FORGE_DEFAULT"]["extra"]["archive_url"] = f"file://{tmp_path}/archive"
    shell.connections["OTLP_DEFAULT"]["extra"]["ledger_url"] = f"file://{tmp_path}/ledger"
    assert shell(f"send {INTERVAL}").status == 0
    return shell


def words(lines: list[str]) -> list[str]:
    """Return what is the same from one run to the next, in a pipe and on a terminal."""
    text = re.sub(r"request id \w+|[0-9.]+ s\b", "#", "\n".join(lines))
    # A pipe has exact amounts. A terminal rounds them, has a line for each day, and separates thousands.
    text = re.sub(r"\d+\.\d{7,}", lambda amount: f"{Decimal(amount[0]):.6f}".rstrip("0"), text)
    text = re.sub(r"^\w+day, [0-9-]+ \(UTC\)$|(?<=\d),(?=\d{3})", "", text, flags=re.MULTILINE)
    text = re.sub(r"\d{4}-\d\d-\d\dT(\d\d:\d\d):00Z/\S+T(\d\d:\d\d):00Z", "\\1\N{EN DASH}\\2", text)
    return [word for line in text.splitlines() if not line.startswith("[") for word in line.split()]


def letters(piped: Done, shown: list[str]) -> Counter[str]:
    """Return how often each letter of a pipe's tables must be on a terminal, but for thousands' commas.

    One that is too narrow for a table has the names of its columns in each row.
    """
    expected: Counter[str] = Counter()
    for part in piped.out.split("\n\n"):
        header, *rows = part.splitlines()
        is_table = any(line.split() == header.split() for line in shown)
        text = "\n".join([header, *rows] if is_table else [named(header, row) for row in rows])
        if header.startswith(("WINDOW", "REQUEST")):
            text = as_on_a_terminal(text, is_table=is_table)
        expected.update("".join(text.split()))
    del expected[","]
    return expected


def named(header: str, row: str) -> str:
    """Return a row's cells with the names of their columns; an empty one has no line."""
    return " ".join(
        f"{name} {value}" for name, value in zip(header.split("\t"), row.split("\t"), strict=True) if value
    )


def as_on_a_terminal(text: str, *, is_table: bool) -> str:
    """Return a pipe's table with each window as a terminal shows it."""
    if is_table:
        return f"{START:%A %Y-%m-%d} (UTC)\n" + " ".join(words([text]))
    day = f"{START.day} {START:%b}"
    return re.sub(r"\S+T(\d\d:\d\d):00Z/\S+T(\d\d:\d\d):00Z", f"{day} \\1\N{EN DASH}\\2 UTC", text)


def shell_for(line: str, request: pytest.FixtureRequest) -> Shell:
    """Return the shell, with something on record only for commands that read it: that takes seconds."""
    reads = line.split()[0] in ("archive", "coverage", "replay", "send")
    shell: Shell = request.getfixturevalue("recorded" if reads else "shell")
    return shell


def wait_for_a_quarter_hour(line: str) -> None:
    """Wait until all outputs to compare can be of one quarter hour, with which coverage changes."""
    wait_for(
        lambda: not line.startswith("coverage") or time.time() % 900 < 780,
        timeout=150,
        what="the next quarter hour",
    )


def test_there_is_a_line_for_each_command():
    assert {line.split()[0] for line in LINES} == {command.name for command in COMMANDS}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("line", LINES, ids=lambda line: re.sub(r"\s\S*\d.*", "", line))
def test_a_pipe_and_a_terminal_print_the_same(request, line):
    shell = shell_for(line, request)
    wait_for_a_quarter_hour(line)
    piped = shell(line)
    assert piped.status == LINES[line]
    assert "\x1b" not in piped.out + piped.err
    wide = shell.on_a_terminal(line, columns=WIDE)
    assert wide.status == piped.status
    # Tabs in the one are spaces in the other; results and remarks come in this order in both.
    said, remarks = (words(text.splitlines()) for text in (piped.out, piped.err))
    shown = words(screen(wide.out, WIDE))
    assert shown == said + remarks or (line in SHORTER and shown[-len(remarks) :] == remarks)


@pytest.mark.skipif(not AIRFLOW_HAS_COMMANDS, reason="Airflow before 3.2 has no commands of providers")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "line",
    # Airflow takes seconds to start.
    [pytest.param(line, marks=() if line in QUICK else pytest.mark.long) for line in LINES],
    ids=lambda line: re.sub(r"\s\S*\d.*", "", line),
)
def test_airflows_command_prints_the_same(request, line):
    shell = shell_for(line, request)
    wait_for_a_quarter_hour(line)
    ours = shell(line)
    shell.program = ("airflow", "forge")
    theirs = shell(line)
    assert (theirs.status, words(theirs.out.splitlines())) == (ours.status, words(ours.out.splitlines()))


@pytest.mark.parametrize("columns", [120, 80, 40])
@pytest.mark.parametrize(
    "line", [f"fetch --cardinality {WINDOW}", f"send --dry-run --no-ledger {INTERVAL}"], ids=["fetch", "send"]
)
def test_the_output_fits_and_nothing_is_lost(shell, line, columns):
    piped, shown = shell(line), screen(shell.on_a_terminal(line, columns).out, columns)
    assert all(len(line) <= columns for line in shown)
    remark = "".join(piped.err.split())[:20]
    results, _, _ = "".join("".join(shown).split()).partition(remark)
    # Cells are broken where they are full, so what can be compared is each letter's number.
    assert Counter(results.replace(",", "")) == letters(piped, shown)


def test_a_window_is_a_line_of_80_columns_below_its_day(shell):
    shown = screen(shell.on_a_terminal(f"send --no-ledger {INTERVAL}", 80).out, 80)
    header, day, first, second, total = shown
    assert header.split()[:3] == ["WINDOW", "POINTS", "SENT"]
    assert day == f"{START:%A, %Y-%m-%d} (UTC)"
    assert first.startswith("10:00\N{EN DASH}10:15 ")
    assert second.startswith("10:15\N{EN DASH}10:30 ")
    assert total.startswith("2 of 2 windows: ")
    assert {len(line) for line in (header, first, second)} == {80}


def test_a_day_of_coverage_is_a_line_of_80_columns(recorded):
    shown = screen(recorded.on_a_terminal("coverage", 80).out, 80)
    assert shown[0].split() == ["UTC", *(str(hour) for hour in range(0, 24, 2))]
    days = [line for line in shown if re.match(r"\d{4}-\d\d-\d\d [ xX]", line)]
    assert len(days) in (14, 15)
    # Each sign stands below its hour.
    (day,) = [line for line in days if line.startswith(f"{START:%Y-%m-%d}")]
    assert len(day) == shown[0].index("22") + 3
    assert day[shown[0].index("10")] == "x"


def test_a_resource_is_a_line_of_80_columns(shell):
    piped = shell("usage").rows
    header, *lines = screen(shell.on_a_terminal("usage", 80).out, 80)
    assert re.split("  +", header) == [
        "RESOURCE",
        "USED",
        "UNIT",
        "OF FREE",
        "COST USD",
        "FORECAST",
        "USED UP",
    ]
    for line, row in zip(lines, piped[1:], strict=False):
        resource, *figures = line.split()
        assert resource == row[0]
        cost = f"{Decimal(row[5]):,.2f}"
        assert {cost if Decimal(cost) else "0", "<0.01"} & {*figures}
        # Figures are below each other.
        assert line[: header.index("COST USD") + len("COST USD")].endswith((cost, " 0", "<0.01"))
    assert len(lines[len(piped) - 1 :]) == 2  # the remark, with the total in cents
    assert re.match(r"Usage of \S+: cost so far \$[0-9,]+\.\d\d, forecast", lines[len(piped) - 1])


def test_an_app_is_a_line_of_80_columns_with_its_entry_below(shell):
    header, *apps = shell("apps").rows
    first, *lines = screen(shell.on_a_terminal("apps", 80).out, 80)
    assert first.split("  ")[0] == header[0]
    for line, (space, name, ari, _) in zip(lines, apps, strict=False):
        assert re.split("  +", line) == [space, name, ari.rpartition("/")[2]]
    assert lines[len(apps) : len(apps) + 2] == ["", "Entries for DAGS:"]
    assert all(f"  {entry}" in "".join(lines) for *_, entry in apps)


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_colours_can_be_switched_off(shell, variable):
    shell.variables[variable] = {"NO_COLOR": "1", "TERM": "dumb"}[variable]
    done = shell.on_a_terminal("check")
    assert "✓ forge_default" in done.out
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", done.out)
