"""What a task tells about itself, whatever becomes of it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat import sdk
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_forge.delivery import exporter
from airflow_provider_forge.exceptions import (
    GatewayUnavailable,
    RateLimited,
    ReceiverUnavailable,
    WindowExpired,
)
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Fault, OtlpSink
from airflow_provider_forge.windows import Window

NOW = pendulum.now("UTC")
LIVE = Window.last_settled(NOW)
OLD = Window.last_settled(NOW.subtract(hours=5))


@pytest.fixture
def recorded(connect, gateway, sink, tmp_path):
    """Return a function that sets the Connections, with a ledger in a directory."""

    def recorded(receiver=sink, *, forge=None, **otlp):
        connect(gateway, receiver, forge=forge, otlp={"ledger_url": f"file://{tmp_path}/ledger", **otlp})

    recorded()
    return recorded


def a_task(**arguments):
    return ForgeMetricsToOtlpOperator(task_id="export", **{"revisit_after": None, **arguments})


def context_of(window):
    context = {"dag_run": SimpleNamespace(run_after=pendulum.now("UTC"))}
    return {**context, "data_interval_start": window.start, "data_interval_end": window.end}


def run(window=LIVE, **arguments):
    return a_task(**arguments).execute(context_of(window))


def told(sink, request=-1):
    """Return what the last request, or another one, told: values by name and outcome or error."""
    found = {}
    for point in sink.telemetry[request].telemetry:
        attributes = dict(point.attributes)
        assert attributes.pop("forge.exporter.dag.id")
        [label] = attributes.values() or [""]
        name = point.metric.removeprefix("forge.exporter.")
        data = point.data()
        assert (name, label) not in found
        found[name, label] = data.as_int + data.as_double
    return found


def counts(sink, name, request=-1):
    return {
        label: number for (metric, label), number in told(sink, request).items() if metric == name and number
    }


def test_a_live_window_that_was_delivered(recorded, gateway, sink):
    before = pendulum.now("UTC")
    points = run()["points"]
    measured = told(sink)
    assert len(sink.telemetry) == 1
    assert measured["heartbeat", ""] == 1
    assert measured["window.end", ""] == LIVE.end.timestamp()
    least = (before - LIVE.end).total_seconds()
    assert least <= measured["lag", ""] <= least + 600
    assert counts(sink, "windows") == {"delivered": 1}
    assert counts(sink, "points") == {"sent": points}
    assert measured["calls", ""] == len(gateway.calls) == 2
    assert measured["throttles", ""] == 0
    assert not counts(sink, "failures")


def test_zeros_are_reported_but_unknown_values_are_not(recorded, sink):
    run()
    outcomes = {"windows": 4, "points": 5}
    for name, number in outcomes.items():
        assert len([label for metric, label in told(sink) if metric == name]) == number
    assert ("failures", "") not in told(sink)


def test_a_quiet_app_is_not_a_dead_exporter(recorded, gateway, sink):
    gateway.add_fault(Fault("empty", operation="appMetrics"))
    run()
    assert counts(sink, "windows") == {"empty": 1}
    assert told(sink)["window.end", ""] == LIVE.end.timestamp()
    assert told(sink)["heartbeat", ""] == 1


def test_a_backfill_draws_no_freshness_back(recorded, sink):
    run(OLD)
    assert counts(sink, "windows") == {"delivered": 1}
    assert not {("window.end", ""), ("lag", "")} & told(sink).keys()
    assert told(sink)["heartbeat", ""] == 1


def test_a_re_run_counts_unchanged_points_and_telemetry_is_not_in_the_ledger(recorded, sink):
    points = run()["points"]
    assert run()["unchanged"] == points
    assert counts(sink, "points") == {"unchanged": points}


def test_a_revisit_is_not_a_window_but_its_points_count(recorded, gateway, sink):
    earlier = LIVE.shifted(timedelta(hours=-1))
    gateway.add_fault(Fault("empty", max_times=1, operation="appMetrics"))
    run(earlier)
    summary = run(revisit_after=timedelta(hours=1))
    assert summary["calls"] == 2
    assert counts(sink, "windows") == {"delivered": 1}
    assert counts(sink, "points") == {"sent": summary["sent"]}
    assert told(sink)["window.end", ""] == LIVE.end.timestamp()


def test_a_failed_try_is_counted_by_the_errors_class(recorded, gateway, sink):
    gateway.add_fault(Fault("status", status=503, operation="appMetrics"))
    with pytest.raises(GatewayUnavailable):
        run()
    assert counts(sink, "failures") == {"GatewayUnavailable": 1}
    assert counts(sink, "windows") == {"failed": 1}
    assert told(sink)["heartbeat", ""] == 1
    assert told(sink)["calls", ""] == 2
    assert ("window.end", "") not in told(sink)


def test_a_final_error_is_reported_by_its_own_name_and_not_by_airflows(recorded, gateway, sink):
    gateway.add_fault(Fault("status", status=401))
    with pytest.raises(AirflowFailException):
        run()
    assert counts(sink, "failures") == {"CredentialsRefused": 1}


def test_points_of_a_window_that_failed_half_way_count_as_sent(recorded, sink):
    recorded(max_body_bytes=20_000)
    sink.add_fault(Fault("status", status=503, calls={3}, operation="metrics"))
    with pytest.raises(ReceiverUnavailable):
        run()
    assert counts(sink, "points") == {"sent": len(sink.points)}
    assert sink.points
    assert counts(sink, "windows") == {"failed": 1}


def test_rejected_points_fail_their_window(recorded, sink):
    sink.add_fault(Fault("partial_success", rejected=3, operation="metrics"))
    with pytest.raises(AirflowFailException):
        run()
    assert counts(sink, "points") == {"sent": len(sink.points), "rejected": 3}
    assert counts(sink, "windows") == {"failed": 1}
    assert counts(sink, "failures") == {"FinalError": 1}


def test_a_receiver_that_claims_to_have_rejected_more_than_it_got_spoils_nothing(recorded, sink):
    sink.add_fault(Fault("partial_success", rejected=10**6, operation="metrics"))
    with pytest.raises(AirflowFailException):
        run()
    counted = counts(sink, "points")
    sink.clear_faults()
    assert counted == {"rejected": run(resend=True)["points"]}


def test_skipped_windows_are_expired_and_a_skip_is_not_a_failure(recorded, sink):
    recorded(max_age="2h")
    with pytest.raises(AirflowSkipException):
        run(OLD, on_expired="skip")
    assert counts(sink, "windows") == {"expired": 1}
    assert not counts(sink, "failures")
    assert told(sink)["heartbeat", ""] == 1


def test_a_window_that_is_too_old_fails_and_is_counted(recorded, sink):
    recorded(max_age="2h")
    with pytest.raises(AirflowFailException):
        run(OLD, on_expired="fail")
    assert counts(sink, "windows") == {"failed": 1}
    assert counts(sink, "failures") == {"WindowExpired": 1}


def test_a_window_that_becomes_too_old_meanwhile_is_counted_once(recorded, sink, monkeypatch):
    def expire(window, *_):
        raise WindowExpired(f"{window} is too old")

    monkeypatch.setattr(exporter, "check_age", expire)
    with pytest.raises(AirflowFailException):
        run(on_expired="fail")
    assert counts(sink, "windows") == {"failed": 1}


class BrokenStats:
    """A backend of Airflow's own metrics that is out of order."""

    def __getattr__(self, name):
        def fail(*_, **__):
            raise OSError("statsd is gone")

        return fail


