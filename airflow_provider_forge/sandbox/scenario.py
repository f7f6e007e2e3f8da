"""The switches of the sandbox: properties of the data and behavior of the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LatencyShape", "RateLimitChannel", "Scenario"]

LatencyShape = Literal["histogram", "exponential_histogram", "summary", "gauge"]
RateLimitChannel = Literal["seconds", "http_date", "iso", "reset", "query_error", "errors"]


@dataclass(frozen=True)
class Scenario:
    """Switches for the generated data and for the gateway's behavior. All anomalies are off by default.

    Attributes:
        seed: Everything generated is a pure function of (seed, app, environment, minute).
        traffic: Factor for the number of invocations, 0.0 for none. 1.0 gives production 30 to 80 points a
            minute on weekdays, including nine of the containers, and about 20 at weekends.
        large_app: About 20,000 points per 15-minute window of production, in the busy hours of a weekday.
        containers: Whether production and staging run containers.
        latency_shape: OTLP data type of the two latency metrics; the real one is unknown.
        unnormalised_url: One URL contains issue keys: 500 more series of requests, and 500 of their latency.
        incident_weekdays: Days (Monday is 0) on which, from 13:07 to 13:54 UTC, 40 % of the requests to
            `remote=jira` end in 5xx; they take six times as long, and there are 1.8 times as many.
        site_incident_weekdays: Days on which, from 09:20 to 11:05 UTC, most invocations of one small site
            fail, which the total hides.
        lateness: 95 % of points are visible within 3 minutes, 4 % within 20 minutes, and 1 % after 2 to 6
            hours, some of the latter with a lower value until then. Off: points are visible as soon as their
            time is reached.
        outage: The points of 05:20 to 06:00 UTC of every day become visible at 07:00.
        inclusive_ends: A window also returns the points whose `time` is exactly its start, so that both
            adjacent windows return them.
        unaligned_points: Some points are shifted relative to the minute, and some last 6 ms.
        points_outside_window: A response also contains a few points of the minutes next to its window.
        exact_duplicates: Some points exist twice, in `generated` as well.
        repeated_container_points: Container gauges come as four points with equal attributes and times.
        environment_ids: Format of the ids that lookups return. Metrics queries accept only UUIDs.
        forbidden_apps: ARIs or UUIDs of apps that belong to another account.
        rate_limit_window: Whether the limit slides, or applies to fixed periods of the clock.
        rate_limit_channel: The form of a rejection. HTTP 429 with `Retry-After` in seconds, as an HTTP-date
            or as an ISO time without seconds; HTTP 429 with only `X-RateLimit-Reset`; a `QueryError` with
            statusCode 429 (lookups have none and use `errors[]`); or `errors[]`. The last two have HTTP 200.
        request_id_in: Places that contain the request id.
        unknown_metrics: Labels that the gateway's schema does not have. One fails the whole query.
        usage_revisions: Whether most days of usage are revised for two to five days. Each refresh, at 12:00
            UTC, also adds the part of the running day until then.
        usage_page_size: Maximum size of a page of usage.
        usage_page_unit: Whether that counts periods, or their groups; Atlassian does not publish it.
        refused_resources: Resources whose usage is answered with an `error` beside empty data.
        unknown_resources: Resources that the gateway's schema does not have.
        insufficient_scopes: The account's token has scopes, but not those of usage, developer spaces and
            installations.
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
    unknown_metrics: frozenset[str] = frozenset()
    usage_revisions: bool = True
    usage_page_size: int = 100
    usage_page_unit: Literal["periods", "groups"] = "periods"
    refused_resources: frozenset[str] = frozenset()
    unknown_resources: frozenset[str] = frozenset()
    insufficient_scopes: bool = False
