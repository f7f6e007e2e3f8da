from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.dashboards import usage
from tests.dashboards.day import day
from tests.dashboards.exporter import DAG
from tests.dashboards.truth import Truth, own_samples, samples_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.dashboards.day import Day


@pytest.fixture(scope="session")
def of_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """A Prometheus with a day of data."""
    with day(tmp_path_factory.mktemp("day")) as running:
        yield running


@pytest.fixture(scope="session")
def truths(of_day: Day) -> dict[str, Truth]:
    """The ground truth of each app, by its type of latency."""
    truths = {shape: samples_of(app, prometheus_name) for shape, app in of_day.apps.items()}
    truths["histogram"] |= own_samples(of_day.own, of_day.app.id, DAG)
    truths["histogram"] |= usage.samples_of(of_day.usage, of_day.app.id, of_day.app.names)
    return {shape: Truth(samples) for shape, samples in truths.items()}


def prometheus_name(metric: str) -> str:
    """Return Prometheus' name for a metric with this name and unit."""
    if metric.endswith("_latency"):
        return f"{metric}_milliseconds"
    if metric.endswith("_percentage"):
        return f"{metric}_percent"
    is_delta = metric.startswith("forge_")
    return f"{metric}_total" if is_delta else metric
