"""What a task does while the account's calls are taken: it sleeps for a little, and is deferred for long."""

from __future__ import annotations

import json
from datetime import timedelta

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred, TaskGroup

from airflow_provider_forge.exceptions import (
    BrokenAnswer,
    CredentialsBlocked,
    GatewayUnavailable,
    RateLimited,
    ReceiverUnavailable,
    UnknownFailure,
    WindowTooLarge,
)
from airflow_provider_forge.operators.forge_metrics_coverage import ForgeMetricsCoverageOperator
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Fault
from airflow_provider_forge.windows import Window
from tests.airflow_version import AIRFLOW

QUARTER = Window.last_settled(pendulum.now("UTC").subtract(hours=3))
CONTEXT = {"data_interval_start": QUARTER.start, "data_interval_end": QUARTER.end}
# What happens after an outage: from 3.4 on, a task is rescheduled without a retry.
OUTAGE = "reschedule" if AIRFLOW >= (3, 4) else "retry"
TOO_MANY = {"status": 429, "operation": "appMetrics", "first": 1}


def deferral_of(task: ForgeMetricsToOtlpOperator) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(CONTEXT)
    return deferred.value


@pytest.fixture
def task() -> ForgeMetricsToOtlpOperator:
    return ForgeMetricsToOtlpOperator(task_id="export", deferrable=True)


def test_a_long_pause_of_the_account_is_not_slept_through(gateway, sink, connect, task):
    connect(gateway, sink)
    gateway.add_fault(Fault("status", retry_after="600", **TOO_MANY))
    began = pendulum.now("UTC")
    deferral = deferral_of(task)
    # A minute ahead of its moment, which it sleeps for once it has a place.
    assert 530 <= (deferral.trigger.moment - began).total_seconds() <= 545
    assert deferral.method_name == "execute_complete"
    assert json.loads(json.dumps(deferral.kwargs))["progress"][0]["progress"]["todo"] == [str(QUARTER)]
    assert not sink.points


def test_the_others_of_the_account_make_no_call_meanwhile(gateway, sink, connect, task):
    connect(gateway, sink)
    gateway.add_fault(Fault("status", retry_after="600", **TOO_MANY))
    deferral_of(task)
    calls = len(gateway.calls)
    for _ in range(5):
        deferral_of(task)
    assert len(gateway.calls) == calls


def test_a_short_pause_is_slept_through_whether_deferrable_or_not(gateway, sink, connect):
    for deferrable in (True, False):
        connect(gateway, sink)
        gateway.add_fault(Fault("status", retry_after="1", **TOO_MANY))
        task = ForgeMetricsToOtlpOperator(task_id="export", deferrable=deferrable)
        assert task.execute(CONTEXT)["calls"] == 1


def test_airflows_setting_is_the_default():
    # Airflow's own default; it is read when the module is imported.
    assert ForgeMetricsToOtlpOperator(task_id="export").deferrable is False


