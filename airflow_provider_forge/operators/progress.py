"""How far a task has come: what is left to deliver, and what became of the rest; it outlives a try."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import FinalError
from airflow_provider_forge.gateway.windows import Window
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.delivery.delivery import Report

__all__ = ["Progress", "Summary", "in_words"]

log = get_logger(__name__)

_ADDED_UP = ("points", "sent", "unchanged", "changed", "ambiguous", "rejected", "batches", "warnings")


MOST_REQUEST_IDS = 500
"""Request ids that outlive a try or a deferral: the last ones."""


MOST_PROBLEMS = 20
"""Messages of what fails the task that outlive a try or a deferral: the first ones."""


@dataclass
class Summary:
    """What became of several windows; most fields are those of `Report`, added up."""

    calls: int = 0
    empty: int = 0
    points: int = 0
    sent: int = 0
    unchanged: int = 0
    changed: int = 0
    ambiguous: int = 0
    rejected: int = 0
    batches: int = 0
    warnings: int = 0
    expired: int = 0
    digested: bool = False
    contended: bool = False
    request_ids: list[str | None] = field(default_factory=list)

    def add(self, report: Report, request_id: str | None) -> None:
        """Add a window."""
        self.calls += 1
        self.empty += not report.points
        for name in _ADDED_UP:
            setattr(self, name, getattr(self, name) + getattr(report, name))
        self.digested |= report.digested
        self.contended |= report.contended
        self.request_ids.append(request_id)


def in_words(counts: Report | Summary) -> str:
    """Return what became of points: `812 points, 800 sent, 12 unchanged`, and what else there was."""
    if not counts.points:
        return "no points"
    always, seldom = ("sent", "unchanged"), ("changed", "ambiguous", "rejected")
    named = [*always, *(name for name in seldom if getattr(counts, name))]
    return ", ".join([f"{counts.points:,} points", *(f"{getattr(counts, name):,} {name}" for name in named)])


@dataclass
class Progress:
    """The state of a task.

    Attributes:
        todo: Windows still to be delivered, in their order.
        late: Windows to look at again thereafter, for points that came late.
        summary: What became of the others.
        problems: Messages of what fails the task once everything is delivered; at most `MOST_PROBLEMS`.
        more_problems: How many there are beyond these.
    """

    todo: deque[Window]
    late: deque[Window] = field(default_factory=deque)
    summary: Summary = field(default_factory=Summary)
    problems: list[str] = field(default_factory=list)
    more_problems: int = 0

    @classmethod
    def begin(cls, windows: Iterable[Window], late: Iterable[Window], *, expired: int) -> Progress:
        """Return the state of a task that has done nothing but leave out what is too old."""
        return cls(deque(windows), deque(late), Summary(expired=expired))

    def note_problems(self, messages: Iterable[str]) -> None:
        """Note what fails the task in the end. Where a log has to say the rest, it says it now."""
        for message in messages:
            if len(self.problems) < MOST_PROBLEMS:
                self.problems.append(message)
            else:
                self.more_problems += 1
                log.warning("%s", message)

    def check(self) -> None:
        """Raise what fails the task.

        Raises:
            FinalError: There is something.
        """
        if self.problems:
            more = [f"and {self.more_problems} more of these: see the log"] * bool(self.more_problems)
            raise FinalError(" | ".join([*self.problems, *more]))

    def to_json(self) -> dict[str, Any]:
        """Return it as Airflow can keep it while the task is deferred, or from try to try."""
        return {
            "todo": _joined(self.todo),
            "late": _joined(self.late),
            "summary": {**vars(self.summary), "request_ids": self.summary.request_ids[-MOST_REQUEST_IDS:]},
            "problems": self.problems,
            "more_problems": self.more_problems,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Progress:
        """Read it back."""
        todo, late = (
            deque(window for text in content[name] for window in Window(*text.split("/")).split())
            for name in ("todo", "late")
        )
        problems, more = list(content["problems"]), int(content.get("more_problems", 0))
        return cls(todo, late, Summary(**content["summary"]), problems, more)


def _joined(windows: Iterable[Window]) -> list[str]:
    """Return windows as few long ones: 14 days have 1,344, and what Airflow keeps of a task is for little."""
    joined: list[Window] = []
    for window in windows:
        if joined and joined[-1].end == window.start:
            joined[-1] = Window(joined[-1].start, window.end)
        else:
            joined.append(window)
    return [str(window) for window in joined]
