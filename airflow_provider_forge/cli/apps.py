"""`apps`: list the apps of the account's developer spaces, each with an entry for the DAG file."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING

from airflow_provider_forge.cli.commands import FORGE_CONN_ID
from airflow_provider_forge.cli.runtime import ShellRuntime
from airflow_provider_forge.connections.forge import ForgeAccess
from airflow_provider_forge.gateway.apps import find_apps

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Collection, Sequence

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.gateway.apps import DeveloperApp

__all__ = ["run"]

MAX_NAME = 40
"""Characters of an app's name that become part of its DAG's id."""


def run(options: Namespace, output: Output) -> int:
    """Print the apps."""
    client = ForgeAccess(options.forge_conn_id, ShellRuntime()).get_conn()
    with output.busy("Asking Atlassian…"):
        apps = find_apps(client)
    entries = _entries(apps, options.forge_conn_id)
    rows = [(app.space, app.name, app.ari, entry) for app, entry in zip(apps, entries, strict=True)]
    if options.json:
        output.json(
            [
                {
                    "developer_space": {"id": app.space_id, "name": app.space},
                    "name": app.name,
                    "app_id": app.ari,
                    "dags": entry,
                }
                for app, entry in zip(apps, entries, strict=True)
            ]
        )
    elif output.is_table:
        _show(output, apps, entries)
    else:
        output.table(("DEVELOPER SPACE", "NAME", "APP ID", "ENTRY FOR DAGS"), rows)
    if apps:
        output.note("Metrics can only be exported with the API token of the account that owns the app.")
    else:
        output.note(
            "Atlassian shows this account no apps in developer spaces. The id of an app without one is app.id"
            " in its manifest.yml."
        )
    return 0


def _show(output: Output, apps: Sequence[DeveloperApp], entries: Sequence[str]) -> None:
    """Print a line for each app, and below them the entries, which are too long for a column."""
    output.table(
        ("DEVELOPER SPACE", "NAME", "UUID"),
        [(app.space, app.name, app.ari.rpartition("/")[2]) for app in apps],
    )
    if entries:
        output.line()
        output.line("Entries for DAGS:", style="bold")
        for entry in entries:
            output.line(f"  {entry}")


def _entries(apps: Sequence[DeveloperApp], conn_id: str) -> list[str]:
    """Return for each app its line in `DAGS`, with an id that no other has."""
    connection = {} if conn_id == FORGE_CONN_ID else {"forge_conn_id": conn_id}
    taken: set[str] = set()
    entries = []
    for app in apps:
        dag_id = _dag_id(app, taken)
        taken.add(dag_id)
        # Text in JSON is text in Python, too.
        entries.append(f"{json.dumps(dag_id)}: {json.dumps({**connection, 'app_id': app.ari})},")
    return entries


def _dag_id(app: DeveloperApp, taken: Collection[str]) -> str:
    """Return a DAG's id made of the app's name; of its UUID as well if that is taken or has no letters."""
    plain = unicodedata.normalize("NFKD", app.name.casefold()).encode("ascii", "ignore").decode()
    name = re.sub("[^a-z0-9]+", "_", plain).strip("_")[:MAX_NAME].rstrip("_")
    uuid = re.sub("[^a-z0-9]+", "_", app.ari.rpartition("/")[2].lower())
    dag_id = f"forge_metrics_{name or uuid[:8]}"
    return f"{dag_id}_{uuid}" if dag_id in taken else dag_id
