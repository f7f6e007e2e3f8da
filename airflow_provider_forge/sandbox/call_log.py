"""The log of the gateway's calls and of the responses that it served."""

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
    """One response that was sent in full; its points can be regenerated."""

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
        operation: "appMetrics", "appResourceUsage", "app", another field's name, or "" if the call failed
            before that.
        app_id: The app's ARI, as requested.
        start: Start of the requested window, None without one.
        end: End of the requested window, None without one.
        environments: Requested ids.
        metrics: Requested labels, or the requested resource.
        outcome: "ok", "refused" (over the limit), "unauthorized", "bad_request", "invalid" (the query),
            "query_error", "errors", or "fault:" and its kind.
        status: HTTP status; 0 if the connection was closed without a response.
        points: Number of data points in the response.
        request_id: Request id in the response.
        user_agent: Header `User-Agent`, None if missing.
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
        """Return the record as JSON data, times in ISO-8601."""
        return {
            **asdict(self),
            "start": self.start and self.start.isoformat(),
            "end": self.end and self.end.isoformat(),
        }


class CallLog:
    """The log of all calls. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[CallRecord] = []
        self._served: list[Served] = []

    def add(self, call: CallRecord, served: Served | None) -> None:
        """Log a call and, if its data was sent in full, the served response."""
        with self._lock:
            self._calls.append(call)
            if served is not None:
                self._served.append(served)

    def calls(self) -> list[CallRecord]:
        """Return all calls, in the order of their responses."""
        with self._lock:
            return list(self._calls)

    def served(self) -> list[Served]:
        """Return all responses that were sent in full."""
        with self._lock:
            return list(self._served)
