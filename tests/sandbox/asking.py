"""The tests' clients for the sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from airflow_provider_forge.sandbox import Point, SandboxGateway, points_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

# A Tuesday, and therefore without an incident; late enough in the day for all time zones to be active.
DAY = datetime(2026, 3, 10, tzinfo=timezone.utc)
START = DAY + timedelta(hours=10)
END = START + timedelta(minutes=15)
NOW = DAY + timedelta(hours=20)

METRICS_QUERY = """
query Ecosystem($appId: ID!, $query: ForgeMetricsOtlpQueryInput!) {
  ecosystem {
    forgeMetrics(appId: $appId) {
      appMetrics(query: $query) {
        ... on ForgeMetricsOtlpData { resourceMetrics }
        ... on QueryError { message identifier extensions { statusCode errorType } }
      }
    }
  }
}
"""
PAGE_QUERY = """
query Environments($id: ID!, $first: Int!, $after: String) {
  app(id: $id) {
    name
    environmentsPage(first: $first, after: $after) {
      nodes { id key type }
      pageInfo { hasNextPage endCursor }
      totalCount
    }
  }
}
"""
HEADERS = {"User-Agent": "ForgeMetricsExportServer/1.0.0", "X-ExperimentalApi": "ForgeMetricsQuery"}


class Clock:
    """A clock for the gateway, advanced by hand."""

    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


@dataclass
class Client:
    """Queries a gateway as an exporter does."""

    gateway: SandboxGateway
    http: httpx.Client
    clock: Clock
    headers: dict[str, str] = field(default_factory=lambda: dict(HEADERS))

    def post(self, query: str, variables: dict[str, Any] | None = None, **options: Any) -> httpx.Response:
        auth = options.pop("auth", (self.gateway.email, self.gateway.api_token))
        headers = options.pop("headers", self.headers)
        body = {"query": query, "variables": variables or {}}
        return self.http.post(self.gateway.url, json=body, auth=auth, headers=headers, **options)

    def variables(
        self,
        start: datetime | str = START,
        end: datetime | str = END,
        metrics: Sequence[str] = ("FORGE_BACKEND_INVOCATION_COUNT",),
        environments: Sequence[str] | None = None,
        app_id: str | None = None,
    ) -> dict[str, Any]:
        if environments is None:
            environments = [self.environment_id("production")]
        interval = {
            "start": start if isinstance(start, str) else start.isoformat(),
            "end": end if isinstance(end, str) else end.isoformat(),
        }
        filters = {"environments": list(environments), "interval": interval, "metrics": list(metrics)}
        return {"appId": app_id or self.gateway.app_id, "query": {"filters": filters}}

    def metrics(self, *arguments: Any, **options: Any) -> httpx.Response:
        return self.post(METRICS_QUERY, self.variables(*arguments, **options))

    def environment_id(self, key: str) -> str:
        return next(each.id for each in self.gateway.environments if each.key == key)


def app_metrics(response: httpx.Response) -> Any:
    """The value in place of the data."""
    assert response.status_code == 200
    assert "errors" not in response.json()
    return response.json()["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]


def resource_metrics(response: httpx.Response) -> Any:
    return app_metrics(response)["resourceMetrics"]


def points_of_answer(response: httpx.Response) -> list[Point]:
    return points_of(ParseDict(each, ResourceMetrics()) for each in resource_metrics(response))


def export_request(points: int = 3, value: float = 1) -> ExportMetricsServiceRequest:
    """A request with a number of points of one delta sum, with a resource and a scope."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add(schema_url="https://opentelemetry.io/schemas/1.9.0")
    resource.resource.attributes.add(key="service.name").value.string_value = "forge"
    scope = resource.scope_metrics.add()
    scope.scope.name, scope.scope.version = "scope", "1"
    metric = scope.metrics.add(name="forge_api_request_count")
    metric.sum.aggregation_temporality = 1
    for index in range(points):
        point = metric.sum.data_points.add(start_time_unix_nano=60, time_unix_nano=120)
        point.attributes.add(key="index").value.string_value = str(index)
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
    return request
