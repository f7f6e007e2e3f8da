"""Resolvers for the fields of the schema."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from graphql import GraphQLError, GraphQLResolveInfo

from airflow_provider_forge.sandbox import encode
from airflow_provider_forge.sandbox.call_log import Served
from airflow_provider_forge.sandbox.environments import Directory, Environment, app_uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_forge.sandbox.faults import Fault, FaultPlan
    from airflow_provider_forge.sandbox.scenario import Scenario
    from airflow_provider_forge.sandbox.truth import Truth
    from airflow_provider_forge.sandbox.usage import UsageTruth

__all__ = ["RESOLVERS", "Account", "Call", "check_scopes", "page_of"]

MAX_WINDOW = timedelta(minutes=15)
MAX_AGE = timedelta(days=14)


@dataclass(frozen=True)
class Account:
    """The state that all calls share."""

    scenario: Scenario
    truth: Truth
    usage: UsageTruth
    directory: Directory
    faults: FaultPlan

    def owns(self, app: str) -> bool:
        """Return whether the app with this UUID belongs to the account."""
        return not {app, f"ari:cloud:ecosystem::app/{app}"} & self.scenario.forbidden_apps


@dataclass
class Call:
    """A call: its time in seconds since the epoch, and the arguments that its resolvers have received."""

    account: Account
    now: float
    operation: str = ""
    app_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    environments: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    outcome: str = "ok"
    points: int = 0
    served: Served | None = None
    fault: Fault | None = None
    # Response keys from the root to appMetrics or app, including aliases.
    path: list[str | int] = field(default_factory=list)
    # Seconds until the limit admits a call again; 0.0 if this call is admitted.
    wait: float = 0.0
    _fault_was_picked: bool = False

    def pick_fault(self) -> Fault | None:
        """Return the fault of this call; it is chosen the first time."""
        if not self._fault_was_picked and not self.wait:
            self._fault_was_picked = True
            window = (self.start, self.end) if self.start and self.end else None
            self.fault = self.account.faults.pick(self.operation, window)
            if self.fault is not None and self.fault.kind == "rate_limited":
                self.wait = self.fault.seconds or 60.0
        return self.fault


def _query_error(
    message: str | None,
    extensions: Sequence[Mapping[str, Any]] | None,
    identifier: str | None = None,
) -> dict[str, Any]:
    entries = extensions and [{"__typename": "GenericQueryErrorExtension", **entry} for entry in extensions]
    return {
        "__typename": "QueryError",
        "identifier": identifier,
        "message": message,
        "extensions": entries,
    }


class _RejectedError(Exception):
    """A query that is answered with a `QueryError`."""

    def __init__(self, message: str, status_code: int, error_type: str) -> None:
        self.status_code = status_code
        self.error_type = error_type
        super().__init__(message)


def _ecosystem(_: Any, _info: GraphQLResolveInfo[Call]) -> dict[str, Any]:
    return {}


def _forge_metrics(_: Any, _info: GraphQLResolveInfo[Call], *, appId: str) -> dict[str, Any]:  # noqa: N803
    return {"appId": appId}


def _app_metrics(parent: Mapping[str, Any], info: GraphQLResolveInfo[Call], *, query: Any) -> dict[str, Any]:
    call: Call = info.context
    filters = query["filters"]
    call.path = info.path.as_list()
    call.app_id = parent["appId"]
    call.start, call.end = filters["interval"]["start"], filters["interval"]["end"]
    call.environments, call.metrics = tuple(filters["environments"]), tuple(filters["metrics"])
    fault = call.pick_fault()
    if call.wait:
        return _query_error("Rate limit exceeded", [{"errorType": "RATE_LIMITED", "statusCode": 429}])
    if fault is not None and fault.kind == "query_error":
        entry = {"errorType": fault.error_type, "statusCode": fault.status_code}
        extensions = {"entry": [entry], "empty": [], "null": None}[fault.extensions]
        return _query_error(fault.message, extensions, fault.identifier)
    try:
        return _data(call, call.start, call.end)
    except _RejectedError as error:
        call.outcome = "query_error"
        entry = {"errorType": error.error_type, "statusCode": error.status_code}
        return _query_error(str(error), [entry], call.app_id)


def _data(call: Call, start: datetime, end: datetime) -> dict[str, Any]:
    app = app_uuid(call.app_id or "")
    if app is None:
        raise _RejectedError(f"{call.app_id!r} is not the ARI of an app", 400, "INVALID_APP_ID")
    if not call.account.owns(app):
        raise _RejectedError("the account does not own the app", 403, "FORBIDDEN")
    _check_window(start, end, datetime.fromtimestamp(call.now, timezone.utc))
    if not call.metrics:
        raise _RejectedError("metrics must name at least one metric", 400, "INVALID_METRICS")
    environments = _environments(call, app)
    samples = call.account.truth.answer(app, environments, call.metrics, start, end, call.now)
    copies = 1
    if call.fault is not None and call.fault.kind in {"duplicate_points", "empty"}:
        copies = 2 if call.fault.kind == "duplicate_points" else 0
    samples = samples * copies
    call.points = len(samples)
    call.served = Served(app, environments, call.metrics, start, end, call.now, copies)
    resource_metrics = encode.to_json(samples, call.account.scenario.latency_shape)
    return {"__typename": "ForgeMetricsOtlpData", "resourceMetrics": resource_metrics}


def _check_window(start: datetime, end: datetime, now: datetime) -> None:
    if end <= start:
        raise _RejectedError("interval.end must be after interval.start", 400, "INVALID_INTERVAL")
    if end - start > MAX_WINDOW:
        raise _RejectedError("the interval must not be longer than 15 minutes", 400, "INVALID_INTERVAL")
    if start < now - MAX_AGE:
        raise _RejectedError("the interval must not start more than 14 days ago", 400, "INVALID_INTERVAL")
    if start > now:
        raise _RejectedError("the interval must not start in the future", 400, "INVALID_INTERVAL")


def _environments(call: Call, app: str) -> tuple[Environment, ...]:
    known = {environment.id: environment for environment in call.account.directory.of(app)}
    unknown = [identifier for identifier in call.environments if identifier not in known]
    if unknown or not call.environments:
        message = f"no such environments: {unknown}" if unknown else "environments must not be empty"
        raise _RejectedError(message, 400, "INVALID_ENVIRONMENT")
    return tuple(known[identifier] for identifier in dict.fromkeys(call.environments))


def _app(_: Any, info: GraphQLResolveInfo[Call], *, id: str) -> dict[str, Any]:  # noqa: A002 - the schema's name
    call: Call = info.context
    call.path = info.path.as_list()
    call.app_id = id
    fault = call.pick_fault()
    if fault is not None and fault.kind == "query_error":
        raise _graphql_error(fault.message or "", fault.status_code, fault.error_type)
    app = app_uuid(id)
    if app is None:
        raise _graphql_error(f"{id!r} is not the ARI of an app", 400, "INVALID_APP_ID")
    if not call.account.owns(app):
        raise _graphql_error("the account does not own the app", 403, "FORBIDDEN")
    return {"id": id, "name": f"Sandbox app {app[:8]}", "uuid": app}


def check_scopes(call: Call, *scopes: str) -> None:
    """Refuse a token that lacks these scopes."""
    if call.account.scenario.insufficient_scopes:
        extensions = {"classification": "InsufficientOAuthScopes", "requiredScopes": list(scopes)}
        raise GraphQLError("The token lacks a required scope", extensions=extensions)


def _graphql_error(message: str, status_code: int | None, error_type: str | None) -> GraphQLError:
    extensions = {
        "classification": "DataFetchingException",
        "errorType": error_type,
        "statusCode": status_code,
    }
    return GraphQLError(message, extensions=extensions)


def _environment_by_key(
    app: Mapping[str, Any], info: GraphQLResolveInfo[Call], *, key: str
) -> dict[str, Any] | None:
    found = [node for node in _nodes(app, info) if node["key"] == key]
    return found[0] if found else None


def _environments_page(
    app: Mapping[str, Any], info: GraphQLResolveInfo[Call], *, first: int, after: str | None = None
) -> dict[str, Any]:
    return page_of(_nodes(app, info), first, after)


def page_of(nodes: Sequence[Mapping[str, Any]], first: int, after: str | None) -> dict[str, Any]:
    """Return a page of a list.

    Args:
        nodes: All nodes of the list.
        first: Maximum number of nodes of the page.
        after: End cursor of the page before; None for the first page.

    Raises:
        GraphQLError: One of the arguments is invalid.
    """
    cursor = re.fullmatch(r"cursor-(\d+)", after or "cursor-0")
    if cursor is None or first < 1:
        raise _graphql_error("first must be at least 1, after an endCursor", 400, "BAD_REQUEST")
    begin = int(cursor.group(1))
    page = nodes[begin : begin + first]
    stop = begin + len(page)
    return {
        "nodes": page,
        "pageInfo": {"hasNextPage": stop < len(nodes), "endCursor": f"cursor-{stop}" if page else None},
        "totalCount": len(nodes),
    }


def _nodes(app: Mapping[str, Any], info: GraphQLResolveInfo[Call]) -> list[dict[str, Any]]:
    account: Account = info.context.account
    prefix = ""
    if account.scenario.environment_ids == "ari":
        prefix = f"ari:cloud:ecosystem::environment/{app['uuid']}/"
    return [
        {"id": prefix + environment.id, "key": environment.key, "type": environment.type}
        for environment in account.directory.of(app["uuid"])
    ]


RESOLVERS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("Query", "ecosystem", _ecosystem),
    ("Query", "app", _app),
    ("EcosystemQuery", "forgeMetrics", _forge_metrics),
    ("ForgeMetricsQuery", "appMetrics", _app_metrics),
    ("App", "environmentByKey", _environment_by_key),
    ("App", "environmentsPage", _environments_page),
)
