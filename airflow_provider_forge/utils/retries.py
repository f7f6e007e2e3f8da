"""When a failed task is tried again: never where that mends nothing, else after as long as the error says.

Airflow can be told for how long as of 3.3.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.exceptions import FinalError, RetryableError

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:  # Airflow before 3.3: the task's retry_delay it is
    RetryPolicy = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

__all__ = ["final_errors", "with_retry_policy"]

EAGER_TRIES = 3
"""For how many tries a wait may be shorter than the task's delay: an outage of an hour must not use up all
retries in minutes."""

if RetryPolicy is not None:

    class RetryAfter(RetryPolicy):
        """Waits for as long as the gateway or the receiver asked for, and else for the task's delay."""

        def evaluate(
            self,
            exception: BaseException,
            try_number: int,
            max_tries: int,  # noqa: ARG002 - Airflow's signature
            context: Context | None = None,
        ) -> RetryDecision:
            """Return when to try again."""
            if not isinstance(exception, RetryableError) or exception.retry_after is None:
                return RetryDecision.default()
            wait = dt.timedelta(seconds=exception.retry_after)
            if try_number > EAGER_TRIES and context is not None and wait < context["task"].retry_delay:
                return RetryDecision.default()
            return RetryDecision.retry(wait, f"{type(exception).__name__} asks for a wait of {wait}")


def with_retry_policy(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments with the policy that honours `retry_after`, unless one is among them.

    Args:
        arguments: Those for the base class, with the DAG's and the task group's `default_args`, in which None
            is a choice, too.
    """
    chosen = {**(arguments.get("default_args") or {}), **arguments}
    if RetryPolicy is None or "retry_policy" in chosen:
        return arguments
    return {**arguments, "retry_policy": RetryAfter()}


@contextlib.contextmanager
def final_errors() -> Iterator[None]:
    """Turn errors that trying again cannot mend into Airflow's own for that."""
    try:
        yield
    except FinalError as error:
        # The message says it all; a second traceback would only bury it.
        raise AirflowFailException(str(error)) from None
