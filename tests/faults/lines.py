"""The whole line, from the gateway to the receiver and the ledger, run as Airflow runs a task."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Scenario
from airflow_provider_forge.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from airflow_provider_forge.sandbox import OtlpSink, Point, SandboxGateway

__all__ = ["FIRST", "INTERVAL", "LAST", "LITTLE_TRAFFIC", "MIDDLE", "Line"]

QUARTER = timedelta(minutes=15)

# A Tuesday morning, so that every week has about as many points, and no incident of the sandbox.
_START = pendulum.now("UTC").subtract(days=1).previous(pendulum.TUESDAY).add(hours=10)

FIRST = Window(_START, _START + QUARTER)
MIDDLE = FIRST.shifted(QUARTER)
LAST = MIDDLE.shifted(QUARTER)
INTERVAL = Window(FIRST.start, LAST.end)

# Some forty to eighty points in each window: a table has many rows.
LITTLE_TRAFFIC = Scenario(traffic=0.1)


@dataclass
class Line:
    """A gateway, a receiver, and the task between them.

    Attributes:
        gateway: Running.
        sink: Running, until a test stops it.
        directory: For the ledger.
        set_connections: As the fixture `connect`.
    """

    gateway: SandboxGateway
    sink: OtlpSink
    directory: Path
    set_connections: Callable[..., None]

    def connect(self, *, forge: dict[str, Any] | None = None, otlp: dict[str, Any] | None = None) -> None:
        """Set the Connections, with these extras."""
        extras = {"ledger_url": f"file://{self.directory}/ledger", **(otlp or {})}
        self.set_connections(self.gateway, self.sink, forge=forge, otlp=extras)

    def run(self, interval: Window = INTERVAL, **arguments: Any) -> dict[str, Any]:
        """Do one try of a task."""
        context = {"data_interval_start": interval.start, "data_interval_end": interval.end}
        # These receivers are told by number what to do, so nothing else is to be sent there.
        quiet = {"revisit_after": None, "telemetry": False}
        operator = ForgeMetricsToOtlpOperator(task_id="export", **{**quiet, **arguments})
        return operator.execute(context)

    def generated(
        self,
        interval: Window = INTERVAL,
        *,
        environment: str = "production",
        metrics: Iterable[str] = DEFAULT_METRICS,
    ) -> Counter[Point]:
        """Return what there is to deliver."""
        return Counter(
            self.gateway.generated(interval.start, interval.end, environments=[environment], metrics=metrics)
        )

    @property
    def received(self) -> Counter[Point]:
        """What the receiver has, as often as it has it."""
        return Counter(self.sink.points)

    @property
    def asked(self) -> list[Window]:
        """The windows asked for, in their order."""
        return [Window(call.start, call.end) for call in self.gateway.calls if call.operation == "appMetrics"]

    def assert_nothing_left(self, interval: Window = INTERVAL) -> None:
        """Run it once more: all is on record, so that nothing is sent."""
        before, summary = self.received, self.run(interval)
        assert (summary["sent"], summary["batches"], summary["ambiguous"]) == (0, 0, 0)
        assert summary["unchanged"] == summary["points"]
        assert self.received == before
