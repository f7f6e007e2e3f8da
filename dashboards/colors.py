"""Colors by meaning: the same in every panel, whatever is filtered away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ERROR_RATE",
    "NEUTRAL",
    "OUTCOMES",
    "REMOTES",
    "STATUSES",
    "SUCCESS_RATE",
    "TODAY",
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
SUCCESS_RATE: Levels = {None: RED, 0.95: YELLOW, 0.99: GREEN}

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
"""By Grafana's hash of their names, Jira, Confluence and Compass would have the same color."""

TODAY = {"now": BLUE, "the day before": GREY}


def thresholds(levels: Mapping[float | None, str]) -> dashboard.ThresholdsConfig:
    """Return Grafana's thresholds."""
    steps = [Threshold(value=value, color=color) for value, color in levels.items()]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
