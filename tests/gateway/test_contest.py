"""In earnest: processes at one store, against a gateway that judges."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_forge.gateway.ratelimit_stores import FileStore, RedisStore
from airflow_provider_forge.sandbox import SandboxGateway

PROCESSES = 8
CALLS = 5
LOST = 2
"""How many processes are killed midway."""

CONTESTANT = """
import sys, time
from pathlib import Path
from airflow_provider_forge.gateway.client import GatewayClient
from airflow_provider_forge.gateway.ratelimit import RateLimiter
from airflow_provider_forge.gateway.ratelimit_stores import FileStore, RedisStore

kind, place, seconds, url, email, token, app_id, duration = sys.argv[1:]
limits = {"calls": 5, "seconds": float(seconds)}
store = FileStore(Path(place), **limits) if kind == "file" else RedisStore(place, "account", **limits)
client = GatewayClient(url, email, token, limiter=RateLimiter(store))
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + float(duration)
while time.monotonic() < end:
    client.environments(app_id)
    print("called", flush=True)
"""


class Contest:
    """Processes that make as many calls as they get places for.

    Attributes:
        calls: How many calls each process has made, those that lived to the end first.
    """

    def __init__(self, gateway: SandboxGateway, store: list[str], duration: float, killed: int) -> None:
        app_id = gateway.app_id.rpartition("/")[2]
        arguments = [*store, gateway.url, gateway.email, gateway.api_token, app_id, str(duration)]
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        command = [sys.executable, "-c", CONTESTANT, *arguments]
        self._processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(PROCESSES)]
        for process in self._processes:
            assert process.stdout.readline() == "ready\n"
        for process in self._processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        lost = self._processes[PROCESSES - killed :]
        time.sleep(duration / 2)
        for process in lost:
            process.kill()
        outcomes = [process.communicate(timeout=duration + 60) for process in self._processes]
        assert [errors for _, errors in outcomes] == [""] * PROCESSES
        self.calls = [Counter(lines.split())["called"] for lines, _ in outcomes]


@pytest.fixture(params=["file", "redis"])
def store(request, tmp_path) -> list[str]:
    """Its kind and place, as a contestant takes them."""
    kind, place = (
        ("file", str(tmp_path / "account.json"))
        if request.param == "file"
        else ("redis", request.getfixturevalue("redis_server").url)
    )
    store = FileStore(Path(place)) if kind == "file" else RedisStore(place, "account")
    # Nobody has called: the first calls need not wait for a period.
    store.transact(lambda budget, _now: budget.slots.clear())
    return [kind, place]


@pytest.mark.parametrize(
    ("allowed", "seconds", "duration", "ideal", "killed"),
    [
        # A busy machine may take a tenth of a second between two lines, so the short run keeps more distance,
        # and how many calls it makes says little.
        (1.0, 1.25, 4.0, 10, LOST),
        pytest.param(3.0, 3.0, 36.0, 60, 0, marks=[pytest.mark.long, pytest.mark.timeout(180)]),
        pytest.param(3.0, 3.0, 36.0, 60, LOST, marks=[pytest.mark.long, pytest.mark.timeout(180)]),
    ],
)
def test_eight_processes_at_once_never_exceed_the_limit(store, allowed, seconds, duration, ideal, killed):
    with SandboxGateway(rate_limit_calls=CALLS, rate_limit_seconds=allowed) as gateway:
        contest = Contest(gateway, [*store, str(seconds)], duration, killed)
        times = sorted(call.received_at for call in gateway.calls)
        assert gateway.violations == 0
        assert gateway.over_limit() == 0
    in_time = sum(moment < times[0] + duration for moment in times)
    print(f"{store[0]}, {killed} killed: {in_time} calls of {ideal}, by process {contest.calls}")
    # Each of the killed may have wasted a place.
    assert in_time >= 0.95 * ideal - killed
    survivors = contest.calls[: PROCESSES - killed]
    assert min(survivors) >= 0.4 * sum(survivors) / len(survivors)
