"""The commands and their options, as data: both `airflow forge` and our own parser are built from it."""

from __future__ import annotations

import argparse
import math
from typing import Any, NamedTuple

__all__ = ["COMMANDS", "EPILOG", "Command", "Option"]

RETENTION_HOURS = 336
"""Hours for which Atlassian keeps metrics, after which every gap has expired."""

EPILOG = (
    "Connections are read from AIRFLOW_CONN_… variables, or from this machine's Airflow. Exit status:"
    " 0 success; 1 a problem was found (a failed check, a gap); 2 an invalid argument or Connection;"
    " 3 Atlassian or the receiver refused the request; 4 a temporary failure, so try again;"
    " 70 an internal error."
)


class Option(NamedTuple):
    """An option: its flags, and the settings that argparse and Airflow's `Arg` share."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


class Command(NamedTuple):
    """A command, implemented by `run` in the module of the same name."""

    name: str
    help: str
    options: tuple[Option, ...]


def _hours(text: str) -> float:
    """Parse a number of hours, above 0 and up to `RETENTION_HOURS`."""
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours <= RETENTION_HOURS:  # nan is neither
        raise argparse.ArgumentTypeError(
            f"{text} is not a number of hours above 0 and up to {RETENTION_HOURS}, which is 14 days"
        )
    return hours


def _option(*flags: str, **settings: Any) -> Option:
    return Option(flags, settings)


_JSON = _option("--json", action="store_true", help="print JSON")
_FORGE = _option("--forge-conn-id", default="forge_default", help="Connection to Atlassian's gateway")
_OTLP = _option("--otlp-conn-id", default="otlp_default", help="Connection to the receiver")
_APP = _option("--app-id", help="the app's ARI or UUID; default: the Connection's")
_SELECTION = (
    _option("--environments", help="comma-separated names, UUIDs or ARIs; default: the Connection's"),
    _option("--metrics", help="comma-separated labels; default: the Connection's"),
)
_LEDGER = (
    _option("--ledger-url", help="URL of the ledger; default: the OTLP Connection's"),
    _option(
        "--api-url",
        help="URL of Airflow, if the ledger is in its asset state store; default: $AIRFLOW_API_URL. The token"
        " is read from $AIRFLOW_API_TOKEN",
    ),
)

COMMANDS = (
    Command("check", "Test both Connections; makes one call", (_FORGE, _OTLP, _APP, _JSON)),
    Command("environments", "List the app's environments; makes one call", (_FORGE, _APP, _JSON)),
    Command(
        "fetch",
        "Fetch the metrics of one window without sending them",
        (
            _option("--start", help="such as 2026-11-23T05:00:00Z; default: the last settled quarter hour"),
            _option("--end", help="at most 15 minutes later; default: 15 minutes later"),
            _FORGE,
            _APP,
            *_SELECTION,
            _option(
                "--cardinality",
                action="store_true",
                help="count the series, and the values of each attribute, that a backend would charge for",
            ),
            _JSON,
        ),
    ),
    Command(
        "send",
        "Deliver an interval, as the operator with its default arguments would",
        (
            _option("--start", required=True, help="such as 2026-11-23T05:00:00Z"),
            _option("--end", required=True, help="end, exclusive; makes one call per quarter hour"),
            _option(
                "--dry-run",
                action="store_true",
                help="print the requests instead of sending them",
            ),
            _option("--no-ledger", action="store_true", help="send all points and record nothing"),
            _option("--resend", action="store_true", help="send points again even if they were delivered"),
            _FORGE,
            _OTLP,
            _APP,
            *_SELECTION,
            *_LEDGER,
            _JSON,
        ),
    ),
    Command(
        "coverage",
        "Show what was delivered in the last 14 days, hour by hour, and how to heal the gaps",
        (
            _option("--dag-id", default="forge_metrics", help="DAG to backfill"),
            _option(
                "--alert-before",
                type=_hours,
                default=48.0,
                metavar="HOURS",
                help="report gaps that expire within this time; default: 48",
            ),
            _FORGE,
            _OTLP,
            _APP,
            *_LEDGER,
            _JSON,
        ),
    ),
)
