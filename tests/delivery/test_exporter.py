"""The exporter with several destinations, and the outcomes of a fetch, without a gateway or a receiver."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pendulum
import pytest

from airflow_provider_forge.delivery.destination import Destination
from airflow_provider_forge.delivery.exporter import Exporter, Resource
from airflow_provider_forge.delivery.ledger import Ledger
from airflow_provider_forge.delivery.progress import Progress
from airflow_provider_forge.delivery.sender import Policy
from airflow_provider_forge.delivery.stores import InMemoryStore
from airflow_provider_forge.exceptions import ArchiveDamaged, WindowExpired, WindowTooLarge
from airflow_provider_forge.otlp.endpoint import Endpoint, Limits
from airflow_provider_forge.windows import Window
from tests.delivery.lines import NoLeases

NOW = pendulum.datetime(2026, 11, 23, 12)
WINDOW = Window(NOW.subtract(hours=3), NOW.subtract(hours=2, minutes=45))


def a_destination(name, max_age=None):
    endpoint = Endpoint(f"http://{name}:4318/v1/metrics", limits=Limits(max_age=max_age))
    ledger = Ledger(InMemoryStore(), "app", leases=NoLeases())
    progress = Progress.begin([WINDOW], [], expired=0)
    return Destination(SimpleNamespace(endpoint=endpoint), ledger, name, progress=progress)


@pytest.fixture
def destinations():
    """One that keeps an hour, and one that keeps all."""
    return [a_destination("short", timedelta(hours=1)), a_destination("long")]


@pytest.mark.parametrize(
    ("error", "calls", "expired"),
    [(WindowExpired("too old"), 1, [1, 1]), (WindowTooLarge("too large"), 3, [1, 0])],
)
def test_a_window_is_expired_once_for_each_destination(destinations, error, calls, expired):
    fetched = []

    def fetch(window, stats):
        fetched.append(window)
        if window == WINDOW:
            raise error
        stats.replayed += 1
        return []

    Exporter(fetch, destinations, Policy(on_expired="skip"), Resource(), lambda: NOW).export()
    assert len(fetched) == calls
    assert [each.progress.stats.expired for each in destinations] == expired
    assert [each.progress.next_window() for each in destinations] == [None, None]


def test_a_window_that_expires_fails_each_destination_by_itself(destinations):
    def fetch(window, stats):
        raise WindowExpired("too old")

    exporter = Exporter(fetch, destinations, Policy(on_expired="fail"), Resource(), lambda: NOW)
    with pytest.raises(WindowExpired, match=r"short: .* \| long: too old"):
        exporter.export()


def test_an_archived_response_that_cannot_be_used_is_not_an_empty_window(caplog):
    destination = a_destination("only")

    def fetch(window, stats):
        stats.replayed += 1
        stats.problems.append(ArchiveDamaged("torn"))
        return []

    Exporter(fetch, [destination], Policy(), Resource(), lambda: NOW).export()
    stats = destination.progress.stats
    assert (stats.empty, stats.replayed, len(stats.problems)) == (0, 1, 1)
