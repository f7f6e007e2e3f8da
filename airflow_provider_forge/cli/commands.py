"""The commands and their options, as data: Airflow's command line and ours are both made of it."""

from __future__ import annotations

import argparse
import math
from typing import Any, NamedTuple

__all__ = ["COMMANDS", "EPILOG", "Command", "Option"]

RETENTION_HOURS = 336
"""Hours for which Atlassian keeps metrics: every gap expires within them."""

EPILOG = (
    "Connections come from AIRFLOW_CONN_… variables, or from wherever this machine's Airflow has them. Exit"
    " status: 0 all is well; 1 something is not as it should be (a failed check, a gap); 2 a wrong argument"
    " or Connection; 3 Atlassian or the receiver has refused; 4 it failed for now, trying again may help;"
    " 70 an internal error."
)


class Option(NamedTuple):
    """An option: what it is called, and the settings that argparse and Airflow's `Arg` share."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


class Command(NamedTuple):
    """A command: `run` of the module of its name is what it does."""

    name: str
    help: str
    options: tuple[Option, ...]


def _hours(text: str) -> float:
    """Read hours above 0 and up to those for which a gap can be healed at all."""
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
    _option("--environments", help="names, UUIDs or ARIs with commas between; default: the Connection's"),
    _option("--metrics", help="labels with commas between; default: the Connection's"),
)
_LEDGER = (
    _option("--ledger-url", help="where the record of deliveries is; default: the OTLP Connection's"),
    _option(
        "--api-url",
        help="URL of Airflow, for the record in its asset state store; default: $AIRFLOW_API_URL. The token"
        " is read from $AIRFLOW_API_TOKEN",
    ),
)

COMMANDS = (
    Command("check", "Try both Connections, at the price of one call", (_FORGE, _OTLP, _APP, _JSON)),
    Command("environments", "List the app's environments, at the price of one call", (_FORGE, _APP, _JSON)),
    Command(
        "fetch",
        "Fetch the metrics of one window and send them nowhere",
        (
            _option("--start", help="such as 2026-11-23T05:00:00Z; default: the last settled quarter hour"),
            _option("--end", help="at most 15 minutes later; default: 15 minutes later"),
            _FORGE,
            _APP,
            *_SELECTION,
            _option(
                "--cardinality",
                action="store_true",
                help="count series, and values by attribute: what a backend will charge for",
            ),
            _JSON,
        ),
    ),
    Command(
        "send",
        "Deliver an interval, as the operator with its default arguments would",
        (
            _option("--start", required=True, help="such as 2026-11-23T05:00:00Z"),
            _option("--end", required=True, help="first moment after it; one call for each quarter hour"),
            _option("--dry-run", action="store_true", help="show what would go out, and in which requests"),
            _option("--no-ledger", action="store_true", help="send all points and record nothing"),
            _option("--resend", action="store_true", help="send again what is on record"),
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
                help="which gaps count as expiring soon; default: 48",
            ),
            _FORGE,
            _OTLP,
            _APP,
            *_LEDGER,
            _JSON,
        ),
    ),
)
