"""Misbehaviour by rule: what goes wrong, and when."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_forge.sandbox.randomness import stream

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["GATEWAY_KINDS", "SINK_KINDS", "TELEMETRY", "CanMisbehave", "Fault", "FaultPlan"]

TELEMETRY = "telemetry"
"""The operation of the exporter's own metrics: they come or stay away by the clock, so faults of the others
could not be told by number."""

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
    """One rule of misbehaviour. Of several that match a call, the first added is used.

    What, for both servers:
        "status": the HTTP `status` and an error body. "html": the same with an HTML body.
        "redirect": the `status` (307 unless it is a 3xx) to `location`.
        "body": HTTP 200, or `status` if given, with `body`; the sink keeps the points.
        "slow": the ordinary answer after `seconds`. "hang": no answer for `seconds` (0: for good), then
        the connection is closed.
        "reset": the connection is reset (RST) before any answer. "reset_mid_body", "truncate": half
        the body, then RST or an orderly end.

    What, for the gateway:
        "errors": top-level `errors[]` and no data. "errors_with_data": the data beside them, nulled at
        `level` if that is given. "query_error": a `QueryError` in place of the data. "null": null at
        `level`. "rate_limited": refused as if over the limit, for `seconds`. "duplicate_points": each
        point twice. "empty": `resourceMetrics: []`.

    What, for the sink:
        "reset_before" (the same as "reset"), "reset_after", "hang_after": before or after the points are
        kept. "partial_success": HTTP 200, the last `rejected` points not kept, `message`. "empty": the
        points kept, HTTP 200 without a body.

    Attributes:
        kind: What goes wrong.
        status: HTTP status; None for the usual one of the kind (503 for "status" and "html", else 200).
        status_code: `statusCode` in the extensions of "errors" and "query_error"; may be None.
        error_type: `errorType` there; may be None.
        classification: `classification` in the extensions of `errors[]`.
        message: Message of the error; may be None.
        identifier: `identifier` of the `QueryError`; may be None.
        extensions: Whether there is an entry in them, or they are empty, or null.
        retry_after: Value of the header `Retry-After`.
        rate_limit_reset: Value of the header `X-RateLimit-Reset`.
        level: "data", "ecosystem", "forgeMetrics", "appMetrics", "resourceMetrics", or "app" for look-ups.
        location: Where to, for "redirect".
        body: The body of "body"; of "status" and "html", in place of their own.
        seconds: How long, see above.
        rejected: Data points rejected, for "partial_success".
        operation: Only calls that ask for this field: "appMetrics" or "app"; the sink's is "metrics", or
            "telemetry" for the exporter's own, which no other fault hits.
        calls: Only the calls with these numbers, from 1, among those that match operation and period.
        first: Only so many of those calls.
        share: Only this part of those calls, drawn by their number and `seed`.
        seed: See `share`.
        start: Only windows that end after this time.
        end: Only windows that start before this time.
        longer_than: Only windows longer than so many seconds.
        max_times: No more often than this.
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
        """Make one from JSON: times in ISO-8601, `calls` as a list.

        Raises:
            ValueError: A name or a value is wrong.
        """
        unknown = data.keys() - {field.name for field in fields(cls)}
        if unknown or "kind" not in data:
            raise ValueError(f"a fault needs 'kind' and knows no {sorted(unknown)}")
        times = {name: _time(data[name]) for name in ("start", "end") if data.get(name)}
        return cls(**{**data, **times})

    def to_json(self) -> dict[str, Any]:
        """Return it as `from_json` takes it."""
        data = asdict(self)
        for name in ("start", "end"):
            data[name] = data[name] and data[name].isoformat()
        data["calls"] = data["calls"] and sorted(data["calls"])
        return data

    def matches(self, operation: str, window: tuple[datetime, datetime] | None) -> bool:
        """Tell whether a call is one of those that the rule is about, whatever its number."""
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
        """Tell whether the matching call with this number, from 1, is hit."""
        return (
            (self.calls is None or number in self.calls)
            and (self.first is None or number <= self.first)
            and (self.share is None or stream("fault", self.seed, number).random() < self.share)
        )


def _time(text: str) -> datetime:
    # Python 3.10 does not take the Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@dataclass
class _Armed:
    fault: Fault
    matched: int = 0
    used: int = 0


class FaultPlan:
    """The faults of one server; safe to use from several threads.

    Args:
        kinds: The kinds that the server can do.
    """

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = kinds
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []

    def add(self, fault: Fault) -> None:
        """Add a rule.

        Raises:
            ValueError: The server cannot misbehave in that way.
        """
        if fault.kind not in self._kinds:
            raise ValueError(f"{fault.kind!r} is not a fault of this server; it has {sorted(self._kinds)}")
        with self._lock:
            self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Forget every rule and count."""
        with self._lock:
            self._armed.clear()

    def current(self) -> list[Fault]:
        """Return the rules."""
        with self._lock:
            return [armed.fault for armed in self._armed]

    def pick(self, operation: str, window: tuple[datetime, datetime] | None = None) -> Fault | None:
        """Return the fault of a call, if it has one, and count the call."""
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


class CanMisbehave:
    """A server that takes faults; it keeps its plan in `_faults`."""

    _faults: FaultPlan

    @property
    def faults(self) -> list[Fault]:
        """The rules of misbehaviour in force."""
        return self._faults.current()

    def add_fault(self, fault: Fault) -> None:
        """Misbehave by this rule, too; ValueError if the fault is not of a kind that this server can do."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        """Behave."""
        self._faults.clear()
