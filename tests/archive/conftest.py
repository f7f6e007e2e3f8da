"""What the tests of the archive share: a window, its response, and an archive in a directory."""

from __future__ import annotations

import datetime as dt
import json
from types import SimpleNamespace

import msgspec
import pendulum
import pytest

from airflow_provider_forge.archive.archive import Archive
from airflow_provider_forge.archive.storage import Storage
from airflow_provider_forge.gateway.client import AppMetrics
from airflow_provider_forge.gateway.environments import Environment
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.windows import Window

APP = "8e0cf9d3-6ba8-4b8d-8b1d-0f0c6b9c8f11"
WINDOW = Window(pendulum.datetime(2026, 11, 23, 5), pendulum.datetime(2026, 11, 23, 5, 15))
PRODUCTION = Environment("1b1ce2a0-0000-4000-8000-000000000001", "production")
STAGING = Environment("1b1ce2a0-0000-4000-8000-000000000002", "staging")
LABELS = ("FORGE_API_REQUEST_COUNT", "FORGE_BACKEND_INVOCATION_COUNT")


def a_response(content=(), window=WINDOW, environments=(PRODUCTION,), metrics=LABELS, request_id="r-1"):
    """Return a response of the gateway; `content` is the array of its metrics, or its text."""
    text = content if isinstance(content, bytes) else json.dumps(list(content)).encode()
    return AppMetrics(APP, window, environments, metrics, msgspec.Raw(text), request_id, 0.1, 0.0)


class Clock:
    """A clock that is one minute later each time it is asked."""

    def __init__(self) -> None:
        self.time = dt.datetime(2026, 11, 23, 5, 20, tzinfo=dt.timezone.utc)

    def __call__(self) -> dt.datetime:
        self.time += dt.timedelta(minutes=1)
        return self.time


@pytest.fixture
def archive(tmp_path):
    return Archive(Storage(tmp_path / "archive"), now=Clock())


@pytest.fixture
def archived(connect, gateway, sink, tmp_path):
    """Return a function that sets the Connections, with an archive and a ledger in directories."""

    def archived(receiver=sink, *, forge=None, **otlp):
        forge = {"archive_url": f"file://{tmp_path}/archive", **(forge or {})}
        connect(gateway, receiver, forge=forge, otlp={"ledger_url": f"file://{tmp_path}/ledger", **otlp})

    archived()
    return archived


def context_of(window, *, try_number=1, started=None, reschedules=0, clear_number=0):
    run = SimpleNamespace(
        run_after=pendulum.now("UTC"),
        start_date=started or pendulum.now("UTC"),
        clear_number=clear_number,
    )
    return {
        "dag_run": run,
        "task_reschedule_count": reschedules,
        "ti": SimpleNamespace(try_number=try_number),
        "data_interval_start": window.start,
        "data_interval_end": window.end,
    }


def run(window, **arguments):
    """Run the operator over an interval, as a first try; `context` replaces its context."""
    context = arguments.pop("context", None) or context_of(window)
    return ForgeMetricsToOtlpOperator(task_id="export", **arguments).execute(context)
