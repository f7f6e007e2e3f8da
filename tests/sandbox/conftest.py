from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway, Scenario
from tests.sandbox.asking import Client, Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def start_gateway() -> Iterator[Callable[..., Client]]:
    """Starts gateways with a clock fixed at `NOW`, by default without a rate limit."""
    started: list[Client] = []

    def start(scenario: Scenario | None = None, **options: Any) -> Client:
        clock = Clock()
        options = {"rate_limit_calls": None, "clock": clock, **options}
        gateway = SandboxGateway(scenario or Scenario(), **options).start()
        client = Client(gateway, httpx.Client(timeout=10, trust_env=False, verify=False), clock)
        started.append(client)
        return client

    yield start
    for client in started:
        client.http.close()
        client.gateway.stop()


@pytest.fixture
def client(start_gateway: Callable[..., Client]) -> Client:
    return start_gateway()


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False, verify=False) as http:
        yield http
