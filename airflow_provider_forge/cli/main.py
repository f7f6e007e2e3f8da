# PYTHON_ARGCOMPLETE_OK
"""Runs a command, and turns an error into one line and an exit status."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_forge import __version__
from airflow_provider_forge.cli.commands import COMMANDS
from airflow_provider_forge.cli.output import Output
from airflow_provider_forge.cli.parser import parse
from airflow_provider_forge.exceptions import ConfigurationError, CredentialsBlocked, FinalError, ForgeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

__all__ = ["execute", "main"]

WRONG_ARGUMENT = 2
REFUSED = 3
FAILED_FOR_NOW = 4
INTERNAL_ERROR = 70
"""`EX_SOFTWARE` in sysexits.h."""
INTERRUPTED = 130

PROBLEMS = "airflow_provider_forge.delivery.problems"
"""Logger of problems that a command prints in the end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `forge-metrics` with these arguments and return its exit status.

    Args:
        arguments: Arguments; None for those of the process.
    """
    # Airflow before 3.2 logs how it starts, and every request, on standard error.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    options = parse(sys.argv[1:] if arguments is None else arguments)
    return execute(options.command, options)


def execute(name: str, options: argparse.Namespace) -> int:
    """Run a command and return its exit status.

    Args:
        name: Name of the command.
        options: Its parsed options.
    """
    options.json = options.json or options.format == "json"
    output = Output(sys.stdout, sys.stderr, "json" if options.json else options.format)
    # Airflow prints to standard output, which would corrupt JSON that a program reads there.
    with contextlib.redirect_stdout(sys.stderr), _warnings_only():
        try:
            return _run(name, options, output)
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:  # `… | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    """Log only warnings, and none that the command prints. A caller in this process keeps its levels."""
    levels = {"airflow_provider_forge": logging.WARNING, PROBLEMS: logging.CRITICAL}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _run(name: str, options: argparse.Namespace, output: Output) -> int:
    try:
        command = importlib.import_module(f"airflow_provider_forge.cli.{name}")
        status: int = command.run(options, output)
    except ForgeError as error:
        output.failure(type(error).__name__, _in_words_of(name, options, error), as_json=options.json)
        return _status(error)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - Python's own status would be the 1 of a gap
        output.failure(type(error).__name__, _describe_bug(error), as_json=options.json)
        return INTERNAL_ERROR
    return status


def _in_words_of(name: str, options: argparse.Namespace, error: ForgeError) -> str:
    """Return an error's message; a field that was given as an option of the command is named as that."""
    (command,) = [each for each in COMMANDS if each.name == name]
    for flag, field in ((option.flags[0], option.field) for option in command.options):
        if isinstance(error, ConfigurationError) and error.field == field and vars(options).get(field):
            return f"{flag}: {error.problem}"
    return str(error)


def _describe_bug(error: Exception) -> str:
    """Describe an unexpected error in one line, with the last line of this package in its traceback."""
    package = str(Path(__file__).parent.parent)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(package)
    ]
    place = f"{Path(frames[-1].filename).relative_to(package)}:{frames[-1].lineno}"
    summary, *_ = str(error).splitlines() or [""]
    return (
        f"{type(error).__name__} at {place}: {summary}. This is a bug: if Airflow itself works"
        f" (`airflow db check`), please report this line, with the version {__version__}"
    )


def _status(error: ForgeError) -> int:
    if isinstance(error, ConfigurationError):
        return WRONG_ARGUMENT
    return REFUSED if isinstance(error, (FinalError, CredentialsBlocked)) else FAILED_FOR_NOW
