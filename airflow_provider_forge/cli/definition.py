"""The commands for Airflow's command line, which imports this module at each start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from airflow_provider_forge.cli.commands import COMMANDS, DESCRIPTION, EPILOG

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from airflow_provider_forge.cli.commands import Option

__all__ = ["get_forge_cli_commands"]


def get_forge_cli_commands() -> list[GroupCommand]:
    """Return `airflow forge` with its commands: the entry `cli` of the provider's metadata."""
    return [
        GroupCommand(
            name="forge",
            help="Atlassian Forge app metrics",
            description=DESCRIPTION,
            epilog=EPILOG,
            subcommands=tuple(
                ActionCommand(
                    name=command.name,
                    help=command.help,
                    func=_run(command.name),
                    args=tuple(map(_argument, command.options)),
                    epilog=command.epilog("airflow forge"),
                )
                for command in COMMANDS
            ),
        )
    ]


def _argument(option: Option) -> Arg:
    return Arg(flags=option.flags, **option.settings)  # type: ignore[no-untyped-call]


def _run(name: str) -> Callable[[Namespace], None]:
    def run(options: Namespace) -> None:
        from airflow_provider_forge.cli.main import execute

        raise SystemExit(execute(name, options))

    return run
