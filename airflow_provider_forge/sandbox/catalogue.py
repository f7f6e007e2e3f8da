"""The eleven metrics, and a generated data point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["DELTA", "METRICS", "MINUTE_NS", "Attributes", "Metric", "Sample"]

Attributes = tuple[tuple[str, str], ...]

MINUTE_NS = 60 * 10**9
DELTA, CUMULATIVE = 1, 2


@dataclass(frozen=True)
class Metric:
    """A metric as described in the gateway's responses.

    Attributes:
        kind: OTLP data type; "latency" leaves it to `Scenario.latency_shape`.
        temporality: OTLP's enum: 0 for types without one, 1 delta, 2 cumulative.
        monotonic: Whether responses contain `isMonotonic: true`; they never contain false.
    """

    name: str
    kind: Literal["sum", "gauge", "latency"]
    unit: str
    temporality: int = 0
    monotonic: bool = False


# The unit "s" of counts is Atlassian's. The real units of the latencies and the custom metrics are unknown.
METRICS = {
    "FORGE_API_REQUEST_COUNT": Metric("forge_api_request_count", "sum", "s", DELTA),
    "FORGE_API_REQUEST_LATENCY": Metric("forge_api_request_latency", "latency", "ms", DELTA),
    "FORGE_BACKEND_INVOCATION_COUNT": Metric("forge_backend_invocation_count", "sum", "s", DELTA),
    "FORGE_BACKEND_INVOCATION_ERRORS": Metric("forge_backend_invocation_errors", "sum", "s", DELTA),
    "FORGE_BACKEND_INVOCATION_LATENCY": Metric("forge_backend_invocation_latency", "latency", "ms", DELTA),
    "FORGE_BACKEND_CUSTOM_METRICS_COUNT": Metric("forge_backend_custom_metrics_count", "sum", "1", DELTA),
    "CONTAINER_CPU_USAGE_PERCENTAGE": Metric("container_cpu_usage_percentage", "gauge", "%"),
    "CONTAINER_MEMORY_USAGE_PERCENTAGE": Metric("container_memory_usage_percentage", "gauge", "%"),
    "CONTAINER_STATUS_RESTARTS_TOTAL": Metric(
        "container_status_restarts_total", "sum", "1", CUMULATIVE, monotonic=True
    ),
    "CONTAINER_UPTIME_SECONDS": Metric("container_uptime_seconds", "gauge", "s"),
    "SERVICE_INSTANCE_COUNT": Metric("service_instance_count", "gauge", "1"),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A generated data point, and the period in which it is visible.

    Attributes:
        label: Key of `METRICS`.
        environment: UUID; not every point has it in its attributes.
        minute: The minute since the epoch that it belongs to, which its times may contradict.
        start: Nanoseconds since the epoch; 0 for gauges, which have none.
        time: Nanoseconds since the epoch.
        attributes: Sorted by key.
        value: A count, a measurement, or the observed latencies in whole milliseconds, ascending.
        visible_from: Seconds since the epoch.
        visible_until: Seconds since the epoch; finite for a value that a later one replaces.
    """

    label: str
    environment: str
    minute: int
    start: int
    time: int
    attributes: Attributes
    value: int | float | tuple[int, ...]
    visible_from: float
    visible_until: float = math.inf

    def is_visible(self, at: float) -> bool:
        """Return whether a call at `at`, in seconds since the epoch, returns the point."""
        return self.visible_from <= at < self.visible_until
