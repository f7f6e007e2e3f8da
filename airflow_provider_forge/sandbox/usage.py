"""The resource usage of an app, by day, environment and site: final amounts, and revised ones before that.

Amounts are whole millionths of a unit, so that the sites of an environment add up to it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_provider_forge.sandbox.app_model import app_model_of
from airflow_provider_forge.sandbox.randomness import stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_forge.sandbox.environments import Environment
    from airflow_provider_forge.sandbox.scenario import Scenario

__all__ = ["RESOURCES", "Resource", "UsageAmount", "UsageTruth", "last_refresh"]

MILLION = 1_000_000
REFRESH = time(12, tzinfo=timezone.utc)
_CONTAINERS = ("CONTAINER_COMPUTE", "CONTAINER_MEMORY")
_SHARES = {"production": 1_000_000, "staging": 80_000, "default": 30_000, "feature-x": 10_000}


@dataclass(frozen=True)
class Resource:
    """A resource that is charged for.

    Attributes:
        unit: `tokenUnit` in responses.
        daily: Usage of production on an ordinary weekday, in millionths of the unit.
        is_whole: Whether there are no fractions of the unit.
    """

    unit: str
    daily: int
    is_whole: bool = False


# A month stays below the allowance of some resources and exceeds that of others.
RESOURCES = {
    "FUNCTION_COMPUTE": Resource("GB-seconds", 8_400_000_000),
    "KVS_READ": Resource("GB", 4_100),
    "KVS_WRITE": Resource("GB", 1_500),
    "LOGS_WRITE": Resource("GB", 21_000),
    "SQL_COMPUTE": Resource("hours", 52_000),
    "SQL_REQUESTS": Resource("requests", 2_600_000_000, is_whole=True),
    "SQL_STORAGE": Resource("GB-hours", 22_400_000),
    "OS_REQUESTS": Resource("requests", 90_000_000, is_whole=True),
    "LLM_INPUT": Resource("credits", 620_000),
    "LLM_OUTPUT": Resource("credits", 155_000),
    "CONTAINER_COMPUTE": Resource("vCPU-hours", 12_000_000),
    "CONTAINER_MEMORY": Resource("GiB-hours", 24_000_000),
}


@dataclass(frozen=True)
class UsageAmount:
    """The usage of one resource in one environment on one UTC day.

    Attributes:
        group: UUID of the environment, or ARI of the site.
    """

    resource: str
    day: date
    group: str
    amount: Decimal


def last_refresh(at: float) -> date:
    """Return the day of the last refresh, at 12:00 UTC, before a time in seconds since the epoch."""
    moment = datetime.fromtimestamp(at, timezone.utc)
    return moment.date() - timedelta(days=moment.timetz() < REFRESH)


class UsageTruth:
    """The usage in one scenario: a pure function of (seed, app, environment, day), and of the refresh."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    def amounts(
        self,
        app: str,
        environments: Iterable[Environment],
        resource: str,
        days: Iterable[date],
        *,
        by_site: bool = False,
        at: float | None = None,
    ) -> Iterator[UsageAmount]:
        """Yield the amounts, by day and then by environment or site.

        Args:
            app: UUID of the app.
            environments: The environments.
            resource: Key of `RESOURCES`.
            days: The days.
            by_site: Whether to split each environment into its sites, and to add up those of a site.
            at: As visible at this time, in seconds since the epoch; None for final amounts.
        """
        environments = list(environments)
        for day in days:
            amounts: dict[str, int] = {}
            for environment in environments:
                amount = self._amount(app, environment, resource, day, at)
                if amount is None:
                    continue
                groups = {environment.id: amount}
                if by_site:
                    groups = self._of_sites(app, environment, resource, day, amount)
                for group, part in groups.items():
                    amounts[group] = amounts.get(group, 0) + part
            for group, part in amounts.items():
                yield UsageAmount(resource, day, group, Decimal(part).scaleb(-6))

    def _amount(
        self, app: str, environment: Environment, resource: str, day: date, at: float | None
    ) -> int | None:
        """Return the amount in millionths; None if the day is not visible yet or uses nothing."""
        final = self._final(app, environment, resource, day)
        if not final or at is None:
            return final or None
        age = (last_refresh(at) - day).days
        if age < 0:
            return None
        return _rounded(final * self._millionths(app, environment, resource, day, age) // MILLION, resource)

    def _final(self, app: str, environment: Environment, resource: str, day: date) -> int:
        if resource in _CONTAINERS and not self._scenario.containers:
            return 0
        rng = stream(self._scenario.seed, app, environment.id, "usage", resource, day)
        # Storage and containers run at weekends, too.
        is_quiet = day.weekday() >= 5 and resource != "SQL_STORAGE" and resource not in _CONTAINERS
        factor = (0.9 + 0.2 * rng.random()) * (0.4 if is_quiet else 1.0) * self._scenario.traffic
        share = _SHARES[environment.original_key]
        return _rounded(int(RESOURCES[resource].daily * share * factor) // MILLION, resource)

    def _millionths(self, app: str, environment: Environment, resource: str, day: date, age: int) -> int:
        """Return the visible part of the final amount, in millionths, a number of refreshes after the day."""
        rng = stream(self._scenario.seed, app, environment.id, "revision", resource, day, age)
        if age == 0:  # the running day, until noon
            return int(MILLION * (0.45 + 0.1 * rng.random()))
        settled = stream(self._scenario.seed, app, environment.id, "settled", resource, day).random()
        # Three days of ten are final at once; the others are revised for two to five days.
        last = 1 if settled < 0.3 else 2 + int(settled * 4)
        if not self._scenario.usage_revisions or age >= last:
            return MILLION
        return MILLION + int(MILLION * 0.06 * (rng.random() - 0.7))

    def _of_sites(
        self, app: str, environment: Environment, resource: str, day: date, amount: int
    ) -> dict[str, int]:
        """Split an amount among the sites of an environment; the parts add up to it."""
        model = app_model_of(self._scenario.seed, app, environment.id, large=False)
        minute = (day - date(1970, 1, 1)).days * 24 * 60
        sites = [site for site in model.sites if site.is_installed(minute)]
        unit = MILLION if RESOURCES[resource].is_whole else 1
        whole, total = amount // unit, sum(site.share for site in sites)
        parts, seen, given = {}, 0.0, 0
        for site in sites:
            seen += site.share
            upto = whole if site is sites[-1] else int(whole * seen / total)
            parts[site.context_ari] = (upto - given) * unit
            given = upto
        return {ari: part for ari, part in parts.items() if part}


def _rounded(amount: int, resource: str) -> int:
    return amount // MILLION * MILLION if RESOURCES[resource].is_whole else amount
