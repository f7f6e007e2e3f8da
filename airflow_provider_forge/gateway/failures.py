"""Converts failed responses of the gateway to errors: by status and type, never by text.

Responses that are not GraphQL come from Atlassian's edge, a firewall or a proxy. Errors quote their text,
because nothing else says why they refused.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    CredentialsRefused,
    ForgeError,
    GatewayUnavailable,
    QueryRefused,
    RateLimited,
    UnknownFailure,
    WindowTooLarge,
)
from airflow_provider_forge.http import is_page, retry_after
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    import httpx

__all__ = ["SPLIT_HINT", "Reply", "error_of"]

SPLIT_HINT = (
    "Its halves will be fetched. If even a minute is too large, fetch fewer environments or metrics at a"
    " time, raise the Forge Connection's timeout, and see https://developer.status.atlassian.com"
)
"""How a window that is too large is handled, and the remedy if that does not help."""

_TOKENS = "https://id.atlassian.com/manage/api-tokens"
_STATUS_PAGE = "https://developer.status.atlassian.com"

_STATUS_OF_TYPE = {
    "ACCESSDENIED": 403,
    "BADREQUEST": 400,
    "BADUSERINPUT": 400,
    "DATAFETCHINGEXCEPTION": 500,
    "EXECUTIONABORTED": 504,
    "FORBIDDEN": 403,
    "GATEWAYTIMEOUT": 504,
    "INSUFFICIENTOAUTHSCOPES": 403,
    "INSUFFICIENTSCOPE": 403,
    "INSUFFICIENTSCOPES": 403,
    "INTERNALERROR": 500,
    "INTERNALSERVERERROR": 500,
    "INVALIDARGUMENT": 400,
    "INVALIDINPUT": 400,
    "INVALIDSYNTAX": 400,
    "NOTFOUND": 404,
    "OPERATIONNOTSUPPORTED": 400,
    "PERMISSIONDENIED": 403,
    "RATELIMITED": 429,
    "RATELIMITEXCEEDED": 429,
    "SERVICEUNAVAILABLE": 503,
    "THROTTLED": 429,
    "TIMEOUT": 504,
    "TOOMANYREQUESTS": 429,
    "UNAUTHENTICATED": 401,
    "UNAUTHORIZED": 401,
    "VALIDATIONERROR": 400,
}
"""Statuses of errors without a status code, by `errorType` or `classification`, in capital letters only."""

_SCOPE_TYPES = {"INSUFFICIENTOAUTHSCOPES", "INSUFFICIENTSCOPE", "INSUFFICIENTSCOPES"}

_TOO_LARGE = {408, 413, 504}
_TOO_LARGE_TYPE = re.compile("COMPLEX|EXECUTIONABORTED|TIMEDOUT|TIMEOUT|TOOLARGE")
"""Part of a type that means the same with any status: servers also answer a query that is too complex with
400. graphql-java reports one as `ExecutionAborted`."""

_WORDS = ("message", "errorMessages", "errorMessage", "error_description", "error", "detail", "title")
"""Keys of the message in bodies that are not GraphQL; the first one present counts."""

_TITLE = re.compile("<title[^>]*>(.*?)</title|<h1[^>]*>(.*?)</h1", re.IGNORECASE | re.DOTALL)
_READ = 20_000
_MOST_SCOPES = 20

_MAX_DEPTH = 5
"""Maximum depth of a message in a body: messages in lists of errors have three."""


@dataclass(frozen=True)
class Reply:
    """A response and its context, from which an error is made.

    Attributes:
        response: The response, with its body read.
        request_id: The gateway's id of the request.
        now: The current time, to which times in headers are relative.
        secrets: Secrets to redact in errors, in case the gateway repeats them.
        splittable: Whether the query was for a window, so that half of it can be fetched instead.
        via: Description of the proxy that may have responded, to follow the status; empty if there is none.
    """

    response: httpx.Response
    request_id: str | None
    now: dt.datetime
    secrets: tuple[str, ...]
    splittable: bool
    via: str

    @property
    def retry_after(self) -> float | None:
        """Seconds after which to retry, if the response says so."""
        return retry_after(self.response.headers, self.now)

    @property
    def is_page(self) -> bool:
        """Whether the response is a page of HTML or XML."""
        return is_page(self.response.headers.get("content-type", ""), self.response.content)


def error_of(failures: list[Any], reply: Reply) -> ForgeError:
    """Return the error for a failed response.

    Args:
        failures: GraphQL errors, as received; empty if only the HTTP status reports a failure.
        reply: The response.
    """
    statuses = set(_statuses(failures))
    if not reply.response.is_success:
        statuses.add(reply.response.status_code)
    said = _said(failures, statuses, reply)
    if 401 in statuses or 403 in statuses:
        return _refused(failures, statuses, said, reply)
    if 429 in statuses:
        return RateLimited(
            f"Atlassian counted too many calls of this account{said}. Another program with the same account,"
            " or a higher rate_limit_calls than Atlassian allows, uses up its budget",
            retry_after=reply.retry_after,
            request_id=reply.request_id,
        )
    too_large = statuses & _TOO_LARGE or any(map(_TOO_LARGE_TYPE.search, _types(failures)))
    if reply.splittable and too_large:
        return WindowTooLarge(
            f"The gateway failed{said}: the window may be too large for one response. {SPLIT_HINT}",
            retry_after=reply.retry_after,
            request_id=reply.request_id,
        )
    return _other_error(failures, statuses, said, reply)


def _refused(failures: list[Any], statuses: set[int], said: str, reply: Reply) -> ForgeError:
    """Return the error for a 401 or a 403."""
    scopes = _missing_scopes(failures, reply)
    if scopes is not None:
        named = f", or one with the scopes {', '.join(scopes)}" if scopes else ""
        return AccessForbidden(
            f"The API token lacks a scope that this call needs{said}. Create a token without scopes at"
            f" {_TOKENS}{named}, and put it into the Forge Connection's password",
            request_id=reply.request_id,
        )
    # The text decides only about this hint.
    hint = (
        ". If it was created with scopes, create one without scopes: its scopes do not cover app metrics"
        if "scope" in said.lower()
        else ""
    )
    if 401 in statuses:
        return CredentialsRefused(
            f"Atlassian refused the credentials{said}. Check the Forge Connection's login (the account's"
            " email) and password (its API token); tokens expire after at most a year: create a new one at"
            f" {_TOKENS}{hint}",
            request_id=reply.request_id,
        )
    if not failures and (error := _refused_before_gateway(said, reply)):
        return error
    return AccessForbidden(
        f"Atlassian does not let this account read this app{said}. The API token must belong to the"
        " account that owns the app: check app_id, whose token the Forge Connection holds, and whether the"
        f" app has been transferred to another owner{hint}",
        request_id=reply.request_id,
    )


def _refused_before_gateway(said: str, reply: Reply) -> ForgeError | None:
    """Return the error for a 403 of a firewall, a proxy or Atlassian's edge; None if it is the gateway's."""
    if reply.is_page:
        return GatewayUnavailable(
            f"A page of HTML refused the call{said}, not Atlassian's GraphQL: a firewall, a proxy or an IP"
            " allowlist on the way may be the reason. Allow this machine's address and the gateway's"
            " host there",
            retry_after=reply.retry_after,
            request_id=reply.request_id,
        )
    if not _is_of_gateway(reply):
        return AccessForbidden(
            f"The call was refused before it reached Atlassian's GraphQL{said}: have this machine's address"
            " put on the organization's IP allowlist, and the gateway's host allowed by firewalls and"
            " proxies. If that is done, check app_id, and whose token the Forge Connection holds",
            request_id=reply.request_id,
        )
    return None


def _other_error(failures: list[Any], statuses: set[int], said: str, reply: Reply) -> ForgeError:
    refused = {status for status in statuses if status < 500 and status != 408}
    if statuses and refused == statuses:
        remedy = "Check the requested metrics, environments, app_id and times"
        if reply.response.status_code in range(300, 400) or reply.response.status_code in (404, 405):
            remedy = "Check the Forge Connection's host; the usual one is https://api.atlassian.com/graphql"
        return QueryRefused(
            f"The gateway refused the query{said}. {remedy}",
            request_id=reply.request_id,
            reasons=_reasons(failures, reply),
        )
    if not statuses and (unknown := sorted(set(_unknown_types(failures, reply)))):
        return UnknownFailure(
            f"The gateway failed in a way that this version does not know: {', '.join(unknown)}{said}. Check"
            f" the requested metrics, environments, app_id and times, and see {_STATUS_PAGE}",
            retry_after=reply.retry_after,
            request_id=reply.request_id,
        )
    return GatewayUnavailable(
        f"The gateway failed{said}. See {_STATUS_PAGE}",
        retry_after=reply.retry_after,
        request_id=reply.request_id,
    )


def _reasons(failures: list[Any], reply: Reply) -> list[str]:
    """Return the messages of the errors that fail the query as a whole: those of a part have its path."""
    whole = [each for each in failures if not isinstance(each, dict) or each.get("path") is None]
    return [sanitize(words, reply.secrets) for words in filter(None, map(_words_in, whole))]


def _extensions(failures: list[Any]) -> Iterator[dict[str, Any]]:
    for failure in failures:
        extensions = failure.get("extensions") if isinstance(failure, dict) else None
        for extension in extensions if isinstance(extensions, list) else [extensions]:
            if isinstance(extension, dict):
                yield extension


def _types_of(extension: dict[str, Any]) -> list[str]:
    """Return the type, then the classification, normalized to capital letters."""
    return [_normalize(extension.get(key)) for key in ("errorType", "classification")]


def _normalize(name: object) -> str:
    return re.sub("[^A-Z]", "", str(name).upper())


def _types(failures: list[Any]) -> Iterator[str]:
    for extension in _extensions(failures):
        yield from _types_of(extension)


def _unknown_types(failures: list[Any], reply: Reply) -> Iterator[str]:
    for extension in _extensions(failures):
        for key in ("errorType", "classification"):
            value = extension.get(key)
            if isinstance(value, str) and value.strip() and not _TOO_LARGE_TYPE.search(_normalize(value)):
                yield sanitize(value, reply.secrets, most=100)


def _missing_scopes(failures: list[Any], reply: Reply) -> list[str] | None:
    """Return the scopes that the token lacks, if they are named; None if the failure is another one."""
    missing = [
        extension for extension in _extensions(failures) if _SCOPE_TYPES.intersection(_types_of(extension))
    ]
    if not missing:
        return None
    named = [extension.get("requiredScopes") or [] for extension in missing]
    scopes = [scope for each in named for scope in (each if isinstance(each, list) else [each])]
    names = list(dict.fromkeys(map(str, scopes)))[:_MOST_SCOPES]
    return [sanitize(name, reply.secrets, most=100) for name in names]


def _statuses(failures: list[Any]) -> Iterator[int]:
    for extension in _extensions(failures):
        if status := _status(extension):
            yield status


def _status(extension: dict[str, Any]) -> int | None:
    code = str(extension.get("statusCode"))
    if number := re.fullmatch(r"([45][0-9]{2})(?:\.0*)?", code):
        return int(number[1])
    for kind in _types_of(extension):
        if kind in _STATUS_OF_TYPE:
            return _STATUS_OF_TYPE[kind]
    return None


def _said(failures: list[Any], statuses: set[int], reply: Reply) -> str:
    """Return the statuses and the server's message, for use in an error."""
    codes = (", ".join(str(status) for status in sorted(statuses)) or "no status") + reply.via
    words = "; ".join(filter(None, map(_words_in, failures)))
    if not words and not reply.response.is_success:
        words = _words_of_edge(reply)
    shown = sanitize(words, reply.secrets)
    return f" ({codes}: {shown})" if shown else f" ({codes})"