class TestRetryPolicy:
    """On Airflow 3.3 and later; before, there is nothing to set."""

    @pytest.fixture
    def evaluate(self):
        pytest.importorskip("airflow.sdk.definitions.retry_policy")
        task = ForgeMetricsToOtlpOperator(task_id="export", retry_delay=timedelta(minutes=5))

        def evaluate(error, try_number=1, **context):
            return task.retry_policy.evaluate(error, try_number, 10, {"task": task, **context})

        return evaluate

    @pytest.mark.parametrize("seconds", [1.5, 1200.0])
    def test_it_waits_for_the_requested_time(self, evaluate, seconds):
        decision = evaluate(GatewayUnavailable("busy", retry_after=seconds))
        assert (decision.action.value, decision.retry_delay) == (OUTAGE, timedelta(seconds=seconds))
        assert "GatewayUnavailable" in decision.reason

    def test_short_waits_do_not_use_up_all_retries_at_once(self, evaluate):
        busy, closed = (ReceiverUnavailable("busy", retry_after=seconds) for seconds in (1, 1200))
        assert [evaluate(busy, number).retry_delay for number in (3, 4)] == [timedelta(seconds=1), None]
        assert evaluate(closed, 4).retry_delay == timedelta(minutes=20)

    def test_a_new_token_is_tried_soon_at_first(self, evaluate):
        blocked = CredentialsBlocked("blocked", retry_after=900)
        delays = [evaluate(blocked, number).retry_delay for number in (1, 3, 4)]
        assert delays == [timedelta(minutes=5), timedelta(minutes=5), timedelta(minutes=15)]

    def test_nor_do_they_reschedule_a_task_every_second(self, evaluate):
        busy = ReceiverUnavailable("busy", retry_after=1)
        delays = [evaluate(busy, task_reschedule_count=count).retry_delay for count in (None, 2, 3, 70)]
        assert delays == [timedelta(seconds=1), timedelta(seconds=1), None, None]

    @pytest.mark.parametrize("error", [ValueError("any"), KeyError(), BrokenAnswer("null")])
    def test_other_errors_wait_for_the_tasks_own_delay(self, evaluate, error):
        assert evaluate(error).action.value == "default"

    def test_an_outage_uses_no_retry_where_airflow_can_reschedule(self, evaluate, monkeypatch):
        class Decision:
            default = retry = None

            @staticmethod
            def reschedule(delay, *, reschedule_timeout, reason):
                return delay, reschedule_timeout

        monkeypatch.setattr("airflow_provider_forge.utils.retries.RetryDecision", Decision)
        assert evaluate(ReceiverUnavailable("gone")) == (None, timedelta(days=14))
        assert evaluate(RateLimited("full", retry_after=20)) == (timedelta(seconds=20), timedelta(days=14))

    @pytest.mark.parametrize("error", [BrokenAnswer, UnknownFailure, WindowTooLarge])
    def test_what_may_never_pass_uses_up_the_retries(self, evaluate, error):
        assert evaluate(error("what", retry_after=20)).action.value == "retry"

    def test_a_policy_of_the_users_wins(self):
        policy = pytest.importorskip("airflow.sdk.definitions.retry_policy").ExceptionRetryPolicy(rules=[])
        assert ForgeMetricsToOtlpOperator(task_id="x", retry_policy=policy).retry_policy is policy

    @pytest.mark.parametrize("chosen", [True, False])
    @pytest.mark.parametrize("operator", [ForgeMetricsToOtlpOperator, ForgeMetricsCoverageOperator])
    def test_so_does_one_among_the_default_args_and_none_is_one(self, operator, chosen):
        policies = pytest.importorskip("airflow.sdk.definitions.retry_policy")
        policy = policies.ExceptionRetryPolicy(rules=[]) if chosen else None
        with DAG("mine", schedule=None, default_args={"retry_policy": policy}):
            assert operator(task_id="x").retry_policy is policy
            with TaskGroup("group", default_args={"retry_policy": None}):
                assert operator(task_id="x").retry_policy is None
        with DAG("ours", schedule=None, default_args={"retries": 3}):
            assert operator(task_id="x").retry_policy is not None

    @pytest.mark.parametrize("chosen", [True, False])
    @pytest.mark.parametrize("operator", [ForgeMetricsToOtlpOperator, ForgeMetricsCoverageOperator])
    def test_a_mapped_task_has_it_too(self, operator, chosen):
        """Airflow gives the operator of a mapped task a policy of None if none is set."""
        policies = pytest.importorskip("airflow.sdk.definitions.retry_policy")
        policy = policies.ExceptionRetryPolicy(rules=[])
        with DAG("mine", schedule=None):
            partial = operator.partial(task_id="x", **({"retry_policy": policy} if chosen else {}))
            mapped = partial.expand(app_id=["one", "two"])
        found = mapped.unmap({"app_id": "one"}).retry_policy
        assert found is policy if chosen else type(found).__name__ == "RetryAfter"