class TestBrokenStats:
    @pytest.fixture(autouse=True)
    def broken(self, recorded, monkeypatch):
        monkeypatch.setattr(sdk, "Stats", BrokenStats(), raising=False)

    def test_the_window_is_delivered_and_telemetry_is_sent_nevertheless(self, sink, caplog):
        assert run()["sent"] == len(sink.points) > 0
        assert told(sink)["heartbeat", ""] == 1
        assert "This task's metrics did not reach Airflow: OSError: statsd is gone" in caplog.text

    def test_it_hides_no_error(self, gateway):
        gateway.add_fault(Fault("status", status=503, operation="appMetrics"))
        with pytest.raises(GatewayUnavailable):
            run()

    def test_a_deferral_stays_one(self, gateway):
        gateway.add_fault(Fault("status", status=429, retry_after="600", first=1, operation="appMetrics"))
        with pytest.raises(TaskDeferred):
            a_task(deferrable=True).execute(context_of(LIVE))


def test_halves_are_windows_of_their_own(recorded, gateway, sink):
    gateway.add_fault(Fault("errors", status_code=504, longer_than=600, operation="appMetrics"))
    run()
    assert counts(sink, "windows") == {"delivered": 2}


def test_calls_429s_and_the_wait_are_reported(recorded, gateway, sink):
    gateway.add_fault(Fault("status", status=429, retry_after="1", max_times=2, operation="appMetrics"))
    run()
    measured = told(sink)
    assert measured["throttles", ""] == 2
    assert measured["calls", ""] == len(gateway.calls)
    assert measured["wait", ""] > 1


