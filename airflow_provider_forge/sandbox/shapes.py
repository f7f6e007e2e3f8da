"""Encode observed latencies as each OTLP type that the gateway might use."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_forge.sandbox.scenario import LatencyShape

__all__ = ["LATENCY_FIELDS"]

BOUNDS_MS = (5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
SCALE = 3
_QUANTILES = (0.5, 0.9, 0.99)


def _histogram(latencies: tuple[int, ...]) -> dict[str, Any]:
    # The upper bound is part of the bucket.
    counts = Counter(bisect.bisect_left(BOUNDS_MS, latency) for latency in latencies)
    return {
        "count": len(latencies),
        "sum": float(sum(latencies)),
        "bucket_counts": [counts[index] for index in range(len(BOUNDS_MS) + 1)],
        "explicit_bounds": [float(bound) for bound in BOUNDS_MS],
        "min": float(latencies[0]),
        "max": float(latencies[-1]),
    }


def _exponential_histogram(latencies: tuple[int, ...]) -> dict[str, Any]:
    counts = Counter(math.ceil(math.log2(latency) * 2**SCALE) - 1 for latency in latencies)
    offset = min(counts)
    buckets = [counts[index] for index in range(offset, max(counts) + 1)]
    return {
        "count": len(latencies),
        "sum": float(sum(latencies)),
        "scale": SCALE,
        "zero_count": 0,
        "positive": {"offset": offset, "bucket_counts": buckets},
        "min": float(latencies[0]),
        "max": float(latencies[-1]),
    }


def _summary(latencies: tuple[int, ...]) -> dict[str, Any]:
    last = len(latencies) - 1
    return {
        "count": len(latencies),
        "sum": float(sum(latencies)),
        "quantile_values": [
            {"quantile": quantile, "value": float(latencies[round(quantile * last)])}
            for quantile in _QUANTILES
        ],
    }


def _gauge(latencies: tuple[int, ...]) -> dict[str, Any]:
    return {"as_double": sum(latencies) / len(latencies)}


# The fields of the protobuf data point, as keyword arguments. The tuple must not be empty.
LATENCY_FIELDS: Mapping[LatencyShape, Callable[[tuple[int, ...]], dict[str, Any]]] = {
    "histogram": _histogram,
    "exponential_histogram": _exponential_histogram,
    "summary": _summary,
    "gauge": _gauge,
}
