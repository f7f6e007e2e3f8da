"""Memory: a backlog of many windows takes no more of it than one."""

from __future__ import annotations

import datetime as dt
import gc
import json
import tracemalloc
from types import SimpleNamespace

import msgspec
import pendulum
import pytest

from airflow_provider_forge.delivery.destination import Destination
from airflow_provider_forge.delivery.exporter import Exporter, Resource
from airflow_provider_forge.delivery.ledger import Ledger
from airflow_provider_forge.delivery.progress import Progress
from airflow_provider_forge.delivery.sender import Policy
from airflow_provider_forge.delivery.stores import InMemoryStore, ObjectStore
from airflow_provider_forge.gateway.client import AppMetrics
from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF, Endpoint, Limits
from airflow_provider_forge.windows import Window
from tests.delivery.lines import NoLeases
from tests.otlp.building import APP, entry, metric, point, text

MINUTE = 60 * 10**9
POINTS = 1000


class Forge:
    """Serves windows, and notes how much memory is in use whenever it is asked for one."""

    def __init__(self) -> None:
        self.in_use: list[int] = []
        self.answer_bytes = 0

    def fetch(self, window, stats):
        self.in_use.append(tracemalloc.get_traced_memory()[0])
        time = int(window.start.timestamp()) * 10**9
        points = [point(asInt=number, timeUnixNano=str(time)) for number in range(POINTS)]
        for number, each in enumerate(points):
            each["attributes"].append(text("contextAri", f"ari:cloud:jira::site/{number}"))
        body = json.dumps([entry(metric("forge_api_request_count", *points))]).encode()
        self.answer_bytes = len(body)
        stats.calls += 1
        return [AppMetrics(APP, window, (), (), msgspec.Raw(body), None, 0.0, 0.0)]


@pytest.mark.parametrize("conform", [True, False])
@pytest.mark.parametrize("protocol", [HTTP_JSON, HTTP_PROTOBUF])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_delivered_window_is_released_from_memory(tmp_path, protocol, conform, recorded):
    forge = Forge()
    sizes = []
    endpoint = Endpoint(
        "http://localhost:4318/v1/metrics", protocol=protocol, limits=Limits(max_body_bytes=100_000)
    )
    receiver = SimpleNamespace(
        endpoint=endpoint, export=lambda export, seconds: sizes.append(len(export.body))
    )
    store = ObjectStore(tmp_path) if recorded else InMemoryStore()
    ledger = Ledger(store, "app", leases=NoLeases())
    destination = Destination(receiver, ledger)
    exporter = Exporter(forge.fetch, [destination], Policy(), Resource() if conform else None)
    first = pendulum.instance(dt.datetime(2026, 11, 23, 5, tzinfo=dt.timezone.utc))
    windows = [
        Window(first.add(minutes=15 * number), first.add(minutes=15 * (number + 1))) for number in range(6)
    ]
    # Without it only what nothing holds any more is let go, and at once.
    gc.disable()
    tracemalloc.start()
    try:
        destination.progress = Progress.begin(windows, [], expired=0)
        exporter.export()
    finally:
        tracemalloc.stop()
        gc.enable()
    # The first ones import modules and fill caches; and a store in memory keeps 16 bytes of each point.
    grown = forge.in_use[-1] - forge.in_use[-3]
    assert grown < 0.5 * forge.answer_bytes
    assert len(sizes) > len(windows)
    assert max(sizes) < 100_000
