"""Conform: what is put right in Atlassian's metrics, so that backends understand them.

- Counts that Atlassian labels with the unit `s` get their own unit.
- Delta sums that count get `isMonotonic`, without which some backends read them as gauges or drop them.
- Points are grouped under one resource for each app and environment, with an identity that never varies.

No value, time or attribute of a point is touched, no name changed, no point dropped.

A series' identity depends on configuration and payload only, never on a host, a run or this package's
version. Changing anything here therefore renames series: it takes a new `MAPPING_VERSION` and an entry in the
changelog.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.otlp.messages import (
    DELTA,
    Json,
    any_value,
    attribute,
    canonical,
    entries,
    kind_of,
    object_at,
    points_of,
)

__all__ = ["MAPPING_VERSION", "Identity", "PointSource", "check_attributes", "conform", "point_source"]

PointSource = tuple[str | None, str | None]
"""Of points: app and environment, as `point_source` gives them."""

MAPPING_VERSION = 1

SCHEMA_URL = "https://opentelemetry.io/schemas/1.27.0"
"""The first version of the semantic conventions with `deployment.environment.name`."""

SCOPE_NAME = "atlassian.forge.app_metrics"
"""Where Atlassian names no scope. Without a version, because a version would be part of the identity."""

SERVICE_NAMESPACE = "atlassian-forge"

# Names with the units known to be wrong for them. Nothing else is relabelled, a latency least of all.
_TRUE_UNITS = {
    ("forge_api_request_count", "s"): "{request}",
    ("forge_backend_invocation_count", "s"): "{invocation}",
    ("forge_backend_invocation_errors", "s"): "{error}",
    ("service_instance_count", "s"): "{instance}",
    ("service_instance_count", "1"): "{instance}",
}
_COUNTS = {name for name, _ in _TRUE_UNITS}
_COUNT_SUFFIXES = ("_count", "_errors")


@dataclass(frozen=True)
class Identity:
    """What the configuration says about where the metrics come from.

    Attributes:
        app_id: UUID of the app that was asked for; points may name another.
        service_name: `service.name`; None for `forge-app-<uuid>`.
        environments: Names of the environments that were asked for, by UUID; None for one without a name.
        attributes: The user's resource attributes, which win over all others.
    """

    app_id: str
    service_name: str | None = None
    environments: Mapping[str, str | None] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def resource(self, source: Json, app_id: str | None, environment_id: str | None) -> Json:
        """Return the resource of the points of one app and environment."""
        app = app_id or self.app_id
        ours = {
            "service.name": self.service_name or f"forge-app-{app}",
            "service.namespace": SERVICE_NAMESPACE,
            "atlassian.forge.app.id": app,
        }
        if environment_id is None and len(self.environments) == 1:
            (environment_id,) = self.environments
        if environment_id is not None:
            ours["service.instance.id"] = ours["atlassian.forge.environment.id"] = environment_id
            if name := self.environments.get(environment_id):
                ours["deployment.environment.name"] = name
        named = _attributes(ours) | {str(entry.get("key")): entry for entry in entries(source, "attributes")}
        named |= _attributes(self.attributes)
        return {**source, "attributes": [named[key] for key in sorted(named)]}


def _attributes(values: Mapping[str, Any]) -> dict[str, Json]:
    return {key: {"key": key, "value": any_value(value)} for key, value in values.items()}


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Refuse resource attributes that OTLP cannot hold.

    Raises:
        ConfigurationError: A key is not text, or a value is no text, number, boolean or list of such.
    """
    if not isinstance(attributes, Mapping):
        raise ConfigurationError("resource_attributes", "is not an object of names and values")
    for key, value in attributes.items():
        if not isinstance(key, str) or not key:
            raise ConfigurationError("resource_attributes", f"{key!r} is no name for an attribute")
        try:
            any_value(value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                "resource_attributes",
                f"{key!r} is {error}; give text, a number of 64 bits, true, false or a list",
            ) from None


