"""The commands and their options, as data: `airflow forge` and `forge-metrics` are built from it."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

__all__ = [
    "COMMANDS",
    "DAG_ID",
    "DESCRIPTION",
    "EPILOG",
    "FORGE_CONN_ID",
    "FORMATS",
    "OTLP_CONN_ID",
    "Command",
    "Option",
]

FORGE_CONN_ID, OTLP_CONN_ID, DAG_ID = "forge_default", "otlp_default", "forge_metrics"
"""Defaults of the options for the Connections and their DAG, which belong together."""

FORMATS = ("table", "json", "csv", "markdown")

DESCRIPTION = "Inspect Atlassian Forge app metrics and their delivery."

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

    @property
    def field(self) -> str:
        """Its name among the parsed options, and in errors of the functions that get its value."""
        name: str = self.settings.get("dest") or self.flags[0].lstrip("-").replace("-", "_")
        return name


class Command(NamedTuple):
    """A command, implemented by `run` in the module of the same name.

    Attributes:
        name: Its name.
        help: Description, in a line.
        options: Its options.
        examples: Arguments of examples, shown below the options.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    examples: tuple[str, ...]

    def epilog(self, program: str) -> str:
        """Return the examples of a program."""
        lines = (f"  {program} {self.name} {line}".rstrip() for line in self.examples)
        return "\n".join(["examples:", *lines])


def _option(*flags: str, **settings: Any) -> Option:
    return Option(flags, settings)


def _choice(*flags: str, choices: tuple[str, ...], **settings: Any) -> Option:
    def parse(text: str) -> str:
        if text not in choices:  # argparse would list all, without a suggestion
            from airflow_provider_forge.text import did_you_mean  # Airflow imports this module at each start

            raise argparse.ArgumentTypeError(
                f"{text!r} is not one of {', '.join(choices)}.{did_you_mean(text, choices)}"
            )
        return text

    return Option(flags, {"choices": choices, "type": parse, **settings})


_OUTPUT = (
    _choice(
        "--format",
        choices=FORMATS,
        help="format of the result; default: a table on a terminal, tab-separated columns in a pipe",
    ),
    _option("--json", action="store_true", help="the same as --format json"),
)
_FORGE = _option(
    "--forge-conn-id",
    metavar="ID",
    default=FORGE_CONN_ID,
    help="Connection to Atlassian's gateway; default: %(default)s",
)
_OTLP = _option(
    "--otlp-conn-id",
    metavar="ID",
    default=OTLP_CONN_ID,
    help="Connection to the receiver; default: %(default)s",
)
_APP = _option("--app-id", metavar="ID", help="the app's ARI or UUID; default: the Connection's")
_SELECTION = (
    _option(
        "--environments",
        metavar="NAMES",
        help="comma-separated names, UUIDs or ARIs; default: the Connection's",
    ),
    _option("--metrics", metavar="LABELS", help="comma-separated labels; default: the Connection's"),
)
_LEDGER = (
    _option("--ledger-url", metavar="URL", help="URL of the ledger; default: the OTLP Connection's"),
    _option(
        "--api-url",
        metavar="URL",
        help="URL of Airflow, if the ledger is in its asset state store; default: $AIRFLOW_API_URL. The token"
        " is read from $AIRFLOW_API_TOKEN",
    ),
)
_LAST = _option(
    "--last", metavar="LENGTH", help="the last settled hours or days, such as 2h or 1d, in place of --start"
)
_TIME = "ISO 8601 (UTC if it has no offset), today, yesterday, or a time ago, such as -2h"

