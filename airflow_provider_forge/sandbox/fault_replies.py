"""Apply faults to HTTP replies and to GraphQL response bodies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.sandbox.server import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_forge.sandbox.faults import Fault

__all__ = ["apply_fault", "apply_to_body", "fault_headers"]

_HTML = "<!DOCTYPE html><html><head><title>Error</title></head><body>{message}</body></html>"
_LEVELS = {
    "app": 1,
    "ecosystem": 1,
    "forgeMetrics": 2,
    "appMetrics": 3,
    "devConsole": 2,
    "appResourceUsage": 3,
}


def fault_headers(fault: Fault | None) -> tuple[tuple[str, str], ...]:
    """Return the rate limit headers that the fault adds to the response."""
    if fault is None:
        return ()
    wanted = (("Retry-After", fault.retry_after), ("X-RateLimit-Reset", fault.rate_limit_reset))
    return tuple((name, value) for name, value in wanted if value is not None)


def apply_fault(fault: Fault, ordinary: Reply) -> Reply:
    """Return the ordinary reply with the fault applied; unchanged unless it is a transport fault."""
    kind = fault.kind
    if kind == "status":
        status = fault.status or 503
        error = Reply.of_json({"code": status, "message": fault.message}, status, ordinary.headers[1:])
        return error if fault.body is None else replace(error, body=fault.body.encode())
    if kind == "html":
        body = fault.body if fault.body is not None else _HTML.format(message=fault.message)
        headers = (("Content-Type", "text/html; charset=utf-8"), *ordinary.headers[1:])
        return Reply(fault.status or 503, body.encode(), headers)
    if kind == "redirect":
        status = fault.status if fault.status is not None and fault.status // 100 == 3 else 307
        return Reply(status, b"", (*ordinary.headers[1:], ("Location", fault.location)))
    if kind == "body":
        return replace(ordinary, status=fault.status or 200, body=(fault.body or "").encode())
    if kind == "slow":
        return replace(ordinary, delay=fault.seconds)
    return _broken(fault, ordinary)


def _broken(fault: Fault, ordinary: Reply) -> Reply:
    if fault.kind in {"hang", "hang_after"}:
        return replace(ordinary, delivery="hang", delay=fault.seconds)
    if fault.kind in {"reset", "reset_before", "reset_after"}:
        return replace(ordinary, delivery="reset")
    if fault.kind == "reset_mid_body":
        return replace(ordinary, delivery="reset_mid_body")
    if fault.kind == "truncate":
        return replace(ordinary, delivery="truncate")
    return ordinary


def apply_to_body(fault: Fault, payload: dict[str, Any], path: Sequence[str | int]) -> dict[str, Any]:
    """Return a response body of the gateway with the fault applied.

    Args:
        fault: Only the kinds "errors", "errors_with_data" and "null" change the body.
        payload: The ordinary body.
        path: Response keys from the root to appMetrics or app.
    """
    if fault.kind == "errors":
        return {"data": None, "errors": [_error(fault)]}
    if fault.kind == "errors_with_data":
        data = payload["data"] if fault.level is None else _nulled(payload["data"], _keys(fault, path))
        return {"data": data, "errors": [_error(fault)]}
    if fault.kind == "null":
        return {**payload, "data": _nulled(payload["data"], _keys(fault, path))}
    return payload


def _error(fault: Fault) -> dict[str, Any]:
    entry = {
        "classification": fault.classification,
        "errorType": fault.error_type,
        "statusCode": fault.status_code,
    }
    extensions = {"entry": entry, "empty": {}, "null": None}[fault.extensions]
    return {"message": fault.message, "extensions": extensions}


def _keys(fault: Fault, path: Sequence[str | int]) -> list[str | int]:
    if fault.level == "data":
        return []
    if fault.level in {"resourceMetrics", "resourceUsage"}:
        return [*path, fault.level]
    return list(path[: _LEVELS[fault.level or "appMetrics"]])


def _nulled(data: Any, keys: Sequence[str | int]) -> Any:
    if not keys or data is None:
        return None
    return {**data, keys[0]: _nulled(data.get(keys[0]), keys[1:])}
