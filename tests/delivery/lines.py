"""A line of one window without sockets: answers made of few words, a store and a receiver that can break."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_provider_forge.delivery import sender as sender_module
from airflow_provider_forge.delivery.attempts import Attempts
from airflow_provider_forge.delivery.deliver import deliver
from airflow_provider_forge.delivery.destination import Destination
from airflow_provider_forge.delivery.ledger import Ledger, Selection
from airflow_provider_forge.delivery.progress import DeliveryStats
from airflow_provider_forge.delivery.sender import Policy
from airflow_provider_forge.gateway.client import AppMetrics
from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.otlp.endpoint import Endpoint, Limits
from airflow_provider_forge.payload.payload import ReadOptions
from airflow_provider_forge.payload.reader import read
from airflow_provider_forge.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from airflow_provider_forge.delivery.accounts import Account
    from airflow_provider_forge.payload.payload import Payload

EPOCH = dt.datetime(2026, 11, 23, 5, 0, tzinfo=dt.timezone.utc)
NOW = EPOCH + dt.timedelta(hours=2)
SELECTION = Selection(["production"], ["FORGE_API_REQUEST_COUNT"])


def at(minutes: float) -> dt.datetime:
    """Return the time so many minutes after the epoch of these tests."""
    return EPOCH + dt.timedelta(minutes=minutes)


class Spot(NamedTuple):
    """What tells one point from another."""

    metric: str
    site: str
    seconds: int
    """Its time, counted from the epoch of these tests."""


def resource_metrics(served: Iterable[tuple[Spot, int]]) -> list[dict[str, Any]]:
    """Return an answer in OTLP/JSON, in the given order."""
    metrics = []
    for spot, value in served:
        time = int(at(spot.seconds / 60).timestamp()) * 10**9
        point = {
            "attributes": [{"key": "contextAri", "value": {"stringValue": spot.site}}],
            "startTimeUnixNano": str(time - 60 * 10**9),
            "timeUnixNano": str(time),
            "asInt": value,
        }
        metrics.append({"name": spot.metric, "sum": {"aggregationTemporality": 1, "dataPoints": [point]}})
    return [{"resource": {}, "scopeMetrics": [{"metrics": metrics}]}]


def spots(body: bytes) -> list[tuple[Spot, int]]:
    """Return the points of a request in JSON."""
    [resource] = json.loads(body)["resourceMetrics"]
    return [
        (
            Spot(
                metric["name"],
                point["attributes"][0]["value"]["stringValue"],
                int(point["timeUnixNano"]) // 10**9 - int(EPOCH.timestamp()),
            ),
            point["asInt"],
        )
        for metric in resource["scopeMetrics"][0]["metrics"]
        for point in metric["sum"]["dataPoints"]
    ]


class Killed(BaseException):
    """The task process was killed: nothing it would still have done happens."""


class Fuse:
    """Kills at the n-th step, and keeps killing until it is reset."""

    def __init__(self) -> None:
        self.left: int | None = None

    def step(self) -> None:
        if self.left is not None:
            if self.left <= 0:
                raise Killed
            self.left -= 1


@dataclass
class BreakableStore:
    """A store whose every step may be the last."""

    fuse: Fuse = field(default_factory=Fuse)
    largest: int | None = None
    name: str = "the test's store"
    lasting: bool = True
    values: dict[str, str] = field(default_factory=dict)
    writes: int = 0

    def get(self, key: str) -> Any:
        self.fuse.step()
        return json.loads(self.values[key]) if key in self.values else None

    def set(self, key: str, value: Any) -> None:
        self.fuse.step()
        self.writes += 1
        self.values[key] = json.dumps(value, separators=(",", ":"))

    def delete(self, key: str) -> None:
        self.fuse.step()
        self.values.pop(key, None)


@dataclass
class Receiver:
    """Keeps what it is sent; the process may be killed before and after it has it."""

    endpoint: Endpoint
    fuse: Fuse = field(default_factory=Fuse)
    requests: list[list[tuple[Spot, int]]] = field(default_factory=list)
    failures: list[Exception | None] = field(default_factory=list)

    def export(self, export: Any, *, seconds: float | None = None) -> None:
        self.fuse.step()
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        self.requests.append(spots(export.body))
        self.fuse.step()

    @property
    def points(self) -> Counter[Spot]:
        return Counter(spot for request in self.requests for spot, _ in request)

    @property
    def values(self) -> Counter[tuple[Spot, int]]:
        return Counter(point for request in self.requests for point in request)


@contextlib.contextmanager
def named_in_the_log() -> Iterator[list[int]]:
    """Collect the numbers of points of which the log says that a duplicate is possible."""
    found: list[int] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if match := re.match(r"(\d+) points .* one duplicate of each is possible", record.getMessage()):
                found.append(int(match[1]))

    collector = Collector()
    # All modules of the delivery log below it.
    logger = logging.getLogger(sender_module.__name__.rpartition(".")[0])
    logger.addHandler(collector)
    try:
        yield found
    finally:
        logger.removeHandler(collector)


class NoLeases:
    """For tests in which nobody else is there."""

    @contextlib.contextmanager
    def hold(self, records: Iterable[int]) -> Iterator[None]:
        yield


class Memory:
    """A sentinel."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}

    def load(self) -> dict[str, Any]:
        return self.content

    def save(self, content: dict[str, Any]) -> None:
        self.content = content


class Line:
    """One destination with its ledger; each `run` is a task of its own."""

    def __init__(self, *, max_body_bytes: int = 10**6, largest: int | None = None) -> None:
        self.fuse = Fuse()
        self.store = BreakableStore(self.fuse, largest)
        endpoint = Endpoint("http://localhost:4318/v1/metrics", limits=Limits(max_body_bytes=max_body_bytes))
        self.receiver = Receiver(endpoint, self.fuse)
        self.sentinels: dict[str, Memory] = {}
        self.now: Callable[[], dt.datetime] = lambda: NOW
        self.clock: Callable[[], float] = lambda: 0.0
        self.account: Account | None = None

    def ledger(self) -> Ledger:
        return Ledger(
            self.store,
            "app/where",
            leases=NoLeases(),
            sentinel=self.sentinel,
            account=self.account,
            now=self.now,
            clock=self.clock,
        )

    def sentinel(self, selection: str) -> Memory:
        return self.sentinels.setdefault(selection, Memory())

    def run(
        self,
        served: Iterable[tuple[Spot, int]],
        start: float = 0,
        end: float = 15,
        *,
        ledger: Ledger | None = None,
        selection: Selection = SELECTION,
        attempts: Attempts | None = None,
        **policy: Any,
    ) -> DeliveryStats:
        """Deliver what was served for the minutes from `start` to `end`."""
        text = json.dumps(resource_metrics(served)).encode()

        def content(environments: Collection[str]) -> Payload:
            return read(text, ReadOptions(environments, 0, None, "http/json"))

        metrics = AppMetrics(
            "app",
            Window(at(start), at(end)),
            tuple(Environment(name) for name in selection.environments),
            tuple(selection.metrics),
            msgspec.Raw(text),
            None,
            elapsed=0.0,
            waited=0.0,
        )
        stats = DeliveryStats()
        deliver(
            metrics,
            content(selection.environments),
            Destination(self.receiver, ledger or self.ledger(), attempts=attempts or Attempts()),
            Policy(**policy),
            stats,
            lambda environments: content(environments).fingerprints,
        )
        return stats
