"""Output of commands: tables on a terminal, tab-separated columns in a pipe, JSON on request."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from airflow_provider_forge.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from typing import TextIO

__all__ = ["Output"]

GAP = 2
"""Number of spaces between the columns of a table."""


class PipeConsole(Console):
    """A console that raises BrokenPipeError: rich's own console ends the process with status 1."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise


class Output:
    """Standard output and standard error of a command.

    Args:
        file: Stream for results.
        errors: Stream for everything else.

    Attributes:
        result: Partial result in JSON, printed if the command fails halfway.
    """

    def __init__(self, file: TextIO, errors: TextIO) -> None:
        self.result: dict[str, Any] = {}
        self._file = file
        self._console = PipeConsole(file=file, highlight=False, markup=False, emoji=False)
        self._errors = PipeConsole(file=errors, highlight=False, markup=False, emoji=False)

    def json(self, content: Any) -> None:
        """Print a result as JSON."""
        self.raw(_UNPRINTABLE.sub(_escape, json.dumps(content, indent=2, ensure_ascii=False)))

    def raw(self, text: str) -> None:
        """Print a text unchanged."""
        self._file.write(text + "\n")
        self._file.flush()

    def line(self, text: str | Text = "", style: str = "") -> None:
        """Print a line; only a terminal sees the style, and nothing is cut or wrapped."""
        self._console.print(text if isinstance(text, Text) else visible(text), style=style, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table, with numbers aligned to the right.

        On a terminal that is too narrow, print a line for each cell instead, with the column's name.
        """
        rows = [list(row) for row in rows]
        if not self._console.is_terminal:
            for row in [list(columns), *rows]:
                self.raw("\t".join(map(_cell, row)))
            return
        if _narrowest([columns, *rows]) > self._console.width:
            self._records(columns, rows)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index, name in enumerate(columns):
            numbers = all(isinstance(row[index], (int, float)) for row in rows)
            # The first column identifies the row, so it is never wrapped.
            justify: Literal["left", "right"] = "right" if numbers else "left"
            table.add_column(name, justify=justify, overflow="fold", no_wrap=not index)
        for row in rows:
            table.add_row(*map(_cell, row))
        self._console.print(table)

    def _records(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        widest = max(map(len, columns))
        for row in rows:
            for name, value in zip(columns, row, strict=True):
                self.line(f"{name:<{widest}}  {_cell(value)}".rstrip())
            self.line()

    def failure(self, kind: str, message: str, *, as_json: bool) -> None:
        """Print the error that ended the command."""
        if as_json:
            self.json({**self.result, "error": {"kind": kind, "message": message}})
        self.problem(message)

    def problem(self, text: str) -> None:
        """Print a problem."""
        self._errors.print(printable(text), style="red", soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a note for the user, beside the result."""
        self._errors.print(printable(text), style="yellow", soft_wrap=True)

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """Show a progress message on a terminal."""
        return self._errors.status(text)


_UNPRINTABLE = re.compile(r"[^\n -~\u00a1-\u00ac\u00ae-\u02ff]")


def _escape(letter: re.Match[str]) -> str:
    """Return a character of JSON unchanged if it is printable, else escaped."""
    found = letter.group()
    return found if found.isprintable() else json.dumps(found)[1:-1]


def _narrowest(rows: Iterable[Sequence[Any]]) -> int:
    """Return the minimum width of a table whose first column and whose words are not wrapped."""
    columns = [[_cell(value) for value in column] for column in zip(*rows, strict=True)]
    words = [columns[0], *([word for cell in column for word in cell.split()] for column in columns[1:])]
    return sum(max(map(len, column)) for column in words) + GAP * (len(columns) - 1)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))
