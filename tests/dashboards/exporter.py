"""A day of the exporter's own metrics for two destinations: an outage, failures, a gap, a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.coverage.coverage import WindowStatus
from airflow_provider_forge.delivery import telemetry as own
from airflow_provider_forge.delivery.telemetry import (
    POINT_OUTCOMES,
    WINDOW_OUTCOMES,
    Measurement,
    Reporter,
    encode_measurements,
)
from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.endpoint import Endpoint, metrics_url

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR, QUARTER_HOUR = 3600, 900
SECOND = 10**9  # nanoseconds
DAG = "forge_metrics"
DESTINATIONS = ("otlp_default", "otlp_other")
# No task ends in these hours of the day.
DEAD = range(18 * HOUR, 20 * HOUR + 1800)
FAILING = range(16 * HOUR, 17 * HOUR)
# The second destination alone refuses everything; a window of it stays missing.
REFUSING = range(14 * HOUR, 15 * HOUR)
WITH_GAP = range(10 * HOUR, 13 * HOUR)


class Told(NamedTuple):
    """The metrics that a task sends to a destination at its end.

    Attributes:
        time: Seconds since the epoch.
        destination: Id of the destination's Connection.
    """

    time: int
    destination: str
    measurements: list[Measurement]


def tellings(start: int, end: int) -> list[Told]:
    """Return an exporter's metrics from `start`, midnight, to `end`, in seconds since the epoch."""
    told = []
    for number, window_end in enumerate(range(start + QUARTER_HOUR, end - HOUR, QUARTER_HOUR)):
        now = window_end + 360 + number % 7
        for position, destination in enumerate(DESTINATIONS):
            failing = now - start in FAILING or (bool(position) and now - start in REFUSING)
            if now - start not in DEAD:
                task = _task(number, now, window_end, position, failing=failing)
                told.append(Told(now, destination, [*task]))
    for number, now in enumerate(range(start + 600, end, HOUR)):
        for position, destination in enumerate(DESTINATIONS):
            missing = 4 + position if now - start in WITH_GAP else position
            if now - start not in DEAD:
                told.append(Told(now, destination, [*_coverage(number, missing)]))
    return told


def _task(number: int, now: int, window_end: int, position: int, *, failing: bool) -> Iterator[Measurement]:
    """Yield the measurements for a destination; what the task has cost is the same for all of them."""
    yield Measurement(own.HEARTBEAT, 1)
    yield Measurement(own.CALLS, 1 + number % 3)
    yield Measurement(own.WAIT, number % 5 * 1.5)
    yield Measurement(own.THROTTLES, number % 4)
    # An archive is that of the first destination only.
    yield Measurement(own.UNARCHIVED, 1 if number % 9 == 4 and not position else 0)
    windows, points = dict.fromkeys(WINDOW_OUTCOMES, 0), dict.fromkeys(POINT_OUTCOMES, 0)
    if failing:
        yield Measurement(own.FAILURES, 1, {own.ERROR_TYPE: "RateLimited" if number % 3 else "GatewayDown"})
    else:
        yield Measurement(own.WINDOW_END, window_end)
        yield Measurement(own.LAG, float(now - window_end))
        windows["empty" if number % 20 == 3 else "delivered"] = 1
        points |= {"sent": 700 + number - position, "rejected": 3 if number % 10 == 5 else 0}
    for instrument, counts in {own.WINDOWS: windows, own.POINTS: points}.items():
        for outcome, count in counts.items():
            yield Measurement(instrument, count, {own.OUTCOME: outcome})


def _coverage(number: int, missing: int) -> Iterator[Measurement]:
    counts = {"pending": 2, "empty": 5, "delivered": 1000 + number, "missing": missing}
    for outcome in WindowStatus:
        yield Measurement(own.COVERAGE, counts.get(outcome.value, 0), {own.OUTCOME: outcome.value})
    yield Measurement(own.LATE, 0.0405 + number * 0.001)
    if missing:
        yield Measurement(own.GAP_EXPIRY, 50.5 * HOUR - number * 900 - missing)
    yield Measurement(own.TOKEN_EXPIRY, 14 * 24.0 * HOUR + 12 * HOUR - number * HOUR)


def send(told: list[Told], url: str, app: str) -> None:
    """Send the metrics to an OTLP receiver as an app's exporter does, but with the times of that day."""
    endpoint = Endpoint(metrics_url(url))
    with OtlpClient(endpoint) as client:
        for time, destination, measurements in told:
            start, now = (time - 30) * SECOND, time * SECOND
            reporter = Reporter(app, DAG, destination)
            client.export(
                encode_measurements(measurements, reporter, endpoint.protocol, start=start, now=now)
            )
