"""The demo's screen: steps with the time they took, a bar, and lines that wrap between words."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from demo.progress import Progress

BAR = 32


class Screen:
    """Standard output: changed in place on a terminal, otherwise one line for each event."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False)
        # In a file or a pipe, each event is one line.
        self._console.soft_wrap = not self._console.is_terminal
        self._began = time.monotonic()

    @property
    def elapsed(self) -> str:
        """Time since the start of the demo, such as `1:04`."""
        return _clock(time.monotonic() - self._began)

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line."""
        self._console.print(text, style=style)

    @contextmanager
    def step(self, doing: str, expected: str = "") -> Iterator[None]:
        """Show a step while it is done, then the time it took.

        Args:
            doing: The step.
            expected: How long it usually takes.
        """
        began, hint = time.monotonic(), f" (usually {expected})" if expected else ""

        def took() -> str:
            return _clock(time.monotonic() - began)

        if self._console.is_terminal:
            with self._console.status(_Growing(lambda: f"{doing} {took()}{hint}")):
                yield
            self.line(f"✓ {doing:<{BAR + 14}} {took():>6}", style="green")
        else:
            self.line(f"{doing}…{hint}")
            yield
            self.line(f"{doing}: done after {took()}")

    def table(self, rows: Mapping[str, str]) -> None:
        """Print names and values in two columns."""
        self.line()
        for name, value in rows.items():
            self.line(f"{name:<15}{value}")
        self.line()

    @contextmanager
    def bar(self) -> Iterator[Callable[[Progress], None]]:
        """Yield a function that shows the progress."""
        shown: tuple[int, ...] = ()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:

            def show(progress: Progress) -> None:
                nonlocal shown
                if self._console.is_terminal:
                    live.update(self._drawn(progress), refresh=True)
                elif shown != progress.steps:
                    self.line(str(progress))
                shown = progress.steps

            yield show

    def _drawn(self, progress: Progress) -> Group:
        bar = Table.grid(padding=(0, 1))
        counts = f"{progress.delivered}/{progress.due}", f"{progress.points:,} points", self.elapsed
        bar.add_row("Windows", ProgressBar(progress.due or 1, progress.delivered, width=BAR), *counts)
        return Group(bar, *(Text(part) for part in progress.details))


class _Growing:
    """A text that is computed each time it is drawn."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text

    def __rich__(self) -> Text:
        return Text(self._text())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
