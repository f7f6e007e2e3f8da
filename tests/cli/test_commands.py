"""What Airflow imports whenever its command line is used."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys

import pytest

from airflow_provider_forge.cli.commands import COMMANDS
from airflow_provider_forge.cli.definition import get_forge_cli_commands


def test_each_command_is_a_module_that_runs():
    for command in COMMANDS:
        assert callable(importlib.import_module(f"airflow_provider_forge.cli.{command.name}").run)


def test_airflow_gets_every_command_with_every_option():
    (group,) = get_forge_cli_commands()
    assert group.name == "forge"
    assert [command.name for command in group.subcommands] == [command.name for command in COMMANDS]
    for theirs, ours in zip(group.subcommands, COMMANDS, strict=True):
        parser = argparse.ArgumentParser()
        for argument in theirs.args:
            argument.add_to_parser(parser)
        flags = {flag for action in parser._actions for flag in action.option_strings or [action.dest]}
        assert {flag for option in ours.options for flag in option.flags} == flags - {"-h", "--help"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_option_is_explained_and_each_command_has_json(command):
    assert all(option.settings["help"] for option in command.options)
    assert any(option.flags == ("--json",) for option in command.options)


def test_it_imports_nothing_but_airflows_own():
    code = (
        "import sys, airflow.cli.cli_config, airflow_provider_forge; before = set(sys.modules);"
        "import airflow_provider_forge.cli.definition as ours; ours.get_forge_cli_commands();"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    # Airflow has imported the package itself before, for its metadata.
    assert set(done.stdout.split()) == {
        "airflow_provider_forge.cli",
        "airflow_provider_forge.cli.commands",
        "airflow_provider_forge.cli.definition",
    }
