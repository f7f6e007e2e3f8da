"""Fault injection: rules for which calls fail, and how."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_forge.sandbox.randomness import stream

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["GATEWAY_KINDS", "SINK_KINDS", "TELEMETRY", "Fault", "FaultInjection", "FaultPlan"]

TELEMETRY = "telemetry"
"""The operation of the exporter's own metrics. Their number depends on the clock, so counting them would make
the faults of other requests unpredictable."""

_TRANSPORT_KINDS = {
    "status",
    "html",
    "redirect",
    "body",
    "slow",
    "hang",
    "reset",
    "truncate",
    "reset_mid_body",
}
GATEWAY_KINDS = frozenset(
    _TRANSPORT_KINDS
    | {"errors", "errors_with_data", "query_error", "null", "rate_limited", "duplicate_points", "empty"}
)
SINK_KINDS = frozenset(
    _TRANSPORT_KINDS | {"reset_before", "reset_after", "hang_after", "partial_success", "empty"}
)


@dataclass(frozen=True)
class Fault:
    """A rule for injecting a fault. If several rules match a call, the first one added is used.

    Kinds for both servers:
        "status": the HTTP `status` with an error body. "html": the same with an HTML body.
        "redirect": the `status` (307 unless it is a 3xx) to `location`.
        "body": HTTP 200, or `status` if given, with `body`; the sink keeps the points.
        "slow": the ordinary response after `seconds`. "hang": no response for `seconds` (0: until the server
        stops), then the connection is closed.
        "reset": a connection reset (RST) before any response. "reset_mid_body", "truncate": half the body,
        then RST or an orderly close.

    Kinds for the gateway:
        "errors": top-level `errors[]` without data. "errors_with_data": `errors[]` and the data, with null at
        `level` if that is given. "query_error": a `QueryError` instead of the data, for usage beside them.
        "null": null at `level`. "rate_limited": rejected as if over the limit, for `seconds`.
        "duplicate_points": each point twice. "empty": `resourceMetrics: []`.

    Kinds for the sink:
        "reset_before" (the same as "reset"), "reset_after", "hang_after": before or after the points are
        kept. "partial_success": HTTP 200 with `message`, and the last `rejected` points are not kept.
        "empty": the points are kept, HTTP 200 without a body.

    Attributes:
        kind: One of the kinds above.
        status: HTTP status; None for the default of the kind (503 for "status" and "html", else 200).
        status_code: `statusCode` in the extensions of "errors" and "query_error"; may be None.
        error_type: `errorType` in the same extensions; may be None.
        classification: `classification` in the extensions of `errors[]`.
        message: Message of the error; may be None.
        identifier: `identifier` of the `QueryError`; may be None.
        extensions: Whether the extensions have an entry, are empty, or are null.
        retry_after: Value of the header `Retry-After`.
        rate_limit_reset: Value of the header `X-RateLimit-Reset`.
        level: "data", "ecosystem", "forgeMetrics", "appMetrics", "resourceMetrics", or "app" for lookups;
            for usage "devConsole", "appResourceUsage" or "resourceUsage".
        location: Target of "redirect".
        body: The body for "body"; for "status" and "html", it replaces the default body.
        seconds: Duration in seconds, see above.
        rejected: Number of rejected data points, for "partial_success".
        operation: Only calls with this operation: "appMetrics", "appResourceUsage" or "app" for the gateway,
            "metrics" or "telemetry" (the exporter's own metrics) for the sink. Only a fault with the
            operation "telemetry" applies to the exporter's own metrics.
        calls: Only the calls with these numbers, from 1, among those that match operation and window.
        first: Only this number of those calls, from the first.
        share: Only this share of those calls, 0 to 1, drawn by their number and `seed`.
        seed: Seed for `share`.
        start: Only windows that end after this time.
        end: Only windows that start before this time.
        longer_than: Only windows longer than this number of seconds.
        max_times: Maximum number of times that the fault is injected.
    """

    kind: str
    status: int | None = None
    status_code: int | None = 500
    error_type: str | None = "SANDBOX_FAULT"
    classification: str | None = "DataFetchingException"
    message: str | None = "A fault of the sandbox"
    identifier: str | None = None
    extensions: Literal["entry", "empty", "null"] = "entry"
    retry_after: str | None = None
    rate_limit_reset: str | None = None
    level: str | None = None
    location: str = "/elsewhere"
    body: str | None = None
    seconds: float = 0.0
    rejected: int = 1
    operation: str | None = None
    calls: frozenset[int] | None = None
    first: int | None = None
    share: float | None = None
    seed: int = 1
    start: datetime | None = None
    end: datetime | None = None
    longer_than: float | None = None
    max_times: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in GATEWAY_KINDS | SINK_KINDS:
            raise ValueError(f"no such kind of fault: {self.kind!r}")
        if self.calls is not None:
            object.__setattr__(self, "calls", frozenset(self.calls))
        for name in ("start", "end"):
            time = getattr(self, name)
            if time is not None and time.tzinfo is None:
                raise ValueError(f"{name} needs a time zone: {time}")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fault:
        """Create a fault from JSON data: times in ISO-8601, `calls` as a list.

        Raises:
            ValueError: A name or a value is invalid.
        """
        unknown = data.keys() - {field.name for field in fields(cls)}
        if "kind" not in data:
            raise ValueError("a fault needs a 'kind'")
        if unknown:
            raise ValueError(f"a fault has no fields {sorted(unknown)}")
        times = {name: _time(data[name]) for name in ("start", "end") if data.get(name)}
        return cls(**{**data, **times})

    def to_json(self) -> dict[str, Any]:
        """Return the fault in the format of `from_json`."""
        data = asdict(self)
        for name in ("start", "end"):
            data[name] = data[name] and data[name].isoformat()
        data["calls"] = data["calls"] and sorted(data["calls"])
        return data

    def matches(self, operation: str, window: tuple[datetime, datetime] | None) -> bool:
        """Return whether the rule matches a call, regardless of its number."""
        if self.operation != operation and (self.operation is not None or operation == TELEMETRY):
            return False
        if self.start is None and self.end is None and self.longer_than is None:
            return True
        if window is None:
            return False
        start, end = window
        return (
            (self.start is None or end > self.start)
            and (self.end is None or start < self.end)
            and (self.longer_than is None or (end - start).total_seconds() > self.longer_than)
        )

    def applies_to(self, number: int) -> bool:
        """Return whether the rule applies to the matching call with this number, from 1."""
        return (
            (self.calls is None or number in self.calls)
            and (self.first is None or number <= self.first)
            and (self.share is None or stream("fault", self.seed, number).random() < self.share)
        )


def _time(text: str) -> datetime:
    # Python 3.10 does not parse the Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@dataclass
class _Armed:
    fault: Fault
    matched: int = 0
    used: int = 0


class FaultPlan:
    """The faults of one server. Thread-safe.

    Args:
        kinds: The kinds that the server supports.
    """

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = kinds
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []

    def add(self, fault: Fault) -> None:
        """Add a rule.

        Raises:
            ValueError: The server does not support this kind.
        """
        if fault.kind not in self._kinds:
            raise ValueError(f"this server has no fault {fault.kind!r}; it supports {sorted(self._kinds)}")
        with self._lock:
            self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Remove all rules and reset the counts."""
        with self._lock:
            self._armed.clear()

    def current(self) -> list[Fault]:
        """Return the rules."""
        with self._lock:
            return [armed.fault for armed in self._armed]

    def pick(self, operation: str, window: tuple[datetime, datetime] | None = None) -> Fault | None:
        """Count a call and return the fault to inject into it, if any."""
        picked: _Armed | None = None
        with self._lock:
            for armed in self._armed:
                if not armed.fault.matches(operation, window):
                    continue
                armed.matched += 1
                spent = armed.fault.max_times is not None and armed.used >= armed.fault.max_times
                if picked is None and not spent and armed.fault.applies_to(armed.matched):
                    picked = armed
            if picked is None:
                return None
            picked.used += 1
            return picked.fault


class FaultInjection:
    """A server with fault injection; its plan is in `_faults`."""

    _faults: FaultPlan

    @property
    def faults(self) -> list[Fault]:
        """The active rules."""
        return self._faults.current()

    def add_fault(self, fault: Fault) -> None:
        """Add a rule; ValueError if this server does not support the kind."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        """Remove all rules."""
        self._faults.clear()
