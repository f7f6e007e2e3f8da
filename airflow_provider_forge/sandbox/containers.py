"""The container metrics of an environment: pod churn, counter resets, points without an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.sandbox.catalogue import MINUTE_NS, Attributes, Sample
from airflow_provider_forge.sandbox.randomness import stream, uuid_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from airflow_provider_forge.sandbox.environments import Environment
    from airflow_provider_forge.sandbox.scenario import Scenario

__all__ = ["samples_of_minute"]

PODS = {"production": 2, "staging": 1}
POD_LIFE, COUNTER_LIFE, RESTART_EVERY = 8 * 60, 3 * 60, 47
REPEATS = 4
_SERVICE, _CONTAINER, _REGION = "render-service", "renderer", "us-east-1"


def samples_of_minute(
    scenario: Scenario, app: str, environment: Environment, minute: int
) -> Iterator[Sample]:
    """Yield the container metrics of a minute: four points per pod, one per service.

    As in Atlassian's samples, uptime and instance count have no `environmentId`.
    """
    pods = PODS.get(environment.original_key, 0)
    rng = stream(scenario.seed, app, environment.id, minute, "containers")
    for index in range(pods):
        yield from _pod(scenario, app, environment.id, minute, index, rng)
    if pods:
        attributes = _attributes(app, environment.id)
        yield _gauge("SERVICE_INSTANCE_COUNT", environment.id, minute, attributes, float(pods))


def _pod(
    scenario: Scenario, app: str, environment: str, minute: int, index: int, rng: Random
) -> Iterator[Sample]:
    # Shifted per pod, so that pods are not all replaced at the same time.
    age = (minute + index * 200) % POD_LIFE
    pod = f"{_SERVICE}-{uuid_of(scenario.seed, app, environment, index, minute - age)[:8]}"
    anywhere = _attributes(app, environment, container=_CONTAINER, pod=pod)
    attributes = tuple(sorted((*anywhere, ("environmentId", environment))))
    for _ in range(REPEATS if scenario.repeated_container_points else 1):
        cpu, memory = round(rng.random() * 100, 2), round(30 + rng.random() * 60, 2)
        yield _gauge("CONTAINER_CPU_USAGE_PERCENTAGE", environment, minute, attributes, cpu)
        yield _gauge("CONTAINER_MEMORY_USAGE_PERCENTAGE", environment, minute, attributes, memory)
    yield _gauge("CONTAINER_UPTIME_SECONDS", environment, minute, anywhere, float(age * 60 + 60))
    since_reset = age % COUNTER_LIFE
    yield Sample(
        "CONTAINER_STATUS_RESTARTS_TOTAL",
        environment,
        minute,
        (minute - since_reset) * MINUTE_NS,
        (minute + 1) * MINUTE_NS,
        attributes,
        since_reset // RESTART_EVERY,
        visible_from=(minute + 1) * 60.0,
    )


def _attributes(app: str, environment: str, **more: str) -> Attributes:
    pairs = {
        "appId": app,
        "cluster_uid": uuid_of("cluster", environment),
        "region": _REGION,
        "serviceKey": _SERVICE,
        **more,
    }
    return tuple(sorted(pairs.items()))


def _gauge(label: str, environment: str, minute: int, attributes: Attributes, value: float) -> Sample:
    end = minute + 1
    return Sample(label, environment, minute, 0, end * MINUTE_NS, attributes, value, visible_from=end * 60.0)
