"""What a seed stands for: the app's points, the runs that deliver them, and how bad the weather is."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from airflow_provider_forge.windows import MAX_WINDOW

__all__ = ["APP", "ENVIRONMENTS", "METRICS", "Plan", "PlannedPoint", "Run"]

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
ENVIRONMENTS = {
    "8cb293d5-be08-47ae-a75c-95b89da5ad1d": "production",
    "9cb293d5-be08-47ae-a75c-95b89da5ad1e": "staging",
}
METRICS = ("FORGE_API_REQUEST_COUNT", "FORGE_BACKEND_INVOCATION_COUNT", "FORGE_BACKEND_INVOCATION_ERRORS")

QUARTERS = 5
# Of every so many seeds one is long: hundreds of windows.
LONG_EVERY = 50
LONG_QUARTERS = 54

_MINUTE = dt.timedelta(minutes=1)


@dataclass(frozen=True)
class PlannedPoint:
    """A point that the gateway has.

    Attributes:
        id: Readable, and the only one of its name; an attribute of the point.
        label: Of its metric.
        environment: UUID.
        minute: That its time lies in, from the storm's first.
        copies: How often the gateway has it.
        late: Answers of the gateway after which it appears.
        grows: Whether its value is another one in every answer.
    """

    id: str
    label: str
    environment: str
    minute: int
    copies: int = 1
    late: int = 0
    grows: bool = False


@dataclass(frozen=True)
class Run:
    """A run of the DAG, or of another one that delivers to the same receiver.

    Attributes:
        name: Short.
        start: First minute, from the storm's first.
        end: First minute after it.
        arguments: Of the operator.
        clears: How often it is run again once it has succeeded.
        machine: On which it runs, where leases do not reach all.
    """

    name: str
    start: float
    end: float
    arguments: dict[str, Any] = field(default_factory=dict)
    clears: int = 0
    machine: int = 0

    def wants(self, point: PlannedPoint) -> bool:
        """Tell whether the run is to deliver a point."""
        return (
            self.start <= point.minute < self.end
            and point.label in self.arguments["metrics"]
            and point.environment in self.arguments["environments"]
        )


class Plan:
    """Everything that a seed decides.

    Args:
        seed: Any whole number.

    Attributes:
        in_files: Whether the record is in files, else in a stand-in for Airflow's store.
        machines: Number of machines that share no lease; 1 where leases reach all tasks.
        tasks: How many tasks there are at once.
        fault_rate: Part of calls that go wrong, on either side.
        kill_rate: Part of tries that are killed.
        power_cuts: How often the machine loses its power.
        protocol: Of the OTLP Connection.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        draw = self.random("plan")
        self.quarters = LONG_QUARTERS if seed % LONG_EVERY == LONG_EVERY - 1 else QUARTERS
        self.in_files = draw.random() < 0.5
        self.machines = 2 if draw.random() < 0.3 else 1
        self.tasks = draw.randint(3, 5)
        self.fault_rate = draw.uniform(0.1, 0.15)
        self.kill_rate = draw.uniform(0.2, 0.4)
        self.protocol = draw.choice(["http/protobuf", "http/protobuf", "http/json"])
        self.max_body_bytes = draw.choice([2048, 4096, 1 << 20])
        now = int(dt.datetime.now(dt.timezone.utc).timestamp())
        begun = now - now % int(MAX_WINDOW.total_seconds())
        self.start = dt.datetime.fromtimestamp(begun, dt.timezone.utc) - self.quarters * MAX_WINDOW

    def random(self, *parts: object) -> random.Random:
        """Return random numbers that depend on nothing but the seed and these parts."""
        return random.Random("/".join(map(str, (self.seed, *parts))))

    def moment(self, minute: float) -> dt.datetime:
        """Return the time of a minute of the storm."""
        return self.start + minute * _MINUTE

    @property
    def minutes(self) -> int:
        """How long the storm's points go on."""
        return self.quarters * 15

    @cached_property
    def points(self) -> list[PlannedPoint]:
        """All points, oldest first."""
        draw = self.random("points")
        points = []
        for minute in range(self.minutes):
            for number in range(draw.choice([0, 1, 2, 3, 5])):
                label, environment = draw.choice(METRICS), draw.choice([*ENVIRONMENTS])
                points.append(
                    PlannedPoint(
                        f"{minute}.{number}",
                        label,
                        environment,
                        minute,
                        copies=draw.choices([1, 2], [20, 1])[0],
                        late=draw.choices([0, draw.randint(1, 6 * self.quarters)], [10, 1])[0],
                        grows=draw.random() < 0.03,
                    )
                )
        return points

    @cached_property
    def generated(self) -> Counter[str]:
        """How often each point is to arrive, by id."""
        return Counter({point.id: point.copies for point in self.points})

    @cached_property
    def runs(self) -> list[Run]:
        """The runs, in the order in which they begin."""
        draw = self.random("runs")
        quarter = [self._run(draw, f"q{n}", n * 15, (n + 1) * 15) for n in range(self.quarters)]
        others = [self._odd_run(draw, f"{kind}{n}", kind) for n, kind in enumerate(draw.choices("mfbs", k=3))]
        for run in others:
            quarter.insert(draw.randint(0, len(quarter)), run)
        return quarter

    def due(self, name: str) -> list[PlannedPoint]:
        """Return the points that a run has to deliver, but for those that come late."""
        run = next((run for run in self.runs if run.name == name), None)
        return [point for point in self.points if run and not point.late and run.wants(point)]

    def _odd_run(self, draw: random.Random, name: str, kind: str) -> Run:
        if kind == "m":  # by hand: any moments
            start = draw.uniform(0, self.minutes - 5)
            end = min(start + draw.uniform(0.2, 40), self.minutes)
            return self._run(draw, name, round(start * 60) / 60, round(end * 60) / 60)
        if kind == "f":  # five minutes
            start = draw.randrange(0, self.minutes, 5)
            return self._run(draw, name, start, start + 5)
        if kind == "b":  # a backfill
            return self._run(draw, name, 0, self.minutes)
        # Another DAG: a part of the metrics and environments.
        chosen = {
            "metrics": draw.sample(METRICS, draw.randint(1, 2)),
            "environments": draw.sample([*ENVIRONMENTS], draw.randint(1, 2)),
        }
        start = draw.randrange(0, self.minutes - 15)
        return self._run(draw, name, start, start + draw.choice([15, 30]), **chosen)

    def _run(self, draw: random.Random, name: str, start: float, end: float, **arguments: Any) -> Run:
        chosen = {"environments": [*ENVIRONMENTS], "metrics": METRICS, **arguments}
        chosen["revisit_after"] = dt.timedelta(hours=1) if draw.random() < 0.3 else None
        return Run(
            name,
            start,
            min(end, self.minutes),
            chosen,
            clears=draw.choices([0, 1, 2], [4, 2, 1])[0],
            machine=draw.randrange(self.machines),
        )
