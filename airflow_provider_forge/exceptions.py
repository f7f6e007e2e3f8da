"""The exceptions of this provider.

::

    ForgeError
    ├── FinalError                 a retry cannot help
    │   ├── ConfigurationError     an argument or a Connection field is invalid; also a ValueError
    │   ├── CredentialsRefused     Atlassian: invalid or expired API token (401)
    │   ├── AccessForbidden        Atlassian: the account has no access to the app (403)
    │   ├── QueryRefused           Atlassian: the query is invalid
    │   ├── WindowExpired          the window is too old for Atlassian or the destination
    │   │   └── WindowNotArchived  the archive does not have the window
    │   ├── ArchiveDamaged         an archived window is damaged, or from a later version
    │   ├── ExportRefused          receiver: the request is refused, and would be again
    │   │   └── RequestTooLarge    receiver: the request exceeds its size limit
    │   ├── PointsRejected         receiver: the request is accepted, and points of it are rejected
    │   ├── DeliveryAmbiguous      points may already be stored, and `on_ambiguous` is `fail`
    │   ├── PointsChanged          Atlassian changed delivered points, and `on_changed` is `fail`
    │   └── PointsMalformed        Atlassian: some points are not valid OTLP; all others are delivered
    └── RetryableError             a later retry may help; `retry_after` is the time to wait
        ├── CredentialsBlocked     no call is made, because Atlassian has refused the credentials lately
        ├── RateLimited            the account's rate limit is reached, by Atlassian's count or by ours
        ├── RateLimitUnavailable   the store of the rate limit cannot be used at present
        ├── GatewayUnavailable     Atlassian: server error, timeout, broken connection
        │   └── UnknownFailure     Atlassian: an error type that this version does not know
        ├── BrokenAnswer           Atlassian: the response is malformed or incomplete
        ├── WindowTooLarge         Atlassian: the window is too large for one response
        ├── ReceiverUnavailable    receiver: busy, timeout, broken connection
        ├── LedgerUnavailable      the ledger of deliveries cannot be read or written
        ├── ArchiveUnavailable     the archive of raw windows cannot be read or written
        ├── SecretsUnavailable     Airflow cannot read a Connection or a Variable at present
        └── DeliveryBusy           another task holds a lease on the ledger's records

A message states the failure and the remedy, and ends with the request id if there is one. It never contains
a credential, a header or a body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_forge.text import printable, sanitize, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AccessForbidden",
    "ArchiveDamaged",
    "ArchiveUnavailable",
    "BrokenAnswer",
    "ConfigurationError",
    "CredentialsBlocked",
    "CredentialsRefused",
    "DeliveryAmbiguous",
    "DeliveryBusy",
    "ExportRefused",
    "FinalError",
    "ForgeError",
    "GatewayUnavailable",
    "LedgerUnavailable",
    "PointsChanged",
    "PointsMalformed",
    "PointsRejected",
    "QueryRefused",
    "RateLimitUnavailable",
    "RateLimited",
    "ReceiverUnavailable",
    "RequestTooLarge",
    "RetryableError",
    "SecretsUnavailable",
    "UnknownFailure",
    "WindowExpired",
    "WindowNotArchived",
    "WindowTooLarge",
]


MAX_REQUEST_ID = 100
"""Maximum length of a request id in characters; Atlassian's have 32 or 36."""

MAX_MESSAGE = 4000
"""Maximum length of a message in characters: Airflow keeps it in its database, and alerts carry it."""


def _presentable(message: str) -> str:
    """Return a message that may quote a server or name thousands of metrics as one line of bounded length."""
    return shorten(printable(message), MAX_MESSAGE)


class ForgeError(Exception):
    """Base class of this provider's exceptions.

    Args:
        message: The failure and its remedy.
        request_id: The gateway's id of the request, for Atlassian's support; None if there is none.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message := _presentable(message))
        self.message = message
        self.request_id = sanitize(request_id, most=MAX_REQUEST_ID) if request_id else None

    def __str__(self) -> str:
        return f"{self.message} (request id {self.request_id})" if self.request_id else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments would be lost when Airflow pickles the error between processes.
        return (_rebuild, (type(self), self.message, self.__dict__))


def _rebuild(cls: type[ForgeError], message: str, state: dict[str, Any]) -> ForgeError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class FinalError(ForgeError):
    """A retry cannot help: the operator fails the task without one."""


class ConfigurationError(FinalError, ValueError):
    """An argument or a Connection field is invalid.

    Args:
        field: Name of the field, with the id of its Connection if it belongs to one.
        problem: The problem, and a valid value.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = printable(field)
        self.problem = _presentable(problem)


