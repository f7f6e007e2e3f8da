"""What is delivered again is there once, at receivers that nobody here has written."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_forge.gateway.queries import PUBLISHED_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from demo.dagfile import install_dag
from tests.e2e.dag_runs import connections, run_dag
from tests.receivers.collector import SIDECAR, Collector
from tests.receivers.prometheus import Prometheus
from tests.receivers.totals import totals_of
from tests.receivers.victoria_metrics import VictoriaMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_forge.sandbox import Point

pytestmark = pytest.mark.timeout(300)

HOUR = timedelta(hours=1)
# A call is a quarter hour at most, so these are cut at other places than hours are.
UNALIGNED = timedelta(minutes=20)
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 1}


@dataclass(frozen=True)
class Destination:
    """Where points go.

    Attributes:
        url: The host of the OTLP Connection.
        holds: Says what has arrived there.
        holding: What it says once these points have arrived, each once.
    """

    url: str
    holds: Callable[[], Any]
    holding: Callable[[list[Point]], Any]


@contextmanager
def collector(directory: Path) -> Iterator[Destination]:
    with OtlpSink() as sink, Collector(directory, SIDECAR, DESTINATION_URL=sink.url) as receiver:
        yield Destination(receiver.url, lambda: Counter(sink.points), Counter)


@contextmanager
def prometheus(directory: Path) -> Iterator[Destination]:
    with Prometheus(directory) as receiver:
        yield Destination(receiver.url, receiver.totals, lambda points: totals_of(points, receiver.name_of))


@contextmanager
def victoria_metrics(directory: Path) -> Iterator[Destination]:
    with VictoriaMetrics(directory) as receiver:
        yield Destination(receiver.url, receiver.totals, lambda points: totals_of(points, str))


@pytest.fixture(params=[collector, prometheus, victoria_metrics], ids=lambda receiver: receiver.__name__)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Destination]:
    with request.param(tmp_path) as destination:
        yield destination


def test_a_repeated_delivery_is_stored_once(destination: Destination, home: Path, tmp_path: Path) -> None:
    # Almost as long ago as the gateway answers.
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    start = now - timedelta(days=13)
    end = start + 2 * HOUR
    with SandboxGateway(rate_limit_calls=None) as gateway:
        partners = connections(
            gateway,
            destination.url,
            forge={**NO_LIMIT, "metrics": PUBLISHED_METRICS},
            ledger_url=(tmp_path / "ledger").as_uri(),
        )

        def deliver(since: datetime, window: timedelta) -> None:
            install_dag(home / "dags", interval=window)
            states = run_dag(home, since.isoformat(), (end - window).isoformat(), **partners)
            assert set(states.values()) == {"success"}
            assert len(states) == (end - since) / window

        def holding(since: datetime) -> Any:
            points = gateway.generated(since, end, environments=["production"], metrics=PUBLISHED_METRICS)
            assert points
            return destination.holding(points)

        deliver(start + UNALIGNED, UNALIGNED)
        assert destination.holds() == holding(start + UNALIGNED)
        deliver(start + UNALIGNED, UNALIGNED)
        assert destination.holds() == holding(start + UNALIGNED)
        # Of its quarter hours, the first is older than all that is there, and the second is there in part.
        deliver(start, HOUR)
        assert destination.holds() == holding(start)
