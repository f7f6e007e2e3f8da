"""The exporter's own metrics, `forge.exporter.*`: what they are, and how they reach the receiver.

They tell a quiet app from a dead exporter. They go out in a request of their own, to where the app's metrics
go, and nothing depends on whether they arrive. A series is one app in one DAG: nothing in it varies by run,
host or version.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.messages import DELTA, Json, any_value
from airflow_provider_forge.otlp.requests import ExportRequest, encode_request
from airflow_provider_forge.payload.conform import SCHEMA_URL, SERVICE_NAMESPACE
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = [
    "CALLS",
    "COVERAGE",
    "ERROR_TYPE",
    "FAILURES",
    "GAP_EXPIRY",
    "HEARTBEAT",
    "LAG",
    "OUTCOME",
    "POINTS",
    "SCOPE_NAME",
    "THROTTLES",
    "TOKEN_EXPIRY",
    "WAIT",
    "WINDOWS",
    "WINDOW_END",
    "Instrument",
    "Measurement",
    "Reporter",
    "encode_measurements",
    "send_measurements",
]

log = get_logger(__name__)

SERVICE_NAME = "airflow-provider-forge"
SCOPE_NAME = "airflow_provider_forge"

LONGEST_WAIT = 5.0
"""Seconds that the call may take: a task must not wait long for what it can do without."""

OUTCOME = "forge.exporter.outcome"
ERROR_TYPE = "error.type"
_DAG_ID = "forge.exporter.dag.id"


@dataclass(frozen=True)
class Instrument:
    """One metric.

    Attributes:
        name: As OpenTelemetry names it.
        unit: In UCUM.
        description: What it tells.
        adds_up: Whether it is a monotonic delta sum; otherwise a gauge.
    """

    name: str
    unit: str
    description: str
    adds_up: bool = False


HEARTBEAT = Instrument("forge.exporter.heartbeat", "{heartbeat}", "A task ended, whatever its outcome.")
WINDOW_END = Instrument(
    "forge.exporter.window.end", "s", "Unix time at which the newest window delivered ends."
)
LAG = Instrument("forge.exporter.lag", "s", "Age of the end of the newest window when its task ended.")
WINDOWS = Instrument("forge.exporter.windows", "{window}", "Windows by what became of them.", adds_up=True)
POINTS = Instrument("forge.exporter.points", "{point}", "Points by what became of them.", adds_up=True)
WAIT = Instrument("forge.exporter.wait", "s", "Time spent waiting for the rate limit.", adds_up=True)
CALLS = Instrument("forge.exporter.calls", "{call}", "Calls to Atlassian's gateway.", adds_up=True)
THROTTLES = Instrument("forge.exporter.throttles", "{response}", "429s of the gateway.", adds_up=True)
FAILURES = Instrument("forge.exporter.failures", "{failure}", "Failed tries of a task.", adds_up=True)
COVERAGE = Instrument("forge.exporter.coverage", "{window}", "Quarter hours of the last 14 days.")
GAP_EXPIRY = Instrument(
    "forge.exporter.gap.expiry", "s", "Time until the first gap left open begins to expire."
)
TOKEN_EXPIRY = Instrument("forge.exporter.token.expiry", "s", "Time until the API token expires.")


@dataclass(frozen=True)
class Measurement:
    """One point of an instrument.

    Args:
        instrument: Which.
        value: Finite; not below 0 where it adds up.
        attributes: Of the point, beside the DAG's; few values, so that series stay few.

    Raises:
        ValueError: The value is none that a receiver takes.
    """

    instrument: Instrument
    value: float
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or (self.instrument.adds_up and self.value < 0):
            raise ValueError(f"{self.instrument.name} cannot be {self.value}")


@dataclass(frozen=True)
class Reporter:
    """Who measures.

    Attributes:
        app_id: UUID of the app.
        dag_id: Airflow's id of the DAG.
    """

    app_id: str
    dag_id: str

    def resource(self) -> Json:
        """Return the resource of all that is measured for the app."""
        named = {
            "atlassian.forge.app.id": self.app_id,
            # Prometheus tells resources apart by this and the service alone.
            "service.instance.id": self.app_id,
            "service.name": SERVICE_NAME,
            "service.namespace": SERVICE_NAMESPACE,
        }
        return {"attributes": _attributes(named)}


def encode_measurements(
    measurements: Iterable[Measurement], reporter: Reporter, protocol: str, *, start: int, now: int
) -> ExportRequest:
    """Return the request that holds them.

    Args:
        measurements: What to send.
        reporter: Who has measured it.
        protocol: `http/protobuf` or `http/json`.
        start: Since when the sums were counted, in nanoseconds since the epoch.
        now: Until when, likewise; later than `start`, and the time of every point.
    """
    metrics: dict[str, Json] = {}
    for each in measurements:
        instrument = each.instrument
        kind = "sum" if instrument.adds_up else "gauge"
        shell: Json = {"dataPoints": []}
        if instrument.adds_up:
            shell |= {"aggregationTemporality": DELTA[0], "isMonotonic": True}
        named = {"name": instrument.name, "unit": instrument.unit, "description": instrument.description}
        metric = metrics.setdefault(instrument.name, {**named, kind: shell})
        metric[kind]["dataPoints"].append(_point(each, reporter, start, now))
    scope = {"scope": {"name": SCOPE_NAME}, "metrics": list(metrics.values())}
    resource = {"resource": reporter.resource(), "schemaUrl": SCHEMA_URL, "scopeMetrics": [scope]}
    return encode_request([resource], protocol)


def send_measurements(
    endpoint: Endpoint, measurements: Iterable[Measurement], reporter: Reporter, *, start: int
) -> bool:
    """Send them in one request, once; return whether the receiver has taken them.

    Raises nothing: who measures has better things to do, and hears of it from the log.

    Args:
        endpoint: Where to.
        measurements: What to send.
        reporter: Who has measured it.
        start: Since when the sums were counted, in nanoseconds since the epoch.
    """
    hasty = dataclasses.replace(
        endpoint, timeout=min(endpoint.timeout, LONGEST_WAIT), export_timeout=LONGEST_WAIT
    )
    try:
        now = max(time.time_ns(), start + 1)
        export = encode_measurements(measurements, reporter, endpoint.protocol, start=start, now=now)
        with OtlpClient(hasty) as client:
            client.export(export)
    except Exception as error:  # noqa: BLE001 - whatever it is, the delivery itself has nothing to do with it
        log.warning(
            "The exporter's own metrics are lost: %s: %s. Nothing else depends on them, and they are not sent"
            " again; telemetry=False switches them off",
            type(error).__name__,
            # What follows is about trying again.
            str(error).partition(". ")[0],
        )
        return False
    return True


def _point(measurement: Measurement, reporter: Reporter, start: int, now: int) -> Json:
    value = measurement.value
    point: Json = {"asInt": str(value)} if isinstance(value, int) else {"asDouble": value}
    if measurement.instrument.adds_up:
        point["startTimeUnixNano"] = str(start)
    attributes = _attributes({**measurement.attributes, _DAG_ID: reporter.dag_id})
    return {**point, "timeUnixNano": str(now), "attributes": attributes}


def _attributes(values: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": any_value(values[key])} for key in sorted(values)]
