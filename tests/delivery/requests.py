"""What requests say, to compare them by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from airflow_provider_forge.otlp.endpoint import HTTP_JSON

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.requests import ExportRequest


def said(export: ExportRequest) -> tuple[Any, ...]:
    """Return what a request says, in whatever order of fields."""
    assert export.size == len(export.body)
    if export.protocol == HTTP_JSON:
        body = msgspec.json.decode(export.body)
    else:
        body = ExportMetricsServiceRequest.FromString(export.body)
    return body, export.protocol, export.points, export.metrics, export.start, export.end
