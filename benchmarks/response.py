"""A synthetic response of the gateway: a window of a large app, in the shape of Atlassian's sample."""

from __future__ import annotations

import bisect
import functools
import itertools
import random
import uuid
from typing import Any

import msgspec

__all__ = [
    "APP",
    "ENVIRONMENTS",
    "MANY",
    "MINUTE",
    "POINTS",
    "response_body",
    "unusual_body",
    "unusual_metric_body",
]

POINTS, MANY = 20_000, 200_000

MINUTE = 29_923_500
"""The start of the window, in minutes since the epoch."""

MINUTES = 15
"""Maximum length of a window in minutes."""

METRICS = (
    ("forge_api_request_count", "s", "sum"),
    ("forge_backend_invocation_count", "s", "sum"),
    ("forge_backend_invocation_errors", "s", "sum"),
    ("forge_api_request_latency", "ms", "histogram"),
    ("forge_backend_invocation_latency", "ms", "histogram"),
)
"""Two of five metrics are histograms: 40 % of the points."""

BOUNDS = (5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)

_rng = random.Random("airflow-provider-forge")
APP = str(uuid.UUID(int=_rng.getrandbits(128), version=4))
ENVIRONMENTS = tuple(str(uuid.UUID(int=_rng.getrandbits(128), version=4)) for _ in range(2))


@functools.cache
def response_body(points: int, minutes: int = MINUTES) -> bytes:
    """Return the body of a response with approximately this number of points, 7 attributes each.

    Args:
        points: Number of points.
        minutes: Length of the window in minutes: each series of a metric has one point per minute.
    """
    rng = random.Random(points)
    series = [_attributes(rng) for _ in range(points // (len(METRICS) * minutes) + 1)]
    metrics = []
    for name, unit, kind in METRICS:
        # Ordered by minute, as from a time series database that does not sort.
        places = itertools.islice(itertools.product(range(minutes), series), points // len(METRICS))
        data_points = [_point(rng, kind, minute, each) for minute, each in places]
        data = {"aggregationTemporality": 1, "dataPoints": data_points}
        metrics.append({"name": name, "description": "", kind: data, "unit": unit})
    resource = {
        "resource": {},
        "schemaUrl": "https://opentelemetry.io/schemas/1.9.0",
        "scopeMetrics": [{"metrics": metrics}],
    }
    app_metrics = {"resourceMetrics": [resource]}
    content = {"data": {"ecosystem": {"forgeMetrics": {"appMetrics": app_metrics}}}}
    return msgspec.json.encode(content)


def unusual_body(points: int, **changes: Any) -> bytes:
    """Return the same body, with other fields in its first point.

    Args:
        points: Number of points.
        changes: Fields, and their values.
    """
    content = msgspec.json.decode(response_body(points))
    (resource,) = content["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]["resourceMetrics"]
    resource["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"][0] |= changes
    return msgspec.json.encode(content)


def unusual_metric_body(points: int) -> bytes:
    """Return the same body, with an unknown field and a null in its first metric."""
    content = msgspec.json.decode(response_body(points))
    (resource,) = content["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]["resourceMetrics"]
    resource["scopeMetrics"][0]["metrics"][0] |= {"future": {"a": 1}, "metadata": None}
    return msgspec.json.encode(content)


def _attributes(rng: random.Random) -> list[dict[str, Any]]:
    site = uuid.UUID(int=rng.getrandbits(128), version=4)
    texts = {
        "appId": APP,
        "appVersion": f"{rng.randrange(2, 6)}.{rng.randrange(70)}.0",
        "contextAri": f"ari:cloud:jira::site/{site}",
        "environmentId": rng.choice(ENVIRONMENTS),
        "remote": rng.choice(("stargate", "jira.example.com", "api.example.com")),
        "status": rng.choice(("2xx", "3xx", "4xx", "5xx")),
        "url": rng.choice(
            ("/forge/entities/graphql", "/rest/api/3/search", "/rest/api/3/issue/{issueIdOrKey}")
        ),
    }
    return [{"key": key, "value": {"stringValue": text}} for key, text in texts.items()]


def _point(rng: random.Random, kind: str, minute: int, attributes: list[dict[str, Any]]) -> dict[str, Any]:
    start = (MINUTE + minute) * 60 * 10**9
    fields = _histogram(rng) if kind == "histogram" else {"asInt": int(rng.lognormvariate(3, 1.5))}
    return {
        **fields,
        "attributes": attributes,
        "startTimeUnixNano": str(start),
        "timeUnixNano": str(start + 60 * 10**9),
    }


def _histogram(rng: random.Random) -> dict[str, Any]:
    latencies = [rng.lognormvariate(5, 1) for _ in range(1 + int(rng.lognormvariate(2, 1)))]
    counts = [0] * (len(BOUNDS) + 1)
    for latency in latencies:
        counts[bisect.bisect_left(BOUNDS, latency)] += 1
    return {
        "count": str(len(latencies)),
        "sum": sum(latencies),
        "bucketCounts": [str(count) for count in counts],
        "explicitBounds": [float(bound) for bound in BOUNDS],
        "min": min(latencies),
        "max": max(latencies),
    }
