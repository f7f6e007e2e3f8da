"""`environments`: list the names and ids of the app's environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.cli.context import forge_access

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output

__all__ = ["run"]


def run(options: Namespace, output: Output) -> int:
    """Print the environments."""
    forge = forge_access(options)
    with output.busy("Asking Atlassian…"):
        environments = forge.get_conn().environments(forge.app_id)
    if options.json:
        output.json([{"name": environment.name, "id": environment.id} for environment in environments])
    else:
        output.table(("NAME", "ID"), [(environment.name, environment.id) for environment in environments])
    return 0
