"""Output of commands: tables on a terminal, tab-separated columns in a pipe, other formats on request."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from airflow_provider_forge.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TextIO

__all__ = ["Output", "cell"]

Step = TypeVar("Step")

GAP = 2
"""Number of spaces between the columns of a table."""

BAR = 16
"""Width of a progress bar: with the longest description, it fits into 80 columns."""

WAITS = "airflow_provider_forge.gateway.ratelimit"
"""Logger of the waits for the rate limit."""


_ESCAPE = "airflow_provider_forge.escape"


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Escape text that the encoding lacks, such as a check mark in latin-1, so that JSON stays the same."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPE, _escape_unencodable)


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
        format: Format of the result: `table`, `json`, `csv` or `markdown`; None for a table on a terminal,
            and columns separated by tabs elsewhere.

    Attributes:
        result: Partial result in JSON, printed if the command fails halfway.
    """

    def __init__(self, file: TextIO, errors: TextIO, format: str | None = None) -> None:  # noqa: A002
        self.result: dict[str, Any] = {}
        if isinstance(file, io.TextIOWrapper) and file.errors == "strict":
            file.reconfigure(errors=_ESCAPE)
        self._format = format
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

    @property
    def is_table(self) -> bool:
        """Whether tables are aligned for people to read; otherwise, for programs."""
        return self._format == "table" or (self._format is None and self._console.is_terminal)

    @property
    def is_text(self) -> bool:
        """Whether a result that is no table is printed as text."""
        return self._format in (None, "table")

    @property
    def width(self) -> int:
        """Number of columns of the terminal."""
        return self._console.width

    def header(self, columns: Sequence[str]) -> None:
        """Print the names of the columns of a table for programs."""
        self.row(columns)
        if self._format == "markdown":
            self.row(["---"] * len(columns))

    def row(self, values: Sequence[Any]) -> None:
        """Print a row of a table for programs, with plain numbers."""
        cells = [printable(str(value)) for value in values]
        if self._format == "csv":
            line = io.StringIO()
            csv.writer(line, lineterminator="").writerow(cells)
            self.raw(line.getvalue())
        elif self._format == "markdown":
            self.raw(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
        else:
            self.raw("\t".join(cells))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table, with columns of numbers, which may be formatted texts, aligned to the right.

        On a terminal that is too narrow, print a line for each cell instead, with the column's name.
        """
        rows = [list(row) for row in rows]
        if not self.is_table:
            self.header(columns)
            for row in rows:
                self.row(row)
            return
        if _narrowest([columns, *rows]) > self.width:
            self.records(columns, rows)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index, name in enumerate(columns):
            numbers = all(_NUMBER.fullmatch(cell(row[index])) for row in rows)
            # The first column identifies the row, so it is never wrapped.
            justify: Literal["left", "right"] = "right" if numbers else "left"
            table.add_column(name, justify=justify, overflow="fold", no_wrap=not index)
        for row in rows:
            table.add_row(*map(cell, row))
        self._console.print(table)

    def records(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a line for each cell that is not empty, with the column's name."""
        widest = max(map(len, columns))
        for row in rows:
            for name, value in zip(columns, row, strict=True):
                if shown := cell(value):
                    self.line(f"{name:<{widest}}  {shown}")
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

    @property
    def can_ask(self) -> bool:
        """Whether somebody sees a question, and can answer it."""
        return bool(sys.stdin and sys.stdin.isatty() and self._errors.file.isatty())

    def ask(self, question: str) -> bool:
        """Return whether the answer to a question is yes; by default, it is no."""
        self._errors.print(printable(f"{question} [y/N]"), end=" ", soft_wrap=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show a progress message on a terminal, and waits for the rate limit in place of it, or as notes."""
        status = self._errors.status(text)
        with status, _waits_shown(status.update if self._errors.is_terminal else self.note):
            yield

    @contextlib.contextmanager
    def progress(self, steps: Sequence[Step], describe: Callable[[Step], str]) -> Iterator[Iterator[Step]]:
        """Iterate over steps below the results, with a progress bar on a terminal.

        Waits for the rate limit are shown in place of the step, or else as notes.

        Args:
            steps: Steps of the command.
            describe: Describes a step that has begun.
        """
        # Results above the bar must be printed by the console that draws it.
        console = self._console if self._console.is_terminal else self._errors
        if not console.is_terminal:
            with _waits_shown(self.note):
                yield iter(steps)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(BAR),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        bar = Progress(
            *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
        )

        task = bar.add_task("", total=len(steps))

        def advance() -> Iterator[Step]:
            for step in steps:
                bar.update(task, description=describe(step))
                yield step
                bar.advance(task)

        with bar, _waits_shown(lambda wait: bar.update(task, description=wait)):
            yield advance()


class _Showing(logging.Handler):
    """Shows log records."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record's message."""
        self._show(record.getMessage())


@contextlib.contextmanager
def _waits_shown(show: Callable[[str], None]) -> Iterator[None]:
    """Show the waits for the rate limit, which are logged below the level that a command logs."""
    waits, handler = logging.getLogger(WAITS), _Showing(show)
    level, propagate = waits.level, waits.propagate
    waits.setLevel(logging.INFO)
    waits.propagate = False
    waits.addHandler(handler)
    try:
        yield
    finally:
        waits.removeHandler(handler)
        waits.setLevel(level)
        waits.propagate = propagate


_UNPRINTABLE = re.compile(r"[^\n -~\u00a1-\u00ac\u00ae-\u02ff]")


_NUMBER = re.compile(r"(<?[\d,]+(\.\d+)?%?)?")


def _escape(letter: re.Match[str]) -> str:
    """Return a character of JSON unchanged if it is printable, else escaped."""
    found = letter.group()
    return found if found.isprintable() else json.dumps(found)[1:-1]


def _narrowest(rows: Iterable[Sequence[Any]]) -> int:
    """Return the minimum width of a table whose first column and whose words are not wrapped."""
    columns = [[cell(value) for value in column] for column in zip(*rows, strict=True)]
    words = [columns[0], *([word for cell in column for word in cell.split()] for column in columns[1:])]
    return sum(max(map(len, column)) for column in words) + GAP * (len(columns) - 1)


def cell(value: Any) -> str:
    """Return a value as people read it."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))