def conform(resource_metrics: list[Json], identity: Identity) -> list[Json]:
    """Put Atlassian's metrics right, as this module says.

    Args:
        resource_metrics: Decoded OTLP/JSON as it came; it is left as it is.
        identity: What the configuration says about where it comes from.

    Returns:
        Decoded OTLP/JSON with one entry for each resource, each scope once in it, each metric once in that.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    merged = _ResourceMerger()
    for entry in resource_metrics:
        around = {key: value for key, value in entry.items() if key not in ("resource", "scopeMetrics")}
        source = object_at(entry, "resource")
        for scope_metrics in entries(entry, "scopeMetrics"):
            scope = _named_scope(scope_metrics)
            for metric in entries(scope_metrics, "metrics"):
                right = _fix_metric(metric)
                for (app, environment), points in _by_source(right).items():
                    resource = {**around, "resource": identity.resource(source, app, environment)}
                    merged.add({**resource, "schemaUrl": SCHEMA_URL}, scope, right, points)
    return merged.resource_metrics()


def _named_scope(scope_metrics: Json) -> Json:
    """Return the scope with what stands beside it, but for the metrics."""
    scope = object_at(scope_metrics, "scope")
    around = {key: value for key, value in scope_metrics.items() if key != "metrics"}
    return {**around, "scope": scope if scope.get("name") else {**scope, "name": SCOPE_NAME}}


def _fix_metric(metric: Json) -> Json:
    """Return the metric with its true unit, and monotonic where it counts."""
    name = str(metric.get("name"))
    if true_unit := _TRUE_UNITS.get((name, str(metric.get("unit")))):
        metric = {**metric, "unit": true_unit}
    counts = name in _COUNTS or name.endswith(_COUNT_SUFFIXES)
    if counts and kind_of(metric) == "sum" and metric["sum"].get("aggregationTemporality") in DELTA:
        metric = {**metric, "sum": {**metric["sum"], "isMonotonic": True}}
    return metric


def _by_source(metric: Json) -> dict[PointSource, list[Json]]:
    """Return the metric's points by the app and the environment they name."""
    groups: dict[PointSource, list[Json]] = defaultdict(list)
    if kind_of(metric) is None:
        # A kind of metric from after this was written: its points can't be told apart, but must not be lost.
        groups[None, None] = []
    for point in points_of(metric):
        groups[point_source(attribute(point, "appId"), attribute(point, "environmentId"))].append(point)
    return groups


def point_source(app: str | None, environment: str | None) -> PointSource:
    """Return the UUIDs in a point's `appId` and `environmentId`, which hold UUIDs, ARIs or nothing."""
    return _id(app), _id(environment)


def _id(text: str | None) -> str | None:
    return (text or "").rpartition("/")[2] or None


class _ResourceMerger:
    """Resources, scopes in them, metrics in those, points in those: equal ones only once, in order."""

    def __init__(self) -> None:
        self._resources: dict[bytes, tuple[Json, dict[bytes, tuple[Json, dict[bytes, Json]]]]] = {}

    def add(self, resource: Json, scope: Json, metric: Json, points: list[Json]) -> None:
        kind = kind_of(metric)
        shell = {**metric, kind: {**metric[kind], "dataPoints": []}} if kind else metric
        _, scopes = self._resources.setdefault(canonical(resource), (resource, {}))
        _, metrics = scopes.setdefault(canonical(scope), (scope, {}))
        if kind is None:
            metrics[b"%d" % len(metrics)] = shell
        else:
            metrics.setdefault(canonical(shell), shell)[kind]["dataPoints"].extend(points)

    def resource_metrics(self) -> list[Json]:
        return [
            {
                **resource,
                "scopeMetrics": [
                    {**scope, "metrics": list(metrics.values())} for scope, metrics in scopes.values()
                ],
            }
            for resource, scopes in self._resources.values()
        ]
