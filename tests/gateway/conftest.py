"""A gateway and its client that share one clock, which stands still until a test moves it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_forge.gateway.client import GatewayClient
from airflow_provider_forge.sandbox import SandboxGateway, Scenario
from airflow_provider_forge.sandbox.server import Reply
from airflow_provider_forge.windows import Window
from tests.gateway.limiting import Machine, make_unused, new_file_limiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_forge.gateway.ratelimit import RateLimiter
    from airflow_provider_forge.sandbox.server import Request

# A Tuesday, when the sandbox has no incident.
NOW = datetime(2026, 3, 10, 20, 0, 10, tzinfo=timezone.utc)
START = datetime(2026, 3, 10, 10, 0, tzinfo=timezone.utc)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


class RecordingGateway(SandboxGateway):
    """Keeps what went over the wire: `requests` and `replies`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.requests: list[Request] = []
        self.replies: list[Reply] = []

    def respond(self, request: Request) -> Reply:
        self.requests.append(request)
        self.replies.append(super().respond(request))
        return self.replies[-1]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start_gateway(clock: Clock) -> Iterator[Callable[..., RecordingGateway]]:
    """Start gateways, without a rate limit unless one is given."""
    started: list[RecordingGateway] = []

    def start(scenario: Scenario | None = None, **options: Any) -> RecordingGateway:
        options = {"rate_limit_calls": None, **options}
        gateway = RecordingGateway(scenario, clock=lambda: clock.now.timestamp(), **options)
        started.append(gateway.start())
        return gateway

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture
def gateway(start_gateway: Callable[..., RecordingGateway]) -> RecordingGateway:
    return start_gateway()


@pytest.fixture
def change_answers(
    gateway: RecordingGateway, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Any], dict[str, Any]]], None]:
    """Return a function that replaces fields of each answer, by a function of the answer's data."""

    def change_answers(change: Callable[[Any], dict[str, Any]]) -> None:
        real = gateway.respond

        def respond(request: Request) -> Reply:
            answer = json.loads(real(request).body)
            return Reply.of_json({**answer, **change(answer["data"])})

        monkeypatch.setattr(gateway, "respond", respond)

    return change_answers


@pytest.fixture
def machine() -> Machine:
    """The clock of the limiter, which has nothing to do with the gateway's."""
    return Machine()


@pytest.fixture
def limiter(tmp_path: Path, machine: Machine) -> RateLimiter:
    """A limiter with room for every call of a test, and for whom a sleep takes no time."""
    limiter = new_file_limiter(tmp_path / "limiter.json", machine, calls=100)
    make_unused(limiter.store)
    return limiter


@pytest.fixture
def connect(limiter: RateLimiter, clock: Clock) -> Callable[..., GatewayClient]:
    """Make clients of a gateway, with its account unless another is given."""

    def connect(gateway: SandboxGateway, **options: Any) -> GatewayClient:
        account = {
            "url": gateway.url,
            "email": gateway.email,
            "api_token": gateway.api_token,
            "limiter": limiter,
            "timeout": 10.0,
            "clock": clock,
        }
        return GatewayClient(**{**account, **options})

    return connect


@pytest.fixture
def client(gateway: RecordingGateway, connect: Callable[..., GatewayClient]) -> GatewayClient:
    return connect(gateway)


@pytest.fixture
def window() -> Window:
    return Window(START, START + timedelta(minutes=15))
