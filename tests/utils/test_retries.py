"""Which errors fail a task at once, and which leave it to its retries."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    ConfigurationError,
    CredentialsRefused,
    ExportRefused,
    GatewayUnavailable,
    PointsRejected,
    QueryRefused,
    RetryableError,
    WindowExpired,
)
from airflow_provider_forge.utils.retries import final_errors

COMMON = [
    ConfigurationError("forge_default: extra", "is not JSON"),
    CredentialsRefused("no", request_id="abc-123"),
    AccessForbidden("no"),
    ExportRefused("no", status=401),
    ExportRefused("no", status=403),
]
OF_ONE_WINDOW = [
    ExportRefused("no", status=400),
    PointsRejected("no", rejected=1),
    QueryRefused("no"),
    WindowExpired("no"),
]


def context(run_type: str, **age: float) -> dict:
    return {
        "dag_run": SimpleNamespace(run_type=run_type),
        "data_interval_end": pendulum.now("UTC").subtract(**age),
    }


HISTORY = [context("scheduled", hours=3), context("backfill", days=13)]
OTHERS = [
    None,
    {},
    context("scheduled", minutes=90),
    context("manual", days=3),
    {**HISTORY[0], "data_interval_end": None},
]


@pytest.mark.parametrize("of", HISTORY)
@pytest.mark.parametrize("error", COMMON, ids=str)
def test_windows_of_the_past_wait_until_what_all_have_in_common_is_corrected(of, error, caplog):
    """A catchup would otherwise fail a run each second."""
    with pytest.raises(RetryableError) as raised, final_errors(of):
        raise error
    assert str(raised.value) == str(error)
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.getMessage().startswith(f"{error}. A window of the past can wait: if the task has retries")


@pytest.mark.parametrize("of", OTHERS)
@pytest.mark.parametrize("error", [*COMMON, *OF_ONE_WINDOW], ids=str)
def test_all_others_fail_at_once(of, error):
    with pytest.raises(AirflowFailException) as raised, final_errors(of):
        raise error
    assert str(raised.value) == str(error)


@pytest.mark.parametrize("of", HISTORY)
@pytest.mark.parametrize("error", OF_ONE_WINDOW, ids=str)
def test_what_concerns_one_window_fails_it_at_once_in_the_past_too(of, error):
    with pytest.raises(AirflowFailException), final_errors(of):
        raise error


def test_a_retryable_error_is_raised_without_its_causes(caplog):
    error = GatewayUnavailable("gone", retry_after=5)
    error.__cause__ = OSError("the cause")
    with pytest.raises(GatewayUnavailable) as raised, final_errors():
        raise error
    assert raised.value is error
    assert error.__cause__ is None
    assert "gone. If the task has retries left, it will be retried" in caplog.text