class CredentialsRefused(FinalError):
    """The gateway refused the account email or the API token (401)."""


class AccessForbidden(FinalError):
    """The account may not read this app's metrics (403)."""


class QueryRefused(FinalError):
    """The gateway refused the query: an unknown metric, environment or app, or an invalid interval.

    Args:
        message: The failure and its remedy.
        request_id: As for all errors.
        reasons: The gateway's messages, one for each error that fails the query as a whole, as an unknown
            metric does; none if it refused a part of the query.
    """

    def __init__(self, message: str, *, request_id: str | None = None, reasons: Iterable[str] = ()) -> None:
        super().__init__(message, request_id=request_id)
        self.reasons = tuple(reasons)


class WindowExpired(FinalError):
    """The window is older than Atlassian's 14 days, or than the destination's `max_age`."""


class WindowNotArchived(WindowExpired):
    """The archive does not have the window, and the gateway does not have it any more or was not asked."""


class ArchiveDamaged(FinalError):
    """An archived window is damaged or incomplete, or a later version has written it."""


class ExportRefused(FinalError):
    """The receiver refused the request with a status that OTLP forbids retrying.

    Args:
        message: The failure and its remedy.
        status: HTTP status of the refusal; None if the response was refused for another reason.
        maybe_stored: Whether the receiver may have stored the points nevertheless.
    """

    def __init__(self, message: str, *, status: int | None = None, maybe_stored: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.maybe_stored = maybe_stored


class RequestTooLarge(ExportRefused):
    """The request exceeds the receiver's size limit; parts of it may not."""


class PointsRejected(FinalError):
    """The receiver responded with a partial success: it rejected points.

    Args:
        message: The failure and its remedy.
        rejected: Number of rejected points.
    """

    def __init__(self, message: str, *, rejected: int) -> None:
        super().__init__(message)
        self.rejected = rejected


class DeliveryAmbiguous(FinalError):
    """Points may already be stored at the receiver, and `on_ambiguous` is `fail`."""


class PointsChanged(FinalError):
    """Atlassian has changed the values of delivered points, and `on_changed` is `fail`."""


class PointsMalformed(FinalError):
    """The gateway returned points that are not valid OTLP; all others are delivered."""


class RetryableError(ForgeError):
    """A later retry may help.

    Args:
        message: The failure and its remedy.
        retry_after: Time to wait before a retry, in seconds; None if not known.
        request_id: The gateway's id of the request; None if there is none.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.retry_after = retry_after


class CredentialsBlocked(RetryableError):
    """The gateway has refused the credentials in another task, so no call is made with them for a while.

    It can be retried, because otherwise a catchup would fail all its runs within minutes, for one token.
    """


class RateLimited(RetryableError):
    """The account's rate limit is reached: by the gateway's count, or by the calls of all tasks."""


class RateLimitUnavailable(RetryableError):
    """The store of the rate limit cannot be used at present. No call is made without it."""


class GatewayUnavailable(RetryableError):
    """The gateway failed: a server error, a timeout, or no connection."""


class UnknownFailure(GatewayUnavailable):
    """The gateway reported an error without a status, of a type that this version does not know."""


class BrokenAnswer(RetryableError):
    """The gateway's response is malformed: not JSON, truncated, or null instead of data."""


class WindowTooLarge(RetryableError):
    """The window is too large for one response of the gateway; halves of it may not be."""


class ReceiverUnavailable(RetryableError):
    """The receiver is busy or cannot be reached.

    Args:
        message: The failure and its remedy.
        retry_after: Time to wait before a retry, in seconds; None if not known.
        maybe_stored: Whether the receiver may have stored the points nevertheless.
        transient: Whether the failure may pass within a minute, as a restart does and an invalid certificate
            does not.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        maybe_stored: bool = False,
        transient: bool = False,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.maybe_stored = maybe_stored
        self.transient = transient


class LedgerUnavailable(RetryableError):
    """The ledger of deliveries cannot be read or written."""


class ArchiveUnavailable(RetryableError):
    """The archive of raw windows cannot be read or written."""


class SecretsUnavailable(RetryableError):
    """Airflow cannot read a Connection or a Variable: a secrets backend or the API server does not answer."""


class DeliveryBusy(RetryableError):
    """Another task is delivering the same window, or one that shares a lease with it."""
