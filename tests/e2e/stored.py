"""Compares the Prometheus at the end of the stack with the sandbox gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_forge.gateway.queries import PUBLISHED_METRICS
from airflow_provider_forge.sandbox import SandboxGateway
from demo.api import parse_time
from tests.receivers.prometheus import Prometheus
from tests.receivers.totals import Total, Totals, totals_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from demo.api import AirflowApi

APP = "ari:cloud:ecosystem::app/8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"


class Stored:
    """The Prometheus at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def total(self, name: str) -> Total:
        """Return the totals of all series with that name."""
        return Total(
            int(self.value(f"sum(count_over_time({name}[15d]))")),
            self.value(f"sum(sum_over_time({name}[15d]))"),
        )

    def value(self, query: str) -> float:
        """Return the one value of a query's answer; 0 if there is none."""
        url, params = f"{self._url}/api/v1/query", {"query": query}
        answer = httpx.get(url, params=params, trust_env=False).raise_for_status().json()
        [value] = [float(series["value"][1]) for series in answer["data"]["result"]] or [0.0]
        return value


def generated(api: AirflowApi, tasks: Iterable[Mapping[str, Any]]) -> Totals:
    """Return the totals of the sandbox gateway's points in the windows that these tasks have delivered."""
    gateway = SandboxGateway()
    points = []
    # A window may have had several runs, and is delivered once.
    windows = {api.xcom(task["dag_id"], task["dag_run_id"], task["task_id"])["window"] for task in tasks}
    for window in windows:
        start, end = map(parse_time, window.split("/"))
        points += gateway.generated(
            start, end, app_id=APP, environments=["production"], metrics=PUBLISHED_METRICS
        )
    return totals_of(points, Prometheus.name_of)