def _words_in(content: Any, depth: int = 0) -> str:
    """Return the message in a part of a JSON body; empty if there is none."""
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(content, list):
        return "; ".join(filter(None, (_words_in(each, depth + 1) for each in content[:10])))
    if isinstance(content, dict):
        return next(filter(None, (_words_in(content.get(key), depth + 1) for key in _WORDS)), "")
    return str(content) if content else ""


def _words_of_edge(reply: Reply) -> str:
    """Return the message of a failed response that is not GraphQL."""
    if reply.is_page:
        text = reply.response.content[:_READ].decode(errors="replace")
        found = _TITLE.search(text)
        title = html.unescape(re.sub("<[^>]*>", " ", found[1] or found[2] or "")) if found else ""
        server = reply.response.headers.get("server")
        return f"a page of HTML{f' from {server}' if server else ''}{f', {title}' if title.strip() else ''}"
    content = _body(reply)
    return (
        _words_in(content) if content is not None else reply.response.content[:_READ].decode(errors="replace")
    )


def _is_of_gateway(reply: Reply) -> bool:
    """Return whether a body without GraphQL errors has the form of the gateway's own, or is empty."""
    content = _body(reply)
    if not isinstance(content, dict):
        return not reply.response.content.strip()
    return not content or (
        isinstance(content.get("message"), str) and bool({"code", "status"} & set(content))
    )


def _body(reply: Reply) -> Any:
    try:
        return msgspec.json.decode(reply.response.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
