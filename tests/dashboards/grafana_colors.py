"""Colours of Grafana's light theme: by name, and of series without a colour of their own."""

from __future__ import annotations

__all__ = ["color", "color_of_series"]

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
    "super-light-purple": "#ca95e5",
}
"""In the order of Grafana's classic palette, which they begin."""

MORE = """
447ebc c15c17 890f02 0a437c 6d1f62 584477 b7dbab f4d598 70dbed f9ba8f f29191 82b5d8 e5a8e2 aea2e0 629e51
e5ac0e 64b0c8 e0752d bf1b00 0a50a1 962d82 614d93 9ac48a f2c96d 65c5db f9934e ea6460 5195ce d683ce 806eb7
3f6833 967302 2f575e 99440a 58140c 052b51 511749 3f2b5b
"""
"""The rest of the palette. Some shades are left out: they are too light for a light theme."""

CONTRAST = 3.0
"""Minimum contrast to the white of a panel."""


def color(name: str) -> str:
    """Return a colour by its name in Grafana, or unchanged."""
    return HUES.get(name, name)


def color_of_series(name: str) -> str:
    """Return the colour of a series in the mode *Classic palette (by series name)*."""
    return PALETTE[string_hash(name) % len(PALETTE)]


def string_hash(text: str) -> int:
    """Return Bernstein's hash, as the npm package string-hash computes it."""
    found = 5381
    for letter in reversed(text):
        found = (found * 33 & 0xFFFFFFFF) ^ ord(letter)
    return found


def contrast_to_white(color: str) -> float:
    """Return the contrast ratio of the WCAG."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels
    )
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


_ALL = [*HUES.values(), *(f"#{digits}" for digits in MORE.split())]
PALETTE = [each for each in _ALL if contrast_to_white(each) >= CONTRAST]
