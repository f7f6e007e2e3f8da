"""Usage at the receivers, compared with the gateway's truth to the sixth decimal."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

import httpx

from airflow_provider_forge.usage.prices import load_prices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_forge.sandbox import SandboxGateway
    from tests.receivers.prometheus import Prometheus
    from tests.receivers.victoria_metrics import VictoriaMetrics

Amounts = dict[tuple[str, ...], str]

DAILY = ("deployment_environment_name", "forge_usage_date", "forge_usage_resource")
MONTHLY = ("deployment_environment_name", "forge_usage_month", "forge_usage_resource")
COST = ("forge_usage_month", "forge_usage_resource")


class Store(Protocol):
    """A receiver that can be queried in PromQL."""

    def latest(self, name: str, labels: tuple[str, ...]) -> Amounts: ...


class PrometheusStore:
    """Args: prometheus: A running one."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus

    def latest(self, name: str, labels: tuple[str, ...]) -> Amounts:
        """Return the latest value of each series, as the documentation says."""
        answer = self._prometheus.ask("query", query=_query(name, labels), time=time.time() + 1)
        return _amounts(answer["result"], labels)


class VictoriaMetricsStore:
    """Args: receiver: A running one; it keeps the names of OTLP."""

    def __init__(self, receiver: VictoriaMetrics) -> None:
        self._address = receiver.url.removesuffix("/opentelemetry")

    def latest(self, name: str, labels: tuple[str, ...]) -> Amounts:
        httpx.get(f"{self._address}/internal/force_flush", trust_env=False).raise_for_status()
        dotted = {label: label.replace("_", ".") for label in labels}
        selector = f'{{__name__="{name.replace("_", ".")}"}}'
        by = ", ".join(f'"{label}"' for label in dotted.values())
        parameters = {
            "query": f"sum by ({by}) (last_over_time({selector}[2d]))",
            "time": str(time.time() + 1),
            # Queries leave out the last 30 seconds otherwise.
            "latency_offset": "1ms",
            "nocache": "1",
        }
        answer = httpx.get(f"{self._address}/api/v1/query", params=parameters, trust_env=False)
        assert answer.is_success, answer.text
        return _amounts(answer.json()["data"]["result"], tuple(dotted.values()))


def _query(name: str, labels: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(labels)}) (last_over_time({name}[2d]))"


def _amounts(result: Iterable[Mapping], labels: tuple[str, ...]) -> Amounts:
    found = {}
    for series in result:
        value = float(series["value"][1])
        if value:  # a day without usage
            found[tuple(series["metric"].get(label, "") for label in labels)] = f"{value:.6f}"
    return found


class Truth:
    """What a gateway knows at a time.

    Args:
        gateway: The gateway.
        start: Start of the range that tasks read.
        resources: The resources.
    """

    def __init__(self, gateway: SandboxGateway, start: datetime, resources: tuple[str, ...]) -> None:
        self._gateway = gateway
        self._start = start
        self._resources = resources

    def at(self, moment: datetime) -> dict[str, Amounts]:
        """Return days, months and costs that are visible at this time."""
        names = {
            each.id: "development" if each.key == "default" else each.key
            for each in self._gateway.environments
        }
        days: dict[tuple[str, ...], Decimal] = defaultdict(Decimal)
        months: dict[tuple[str, ...], Decimal] = defaultdict(Decimal)
        totals: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        end = datetime.now(timezone.utc) + timedelta(days=1)
        for each in self._gateway.usage(self._start, end, resources=self._resources, at=moment):
            day, name = each.day.isoformat(), names[each.group]
            days[name, day, each.resource] += each.amount
            months[name, day[:7], each.resource] += each.amount
            totals[day[:7], each.resource] += each.amount
        prices = load_prices().resources
        costs = {key: prices[key[1]].cost(used) for key, used in totals.items()}
        found = {"forge_usage_daily": days, "forge_usage_monthly": months, "forge_usage_cost": costs}
        return {
            name: {key: f"{float(amount):.6f}" for key, amount in amounts.items() if amount}
            for name, amounts in found.items()
        }


def assert_true(store: Store, expected: dict[str, Amounts]) -> None:
    """Compare everything that a receiver has with the truth."""
    for (name, amounts), labels in zip(expected.items(), (DAILY, MONTHLY, COST), strict=True):
        assert store.latest(name, labels) == amounts, (type(store).__name__, name)
