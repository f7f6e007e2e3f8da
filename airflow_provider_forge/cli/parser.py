"""The parser of `forge-metrics`, and of `python -m airflow_provider_forge`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_forge import __version__
from airflow_provider_forge.cli.commands import COMMANDS, DESCRIPTION, EPILOG
from airflow_provider_forge.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PROGRAM", "parse"]

PROGRAM = "forge-metrics"

_NEGATIVE = re.compile(r"-\d\S*")
_SYNONYMS = {"--start": "--from", "--end": "--to", "--from": "--start", "--to": "--end"}
"""Options of some commands, and what others call the same."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; exit with status 2 if an argument is wrong."""
    parser, commands = _parsers()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        import argcomplete

        argcomplete.autocomplete(parser, default_completer=argcomplete.completers.SuppressCompleter())
    _check_command(parser, arguments)
    options, unknown = parser.parse_known_args(_join_negative(arguments))
    if unknown:
        (command,) = [each for each in COMMANDS if each.name == options.command]
        flags = [flag for option in command.options for flag in option.flags]
        given = unknown[0].partition("=")[0]
        suggestion = did_you_mean(_SYNONYMS.get(given, given), flags)
        commands[command.name].error(f"there is no argument {unknown[0]!r}.{suggestion}")
    if options.json and options.format not in (None, "json"):
        commands[options.command].error(f"--json: contradicts --format {options.format}")
    return options


def _check_command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Exit if the command does not exist. argparse would list all, without a suggestion."""
    names = [command.name for command in COMMANDS]
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        suggestion = did_you_mean(arguments[0], names)
        parser.error(f"there is no command {arguments[0]!r}.{suggestion} There are: {', '.join(names)}")


def _join_negative(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--start -2h` as `--start=-2h`: argparse takes `-2h` for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1].startswith("--") and _NEGATIVE.fullmatch(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser, and those of its commands by their names."""
    program = PROGRAM if Path(sys.argv[0]).name == PROGRAM else "python -m airflow_provider_forge"
    parser = argparse.ArgumentParser(prog=program, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = {}
    for command in COMMANDS:
        commands[command.name] = subparser = subparsers.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            epilog=command.epilog(program),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for option in command.options:
            subparser.add_argument(*option.flags, **option.settings)
    return parser, commands
