"""The journal of a storm: what happened in which process, in one order, whoever was killed meanwhile."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Event", "Journal"]

# The kernel's own, the same in all processes; a storm shortens sleep, and so bends `time.monotonic`.
_now = time.monotonic_ns


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        at: Nanoseconds since the storm began.
        who: The try of a task, as `run/try`; else the server or the director.
        what: Its kind.
        details: The rest of it.
    """

    at: int
    who: str
    what: str
    details: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.details[name]

    def __str__(self) -> str:
        details = " ".join(f"{name}={_short(value)}" for name, value in self.details.items())
        return f"{self.at / 1e6:9.1f} ms  {self.who:12} {self.what} {details}"


class Journal:
    """A file to which several processes append lines; each is one call of the system, so none is torn.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, who: str, what: str, **details: Any) -> None:
        """Append an event."""
        line = json.dumps({"at": _now(), "who": who, "what": what, "details": details})
        os.write(self._descriptor, line.encode() + b"\n")

    def read(self) -> list[Event]:
        """Return all events, oldest first."""
        events = [Event(**json.loads(line)) for line in self._path.read_text().splitlines()]
        events.sort(key=lambda event: event.at)
        first = events[0].at if events else 0
        return [Event(event.at - first, event.who, event.what, event.details) for event in events]


def _short(value: Any) -> str:
    text = f"{len(value)} points" if isinstance(value, list) and len(value) > 3 else str(value)
    return text if len(text) < 240 else text[:240] + "…"