COMMANDS = (
    Command(
        "check",
        "Test both Connections; makes one call",
        (_FORGE, _OTLP, _APP, *_OUTPUT),
        ("", "--json"),
    ),
    Command(
        "apps",
        "List the apps of the account's developer spaces; makes a call, and one per space",
        (_FORGE, *_OUTPUT),
        ("", "--json"),
    ),
    Command(
        "environments",
        "List the app's environments; makes one call",
        (_FORGE, _APP, *_OUTPUT),
        ("", "--format csv"),
    ),
    Command(
        "fetch",
        "Fetch metrics without sending them; makes one call per quarter hour",
        (
            _option("--start", metavar="TIME", help=f"{_TIME}; default: the last settled quarter hour"),
            _option("--end", metavar="TIME", help="end, exclusive; default: 15 minutes later"),
            _LAST,
            _FORGE,
            _APP,
            *_SELECTION,
            _option(
                "--cardinality",
                action="store_true",
                help="count the series, and the values of each attribute, that a backend would charge for",
            ),
            *_OUTPUT,
        ),
        ("", "--last 2h", "--start -1d --cardinality", '--start "2026-11-23 05:00" --json'),
    ),
    Command(
        "send",
        "Deliver an interval; makes one call per quarter hour",
        (
            _option("--start", metavar="TIME", help=_TIME),
            _option(
                "--end",
                metavar="TIME",
                help="end, exclusive; default: the end of the last settled quarter hour",
            ),
            _LAST,
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
            *_OUTPUT,
        ),
        ("--last 2h", "--start yesterday --end today", "--last 1h --dry-run --no-ledger"),
    ),
    Command(
        "archive",
        "Show, verify or prune the archive of raw windows",
        (
            _choice(
                "action",
                choices=("ls", "verify", "prune"),
                help="list the windows day by day, verify them, or delete old ones",
            ),
            _option("--from", dest="start", metavar="TIME", help=f"{_TIME}; default: the first archived day"),
            _option(
                "--to",
                dest="end",
                metavar="TIME",
                help="end, exclusive; default: the end of the last settled quarter hour",
            ),
            _option("--older-than", metavar="AGE", help="prune: age of the windows to delete, such as 400d"),
            _option(
                "--dry-run", action="store_true", help="prune: say what would be deleted, and delete nothing"
            ),
            _option("--yes", action="store_true", help="prune: do not ask; required without a terminal"),
            _option(
                "--otlp-conn-id",
                metavar="ID",
                help="verify: destination whose ledger the points are compared with; default: none",
            ),
            _FORGE,
            _APP,
            *_LEDGER,
            *_OUTPUT,
        ),
        ("ls", "verify --otlp-conn-id otlp_default", "prune --older-than 400d --dry-run"),
    ),
    Command(
        "replay",
        "Deliver an interval from the archive, without a call to Atlassian",
        (
            _option("--from", dest="start", metavar="TIME", required=True, help=_TIME),
            _option("--to", dest="end", metavar="TIME", required=True, help="end, exclusive"),
            _option("--dry-run", action="store_true", help="show what would be sent, and send nothing"),
            _FORGE,
            _OTLP,
            _APP,
            *_SELECTION,
            *_LEDGER,
            *_OUTPUT,
        ),
        ("--from 2026-09-01T00:00:00Z --to 2026-10-01T00:00:00Z --otlp-conn-id otlp_new --dry-run",),
    ),
    Command(
        "coverage",
        "Show what was delivered in the last 14 days, hour by hour, and how to heal the gaps",
        (
            _option(
                "--dag-id",
                metavar="ID",
                default=DAG_ID,
                help="DAG that exports with these Connections; default: %(default)s",
            ),
            _option(
                "--alert-before",
                default="48h",
                metavar="LENGTH",
                help="report gaps that expire within this time, such as 3d; default: %(default)s",
            ),
            _FORGE,
            _OTLP,
            _APP,
            *_LEDGER,
            *_OUTPUT,
        ),
        ("", "--alert-before 3d --json"),
    ),
    Command(
        "usage",
        "Show the usage, cost and forecast of a month; makes a call or more per resource",
        (
            _option("--month", metavar="MONTH", help="such as 2026-11; default: the running month (UTC)"),
            _choice("--by", choices=("environment", "site"), help="split usage and cost by it"),
            _option(
                "--fail-above",
                metavar="USD",
                help="exit with status 1 if the month has cost more so far",
            ),
            _option(
                "--prices",
                metavar="FILE",
                help="JSON file with prices; default: the Connection's, or Atlassian's",
            ),
            _FORGE,
            _APP,
            *_OUTPUT,
        ),
        ("", "--by site --format csv", "--fail-above 50"),
    ),
)
