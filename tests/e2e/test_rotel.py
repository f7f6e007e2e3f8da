"""The same points arrive at a receiver that nobody here has written: rotel."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_provider_forge.gateway.queries import PUBLISHED_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from demo.processes import ManagedProcess, clean_environment, free_ports
from demo.waiting import wait_for
from tests.e2e.dag_runs import connections, run_dag

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from airflow_provider_forge.sandbox import Point

QUARTER = timedelta(minutes=15)

# The wheel's program needs Python's shared library, which Debian has in the package libpython3.11.
DYNAMIC_LINKER_FAILED = 127


class Rotel(ManagedProcess):
    """A rotel that prints what it has understood, and passes it on.

    Args:
        directory: For its files.
        next_url: Where it passes metrics on to.
    """

    def __init__(self, directory: Path, next_url: str) -> None:
        spec = importlib.util.find_spec("rotel")
        if spec is None or spec.origin is None:
            pytest.skip("the receiver rotel is missing (PyPI package rotel)")
        http, grpc = free_ports(2)
        self.url = f"http://127.0.0.1:{http}"
        options = {
            "otlp-http-endpoint": f"127.0.0.1:{http}",
            "otlp-grpc-endpoint": f"127.0.0.1:{grpc}",
            "debug-log": "metrics",
            "debug-log-verbosity": "detailed",
            "batch-timeout": "200ms",
            "exporter": "otlp",
            "otlp-exporter-protocol": "http",
            "otlp-exporter-endpoint": next_url,
        }
        command = [str(Path(spec.origin).with_name("rotel-agent")), "start"]
        command += [text for name, value in options.items() for text in (f"--{name}", value)]
        super().__init__(command, env=clean_environment(), log_file=directory / "rotel.log")

    def is_up(self) -> bool:
        if self.returncode == DYNAMIC_LINKER_FAILED:
            pytest.skip(f"the receiver rotel cannot start here: {self.log().strip()}")
        assert self.returncode is None, self.log()
        try:
            return httpx.get(self.url).status_code > 0
        except httpx.TransportError:
            return False

    def printed(self, name: str) -> Counter[int]:
        """Return the whole numbers on the lines of that name."""
        return Counter(map(int, re.findall(rf"^{name}: (\d+)$", self.log(), re.MULTILINE)))


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def rotel(sink: OtlpSink, tmp_path: Path) -> Iterator[Rotel]:
    with Rotel(tmp_path, sink.url) as rotel:
        wait_for(rotel.is_up, timeout=20, what="rotel", every=0.05)
        yield rotel


@pytest.mark.parametrize(
    ("protocol", "metrics"),
    [
        ("http/protobuf", PUBLISHED_METRICS),
        # In JSON, rotel 0.0.1a15 reads 64-bit integers from numbers only, while OTLP's own form for them, and
        # the gateway's in histograms, is a string: it makes an empty metric of a histogram.
        ("http/json", [label for label in PUBLISHED_METRICS if not label.endswith("_LATENCY")]),
    ],
    ids=["protobuf", "json"],
)
def test_rotel_understands_every_point(
    protocol: str, metrics: Sequence[str], home: Path, rotel: Rotel, sink: OtlpSink
) -> None:
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    names = {label.lower() for label in metrics}
    with SandboxGateway() as gateway:

        def generate(start: datetime) -> Collection[Point]:
            return gateway.generated(start, start + QUARTER, environments=["production"], metrics=metrics)

        # Some quarter hours of a weekend lack one of the metrics.
        starts = (hour - number * QUARTER for number in range(96))
        start = next(each for each in starts if {point.metric for point in generate(each)} == names)
        partners = connections(gateway, rotel.url, forge={"metrics": metrics}, protocol=protocol)
        run_dag(home, start.isoformat(), start.isoformat(), **partners)
    generated = generate(start)
    wait_for(lambda: sink.summary()["points"] >= len(generated), timeout=20, what="what rotel passes on")

    assert {point.metric for point in generated} == names
    assert Counter(sink.points) == Counter(generated)
    values = [point.data().as_int for point in generated if point.kind == "sum"]
    counts = [point.data().count for point in generated if point.kind == "histogram"]
    wait_for(lambda: sink.telemetry, timeout=20, what="the exporter's own metrics")
    own = [point.data() for request in sink.telemetry for point in request.telemetry]
    # It prints a whole number the same, whichever type it has; and has none where it could not read it.
    numbers = [float(getattr(data, kind)) for data in own if (kind := data.WhichOneof("value"))]
    assert numbers
    values += [int(number) for number in numbers if number.is_integer()]
    assert rotel.printed("Value") == Counter(values)
    assert rotel.printed("Count") == Counter(counts)
