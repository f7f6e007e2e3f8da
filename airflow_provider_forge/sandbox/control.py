"""The control plane: an HTTP API for tests and users, without credentials or limits."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs

from airflow_provider_forge.sandbox.faults import Fault
from airflow_provider_forge.sandbox.server import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_forge.sandbox.call_log import CallRecord
    from airflow_provider_forge.sandbox.environments import Environment
    from airflow_provider_forge.sandbox.points import Point
    from airflow_provider_forge.sandbox.usage import UsageAmount

__all__ = ["gateway_reply", "sink_reply", "totals"]


class _Faulty(Protocol):
    @property
    def faults(self) -> list[Fault]: ...

    def add_fault(self, fault: Fault) -> None: ...

    def clear_faults(self) -> None: ...


class _Gateway(_Faulty, Protocol):
    """The part of `SandboxGateway` that the control plane shows."""

    rate_limit_calls: int | None
    rate_limit_seconds: float

    @property
    def app_id(self) -> str: ...

    @property
    def environments(self) -> Sequence[Environment]: ...

    @property
    def calls(self) -> Sequence[CallRecord]: ...

    @property
    def violations(self) -> int: ...

    def generated(self, *args: Any, **kwargs: Any) -> Iterable[Point]: ...

    def served(self, *args: Any, **kwargs: Any) -> Iterable[Point]: ...

    def visible(self, *args: Any, **kwargs: Any) -> Iterable[Point]: ...

    def usage(self, *args: Any, **kwargs: Any) -> Iterable[UsageAmount]: ...


class _Sink(_Faulty, Protocol):
    """The part of `OtlpSink` that the control plane shows."""

    @property
    def points(self) -> Sequence[Point]: ...

    @property
    def telemetry(self) -> Iterable[Any]: ...

    def summary(self) -> dict[str, int]: ...


def gateway_reply(gateway: _Gateway, request: Request) -> Reply:
    """Return the gateway's reply to a control request."""
    try:
        if request.path == "/":
            return Reply.of_json(_about_gateway(gateway))
        if request.path == "/sandbox/truth":
            return Reply.of_json(_truth(gateway, _parameters(request)))
        if request.path == "/sandbox/usage":
            return Reply.of_json(_usage(gateway, _parameters(request)))
        if request.path == "/sandbox/calls":
            return Reply.of_json([call.to_json() for call in gateway.calls])
        return _faults_reply(gateway, request)
    except ValueError as error:
        return Reply.of_json({"message": str(error)}, 400)


def sink_reply(sink: _Sink, request: Request) -> Reply:
    """Return the sink's reply to a control request."""
    try:
        if request.path == "/":
            what = (
                "A sink for OTLP metrics: POST /v1/metrics, GET /sandbox/points, /sandbox/telemetry or"
                " /sandbox/summary"
            )
            return Reply.of_json({"what": what, **sink.summary()})
        if request.path == "/sandbox/points":
            return Reply.of_json([point.to_json() for point in sink.points])
        if request.path == "/sandbox/telemetry":
            return Reply.of_json([point.to_json() for each in sink.telemetry for point in each.telemetry])
        if request.path == "/sandbox/summary":
            return Reply.of_json({**sink.summary(), "metrics": totals(sink.points)})
        return _faults_reply(sink, request)
    except ValueError as error:
        return Reply.of_json({"message": str(error)}, 400)


def totals(points: Iterable[Point]) -> dict[str, dict[str, float]]:
    """Return the number of points, and the total of their values or counts, by metric."""
    counts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for point in points:
        data: Any = point.data()
        counts[point.metric] += 1
        # Histograms and summaries have a count. Numbers are an int or a double; the other one is 0 by
        # default.
        sums[point.metric] += data.as_int + data.as_double if point.kind in {"gauge", "sum"} else data.count
    return {metric: {"points": counts[metric], "total": sums[metric]} for metric in sorted(counts)}


def _about_gateway(gateway: _Gateway) -> dict[str, Any]:
    return {
        "what": "A stand-in for Atlassian's gateway: POST /graphql, GET /sandbox/truth, /sandbox/usage or"
        " /sandbox/calls",
        "app_id": gateway.app_id,
        "environments": {each.key: each.id for each in gateway.environments},
        "rate_limit_calls": gateway.rate_limit_calls,
        "rate_limit_seconds": gateway.rate_limit_seconds,
        "calls": len(gateway.calls),
        "violations": gateway.violations,
    }


def _parameters(request: Request) -> dict[str, list[str]]:
    return parse_qs(request.query.replace("+", "%2B"))


def _truth(gateway: _Gateway, parameters: dict[str, list[str]]) -> Any:
    kind = parameters.get("kind", ["summary"])[0]
    asked: dict[str, Any] = {
        "start": _time(parameters, "start"),
        "end": _time(parameters, "end"),
        "app_id": parameters.get("app", [None])[0],
        "environments": parameters.get("environment"),
        "metrics": parameters.get("metric"),
    }
    if kind == "generated":
        return [point.to_json() for point in gateway.generated(**asked)]
    if kind == "served":
        return [point.to_json() for point in gateway.served(**asked)]
    if kind == "visible":
        at = _time(parameters, "at")
        return [point.to_json() for point in gateway.visible(at=at, **asked)]
    if kind == "summary":
        return {"generated": totals(gateway.generated(**asked)), "served": totals(gateway.served(**asked))}
    raise ValueError(f"kind must be generated, visible, served or summary, not {kind!r}")


def _usage(gateway: _Gateway, parameters: dict[str, list[str]]) -> Any:
    """Return the true usage: final amounts, or with `at` those visible then; by environment or by site."""
    by = parameters.get("by", ["environment"])[0]
    if by not in {"environment", "site"}:
        raise ValueError(f"by must be environment or site, not {by!r}")
    amounts = gateway.usage(
        _time(parameters, "start"),
        _time(parameters, "end"),
        app_id=parameters.get("app", [None])[0],
        environments=parameters.get("environment"),
        resources=parameters.get("resource"),
        by_site=by == "site",
        at=_time(parameters, "at") if "at" in parameters else None,
    )
    return [
        {
            "resource": each.resource,
            "day": each.day.isoformat(),
            "group": each.group,
            "amount": f"{each.amount:.6f}",
        }
        for each in amounts
    ]


def _time(parameters: dict[str, list[str]], name: str) -> datetime:
    if name not in parameters:
        raise ValueError(f"the parameter {name} is missing")
    time = datetime.fromisoformat(parameters[name][0].replace("Z", "+00:00"))
    if time.tzinfo is None:
        raise ValueError(f"{name} needs a time zone: {time}")
    return time


def _faults_reply(server: _Faulty, request: Request) -> Reply:
    if request.path != "/sandbox/faults":
        return Reply.of_json({"message": f"nothing at {request.path}"}, 404)
    if request.method == "POST":
        server.add_fault(Fault.from_json(json.loads(request.body)))
    elif request.method == "DELETE":
        server.clear_faults()
    return Reply.of_json([fault.to_json() for fault in server.faults])
