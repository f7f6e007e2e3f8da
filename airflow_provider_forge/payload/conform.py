"""Corrects units, types and resources of Atlassian's metrics, so that backends interpret them as intended.

- Counts that Atlassian labels with the unit `s` get their own unit.
- Delta sums that count get `isMonotonic`. Without it, some backends read them as gauges or drop them.
- Points are grouped under one resource per app and environment, with an identity that never varies.

The values, times and attributes of points and the names of metrics stay unchanged, and no point is dropped.

A series' identity depends on configuration and payload only, never on a host, a run or this package's
version. Any change in this module therefore renames series, and requires a new `MAPPING_VERSION` and an entry
in the changelog.
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
from airflow_provider_forge.text import is_storable

__all__ = ["MAPPING_VERSION", "Identity", "PointSource", "check_attributes", "conform", "point_source"]

PointSource = tuple[str | None, str | None]
"""UUIDs of the app and the environment of points, as returned by `point_source`."""

MAPPING_VERSION = 1

SCHEMA_URL = "https://opentelemetry.io/schemas/1.27.0"
"""The first version of the semantic conventions with `deployment.environment.name`."""

SCOPE_NAME = "atlassian.forge.app_metrics"
"""Name of a scope that Atlassian leaves unnamed. It has no version, which would be part of the identity."""

SERVICE_NAMESPACE = "atlassian-forge"

# Metrics with a unit known to be wrong. No other unit is changed, in particular not that of a latency.
_CORRECT_UNITS = {
    ("forge_api_request_count", "s"): "{request}",
    ("forge_backend_invocation_count", "s"): "{invocation}",
    ("forge_backend_invocation_errors", "s"): "{error}",
    ("service_instance_count", "s"): "{instance}",
    ("service_instance_count", "1"): "{instance}",
}
_COUNT_NAMES = {name for name, _ in _CORRECT_UNITS}
_COUNT_SUFFIXES = ("_count", "_errors")


@dataclass(frozen=True)
class Identity:
    """The configured identity of the metrics.

    Attributes:
        app_id: UUID of the queried app. Points may name another app.
        service_name: `service.name`; None for `forge-app-<uuid>`.
        environments: Names of the queried environments by UUID; None for an environment without a name.
        attributes: The user's resource attributes, which take precedence over all others.
    """

    app_id: str
    service_name: str | None = None
    environments: Mapping[str, str | None] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def resource(self, source: Json, app_id: str | None, environment_id: str | None) -> Json:
        """Return the resource of the points of one app and environment.

        Args:
            source: The resource from the payload.
            app_id: UUID of the app; None if the points name none.
            environment_id: UUID of the environment; None if the points name none.
        """
        app = app_id or self.app_id
        defaults = {
            "service.name": self.service_name or f"forge-app-{app}",
            "service.namespace": SERVICE_NAMESPACE,
            "atlassian.forge.app.id": app,
        }
        if environment_id is None and len(self.environments) == 1:
            (environment_id,) = self.environments
        if environment_id is not None:
            defaults["service.instance.id"] = defaults["atlassian.forge.environment.id"] = environment_id
            if name := self.environments.get(environment_id):
                defaults["deployment.environment.name"] = name
        given = {str(entry.get("key")): entry for entry in entries(source, "attributes")}
        merged = _attributes(defaults) | given | _attributes(self.attributes)
        return {**source, "attributes": [merged[key] for key in sorted(merged)]}


def _attributes(values: Mapping[str, Any]) -> dict[str, Json]:
    return {key: {"key": key, "value": any_value(value)} for key, value in values.items()}


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Check that OTLP supports the resource attributes.

    Raises:
        ConfigurationError: A key is not text, or a value is not text, a number, a boolean or a list of these,
            or text has no encoding.
    """
    if not isinstance(attributes, Mapping):
        raise ConfigurationError("resource_attributes", "is not an object of names and values")
    for key, value in attributes.items():
        if not isinstance(key, str) or not key:
            raise ConfigurationError("resource_attributes", f"{key!r} is not an attribute name")
        if not is_storable([key, value]):
            raise ConfigurationError(
                "resource_attributes",
                f"{key!r} contains half of a surrogate pair, or NUL, which cannot be sent",
            )
        try:
            any_value(value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                "resource_attributes",
                f"{key!r} is {error}; give text, a number of 64 bits, true, false or a list",
            ) from None


