"""The parser of `forge-metrics`, and of `python -m airflow_provider_forge`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

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

_WITHOUT_COMMAND = ("-h", "--help", "--version")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like those of commands, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{message} (see {self.prog} --help)\n")


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


def _check_command(parser: _Parser, arguments: Sequence[str]) -> None:
    """Exit if the command is missing or does not exist. argparse would take an option's value for it."""
    names = [command.name for command in COMMANDS]
    first = arguments[0] if arguments else ""
    if first.startswith("-") and any(flag.startswith(first) for flag in _WITHOUT_COMMAND):
        return
    if not first or first.startswith("-"):
        before = f" before {first!r}" if first else ""
        parser.error(f"the command is missing{before}. There are: {', '.join(names)}")
    if first not in names:
        suggestion = did_you_mean(first, names)
        parser.error(f"there is no command {first!r}.{suggestion} There are: {', '.join(names)}")


def _join_negative(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--start -2h` as `--start=-2h`: argparse takes `-2h` for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1].startswith("--") and _NEGATIVE.fullmatch(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser, and those of its commands by their names."""
    program = PROGRAM if Path(sys.argv[0]).name == PROGRAM else "python -m airflow_provider_forge"
    parser = _Parser(prog=program, description=DESCRIPTION, epilog=EPILOG)
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
