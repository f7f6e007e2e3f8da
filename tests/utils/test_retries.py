"""Which errors fail a task at once, and which leave it to its retries."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.exceptions import ConfigurationError, GatewayUnavailable, PointsRejected
from airflow_provider_forge.utils.retries import final_errors


@pytest.mark.parametrize(
    "error", [ConfigurationError("extra", "is not JSON"), PointsRejected("no", rejected=1)], ids=str
)
def test_a_final_error_fails_the_task(error, caplog):
    with pytest.raises(AirflowFailException) as raised, final_errors():
        raise error
    assert str(raised.value) == str(error)
    assert caplog.messages == [str(error)]


def test_a_retryable_error_is_raised_without_its_causes(caplog):
    """Three tracebacks would hide the message."""
    error = GatewayUnavailable("gone", retry_after=5)
    error.__cause__ = OSError("the cause")
    with pytest.raises(GatewayUnavailable) as raised, final_errors():
        raise error
    assert raised.value is error
    assert error.__cause__ is None
    assert "gone. If the task has retries left, it will be retried" in caplog.text
