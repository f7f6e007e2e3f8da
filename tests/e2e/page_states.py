"""Windows of which each has another state on the page *Forge*, produced by faults of the sandbox."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_forge.sandbox import Fault, OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW, MINUTE, Window, ceil
from demo.dagfile import COVERAGE_DAG_ID, DAG_ID, SHIPPED, install_dag, replace_once
from demo.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from demo.airflow import StandaloneAirflow

# The destination keeps points for so short that the map has no more than a few hours.
KEEP, RETENTION = "4h", timedelta(hours=3, minutes=30)
# Windows that are lost within this time are shown as such.
SOON = timedelta(hours=1, minutes=15)
# More windows than are missing because they are older than catchup, of which there are two or three.
GAP = 4


class Cell(NamedTuple):
    """A window and how the page shows it.

    Attributes:
        number: Of the window, from the oldest that catchup delivers.
        state: The state's name.
        in_class: The class of the cell.
        in_legend: The text in the legend beside the cell's color.
        deliveries: Number of deliveries that have recorded something of the window.
        time: What the tooltip says of the time of the delivery; empty if it has none.
        has_points: Whether some of its points have been delivered.
    """

    number: int
    state: str
    in_class: str
    in_legend: str
    deliveries: int = 0
    time: str = ""
    has_points: bool = False


WITH_LATE = "Delivered, with late points"
NEVER_RUN = Cell(-1, "Missing, lost soon", "is-mm", "Lost soon")
EMPTY = Cell(1, "Empty", "is-e", "Empty", 1, "Fetched")
FAILED_LONG_AGO = Cell(2, "Failed, lost soon", "is-ff", "Lost soon", 1, has_points=True)
DELIVERED = Cell(3, "Delivered", "is-d", "Delivered", 1, "Last points", has_points=True)
FAILED = Cell(4, "Failed", "is-f", "Failed", 1, has_points=True)
MISSING = Cell(6, "Missing", "is-m", "Missing")
LATE = Cell(10, WITH_LATE, "is-l", WITH_LATE, 2, "Last points", has_points=True)
REJECTED = Cell(11, "Points rejected", "is-r", "Points rejected", 2, "Last points", has_points=True)
# With all after it: they ended less than half an hour before the check.
NOT_DUE = Cell(12, "Not yet due", "is-p", "Not yet due")

CELLS = [NEVER_RUN, EMPTY, FAILED_LONG_AGO, DELIVERED, FAILED, MISSING, LATE, REJECTED, NOT_DUE]


class States:
    """The windows of one run of the test.

    Args:
        gateway: Must be there before the DAG is unpaused.
        sink: The receiver.

    Attributes:
        began: Time before the first delivery.
    """

    def __init__(self, gateway: SandboxGateway, sink: OtlpSink) -> None:
        self.gateway = gateway
        self.sink = sink
        self.began = datetime.now(timezone.utc)
        self._oldest = ceil(self.began - RETENTION, MAX_WINDOW)

    def window(self, cell: Cell) -> Window:
        start = self._oldest + cell.number * MAX_WINDOW
        return Window(start, start + MAX_WINDOW)

    def points(self, cell: Cell) -> int:
        """Return the number of points that the gateway has served with a time in the window."""
        start, end = self.window(cell).start, self.window(cell).end
        nanoseconds = range(int(start.timestamp()) * 10**9, int(end.timestamp()) * 10**9)
        # The time of a point is the end of its minute.
        served = self.gateway.served(start - MINUTE, end)
        return len({point for point in served if point.time in nanoseconds})

    def prepare(self) -> None:
        """Let the gateway refuse some windows, and have nothing yet for others."""
        refused = {"kind": "query_error", "status_code": 400, "operation": "appMetrics"}
        for cell in (FAILED, FAILED_LONG_AGO):
            whole = self.window(cell)
            # Too large for one answer, and the second of its halves is refused.
            self.gateway.add_fault(
                Fault(**{**refused, "status_code": 413}, start=whole.start, end=whole.end, longer_than=600)
            )
            self.gateway.add_fault(Fault(**refused, start=whole.halves()[1].start, end=whole.end))
        gap, late = self.window(MISSING).start, self.window(LATE).start
        self.gateway.add_fault(Fault(**refused, start=gap, end=gap + GAP * MAX_WINDOW))
        for empty in (self.window(EMPTY), Window(late, self.window(REJECTED).end)):
            self.gateway.add_fault(Fault("empty", operation="appMetrics", start=empty.start, end=empty.end))
        self.gateway.add_fault(Fault(**refused, start=self.window(NOT_DUE).start))

    def produce(self, airflow: StandaloneAirflow) -> None:
        """Let the schedule reach the present, deliver what comes late, and check the coverage."""
        api = airflow.api
        for dag_id in (DAG_ID, COVERAGE_DAG_ID):
            airflow.wait_for_dag(dag_id)
            api.pause(dag_id, paused=False)

        def is_done() -> bool:
            runs = api.runs(DAG_ID)
            return len(runs) >= RETENTION / MAX_WINDOW - 1 and all(run["end_date"] for run in runs)

        wait_for(is_done, timeout=300, what="the end of catchup", every=1.0)
        self.gateway.clear_faults()
        # One run delivers both windows, in this order.
        self.sink.add_fault(Fault("partial_success", operation="metrics", calls=frozenset({2}), rejected=3))
        late, rejected = self.window(LATE), self.window(REJECTED)
        _run(airflow, DAG_ID, {"from": late.start.isoformat(), "to": rejected.end.isoformat()})
        self.sink.clear_faults()
        _run(airflow, COVERAGE_DAG_ID)


def install_dags(folder: Path) -> None:
    """Install a DAG with a short history, and the coverage DAG without a schedule."""
    install_dag(folder, operator={"revisit_after": None}, retention=RETENTION)
    source = SHIPPED.with_name(f"{COVERAGE_DAG_ID}.py").read_text()
    soon = f'"otlp_default", "alert_before": timedelta(seconds={SOON.total_seconds():g})}}'
    source = replace_once(re.compile(r'schedule="12 \* \* \* \*"'), "schedule=None", source)
    source = replace_once(re.compile(r'"otlp_default"\}'), soon, source)
    (folder / f"{COVERAGE_DAG_ID}.py").write_text(source)


def _run(airflow: StandaloneAirflow, dag_id: str, conf: dict[str, str] | None = None) -> None:
    """Run a DAG to its end; it may fail."""
    run_id = airflow.api.trigger(dag_id, conf=conf)
    wait_for(lambda: airflow.api.run(dag_id, run_id)["end_date"], timeout=180, what=f"the run of {dag_id}")
