"""The traffic generator: all data points of a minute, as a pure function."""

from __future__ import annotations

import bisect
import functools
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.sandbox import containers, data_faults
from airflow_provider_forge.sandbox.app_model import (
    DAY,
    AppModel,
    Endpoint,
    Function,
    Site,
    app_model_of,
    version_of,
)
from airflow_provider_forge.sandbox.catalogue import MINUTE_NS, Attributes, Sample
from airflow_provider_forge.sandbox.randomness import poisson, stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from random import Random

    from airflow_provider_forge.sandbox.environments import Environment
    from airflow_provider_forge.sandbox.scenario import Scenario

__all__ = ["samples_of_minute"]

INVOCATIONS_AT_PEAK, INVOCATIONS_AT_PEAK_OF_A_LARGE_APP = 26.0, 1300.0
ENVIRONMENT_FACTOR = {"production": 1.0, "staging": 0.15, "default": 0.05}
CUSTOM_ENVIRONMENT_FACTOR = 0.03
REQUESTS_PER_INVOCATION = 0.9
ERROR_SHARE, ERROR_SHARE_IN_SITE_INCIDENT = 0.05, 0.7
# Chosen so that about 30 % of the error points are an explicit 0.
EXPLICIT_ZERO_SHARE = 0.035
INCIDENT = range(13 * 60 + 7, 13 * 60 + 54)
SITE_INCIDENT, SITE_WITH_INCIDENT = range(9 * 60 + 20, 11 * 60 + 5), 6
UNNORMALISED_KEYS, UNNORMALISED_KEYS_PER_MINUTE = 500, 20
_SUNDAY, _SATURDAY = 6, 5
_BY_HOUR = (
    *(0.15, 0.12, 0.1, 0.1, 0.12, 0.15, 0.25, 0.45, 0.75, 0.95, 1.0, 1.0),
    *(0.85, 0.95, 1.0, 0.95, 0.85, 0.65, 0.45, 0.35, 0.3, 0.25, 0.2, 0.18),
)
_ERROR_TYPES = ("UNHANDLED_EXCEPTION", "FUNCTION_TIME_OUT", "FUNCTION_OUT_OF_MEMORY")


