"""A table of windows, printed row by row as they are done: one line each, below a line for each day."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.cli.output import GAP, cell

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.windows import Window

__all__ = ["WindowTable"]

WINDOW = len("00:00-00:15")
NUMBER = len("999,999")
TEXT = 30
"""Minimum width of a column of text."""


class WindowTable:
    """A table whose first column is a window. Elsewhere than on a terminal, windows are ISO 8601 intervals.

    Args:
        output: Output of the command.
        columns: Names of the columns. All but the first contain numbers.
        text: Name of a last column, which contains text and may be folded; None if there is none.
    """

    def __init__(self, output: Output, columns: Sequence[str], text: str | None = None) -> None:
        self._output = output
        self._columns = (*columns, text) if text else tuple(columns)
        self._widths = [WINDOW, *(max(NUMBER, len(name)) for name in columns[1:])]
        self._width = sum(self._widths) + GAP * (len(self._widths) - 1) + (GAP + TEXT if text else 0)
        self._day: dt.date | None = None
        self._begun = False

    def add(self, window: Window, values: Sequence[Any]) -> None:
        """Print a row."""
        if not self._output.is_table:
            if not self._begun:
                self._output.header(self._columns)
            self._output.row((window, *values))
        elif self._width > self._output.width:
            self._output.records(self._columns, [(window.humanize(), *values)])
        else:
            self._add_line(window, values)
        self._begun = True

    def _add_line(self, window: Window, values: Sequence[Any]) -> None:
        if not self._begun:
            self._print(self._columns, style="bold")
        if window.start.date() != self._day:
            self._day = window.start.date()
            self._output.line(f"{window.start:%A, %Y-%m-%d} (UTC)", style="dim")
        self._print((f"{window.start:%H:%M}\N{EN DASH}{window.end:%H:%M}", *values))

    def _print(self, values: Sequence[Any], style: str = "") -> None:
        numbers = zip(values[1:], self._widths[1:], strict=False)
        gap = " " * GAP
        line = gap.join([f"{values[0]:<{WINDOW}}", *(f"{cell(value):>{width}}" for value, width in numbers)])
        if len(values) > len(self._widths):
            # Hyphens and long words are in names, which must not be broken.
            first, *more = textwrap.wrap(
                values[-1],
                self._output.width - len(line) - GAP,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [""]
            self._output.line(f"{line}{gap}{first}", style=style)
            for text in more:
                self._output.line(" " * (len(line) + GAP) + text)
        else:
            self._output.line(line, style=style)
