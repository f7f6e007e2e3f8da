"""`check`: test both Connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.cli.context import forge_access, otlp_access
from airflow_provider_forge.exceptions import ConfigurationError

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_forge.cli.output import Output

__all__ = ["run"]


def run(options: Namespace, output: Output) -> int:
    """Test both Connections; return 1 if one of them does not work."""
    if options.forge_conn_id == options.otlp_conn_id:
        raise ConfigurationError(
            "--otlp-conn-id", "is the same as --forge-conn-id; the two Connections have different types"
        )
    with output.busy("Asking Atlassian and the receiver…"):
        results = {
            options.forge_conn_id: forge_access(options).test_connection(),
            options.otlp_conn_id: otlp_access(options).test_connection(),
        }
    if options.json:
        output.json({conn_id: {"ok": ok, "message": words} for conn_id, (ok, words) in results.items()})
    elif not output.is_text:
        output.table(("CONNECTION", "OK", "MESSAGE"), [(name, *result) for name, result in results.items()])
    else:
        for conn_id, (ok, words) in results.items():
            output.line(f"{'✓' if ok else '✗'} {conn_id}: {words}", style="green" if ok else "red")
    return 0 if all(ok for ok, _ in results.values()) else 1
