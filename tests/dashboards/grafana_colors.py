"""Colours of Grafana's light theme: by name, of series without a colour of their own, and of amounts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FEW_TO_MANY", "color", "color_of_series"]

HUES = {
    "green": "#56a64b",
    "yellow": "#f2cc0c",
    "blue": "#3274d9",
    "orange": "#ff780a",
    "red": "#e02f44",
    "purple": "#a352cc",
    "dark-green": "#19730e",
    "dark-yellow": "#cc9d00",
    "dark-blue": "#1250b0",
    "dark-orange": "#e55400",
    "dark-red": "#ad0317",
    "dark-purple": "#7c2ea3",
    "super-light-green": "#96d98d",
    "super-light-yellow": "#ffee52",
    "super-light-blue": "#8ab8ff",
    "super-light-orange": "#ffb357",
    "super-light-red": "#ff7383",
    "super-light-purple": "#ca95e5",
}
"""In the order of Grafana's classic palette, which they begin."""

FEW_TO_MANY = (HUES["super-light-yellow"], HUES["dark-red"])
"""Ends of the scheme *Yellow-Red*."""

PALETTE = [*HUES.values()]


def color(name: str) -> str:
    """Return a colour by its name in Grafana, or unchanged."""
    return HUES.get(name, name)


def color_of_series(name: str, position: int, panel: Mapping[str, Any]) -> str:
    """Return the colour of a series in a panel: that of the last rule for its name, or the palette's.

    Args:
        name: Name of the series.
        position: Position of the series among those of the panel.
        panel: Decoded from the dashboard's JSON, with the mode *Classic palette*.
    """
    found = PALETTE[position]
    for rule in panel["fieldConfig"]["overrides"]:
        [property_] = rule["properties"]
        if property_["id"] == "color" and _applies(rule["matcher"], name):
            found = color(property_["value"]["fixedColor"])
    return found


def _applies(matcher: Mapping[str, str], name: str) -> bool:
    if matcher["id"] == "byRegexp":
        return re.search(matcher["options"].strip("/"), name) is not None
    return matcher["options"] == name