def conform(resource_metrics: list[Json], identity: Identity) -> list[Json]:
    """Correct Atlassian's metrics.

    Args:
        resource_metrics: Decoded OTLP/JSON. It is not modified.
        identity: The configured identity of the metrics.

    Returns:
        Decoded OTLP/JSON in which each resource, each scope of it and each metric of that is unique.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    merged = _ResourceMerger()
    for entry in resource_metrics:
        outer_fields = {key: value for key, value in entry.items() if key not in ("resource", "scopeMetrics")}
        source = object_at(entry, "resource")
        for scope_metrics in entries(entry, "scopeMetrics"):
            scope = _named_scope(scope_metrics)
            for metric in entries(scope_metrics, "metrics"):
                fixed = _fix_metric(metric)
                for (app, environment), points in _by_source(fixed).items():
                    resource = {**outer_fields, "resource": identity.resource(source, app, environment)}
                    merged.add({**resource, "schemaUrl": SCHEMA_URL}, scope, fixed, points)
    return merged.resource_metrics()


def _named_scope(scope_metrics: Json) -> Json:
    """Return the fields of a `ScopeMetrics` except its metrics, with a name for the scope."""
    scope = object_at(scope_metrics, "scope")
    outer_fields = {key: value for key, value in scope_metrics.items() if key != "metrics"}
    return {**outer_fields, "scope": scope if scope.get("name") else {**scope, "name": SCOPE_NAME}}


def _fix_metric(metric: Json) -> Json:
    """Return the metric with its correct unit, and monotonic if it is a count."""
    name = str(metric.get("name"))
    if correct_unit := _CORRECT_UNITS.get((name, str(metric.get("unit")))):
        metric = {**metric, "unit": correct_unit}
    is_count = name in _COUNT_NAMES or name.endswith(_COUNT_SUFFIXES)
    if is_count and kind_of(metric) == "sum" and metric["sum"].get("aggregationTemporality") in DELTA:
        metric = {**metric, "sum": {**metric["sum"], "isMonotonic": True}}
    return metric


def _by_source(metric: Json) -> dict[PointSource, list[Json]]:
    """Return the metric's points by the app and environment that they name."""
    groups: dict[PointSource, list[Json]] = defaultdict(list)
    if kind_of(metric) is None:
        # An unknown kind of metric: its points cannot be separated, but must not be lost.
        groups[None, None] = []
    for point in points_of(metric):
        groups[point_source(attribute(point, "appId"), attribute(point, "environmentId"))].append(point)
    return groups


def point_source(app: str | None, environment: str | None) -> PointSource:
    """Return the UUIDs of a point's `appId` and `environmentId`, which are UUIDs, ARIs or missing."""
    return _uuid(app), _uuid(environment)


def _uuid(text: str | None) -> str | None:
    return (text or "").rpartition("/")[2] or None


class _ResourceMerger:
    """Merges equal resources, the equal scopes in them, and the equal metrics in those, in order."""

    def __init__(self) -> None:
        self._resources: dict[bytes, tuple[Json, dict[bytes, tuple[Json, dict[bytes, Json]]]]] = {}

    def add(self, resource: Json, scope: Json, metric: Json, points: list[Json]) -> None:
        kind = kind_of(metric)
        envelope = {**metric, kind: {**metric[kind], "dataPoints": []}} if kind else metric
        _, scopes = self._resources.setdefault(canonical(resource), (resource, {}))
        _, metrics = scopes.setdefault(canonical(scope), (scope, {}))
        if kind is None:
            metrics[b"%d" % len(metrics)] = envelope
        else:
            metrics.setdefault(canonical(envelope), envelope)[kind]["dataPoints"].extend(points)

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
