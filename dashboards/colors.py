"""Colors by meaning: the same in every panel, whatever is filtered away.

In a panel of errors, green and red mean good and bad. Its series are either known and have a color here, or
they are the rows of a grid. Elsewhere, series whose names nobody knows in advance, such as functions, have
the colors of Grafana's *Classic palette* in their order: by name, several would have the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ENVIRONMENTS",
    "ERROR_RATE",
    "NEUTRAL",
    "OUTCOMES",
    "QUANTILES",
    "REMOTES",
    "RESOURCES",
    "STATUSES",
    "TODAY",
    "VERSIONS",
    "Levels",
    "thresholds",
]

GREEN, YELLOW, RED, GREY, BLUE, ORANGE = "green", "yellow", "red", "#8e8e8e", "blue", "orange"
DARK_RED = "dark-red"

Levels = dict[float | None, str]
"""Colors by the value from which on they apply; None for the lowest."""

NEUTRAL: Levels = {None: BLUE}
"""Of a number that is neither good nor bad."""

ERROR_RATE: Levels = {None: GREEN, 0.01: YELLOW, 0.05: RED}

OUTCOMES = {
    "delivered": GREEN,
    "sent": GREEN,
    "empty": GREY,
    "unchanged": GREY,
    "changed": BLUE,
    "pending": YELLOW,
    "ambiguous": ORANGE,
    "rejected": ORANGE,
    "missing": RED,
    "failed": DARK_RED,
    "expired": DARK_RED,
}
"""Of windows and points. Several shades of red are all losses."""

STATUSES = {"1xx": GREY, "2xx": GREEN, "3xx": BLUE, "4xx": ORANGE, "5xx": RED}

REMOTES = {
    "jira": BLUE,
    "confluence": "purple",
    "compass": "super-light-purple",
    "bitbucket": "dark-blue",
    "stargate": "dark-yellow",
    "egress": GREY,
}

ENVIRONMENTS = {"production": BLUE, "staging": "purple", "development": "#64b0c8"}

# By the last digit of the minor number, which Forge increases with each deployment.
_OF_DIGITS = (
    "purple",
    "#64b0c8",
    "dark-blue",
    "dark-yellow",
    "#d683ce",
    "super-light-blue",
    "#99440a",
    "dark-purple",
    BLUE,
    ORANGE,
)
VERSIONS = {f"/^\\d+\\.\\d*{digit}\\./": color for digit, color in enumerate(_OF_DIGITS)}
"""Any ten successive versions have different colors."""

RESOURCES = {
    "FUNCTION_COMPUTE": BLUE,
    "KVS_READ": "purple",
    "KVS_WRITE": "super-light-purple",
    "LOGS_WRITE": "#99440a",
    "SQL_COMPUTE": "dark-blue",
    "SQL_REQUESTS": "super-light-blue",
    "SQL_STORAGE": "#64b0c8",
    "OS_REQUESTS": GREY,
    "LLM_INPUT": "#d683ce",
    "LLM_OUTPUT": "dark-purple",
    "CONTAINER_COMPUTE": ORANGE,
    "CONTAINER_MEMORY": "super-light-orange",
}

QUANTILES = {"p50": "super-light-blue", "p95": BLUE, "p99": "purple"}

TODAY = {"now": BLUE, "the day before": GREY}


def thresholds(levels: Mapping[float | None, str]) -> dashboard.ThresholdsConfig:
    """Return Grafana's thresholds."""
    steps = [Threshold(value=value, color=color) for value, color in levels.items()]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
