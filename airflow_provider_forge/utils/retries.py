"""Decides when a failed task is retried: never if a retry cannot help, else after the error's `retry_after`.

Tasks can choose the delay of a retry since Airflow 3.3.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.exceptions import FinalError, RetryableError

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:  # Airflow before 3.3 always uses the task's retry_delay
    RetryPolicy = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

__all__ = ["final_errors", "with_retry_policy"]

EAGER_TRIES = 3
"""Number of tries after which the delay is at least the task's `retry_delay`: an outage of an hour must not
use up all retries within minutes."""

if RetryPolicy is not None:

    class RetryAfter(RetryPolicy):
        """A retry policy that waits for the error's `retry_after`, or else for the task's `retry_delay`."""

        def evaluate(
            self,
            exception: BaseException,
            try_number: int,
            max_tries: int,  # noqa: ARG002 - Airflow's signature
            context: Context | None = None,
        ) -> RetryDecision:
            """Return whether and when to retry."""
            if not isinstance(exception, RetryableError) or exception.retry_after is None:
                return RetryDecision.default()
            wait = dt.timedelta(seconds=exception.retry_after)
            if try_number > EAGER_TRIES and context is not None and wait < context["task"].retry_delay:
                return RetryDecision.default()
            return RetryDecision.retry(wait, f"{type(exception).__name__} has a retry_after of {wait}")


def with_retry_policy(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments with `RetryAfter` as the retry policy, unless a policy is set.

    Args:
        arguments: Arguments of the base class, including the `default_args` of the DAG and the task group. A
            policy of None counts as set.
    """
    chosen = {**(arguments.get("default_args") or {}), **arguments}
    if RetryPolicy is None or "retry_policy" in chosen:
        return arguments
    return {**arguments, "retry_policy": RetryAfter()}


@contextlib.contextmanager
def final_errors() -> Iterator[None]:
    """Turn each FinalError into an AirflowFailException, after which Airflow does not retry."""
    try:
        yield
    except FinalError as error:
        # The message is complete; a second traceback would only hide it.
        raise AirflowFailException(str(error)) from None
