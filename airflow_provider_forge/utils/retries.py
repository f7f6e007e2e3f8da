"""Decides when a failed task is retried: never if a retry cannot help, else after the error's `retry_after`.

Tasks can choose the delay of a retry since Airflow 3.3, and run again without using one since 3.4.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.exceptions import (
    BrokenAnswer,
    CredentialsBlocked,
    FinalError,
    RetryableError,
    UnknownFailure,
    WindowTooLarge,
)
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import RETENTION

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:  # Airflow before 3.3 always uses the task's retry_delay
    RetryPolicy = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import BaseOperator, Context

__all__ = ["final_errors", "with_retry_policy"]

log = get_logger(__name__)

EAGER_TRIES = 3
"""Number of tries after which the delay is at least the task's `retry_delay`: an outage of an hour must not
use up all retries within minutes."""

NOT_OUTAGES = (BrokenAnswer, UnknownFailure, WindowTooLarge)
"""Errors that may never pass by themselves. They use up the retries, so that the task fails visibly."""

if RetryPolicy is not None:

    class RetryAfter(RetryPolicy):
        """A retry policy that waits for the error's `retry_after`, or else for the task's `retry_delay`.

        On Airflow 3.4 and later an outage uses no retries: the task is rescheduled until its window expires.
        """

        def evaluate(
            self,
            exception: BaseException,
            try_number: int,
            max_tries: int,  # noqa: ARG002 - Airflow's signature
            context: Context | None = None,
        ) -> RetryDecision:
            """Return whether and when to retry."""
            if not isinstance(exception, RetryableError):
                return RetryDecision.default()
            wait = _wait(exception, try_number, context)
            reason = f"{type(exception).__name__}: {wait or 'retry_delay'} until the next try"
            if hasattr(RetryDecision, "reschedule") and not isinstance(exception, NOT_OUTAGES):
                decision: RetryDecision = RetryDecision.reschedule(
                    wait, reschedule_timeout=RETENTION, reason=reason
                )
                return decision
            return RetryDecision.retry(wait, reason) if wait else RetryDecision.default()


def _wait(error: RetryableError, try_number: int, context: Context | None) -> dt.timedelta | None:
    """Return the delay that the error asks for; None for the task's `retry_delay`."""
    if error.retry_after is None:
        return None
    wait = dt.timedelta(seconds=error.retry_after)
    if context is None:
        return wait
    tries = try_number + int(context.get("task_reschedule_count") or 0)
    if isinstance(error, CredentialsBlocked) and tries <= EAGER_TRIES:
        # Somebody is about to correct the credentials, which are then not blocked any more.
        return min(wait, context["task"].retry_delay)
    return None if tries > EAGER_TRIES and wait < context["task"].retry_delay else wait


def with_retry_policy(operator: BaseOperator, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments with `RetryAfter` as the retry policy, unless a policy is set.

    Args:
        operator: The operator. Airflow makes that of a mapped task with a policy of None if none is set.
        arguments: Arguments of the base class, including the `default_args` of the DAG and the task group. A
            policy of None counts as set, unless the operator is that of a mapped task.
    """
    chosen = {**(arguments.get("default_args") or {}), **arguments}
    is_mapped = getattr(operator, "_BaseOperator__from_mapped", False)
    is_chosen = chosen.get("retry_policy") is not None if is_mapped else "retry_policy" in chosen
    if RetryPolicy is None or is_chosen:
        return arguments
    return {**arguments, "retry_policy": RetryAfter()}


@contextlib.contextmanager
def final_errors() -> Iterator[None]:
    """Log each error in a line of its own, and turn a FinalError into an AirflowFailException: no retry.

    Airflow logs an exception with its traceback, in which the message is easily overlooked.
    """
    try:
        yield
    except FinalError as error:
        log.error("%s", error)  # noqa: TRY400 - Airflow logs the traceback
        # The message is complete; a second traceback would only hide it.
        raise AirflowFailException(str(error)) from None
    except RetryableError as error:
        log.error("%s. If the task has retries left, it will be retried", error)  # noqa: TRY400 - as above
        log.debug("Its causes:", exc_info=True)
        raise error from None
