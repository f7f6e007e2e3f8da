"""What the gateway remembers: every call, and what it served."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_forge.sandbox.environments import Environment

__all__ = ["CallLog", "CallRecord", "Served"]


@dataclass(frozen=True)
class Served:
    """One answer that was given in full; its points can be generated again."""

    app: str
    environments: tuple[Environment, ...]
    metrics: tuple[str, ...]
    start: datetime
    end: datetime
    at: float
    copies: int = 1


@dataclass(frozen=True)
class CallRecord:
    """One call of `/graphql`.

    Attributes:
        received_at: Seconds since the epoch, by the gateway's clock.
        operation: "appMetrics", "app", another field's name, or "" where the call did not get that far.
        app_id: The app's ARI, as asked.
        start: Start of the window asked for, None if none was.
        end: End of it.
        environments: Ids, as asked.
        metrics: Labels, as asked.
        outcome: "ok", "refused" (over the limit), "unauthorized", "bad_request", "invalid" (the query),
            "query_error", "errors", or "fault:" and its kind.
        status: HTTP status; 0 if the connection was broken in place of an answer.
        points: Data points in the answer.
        request_id: As in the answer.
        user_agent: Header, None if missing.
        experimental_api: Header `X-ExperimentalApi`, None if missing.
    """

    received_at: float
    operation: str
    app_id: str | None
    start: datetime | None
    end: datetime | None
    environments: tuple[str, ...]
    metrics: tuple[str, ...]
    outcome: str
    status: int
    points: int
    request_id: str
    user_agent: str | None
    experimental_api: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it for people and other processes."""
        return {
            **asdict(self),
            "start": self.start and self.start.isoformat(),
            "end": self.end and self.end.isoformat(),
        }


class CallLog:
    """The gateway's memory; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[CallRecord] = []
        self._served: list[Served] = []

    def add(self, call: CallRecord, served: Served | None) -> None:
        """Remember a call and, if it was answered in full with data, what was served."""
        with self._lock:
            self._calls.append(call)
            if served is not None:
                self._served.append(served)

    def calls(self) -> list[CallRecord]:
        """Return all calls, in the order in which they were answered."""
        with self._lock:
            return list(self._calls)

    def served(self) -> list[Served]:
        """Return all answers given in full."""
        with self._lock:
            return list(self._served)