@dataclass(frozen=True)
class _Moment:
    """One minute of one environment, the input of every part of the generator."""

    scenario: Scenario
    app: str
    environment: Environment
    minute: int

    @functools.cached_property
    def app_model(self) -> AppModel:
        scenario = self.scenario
        return app_model_of(scenario.seed, self.app, self.environment.id, large=scenario.large_app)

    @property
    def weekday(self) -> int:
        # The epoch was a Thursday.
        return (self.minute // DAY + 3) % 7

    @property
    def jira_incident(self) -> bool:
        return self.minute % DAY in INCIDENT and self.weekday in self.scenario.incident_weekdays

    @property
    def site_incident(self) -> bool:
        return self.minute % DAY in SITE_INCIDENT and self.weekday in self.scenario.site_incident_weekdays

    def stream(self, purpose: str) -> Random:
        """Return the random stream of a purpose, so that a switch does not change unrelated data."""
        return stream(self.scenario.seed, self.app, self.environment.id, self.minute, purpose)

    def sample(self, label: str, value: int | tuple[int, ...], **attributes: str) -> Sample:
        pairs: Attributes = tuple(
            sorted({"appId": self.app, "environmentId": self.environment.id, **attributes}.items())
        )
        start = self.minute * MINUTE_NS
        end = start + MINUTE_NS
        return Sample(
            label,
            self.environment.id,
            self.minute,
            start,
            end,
            pairs,
            value,
            visible_from=(self.minute + 1) * 60.0,
        )


@dataclass(frozen=True)
class _Invocations:
    """The invocations of one function on one site in one minute."""

    site: Site
    function: Function
    version: str
    count: int

    @property
    def attributes(self) -> dict[str, str]:
        return {
            "appVersion": self.version,
            "contextAri": self.site.context_ari,
            "functionKey": self.function.key,
        }


def samples_of_minute(scenario: Scenario, app: str, environment: Environment, minute: int) -> list[Sample]:
    """Return all data points of a minute, including the earlier values of points that are raised later.

    Args:
        scenario: Seed and switches.
        app: UUID.
        environment: Only its id and original key are used.
        minute: Minutes since the epoch.
    """
    moment = _Moment(scenario, app, environment, minute)
    invocations = list(_invocations(moment))
    samples = [
        *_invocation_samples(moment, invocations),
        *_error_samples(moment, invocations),
        *_custom_samples(moment, invocations),
        *_request_samples(moment, invocations),
    ]
    if scenario.containers:
        samples += containers.samples_of_minute(scenario, app, environment, minute)
    return data_faults.apply(scenario, samples, functools.partial(stream, *_identity(moment)))


def _identity(moment: _Moment) -> tuple[object, ...]:
    return (moment.scenario.seed, moment.app, moment.environment.id, moment.minute)


def _invocations(moment: _Moment) -> Iterator[_Invocations]:
    scenario, rng = moment.scenario, moment.stream("invocations")
    peak = INVOCATIONS_AT_PEAK_OF_A_LARGE_APP if scenario.large_app else INVOCATIONS_AT_PEAK
    factor = ENVIRONMENT_FACTOR.get(moment.environment.original_key, CUSTOM_ENVIRONMENT_FACTOR)
    volume = scenario.traffic * factor * peak
    for site in moment.app_model.sites:
        if not site.is_installed(moment.minute):
            continue
        count = _rare_event(moment, site) if site.rare else poisson(rng, volume * _activity(moment, site))
        if not count:
            continue
        second = sum(rng.random() < 0.3 for _ in range(count))
        version = version_of(moment.app_model, site, moment.minute)
        for function, part in zip(site.functions, (count - second, second), strict=True):
            if part:
                yield _Invocations(site, function, version, part)


def _activity(moment: _Moment, site: Site) -> float:
    local = moment.minute + site.utc_offset * 60
    weekend = (local // DAY + 3) % 7 in (_SATURDAY, _SUNDAY)
    return site.share * _BY_HOUR[local % DAY // 60] * (0.15 if weekend else 1.0)


def _rare_event(moment: _Moment, site: Site) -> int:
    if not moment.scenario.traffic:
        return 0
    day, minute_of_day = divmod(moment.minute, DAY)
    rng = stream(moment.scenario.seed, moment.app, moment.environment.id, "rare", site.rank, day)
    return int(int(rng.random() * DAY) == minute_of_day)


def _invocation_samples(moment: _Moment, invocations: Iterable[_Invocations]) -> Iterator[Sample]:
    rng = moment.stream("invocation latency")
    for each in invocations:
        yield moment.sample("FORGE_BACKEND_INVOCATION_COUNT", each.count, **each.attributes)
        latencies = _latencies(rng, each.count, typical=180.0)
        yield moment.sample("FORGE_BACKEND_INVOCATION_LATENCY", latencies, **each.attributes)


def _error_samples(moment: _Moment, invocations: Iterable[_Invocations]) -> Iterator[Sample]:
    rng = moment.stream("errors")
    for each in invocations:
        failing = moment.site_incident and each.site.rank == SITE_WITH_INCIDENT
        share = ERROR_SHARE_IN_SITE_INCIDENT if failing else ERROR_SHARE
        errors = sum(rng.random() < share for _ in range(each.count))
        error_type = _ERROR_TYPES[int(rng.random() ** 2 * len(_ERROR_TYPES))]
        if errors or rng.random() < EXPLICIT_ZERO_SHARE:
            yield moment.sample(
                "FORGE_BACKEND_INVOCATION_ERRORS",
                errors,
                errorType=error_type,
                moduleKey=each.function.module,
                **each.attributes,
            )


def _custom_samples(moment: _Moment, invocations: Iterable[_Invocations]) -> Iterator[Sample]:
    rng = moment.stream("custom metrics")
    for each in invocations:
        if rng.random() < 0.1:
            name = moment.app_model.custom_metrics[int(rng.random() * len(moment.app_model.custom_metrics))]
            count = 1 + int(rng.random() * each.count * 3)
            yield moment.sample(
                "FORGE_BACKEND_CUSTOM_METRICS_COUNT", count, metricName=name, **each.attributes
            )


def _request_samples(moment: _Moment, invocations: Iterable[_Invocations]) -> Iterator[Sample]:
    rng = moment.stream("requests")
    by_status: Counter[tuple[Site, Endpoint, str]] = Counter()
    for site, endpoint in _requests(moment, invocations, rng):
        by_status[site, endpoint, _status(moment, endpoint, rng)] += 1
    totals: Counter[tuple[Site, Endpoint]] = Counter()
    for (site, endpoint, status), count in by_status.items():
        totals[site, endpoint] += count
        attributes = _request_attributes(site, endpoint)
        yield moment.sample("FORGE_API_REQUEST_COUNT", count, status=status, **attributes)
    rng = moment.stream("request latency")
    for (site, endpoint), count in totals.items():
        slow = moment.jira_incident and endpoint.remote == "jira"
        latencies = _latencies(rng, count, typical=90.0 * (6.0 if slow else 1.0))
        yield moment.sample("FORGE_API_REQUEST_LATENCY", latencies, **_request_attributes(site, endpoint))


def _requests(
    moment: _Moment, invocations: Iterable[_Invocations], rng: Random
) -> Iterator[tuple[Site, Endpoint]]:
    app_model = moment.app_model
    for each in invocations:
        for _ in range(poisson(rng, REQUESTS_PER_INVOCATION * each.count)):
            drawn = rng.random() * app_model.endpoint_weights[-1]
            endpoint = app_model.endpoints[bisect.bisect_left(app_model.endpoint_weights, drawn)]
            yield each.site, endpoint
            if moment.jira_incident and endpoint.remote == "jira" and rng.random() < 0.8:
                yield each.site, endpoint
    if moment.scenario.unnormalised_url and moment.environment.original_key == "production":
        keys = moment.stream("unnormalised url")
        for _ in range(UNNORMALISED_KEYS_PER_MINUTE):
            url = f"/rest/api/3/issue/PROJ-{int(keys.random() * UNNORMALISED_KEYS)}"
            yield app_model.sites[0], Endpoint("jira", url, "app")


def _status(moment: _Moment, endpoint: Endpoint, rng: Random) -> str:
    drawn = rng.random()
    if moment.jira_incident and endpoint.remote == "jira":
        return "5xx" if drawn < 0.4 else "2xx"
    for status, up_to in (("5xx", 0.01), ("4xx", 0.06), ("3xx", 0.065)):
        if drawn < up_to:
            return status
    return "2xx"


def _request_attributes(site: Site, endpoint: Endpoint) -> dict[str, str]:
    return {
        "contextAri": site.context_ari,
        "provider": endpoint.provider,
        "remote": endpoint.remote,
        "url": endpoint.url,
    }


def _latencies(rng: Random, count: int, *, typical: float) -> tuple[int, ...]:
    """Draw latencies in ms, roughly log-normal around `typical`; integers, to be independent of libm."""
    return tuple(
        sorted(
            1 + int(typical * math.exp(1.2 * (rng.random() + rng.random() + rng.random() - 1.5)))
            for _ in range(count)
        )
    )
