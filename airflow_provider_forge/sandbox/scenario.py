"""What the stand-in gateway's world looks like, as one frozen set of switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LatencyShape", "RateLimitChannel", "Scenario"]

LatencyShape = Literal["histogram", "exponential_histogram", "summary", "gauge"]
RateLimitChannel = Literal["seconds", "http_date", "iso", "reset", "query_error", "errors"]


@dataclass(frozen=True)
class Scenario:
    """Switches of the generated data and of the gateway's habits. All surprises are off by default.

    Attributes:
        seed: Everything generated is a pure function of (seed, app, environment, minute).
        traffic: Factor on the number of invocations, 0.0 for none. 1.0 gives production 30 to 80 points
            a minute on weekdays, the containers' nine among them, and about 20 at weekends.
        large_app: About 20,000 points per 15-minute window of production, at busy hours of a weekday.
        containers: Whether production and staging run containers.
        latency_shape: OTLP data type of the two latency metrics; the real one is unknown.
        unnormalised_url: One URL carries issue keys: 500 more series of requests, 500 of their latency.
        incident_weekdays: Days (Monday is 0) on which, from 13:07 to 13:54 UTC, 40 % of the requests to
            `remote=jira` end in 5xx, take six times as long and are 1.8 times as many.
        site_incident_weekdays: Days on which, from 09:20 to 11:05 UTC, most invocations of one small
            site fail, which the total hides.
        lateness: 95 % of points are visible within 3 minutes, 4 % within 20, 1 % after 2 to 6 hours,
            some of those as values raised after a first, smaller one. Off: visible once their time has come.
        outage: The points of 05:20 to 06:00 UTC of every day are visible from 07:00 only.
        inclusive_ends: A window also returns the points whose `time` is exactly its start, so that
            adjacent windows both return them.
        unaligned_points: Some points are shifted against the minute, some last 6 ms.
        points_outside_window: An answer also holds a few points of the minutes next to its window.
        exact_duplicates: Some points exist twice; `generated` has them twice, too.
        repeated_container_points: Container gauges come as four points with equal attributes and times.
        environment_ids: Form of the ids that look-ups answer with. Metrics queries take UUIDs only.
        forbidden_apps: ARIs or UUIDs of apps that belong to another account.
        rate_limit_window: Whether the limit looks back from each call or at fixed periods of the clock.
        rate_limit_channel: How a refusal is told. HTTP 429 with `Retry-After` in seconds, as an HTTP-date
            or as an ISO time without seconds; HTTP 429 with only `X-RateLimit-Reset`; a `QueryError` with
            statusCode 429 (look-ups, which know none, use `errors[]`); or `errors[]`, with HTTP 200 both.
        request_id_in: Where the request id is to be found.
    """

    seed: int = 1
    traffic: float = 1.0
    large_app: bool = False
    containers: bool = True
    latency_shape: LatencyShape = "histogram"
    unnormalised_url: bool = False
    incident_weekdays: frozenset[int] = frozenset({2})
    site_incident_weekdays: frozenset[int] = frozenset({3})
    lateness: bool = False
    outage: bool = False
    inclusive_ends: bool = False
    unaligned_points: bool = False
    points_outside_window: bool = False
    exact_duplicates: bool = False
    repeated_container_points: bool = False
    environment_ids: Literal["uuid", "ari"] = "uuid"
    forbidden_apps: frozenset[str] = frozenset()
    rate_limit_window: Literal["sliding", "fixed"] = "sliding"
    rate_limit_channel: RateLimitChannel = "seconds"
    request_id_in: frozenset[Literal["body", "x-request-id", "x-trace-id"]] = frozenset(
        {"body", "x-request-id"}
    )
