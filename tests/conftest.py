"""What all tests share: no settings from outside, no files outside, and no silent skips on request."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from demo.processes import FOREIGN_PREFIXES
from tests.redis_program import Redis

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# The continuous integration sets this: there, a skipped test is a test that nobody has run.
NO_SKIP = bool(os.environ.get("FORGE_TESTS_NO_SKIP"))
# A regular expression of reasons that count all the same: noxfile.py names what a release does not have.
ALLOWED_SKIPS = os.environ.get("FORGE_TESTS_ALLOWED_SKIPS")

# One Airflow after the other: two at once are much for two cores.
END_TO_END = "tests/e2e/"
# But for this one, for which there is time when all others have been run.
LAST = "tests/e2e/test_browser.py"
# They share a Prometheus with a day of data.
DASHBOARDS = "tests/dashboards/"

# How long an example takes says nothing but how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Airflow reads its settings and makes its home when it is imported, which is before any fixture.
for name in [name for name in os.environ if name.startswith(FOREIGN_PREFIXES)]:
    if not name.startswith("FORGE_TESTS_"):
        del os.environ[name]
_home = tempfile.TemporaryDirectory(prefix="forge-tests-airflow-")
os.environ["AIRFLOW_HOME"] = _home.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


def pytest_unconfigure() -> None:
    _home.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what starts Airflows: it takes the longest, and waits for most of its time."""
    order = {END_TO_END: 0, LAST: 2}
    items.sort(key=lambda item: order.get(lane(item.nodeid), 1))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes that are no text by their argument: gzip has the time in them, and each process its own."""
    if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()):
        return argname
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each lane to one process, in the order of the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return lane(nodeid)

    return Lanes(config, log)


def lane(nodeid: str) -> str:
    """Return what runs one after the other: a file, all of the dashboards, all that starts Airflows."""
    if nodeid.startswith(LAST):
        return LAST
    for directory in (END_TO_END, DASHBOARDS):
        if nodeid.startswith(directory):
            return directory
    return nodeid.partition("::")[0]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    """A receiver that is away for a moment fails the task at once: no test has a minute for it."""
    monkeypatch.setattr("airflow_provider_forge.delivery.attempts.PATIENCE", 0.0)


@pytest.fixture(autouse=True)
def private_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a rate limiter of its own: its files are in the temporary directory.

    Nothing was called from there for ten days, or else each first call would wait for a period.
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_old(tmp_path / "airflow-provider-forge")


def make_old(directory: Path) -> None:
    """Make a directory for the rate limiter's files that looks unchanged for ten days."""
    directory.mkdir()
    directory.chmod(0o1777)
    os.utime(directory, (0, time.time() - 10 * 86400))


@contextlib.contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def redis_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One Redis for all tests: to start one takes longer than most of them."""
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(redis_of_all: Redis) -> Redis:
    """An empty Redis."""
    redis_of_all.client.flushall()
    return redis_of_all


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _without_skip((yield))


def _without_skip(report):
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        *_, reason = report.longrepr
        if ALLOWED_SKIPS and re.search(ALLOWED_SKIPS, reason):
            return report
        report.outcome = "failed"
        report.longrepr = f"{reason}\nA skip counts as a failure because FORGE_TESTS_NO_SKIP is set."
    return report


SAMPLE = Path(__file__).parent / "data" / "sample_response.json"


@pytest.fixture
def sample() -> bytes:
    """Atlassian's published sample, byte for byte."""
    return SAMPLE.read_bytes()


# Where the gateway counts too many calls and does not say for how long, a task waits for that span.
NO_LIMIT = {"rate_limit_calls": 1000, "rate_limit_seconds": 0.1}


@pytest.fixture
def gateway():
    with SandboxGateway(rate_limit_calls=0) as running:
        yield running


@pytest.fixture
def sink():
    with OtlpSink() as running:
        yield running


@pytest.fixture
def variables(monkeypatch):
    """Airflow Variables, which cannot be set outside of a task."""
    # Airflow must not be imported before its home is set, above.
    from airflow_provider_forge.utils import secrets

    kept: dict[str, str] = {}
    monkeypatch.setattr(secrets.Variable, "get", lambda key, default=None: kept.get(key, default))
    monkeypatch.setattr(secrets.Variable, "set", lambda key, value, **_: kept.__setitem__(key, value))
    return kept


@pytest.fixture
def connect(monkeypatch, variables):
    """Return a function that sets the Connections to a gateway and a receiver."""

    def connect(gateway, receiver, *, forge=None, otlp=None) -> None:
        connections = {
            "FORGE_DEFAULT": {
                "conn_type": "forge",
                "host": gateway.url,
                "login": gateway.email,
                "password": gateway.api_token,
                "extra": {"app_id": gateway.app_id, **NO_LIMIT, **(forge or {})},
            },
            "OTLP_DEFAULT": {"conn_type": "otlp", "host": receiver.url, "extra": otlp or {}},
        }
        for name, connection in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))

    return connect
