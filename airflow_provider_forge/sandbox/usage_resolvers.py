"""Resolvers for the fields of the App resource usage API."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from graphql import GraphQLError, GraphQLResolveInfo

from airflow_provider_forge.sandbox.environments import app_uuid
from airflow_provider_forge.sandbox.randomness import uuid_of
from airflow_provider_forge.sandbox.resolvers import check_scopes
from airflow_provider_forge.sandbox.usage import RESOURCES, UsageAmount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_forge.sandbox.environments import Environment
    from airflow_provider_forge.sandbox.resolvers import Call

__all__ = ["OPERATION", "USAGE_RESOLVERS"]

OPERATION = "appResourceUsage"

MAX_AGE = timedelta(days=62)

SCOPE = "read:app-usage:forge"


def _dev_console(_: Any, _info: GraphQLResolveInfo[Call]) -> dict[str, Any]:
    return {}


def _app_resource_usage(
    _: Any,
    info: GraphQLResolveInfo[Call],
    *,
    appId: str,  # noqa: N803 - the schema's name
    filters: Mapping[str, Any],
    groupBy: str | None = None,  # noqa: N803
) -> dict[str, Any]:
    call: Call = info.context
    call.path = info.path.as_list()
    call.app_id, call.metrics = appId, (filters["resource"],)
    call.environments = (filters["environment"],) if filters.get("environment") else ()
    call.start, call.end = filters["interval"]["start"], filters["interval"]["end"]
    fault = call.pick_fault()
    _refuse_scopes_and_resources(call)
    # The gateway groups by site if sites are named.
    group_by = groupBy or ("CONTEXT_ARI" if filters.get("contextAris") else None)
    data = _response(call, filters, group_by)
    if fault is not None and fault.kind == "query_error":
        data["error"] = _query_error(fault.message, fault.status_code, fault.error_type)
    return data


def _refuse_scopes_and_resources(call: Call) -> None:
    check_scopes(call, SCOPE)
    [resource] = call.metrics
    if resource in call.account.scenario.unknown_resources:
        extensions: dict[str, Any] = {
            "classification": "ValidationError",
            "errorType": "BAD_REQUEST",
            "statusCode": 400,
        }
        message = f"Value '{resource}' does not exist in 'DevConsoleResource' enum."
        raise GraphQLError(message, extensions=extensions)


def _response(call: Call, filters: Mapping[str, Any], group_by: str | None) -> dict[str, Any]:
    scenario = call.account.scenario
    page = filters["page"] if filters.get("page") is not None else 1
    response: dict[str, Any] = {
        "__typename": f"DevConsoleAppResourceUsage{'Grouped' if group_by else 'Flat'}Response",
        "error": _error(call, filters["interval"], page),
        "pagination": {"page": page, "pageSize": scenario.usage_page_size},
        "resourceUsage": [],
    }
    if response["error"] is not None:
        call.outcome = "query_error"
        return response
    amounts = _amounts(call, filters, group_by)
    [resource] = call.metrics
    size = scenario.usage_page_size
    part = slice((page - 1) * size, page * size)
    if group_by and scenario.usage_page_unit == "groups":
        rows = _grouped(amounts[part], group_by)
    elif group_by:
        rows = _grouped(amounts, group_by)[part]
    else:
        rows = _flat(amounts, RESOURCES[resource].unit)[part]
    call.points = len(rows)
    return {**response, "resourceUsage": rows}


def _error(call: Call, interval: Mapping[str, datetime], page: int) -> dict[str, Any] | None:
    """Return the `QueryError` of a query that is refused; None if it is not."""
    app, [resource] = app_uuid(call.app_id or ""), call.metrics
    if app is None:
        return _query_error(f"{call.app_id!r} is not the ARI of an app", 400, "INVALID_APP_ID")
    if not call.account.owns(app):
        return _query_error("the account does not own the app", 403, "FORBIDDEN")
    if resource in call.account.scenario.refused_resources:
        return _query_error(f"the account has no {resource}", 403, "FORBIDDEN")
    known = {environment.id for environment in call.account.directory.of(app)}
    if not set(call.environments) <= known:
        return _query_error(f"no such environment: {call.environments[0]}", 400, "INVALID_ENVIRONMENT")
    now = datetime.fromtimestamp(call.now, timezone.utc)
    if interval["end"] <= interval["start"] or interval["start"] < now - MAX_AGE or page < 1:
        return _query_error("the interval or the page is out of range", 400, "INVALID_INTERVAL")
    return None


def _amounts(call: Call, filters: Mapping[str, Any], group_by: str | None) -> list[UsageAmount]:
    app = app_uuid(call.app_id or "") or ""
    environments: Sequence[Environment] = call.account.directory.of(app)
    if call.environments:
        environments = [each for each in environments if each.id in call.environments]
    [resource] = call.metrics
    amounts = call.account.usage.amounts(
        app,
        environments,
        resource,
        days_of(filters["interval"]["start"], filters["interval"]["end"]),
        by_site=group_by == "CONTEXT_ARI" or bool(filters.get("contextAris")),
        at=call.now,
    )
    wanted = filters.get("contextAris")
    return [each for each in amounts if not wanted or each.group in wanted]


def days_of(start: datetime, end: datetime) -> list[date]:
    """Return the UTC days that begin in [start, end)."""
    first = start.astimezone(timezone.utc)
    day = first.date() + timedelta(days=first.time() != first.time().min)
    days = []
    while datetime(day.year, day.month, day.day, tzinfo=timezone.utc) < end:
        days.append(day)
        day += timedelta(days=1)
    return days


def _flat(amounts: Iterable[UsageAmount], unit: str) -> list[dict[str, Any]]:
    totals: dict[date, Any] = {}
    for each in amounts:
        totals[each.day] = totals.get(each.day, 0) + each.amount
    return [
        {**_period(day), "tokensConsumed": f"{amount:.6f}", "tokenUnit": unit}
        for day, amount in totals.items()
    ]


def _grouped(amounts: Iterable[UsageAmount], group_by: str) -> list[dict[str, Any]]:
    periods: dict[date, dict[str, Any]] = {}
    for each in amounts:
        period = periods.setdefault(each.day, {**_period(each.day), "groups": []})
        period["groups"].append(
            {
                "groupBy": group_by,
                "groupValue": each.group,
                "tokensConsumed": f"{each.amount:.6f}",
                "tokenUnit": RESOURCES[each.resource].unit,
            }
        )
    return list(periods.values())


def _period(day: date) -> dict[str, Any]:
    return {"period": day.isoformat(), "resolution": "ONE_DAY"}


def _query_error(message: str | None, status: int | None, error_type: str | None) -> dict[str, Any]:
    entry = {"__typename": "GenericQueryErrorExtension", "errorType": error_type, "statusCode": status}
    return {"message": message, "identifier": None, "extensions": [entry]}


def _tenant_contexts(
    _: Any,
    _info: GraphQLResolveInfo[Call],
    *,
    cloudIds: Sequence[str],  # noqa: N803 - the schema's name
) -> list[dict[str, Any]]:
    return [
        {"cloudId": each, "hostName": f"site-{uuid_of('host', each)[:8]}.atlassian.net"} for each in cloudIds
    ]


USAGE_RESOLVERS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("EcosystemQuery", "devConsole", _dev_console),
    ("DevConsoleQuery", OPERATION, _app_resource_usage),
    ("DevConsoleQuery", "tenantContexts", _tenant_contexts),
)
