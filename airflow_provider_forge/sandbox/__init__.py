"""A stand-in for Atlassian's gateway that enforces its schema and limits, and an OTLP sink for metrics.

    from airflow_provider_forge.sandbox import Fault, OtlpSink, SandboxGateway, Scenario

    with SandboxGateway(Scenario(lateness=True)) as gateway, OtlpSink() as sink:
        gateway.add_fault(Fault("status", status=503, first=2))
        ...  # export from gateway.url to sink.url
        assert Counter(sink.points) == Counter(gateway.generated(start, end))

Everything generated is a pure function of (seed, app, environment, minute). Requires the extra `sandbox`.
`python -m airflow_provider_forge.sandbox` runs both.
"""

from __future__ import annotations

try:
    import graphql as _graphql  # noqa: F401
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "The sandbox requires graphql-core: install airflow-provider-forge with the extra `sandbox`"
    ) from None

from airflow_provider_forge.sandbox.call_log import CallRecord
from airflow_provider_forge.sandbox.environments import Environment
from airflow_provider_forge.sandbox.faults import Fault
from airflow_provider_forge.sandbox.gateway import SandboxGateway
from airflow_provider_forge.sandbox.limits import over_limit
from airflow_provider_forge.sandbox.points import Point, points_of
from airflow_provider_forge.sandbox.scenario import Scenario
from airflow_provider_forge.sandbox.sink import OtlpSink, SinkRequest, SinkResource

__all__ = [
    "CallRecord",
    "Environment",
    "Fault",
    "OtlpSink",
    "Point",
    "SandboxGateway",
    "Scenario",
    "SinkRequest",
    "SinkResource",
    "over_limit",
    "points_of",
]
