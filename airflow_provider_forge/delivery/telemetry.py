"""The exporter's own metrics, `forge.exporter.*`: instruments, a task's statistics, and their request.

They distinguish a quiet app from a dead exporter. They are sent in a request of their own, to the receiver of
the app's metrics, and nothing depends on their arrival. Each app in each DAG is one series: no attribute
varies by run, host or version.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.progress import DeliveryStats, Pass
from airflow_provider_forge.exceptions import WindowExpired
from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.messages import DELTA, Json, any_value
from airflow_provider_forge.otlp.requests import ExportRequest, encode_request
from airflow_provider_forge.payload.conform import SCHEMA_URL, SERVICE_NAMESPACE
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import LIVE_FOR

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_forge.gateway.ratelimit import LimitUsage
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.windows import Window

__all__ = [
    "CALLS",
    "COVERAGE",
    "ERROR_TYPE",
    "FAILURES",
    "GAP_EXPIRY",
    "HEARTBEAT",
    "LAG",
    "LATE",
    "OUTCOME",
    "POINTS",
    "POINT_OUTCOMES",
    "SCOPE_NAME",
    "THROTTLES",
    "TOKEN_EXPIRY",
    "UNARCHIVED",
    "WAIT",
    "WINDOWS",
    "WINDOW_END",
    "WINDOW_OUTCOMES",
    "Instrument",
    "Measurement",
    "Reporter",
    "TaskStats",
    "encode_measurements",
    "send_measurements",
]

log = get_logger(__name__)

SERVICE_NAME = "airflow-provider-forge"
SCOPE_NAME = "airflow_provider_forge"

MAX_SECONDS = 5.0
"""Maximum duration of the request: a task must not wait long for its own telemetry."""

OUTCOME = "forge.exporter.outcome"
ERROR_TYPE = "error.type"
_DAG_ID = "forge.exporter.dag.id"
_DESTINATION = "forge.exporter.destination"

WINDOW_OUTCOMES = ("delivered", "empty", "expired", "failed")
POINT_OUTCOMES = ("sent", "unchanged", "changed", "ambiguous", "rejected")


@dataclass(frozen=True)
class Instrument:
    """A metric.

    Attributes:
        name: OpenTelemetry name.
        unit: UCUM unit.
        description: OpenTelemetry description.
        adds_up: Whether it is a monotonic delta sum; otherwise it is a gauge.
    """

    name: str
    unit: str
    description: str
    adds_up: bool = False


HEARTBEAT = Instrument("forge.exporter.heartbeat", "{heartbeat}", "A task ended, successfully or not.")
WINDOW_END = Instrument(
    "forge.exporter.window.end", "s", "Unix time at which the newest window delivered ends."
)
LAG = Instrument("forge.exporter.lag", "s", "Age of the end of the newest window when its task ended.")
WINDOWS = Instrument("forge.exporter.windows", "{window}", "Windows by outcome.", adds_up=True)
POINTS = Instrument("forge.exporter.points", "{point}", "Points by outcome.", adds_up=True)
WAIT = Instrument("forge.exporter.wait", "s", "Time spent waiting for the rate limit.", adds_up=True)
CALLS = Instrument("forge.exporter.calls", "{call}", "Calls to Atlassian's gateway.", adds_up=True)
THROTTLES = Instrument(
    "forge.exporter.throttles", "{response}", "Responses of the gateway with status 429.", adds_up=True
)
UNARCHIVED = Instrument(
    "forge.exporter.unarchived", "{window}", "Windows that could not be archived.", adds_up=True
)
FAILURES = Instrument("forge.exporter.failures", "{failure}", "Failed tries of a task.", adds_up=True)
COVERAGE = Instrument("forge.exporter.coverage", "{window}", "Quarter hours of the last 14 days.")
LATE = Instrument(
    "forge.exporter.late", "1", "Share of live windows that got points after they had been delivered."
)
GAP_EXPIRY = Instrument(
    "forge.exporter.gap.expiry",
    "s",
    "Time until the first unattended window expires that can still be delivered.",
)
TOKEN_EXPIRY = Instrument("forge.exporter.token.expiry", "s", "Time until the API token expires.")


@dataclass(frozen=True)
class Measurement:
    """One point of an instrument.

    Args:
        instrument: The instrument.
        value: A finite number; not negative if the instrument adds up.
        attributes: The point's attributes, without the DAG's. Use few values, so that there are few series.

    Raises:
        ValueError: The value is not finite, or negative in a sum.
    """

    instrument: Instrument
    value: float
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or (self.instrument.adds_up and self.value < 0):
            raise ValueError(f"{self.instrument.name} cannot be {self.value}")


@dataclass(frozen=True)
class Reporter:
    """The source of the measurements.

    Attributes:
        app_id: UUID of the app.
        dag_id: Airflow's id of the DAG.
        destination: Id of the destination's Connection if the task has several, else empty.
    """

    app_id: str
    dag_id: str
    destination: str = ""

    def attributes(self) -> dict[str, str]:
        """Return the attributes of all points."""
        destination = {_DESTINATION: self.destination} if self.destination else {}
        return {_DAG_ID: self.dag_id, **destination}

    def resource(self) -> Json:
        """Return the OpenTelemetry resource of all measurements for the app."""
        values = {
            "atlassian.forge.app.id": self.app_id,
            # Prometheus identifies resources by this and the service alone.
            "service.instance.id": self.app_id,
            "service.name": SERVICE_NAME,
            "service.namespace": SERVICE_NAMESPACE,
        }
        return {"attributes": _attributes(values)}


@dataclass
class TaskStats:
    """Statistics of one process of a task; after a deferral a task continues in another process.

    Attributes:
        started: Start time, in nanoseconds since the epoch.
        windows: Number of windows by outcome, without those that are only revisited.
        delivery: Statistics of all windows, including partial ones of windows that failed.
        newest: End of the newest window delivered, with or without points; None if there is none.
        in_window: Whether a window is being exported.
        deferred: Seconds for which the rate limit had deferred the task.
        failure: Class name of the error that failed the task; None without one.
        has_ended: Whether the task has ended; false if it is only deferred.
        archives: Whether the task archives its windows.
    """

    started: int = field(default_factory=time.time_ns)
    windows: Counter[str] = field(default_factory=Counter)
    delivery: DeliveryStats = field(default_factory=DeliveryStats)
    newest: dt.datetime | None = None
    in_window: bool = False
    deferred: float = 0.0
    failure: str | None = None
    has_ended: bool = True
    archives: bool = False

    def begin_window(self, current_pass: Pass) -> None:
        """Note that a window is being exported, for an error that ends the task meanwhile."""
        self.in_window = current_pass is Pass.FIRST

    def count_window(self, window: Window, current_pass: Pass, stats: DeliveryStats) -> None:
        """Count a window that was exported; `delivery` has its statistics already.

        Args:
            window: The window.
            current_pass: The reason for exporting it.
            stats: Its statistics.
        """
        if current_pass is Pass.FIRST:
            outcome = "failed" if stats.problems else "delivered" if stats.points else "empty"
            self.windows[outcome] += 1
            if not stats.problems and (self.newest is None or window.end > self.newest):
                self.newest = window.end

    def fail(self, error: BaseException) -> None:
        """Note the error that failed the task."""
        self.failure = type(error).__name__
        # An expired window fails the task before its export begins.
        self.windows["failed"] += self.in_window or isinstance(error, WindowExpired)

    def lag(self, now: dt.datetime) -> float | None:
        """Return the age of the newest window in seconds; None if it is not live, as in a backfill."""
        if self.newest is None or now - self.newest >= LIVE_FOR:
            return None
        return (now - self.newest).total_seconds()

    def count(self, outcome: str) -> int:
        """Return the number of points with an outcome."""
        # Rejections are subtracted from the points sent before their request is added.
        number: int = getattr(self.delivery, outcome)
        return max(number, 0)

    def measurements(self, usage: LimitUsage, now: dt.datetime) -> Iterator[Measurement]:
        """Yield the measurements of the task.

        Args:
            usage: The task's use of the rate limit.
            now: Current time, aware.
        """
        if self.has_ended:
            yield Measurement(HEARTBEAT, 1)
        if self.newest is not None and (lag := self.lag(now)) is not None:
            yield Measurement(WINDOW_END, int(self.newest.timestamp()))
            yield Measurement(LAG, lag)
        # Zeros too: most backends miss the first increase of a series that did not exist before.
        for outcome in WINDOW_OUTCOMES:
            yield Measurement(WINDOWS, self.windows[outcome], {OUTCOME: outcome})
        for outcome in POINT_OUTCOMES:
            yield Measurement(POINTS, self.count(outcome), {OUTCOME: outcome})
        yield Measurement(WAIT, float(usage.waited + self.deferred))
        yield Measurement(CALLS, usage.calls)
        yield Measurement(THROTTLES, usage.throttles)
        if self.archives:
            yield Measurement(UNARCHIVED, self.delivery.unarchived)
        if self.failure:
            yield Measurement(FAILURES, 1, {ERROR_TYPE: self.failure})


def encode_measurements(
    measurements: Iterable[Measurement], reporter: Reporter, protocol: str, *, start: int, now: int
) -> ExportRequest:
    """Return an OTLP request with the measurements.

    Args:
        measurements: The measurements.
        reporter: Their source.
        protocol: `http/protobuf` or `http/json`.
        start: Start time of the sums, in nanoseconds since the epoch.
        now: Time of every point, likewise; later than `start`.
    """
    metrics: dict[str, Json] = {}
    for each in measurements:
        instrument = each.instrument
        kind = "sum" if instrument.adds_up else "gauge"
        data: Json = {"dataPoints": []}
        if instrument.adds_up:
            data |= {"aggregationTemporality": DELTA[0], "isMonotonic": True}
        names = {"name": instrument.name, "unit": instrument.unit, "description": instrument.description}
        metric = metrics.setdefault(instrument.name, {**names, kind: data})
        metric[kind]["dataPoints"].append(_point(each, reporter, start, now))
    scope = {"scope": {"name": SCOPE_NAME}, "metrics": list(metrics.values())}
    resource = {"resource": reporter.resource(), "schemaUrl": SCHEMA_URL, "scopeMetrics": [scope]}
    return encode_request([resource], protocol)


def send_measurements(
    endpoint: Endpoint, measurements: Iterable[Measurement], reporter: Reporter, *, start: int
) -> bool:
    """Send the measurements in one request, without retries; return whether the receiver accepted them.

    Never raises: losing telemetry must not fail the task. Failures are logged.

    Args:
        endpoint: The receiver.
        measurements: The measurements.
        reporter: Their source.
        start: Start time of the sums, in nanoseconds since the epoch.
    """
    limits = dataclasses.replace(
        endpoint.limits, timeout=min(endpoint.limits.timeout, MAX_SECONDS), export_timeout=MAX_SECONDS
    )
    try:
        now = max(time.time_ns(), start + 1)
        request = encode_measurements(measurements, reporter, endpoint.protocol, start=start, now=now)
        with OtlpClient(dataclasses.replace(endpoint, limits=limits)) as client:
            client.export(request)
    except Exception as error:  # noqa: BLE001 - no error of any kind may fail the delivery
        log.warning(
            "The exporter's own metrics are lost: %s: %s. Nothing else depends on them, and they are not sent"
            " again; telemetry=False switches them off",
            type(error).__name__,
            # The rest is about retries, which there are none of.
            str(error).partition(". ")[0],
        )
        return False
    return True


def _point(measurement: Measurement, reporter: Reporter, start: int, now: int) -> Json:
    value = measurement.value
    point: Json = {"asInt": str(value)} if isinstance(value, int) else {"asDouble": value}
    if measurement.instrument.adds_up:
        point["startTimeUnixNano"] = str(start)
    attributes = _attributes({**measurement.attributes, **reporter.attributes()})
    return {**point, "timeUnixNano": str(now), "attributes": attributes}


def _attributes(values: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": any_value(values[key])} for key in sorted(values)]
