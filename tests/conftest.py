"""What all tests share: no settings from outside, no files outside, and no silent skips on request."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.processes import FOREIGN_PREFIXES
from tests.redis_program import Redis

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# The continuous integration sets this: there, a skipped test is a test that nobody has run.
NO_SKIP = bool(os.environ.get("FORGE_TESTS_NO_SKIP"))

END_TO_END = Path(__file__).with_name("e2e")

# Airflow reads its settings and makes its home when it is imported, which is before any fixture.
for name in [name for name in os.environ if name.startswith(FOREIGN_PREFIXES)]:
    del os.environ[name]
_home = tempfile.TemporaryDirectory(prefix="forge-tests-airflow-")
os.environ["AIRFLOW_HOME"] = _home.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


def pytest_unconfigure() -> None:
    _home.cleanup()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what starts Airflows into a lane of its own, ahead of all, for `make test` to run beside the rest.

    It waits for most of its time; two Airflows at once, though, would be too much for two cores.
    """
    items.sort(key=lambda item: not _is_end_to_end(item))
    for item in items:
        # The tests of the dashboards share a Prometheus with a day of data.
        place = item.path.parent if item.path.parent.name == "dashboards" else item.path
        lane = "end to end" if _is_end_to_end(item) else str(place)
        item.add_marker(pytest.mark.xdist_group(lane))


def _is_end_to_end(item: pytest.Item) -> bool:
    return END_TO_END in item.path.parents


@pytest.fixture(autouse=True)
def private_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a rate limiter of its own: its files are in the temporary directory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


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
        report.outcome = "failed"
        report.longrepr = f"{reason}\nA skip counts as a failure because FORGE_TESTS_NO_SKIP is set."
    return report