def test_a_deferred_task_has_not_ended_and_its_deferral_is_a_wait(recorded, gateway, sink):
    gateway.add_fault(Fault("status", status=429, retry_after="600", first=1, operation="appMetrics"))
    task = a_task(deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        task.execute(context_of(LIVE))
    assert ("heartbeat", "") not in told(sink)
    assert told(sink)["throttles", ""] == 1
    assert not counts(sink, "windows")
    assert not counts(sink, "failures")

    kwargs = deferral.value.kwargs
    kwargs["limited_since"] -= 100
    with pytest.raises(TaskDeferred):  # the account is paused for ten minutes
        a_task(deferrable=True).execute_complete(context_of(LIVE), **kwargs)
    assert told(sink)["wait", ""] > 100


def test_too_many_calls_fail_a_task_that_is_not_deferrable_by_their_name(recorded, gateway, sink):
    gateway.add_fault(Fault("status", status=429, retry_after="0", operation="appMetrics"))
    with pytest.raises(RateLimited):
        run()
    assert counts(sink, "failures") == {"RateLimited": 1}
    assert told(sink)["throttles", ""] == 5


def test_a_task_that_is_too_early_reports_nothing(recorded, sink):
    ahead = Window(LIVE.end, LIVE.end.add(hours=1))
    with pytest.raises(TaskDeferred):
        run(ahead)
    assert not sink.telemetry


def test_one_option_switches_it_off(recorded, sink):
    run(telemetry=False)
    assert sink.requests
    assert not sink.telemetry


def test_telemetry_is_sent_after_the_points_and_costs_no_call(recorded, gateway, sink, monkeypatch):
    there = []
    respond = sink.respond
    monkeypatch.setattr(
        sink,
        "respond",
        lambda request: there.append((len(sink.requests), len(sink.telemetry))) or respond(request),
    )
    run()
    assert there == [(0, 0), (1, 0)]
    calls = len(gateway.calls)
    run(resend=True, telemetry=False)
    run(resend=True)
    assert len(gateway.calls) == calls + 2


def test_the_window_is_delivered_even_if_telemetry_is_refused(recorded, sink, caplog):
    sink.add_fault(Fault("status", status=500, operation="telemetry"))
    assert run()["sent"] == len(sink.points) > 0
    assert run()["unchanged"] == len(sink.points)
    assert caplog.text.count("The exporter's own metrics are lost") == 2


def test_telemetry_hides_no_error_if_the_receiver_is_gone(recorded, gateway, sink):
    with OtlpSink() as gone:
        recorded(gone)
    with pytest.raises(ReceiverUnavailable, match="No answer"):
        run()


def test_without_an_app_the_error_is_the_one_of_the_connection(connect, gateway, sink):
    connect(gateway, sink, forge={"app_id": ""})
    with pytest.raises(AirflowFailException, match="app_id"):
        run()
    assert not sink.telemetry


def test_two_apps_are_distinguished(recorded, gateway, sink, connect):
    run()
    connect(gateway, sink, forge={"app_id": (other := str(uuid.uuid4()))})
    run()
    instances = [
        attribute.value.string_value
        for request in sink.telemetry
        for attribute in request.message.resource_metrics[0].resource.attributes
        if attribute.key == "service.instance.id"
    ]
    assert instances == [gateway.app_id.rpartition("/")[2], other]
