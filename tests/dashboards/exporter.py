"""A day of the exporter's own metrics, made by hand: an outage in the evening, failures, a gap, a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR, QUARTER_HOUR = 3600, 900
DAG = {"forge.exporter.dag.id": "forge_metrics"}
OUTCOME = "forge.exporter.outcome"
# No task ends in these hours of the day.
DEAD = range(18 * HOUR, 20 * HOUR + 1800)
FAILING = range(16 * HOUR, 17 * HOUR)
WITH_GAP = range(10 * HOUR, 13 * HOUR)
DELTA = 1


class Own(NamedTuple):
    """One point of one of the exporter's own metrics.

    Attributes:
        metric: What follows `forge.exporter.`.
        time: Seconds since the epoch.
    """

    metric: str
    unit: str
    is_sum: bool
    time: int
    attributes: dict[str, str]
    value: float


def points(start: int, end: int) -> list[Own]:
    """Return all that an exporter says from `start`, midnight, to `end`, in seconds since the epoch."""
    made = []
    for number, window_end in enumerate(range(start + QUARTER_HOUR, end - HOUR, QUARTER_HOUR)):
        now = window_end + 360 + number % 7
        if now - start not in DEAD:
            made += _task(number, now, window_end, failing=now - start in FAILING)
    for number, now in enumerate(range(start + 600, end, HOUR)):
        if now - start not in DEAD:
            made += _coverage(number, now, gap=now - start in WITH_GAP)
    return made


def _task(number: int, now: int, window_end: int, *, failing: bool) -> Iterator[Own]:
    def gauge(name: str, unit: str, value: float) -> Own:
        return Own(name, unit, False, now, DAG, value)

    def count(name: str, unit: str, value: float, **attributes: str) -> Own:
        more = {key.replace("_", "."): text for key, text in attributes.items()}
        return Own(name, unit, True, now, DAG | more, value)

    yield gauge("heartbeat", "{heartbeat}", 1)
    yield count("calls", "{call}", 1 + number % 3)
    yield count("wait", "s", number % 5 * 1.5)
    if failing:
        yield count("failures", "{failure}", 1, error_type="RateLimited" if number % 3 else "GatewayDown")
        yield count("throttles", "{response}", 2)
        return
    yield gauge("window.end", "s", window_end)
    yield gauge("lag", "s", float(now - window_end))
    outcome = "empty" if number % 20 == 3 else "delivered"
    yield count("windows", "{window}", 1, forge_exporter_outcome=outcome)
    yield count("points", "{point}", 700 + number, forge_exporter_outcome="sent")
    if number % 10 == 5:
        yield count("points", "{point}", 3, forge_exporter_outcome="rejected")


def _coverage(number: int, now: int, *, gap: bool) -> Iterator[Own]:
    counts = {"pending": 2, "empty": 5, "delivered": 1000 + number, "rejected": 0, "failed": 0}
    for outcome, value in {**counts, "missing": 4 if gap else 0}.items():
        yield Own("coverage", "{window}", False, now, DAG | {OUTCOME: outcome}, value)
    if gap:
        yield Own("gap.expiry", "s", False, now, DAG, 50.5 * HOUR - number * 900)
    yield Own("token.expiry", "s", False, now, DAG, 14 * 24.0 * HOUR + 12 * HOUR - number * HOUR)


def send(points: list[Own], url: str, app: str) -> None:
    """Send points to an OTLP receiver, as the exporter of an app does."""
    resource = {
        "service.name": "airflow-provider-forge",
        "service.namespace": "atlassian-forge",
        "service.instance.id": app,
        "atlassian.forge.app.id": app,
    }
    scope = {"scope": {"name": "airflow_provider_forge"}, "metrics": [_metric(point) for point in points]}
    body = {"resourceMetrics": [{"resource": {"attributes": _attributes(resource)}, "scopeMetrics": [scope]}]}
    httpx.post(f"{url}/v1/metrics", json=body, trust_env=False, timeout=60).raise_for_status()


def _metric(point: Own) -> dict[str, Any]:
    data: dict[str, Any] = {
        "attributes": _attributes(point.attributes),
        "timeUnixNano": str(point.time * 10**9),
        "asDouble": float(point.value),
    }
    named = {"name": f"forge.exporter.{point.metric}", "unit": point.unit}
    if not point.is_sum:
        return {**named, "gauge": {"dataPoints": [data]}}
    data["startTimeUnixNano"] = str((point.time - 30) * 10**9)
    return {**named, "sum": {"aggregationTemporality": DELTA, "isMonotonic": True, "dataPoints": [data]}}


def _attributes(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]
