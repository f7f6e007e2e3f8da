"""The progress of a task: the windows it has yet to deliver, and the statistics of those delivered."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_forge.exceptions import FinalError, WindowExpired
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import (
    MAX_WINDOW,
    RETENTION,
    Window,
    ceil,
    expired_error,
    floor,
    humanize_duration,
    joined,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = [
    "DeliveryStats",
    "Pass",
    "Progress",
    "available_windows",
    "check_age",
    "problem_log",
]

log = get_logger(__name__)

problem_log = get_logger("airflow_provider_forge.delivery.problems")
"""Logger of what is among the problems in the end, too: a command, which prints those, does not show it."""

MAX_REQUEST_IDS = 500
"""Number of request ids kept across tries and deferrals: the last ones."""

MAX_PROBLEMS = 20
"""Number of problems kept across tries and deferrals: the first ones. The log has all."""


@dataclass
class DeliveryStats:
    """Counts of windows, points and requests.

    All fields but `problems` are part of the task's XCom, by these names and in this order.

    Attributes:
        calls: Windows fetched from the gateway; of several destinations, each is counted at one. Each costs
            one call, or more if the gateway throttles it or does not know a metric.
        replayed: Windows read from the archive.
        unarchived: Windows that could not be archived.
        empty: Windows without points.
        points: Points in the gateway's responses.
        sent: Points that the receiver has acknowledged now.
        unchanged: Points that it had acknowledged before.
        changed: Points that it had acknowledged with another value.
        ambiguous: Points that it may have received before, without a known response.
        rejected: Points it rejected out of those sent.
        batches: Requests that it acknowledged.
        warnings: Requests that it acknowledged with a message, or with a response that cannot be read.
        expired: Windows that were skipped because they are too old.
        digested: Whether there are too many points to record them one by one.
        contended: Whether another task delivered the same minutes at the same time.
        request_ids: The gateway's ids of the requests.
        problems: Errors that fail the task once everything else is delivered.
    """

    calls: int = 0
    replayed: int = 0
    unarchived: int = 0
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
    problems: list[FinalError] = field(default_factory=list)

    def include(self, other: DeliveryStats) -> None:
        """Add other statistics to these; a flag is set if it is set in either."""
        for name in (each.name for each in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, mine or theirs if isinstance(mine, bool) else mine + theirs)

    def describe(self) -> str:
        """Return the counts of points: `812 points, 800 sent, 12 unchanged`, and others that are not 0."""
        if not self.points:
            return "no points"
        names = ["sent", "unchanged"]
        names += [name for name in ("changed", "ambiguous", "rejected") if getattr(self, name)]
        return ", ".join([f"{self.points:,} points", *(f"{getattr(self, name):,} {name}" for name in names)])

    def to_json(self) -> dict[str, Any]:
        """Return the fields for XCom."""
        return {name: value for name, value in vars(self).items() if name != "problems"}


class _Stored(msgspec.Struct):
    """The progress of a task, as it is stored."""

    todo: list[str]
    late: list[str]
    summary: DeliveryStats
    problems: list[str]
    more_problems: int = 0


class Pass(Enum):
    """Why a window is fetched."""

    FIRST = "to deliver it"
    REVISIT = "to find points that arrived late"


@dataclass
class Progress:
    """The progress of a task.

    Attributes:
        todo: Windows to deliver, in this order.
        late: Windows to fetch again thereafter, for points that arrived late.
        stats: Statistics of the windows delivered; with at most `MAX_PROBLEMS` problems.
        more_problems: Number of problems beyond these.
    """

    todo: deque[Window]
    late: deque[Window] = field(default_factory=deque)
    stats: DeliveryStats = field(default_factory=DeliveryStats)
    more_problems: int = 0

    @classmethod
    def begin(cls, windows: Iterable[Window], late: Iterable[Window], *, expired: int) -> Progress:
        """Return the progress of a task that has delivered nothing yet and skipped `expired` windows."""
        return cls(deque(windows), deque(late), DeliveryStats(expired=expired))

    def next_window(self) -> Window | None:
        """Return the window to deliver now; None if there is none left."""
        queue = self.todo or self.late
        return queue[0] if queue else None

    @property
    def current_pass(self) -> Pass:
        """Why `next_window` is fetched."""
        return Pass.FIRST if self.todo else Pass.REVISIT

    def finish_window(self, *halves: Window) -> None:
        """Remove the window returned by `next_window`, or replace it with its halves."""
        queue = self.todo or self.late
        queue.popleft()
        queue.extendleft(reversed(halves))

    def add(self, stats: DeliveryStats) -> None:
        """Add the statistics of a window. Problems beyond `MAX_PROBLEMS` are logged now."""
        self.stats.include(stats)
        for problem in self.stats.problems[MAX_PROBLEMS:]:
            log.warning("%s", problem.message)
        self.more_problems += len(self.stats.problems[MAX_PROBLEMS:])
        del self.stats.problems[MAX_PROBLEMS:]

    @property
    def problems(self) -> list[str]:
        """Messages of the errors that fail the task once everything else is delivered."""
        return [problem.message for problem in self.stats.problems]

    def check(self) -> None:
        """Fail the task if there are problems.

        Raises:
            FinalError: There are.
        """
        if self.stats.problems:
            more = [f"and {self.more_problems} more of these: see the log"] * bool(self.more_problems)
            raise FinalError(" | ".join([*self.problems, *more]))

    def to_json(self) -> dict[str, Any]:
        """Return the progress as Airflow stores it during a deferral, or between tries."""
        summary = self.stats.to_json()
        return {
            "todo": _joined(self.todo),
            "late": _joined(self.late),
            "summary": {**summary, "request_ids": self.stats.request_ids[-MAX_REQUEST_IDS:]},
            "problems": self.problems,
            "more_problems": self.more_problems,
        }

    @classmethod
    def from_json(cls, content: Any, interval: Window) -> Progress:
        """Return the progress that `to_json` has returned for a task of this interval.

        Raises:
            msgspec.ValidationError, TypeError, ValueError: It has not returned this.
        """
        stored = msgspec.convert(content, _Stored)
        todo, late = map(_split, (stored.todo, stored.late))
        if any(window.start < interval.start or window.end > interval.end for window in todo):
            raise ValueError(f"a window is not within {interval}")
        stored.summary.problems = [FinalError(message) for message in stored.problems]
        return cls(todo, late, stored.summary, stored.more_problems)


def available_windows(
    interval: Window,
    now: dt.datetime,
    on_expired: str,
    endpoint: Endpoint,
    retention: dt.timedelta | None = RETENTION,
) -> tuple[list[Window], int]:
    """Return the windows that can be delivered, oldest first, and the number of those that are too old.

    Args:
        interval: The task's interval.
        now: Current time, aware.
        on_expired: Whether to `fail` for windows that are too old, or to `skip` them.
        endpoint: The destination.
        retention: Time for which the source of the windows keeps them; None for the archive.

    Raises:
        WindowExpired: A window is too old for the source or the destination, and `on_expired` is `fail`.
    """
    max_age = min((age for age in (retention, endpoint.limits.max_age) if age is not None), default=None)
    if max_age is None or interval.start >= now - max_age:
        return list(interval.split()), 0
    if on_expired == "fail":
        check_age(interval, endpoint, now)
        raise expired_error(interval, now)
    first = min(ceil(now - max_age, MAX_WINDOW), ceil(interval.end, MAX_WINDOW))
    expired = round((first - floor(interval.start, MAX_WINDOW)).total_seconds() / MAX_WINDOW.total_seconds())
    return list(Window(first, interval.end).split()) if first < interval.end else [], expired


def check_age(window: Window, endpoint: Endpoint, now: dt.datetime) -> None:
    """Check that the destination still accepts a window's points, before fetching them costs a call.

    Raises:
        WindowExpired: The window begins before the destination's age limit.
    """
    max_age = endpoint.limits.max_age
    if max_age is not None and window.start < now - max_age:
        raise WindowExpired(
            f"The destination discards points older than {humanize_duration(max_age)}, so {window.humanize()}"
            f" is not fetched. {endpoint.age_remedy}"
        )


def _split(texts: Iterable[Any]) -> deque[Window]:
    return deque(window for text in texts for window in Window(*text.split("/")).split())


def _joined(windows: Iterable[Window]) -> list[str]:
    """Return adjacent windows as one: 14 days are 1,344, too many for Airflow's stores."""
    return [str(window) for window in joined(windows)]
