"""Everything this provider raises on purpose.

::

    ForgeError
    ├── FinalError                 trying again changes nothing
    │   ├── ConfigurationError     an argument or a Connection field is wrong; also a ValueError
    │   ├── CredentialsRefused     Atlassian: bad or expired API token (401)
    │   ├── AccessForbidden        Atlassian: right account, wrong app (403)
    │   ├── QueryRefused           Atlassian: the query itself is refused
    │   ├── WindowExpired          the window is older than the gateway keeps metrics
    │   ├── ExportRefused          receiver: the request is refused, and would be again
    │   │   └── RequestTooLarge    receiver: the request is larger than it takes
    │   ├── PointsRejected         receiver: it took the request and rejected points of it
    │   ├── DeliveryAmbiguous      points may be there already, and `on_ambiguous` is `fail`
    │   ├── PointsChanged          Atlassian changed delivered points, and `on_changed` is `fail`
    │   └── PointsMalformed        Atlassian: points that are not OTLP; all others are delivered
    └── RetryableError             trying again later may help; `retry_after` says when
        ├── RateLimited            the account's budget of calls is used up: by Atlassian's count or by ours
        ├── RateLimitUnavailable   what shares that budget among machines does not answer
        ├── GatewayUnavailable     Atlassian: server error, time-out, broken connection
        │   └── UnknownFailure     Atlassian: an error of a type that this version does not know
        ├── BrokenAnswer           Atlassian: an answer that is not what was asked for
        ├── WindowTooLarge         Atlassian: the window is too much for one answer
        ├── ReceiverUnavailable    receiver: busy, time-out, broken connection
        ├── LedgerUnavailable      the record of deliveries cannot be read or written
        ├── SecretsUnavailable     Airflow cannot read a Connection or a Variable at this moment
        └── DeliveryBusy           another task delivers the same window at this moment

Each message says what happened and what to do about it, and ends with the request id where there is one.
No message carries a credential, a header or a body.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_forge.text import printable, quote, shorten

__all__ = [
    "AccessForbidden",
    "BrokenAnswer",
    "ConfigurationError",
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
    "WindowTooLarge",
]


LONGEST_ID = 100
"""Characters of a request id; Atlassian's have 32 or 36."""

LONGEST_MESSAGE = 4000
"""Characters of a message: Airflow keeps it in its database, and alerts carry it."""


def _shown(message: str) -> str:
    """Return a message that may quote a server, or name thousands of metrics, as people can be shown it."""
    return shorten(printable(message), LONGEST_MESSAGE)


class ForgeError(Exception):
    """Base of all errors of this provider.

    Args:
        message: What happened, and what to do about it.
        request_id: The gateway's id of the request, for Atlassian's support; None where there is none.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message := _shown(message))
        self.message = message
        self.request_id = quote(request_id, most=LONGEST_ID) if request_id else None

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
    """Trying again changes nothing: the operator fails the task without a retry."""


class ConfigurationError(FinalError, ValueError):
    """An argument or a Connection field is wrong.

    Args:
        field: The field's name, with its Connection where it is one of a Connection.
        problem: What is wrong with it, and what to give instead.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = printable(field)
        self.problem = _shown(problem)


class CredentialsRefused(FinalError):
    """The gateway refused the account email or the API token (401)."""


class AccessForbidden(FinalError):
    """The account may not read this app's metrics (403)."""


class QueryRefused(FinalError):
    """The gateway refused the query: an unknown metric, environment or app, or a bad interval."""


class WindowExpired(FinalError):
    """The window is older than the 14 days for which the gateway keeps metrics."""


class ExportRefused(FinalError):
    """The receiver refused the request with a status that OTLP forbids to retry.

    Args:
        message: What happened, and what to do about it.
        status: The HTTP status that refused it; None where no status did.
        maybe_stored: Whether the receiver may have stored the points all the same.
    """

    def __init__(self, message: str, *, status: int | None = None, maybe_stored: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.maybe_stored = maybe_stored


class RequestTooLarge(ExportRefused):
    """The request is larger than the receiver takes: it may take parts of it."""


class PointsRejected(FinalError):
    """The receiver answered with a partial success that rejected points.

    Args:
        message: What happened, and what to do about it.
        rejected: How many points were rejected.
    """

    def __init__(self, message: str, *, rejected: int) -> None:
        super().__init__(message)
        self.rejected = rejected


class DeliveryAmbiguous(FinalError):
    """Points may have reached the receiver before, and `on_ambiguous` is `fail`."""


class PointsChanged(FinalError):
    """Atlassian now gives other values for points already delivered, and `on_changed` is `fail`."""


class PointsMalformed(FinalError):
    """The gateway gave points that are not OTLP; all others are delivered."""


class RetryableError(ForgeError):
    """Trying again later may help.

    Args:
        message: What happened, and what to do about it.
        retry_after: Seconds to wait before trying again; None where nothing was said.
        request_id: The gateway's id of the request.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.retry_after = retry_after


class RateLimited(RetryableError):
    """The account's budget of calls is used up: the gateway says so, or those who share it have taken it."""


class RateLimitUnavailable(RetryableError):
    """The store of the rate limit does not answer; no call is made without it."""


class GatewayUnavailable(RetryableError):
    """The gateway failed: a server error, a time-out, or no connection."""


class UnknownFailure(GatewayUnavailable):
    """The gateway reported an error without a status, of a type that this version does not know."""


class BrokenAnswer(RetryableError):
    """The gateway's answer is not what was asked for: not JSON, cut off, or null where data should be."""


class WindowTooLarge(RetryableError):
    """The window is too much for one answer of the gateway's: it may answer for halves of it."""


class ReceiverUnavailable(RetryableError):
    """The receiver is busy or cannot be reached.

    Args:
        message: What happened, and what to do about it.
        retry_after: Seconds to wait before trying again; None where nothing was said.
        maybe_stored: Whether the receiver may have stored the points all the same.
        transient: Whether it may well pass within a minute, as a restart does and a wrong certificate does
            not.
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
    """The record of deliveries cannot be read or written."""


class SecretsUnavailable(RetryableError):
    """Airflow cannot read a Connection or a Variable: a secrets backend or the API server is away."""


class DeliveryBusy(RetryableError):
    """Another task delivers the same window at this moment."""
