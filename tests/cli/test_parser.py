"""The arguments as a shell passes them, and what it is told while they are typed."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_forge.cli import main
from airflow_provider_forge.cli.commands import COMMANDS
from airflow_provider_forge.cli.parser import parse


@pytest.mark.parametrize("option", ["--start", "--end"])
def test_a_time_ago_is_no_option(option):
    assert getattr(parse(["fetch", option, "-2h"]), option[2:]) == "-2h"
    assert getattr(parse(["fetch", f"{option}=-2h"]), option[2:]) == "-2h"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("archive ls --start=today", "--from"),
        ("archive ls --end today", "--to"),
        ("fetch --from today", "--start"),
        ("send --last 2h --to now", "--end"),
    ],
)
def test_the_bounds_of_another_command_lead_to_its_own(line, meant, capsys):
    with pytest.raises(SystemExit):
        parse(line.split())
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["", "--last 2h", "dance", "usage --mnth 2026-11", "usage --by", "archive", "usage --json --format csv"],
)
def test_an_error_is_one_line_with_the_way_to_the_help(line, capsys):
    with pytest.raises(SystemExit) as end:
        parse(line.split())
    assert end.value.code == 2
    said = capsys.readouterr()
    command = f" {line.split()[0]}" if line.startswith(("usage", "archive")) else ""
    assert said.err.endswith(f"airflow_provider_forge{command} --help)\n")
    assert (said.err.count("\n"), said.out) == (1, "")


@pytest.mark.parametrize("option", ["-h", "--help", "--version", "--vers"])
def test_the_help_and_the_version_need_no_command(option):
    with pytest.raises(SystemExit) as end:
        parse([option])
    assert end.value.code == 0


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_has_examples_that_can_be_typed_and_defaults(command, capsys):
    with pytest.raises(SystemExit) as end:
        parse([command.name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for line in command.examples:
        assert parse([command.name, *line.replace('"2026-11-23 05:00"', "2026-11-23").split()])
        assert line in said
    assert "default: forge_default" in " ".join(said.split())


def complete(line, tmp_path):
    """Return what a shell offers after a line."""
    offered = tmp_path / "offered"
    shell = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    subprocess.run(
        [sys.executable, "-c", "from airflow_provider_forge.cli.main import main; main()"],
        env={**os.environ, **shell, "_ARGCOMPLETE_STDOUT_FILENAME": str(offered)},
        check=True,
    )
    return offered.read_text().split()


def test_a_shell_completes_commands_options_and_choices(tmp_path):
    assert complete("forge-metrics fe", tmp_path) == ["fetch"]
    assert complete("forge-metrics ap", tmp_path) == ["apps"]
    assert complete("forge-metrics fetch --la", tmp_path) == ["--last"]
    assert set(complete("forge-metrics send --format ", tmp_path)) == {"table", "json", "csv", "markdown"}


def test_the_program_is_installed_and_marked_for_completion():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="forge-metrics")
    assert script.load() is main.main
    assert "PYTHON_ARGCOMPLETE_OK" in Path(main.__file__).read_text()[:1024]
