"""The operator with a ledger: re-runs, late data, other cuts, and destinations that forget."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk import Asset

from airflow_provider_forge.delivery import leases
from airflow_provider_forge.exceptions import LedgerUnavailable, ReceiverUnavailable
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Fault, OtlpSink, SandboxGateway, Scenario
from airflow_provider_forge.windows import Window

NOW = pendulum.now("UTC")
# Old enough for no late look, and for no point to be still to come.
QUARTER = Window.last_settled(NOW.subtract(hours=3))
LIVE = Window.last_settled(NOW)


@pytest.fixture
def recorded(connect, gateway, sink, tmp_path):
    """Return a function that sets the Connections, with a ledger in a directory."""

    def recorded(receiver=sink, **otlp):
        connect(gateway, receiver, otlp={"ledger_url": f"file://{tmp_path}/ledger", **otlp})

    recorded()
    return recorded


def run(window=QUARTER, **arguments):
    context = {"dag_run": SimpleNamespace(run_after=pendulum.now("UTC"))}
    context.update(data_interval_start=window.start, data_interval_end=window.end)
    return ForgeMetricsToOtlpOperator(task_id="export", **arguments).execute(context)


def generated(gateway, window):
    arguments = {"environments": ["production"], "metrics": DEFAULT_METRICS}
    return Counter(gateway.generated(window.start, window.end, **arguments))


def test_a_re_run_sends_nothing_and_counts_unchanged_points(recorded, gateway, sink):
    first = run()
    again = run()
    assert (again["sent"], again["unchanged"], again["batches"]) == (0, first["points"], 0)
    assert Counter(sink.points) == generated(gateway, QUARTER)


def test_other_cuts_send_each_point_once(recorded, gateway, sink):
    start, end = QUARTER.start, QUARTER.end
    minutes = [Window(start.add(minutes=5 * n), start.add(minutes=5 * n + 5)) for n in range(3)]
    hour = Window(start.subtract(minutes=45), end)
    for window in [*minutes, QUARTER, Window(start.subtract(seconds=437), end.subtract(seconds=100)), hour]:
        run(window)
    assert Counter(sink.points) == generated(gateway, hour)


def test_beside_a_fresher_dag_the_regular_one_sends_only_missed_points(recorded, gateway, sink):
    hour = Window(QUARTER.start.subtract(minutes=45), QUARTER.end)
    fresh = [
        Window(start := hour.start.add(minutes=minute), start.add(minutes=5)) for minute in range(0, 60, 5)
    ]
    missed = fresh.pop(4)
    for window in fresh:
        run(window)
    sent = [run(quarter)["sent"] for quarter in hour.split()]
    assert sent == [0, generated(gateway, missed).total(), 0, 0]
    assert Counter(sink.points) == generated(gateway, hour)
    assert sum(call.operation == "appMetrics" for call in gateway.calls) == 16 - 1


LABEL = "FORGE_BACKEND_CUSTOM_METRICS_COUNT"
NAME = "forge_backend_custom_metrics_count"


@pytest.mark.parametrize("knows_it", ["from the second fetch on", "at the first fetch only"])
def test_a_metric_that_the_gateway_does_not_always_know_is_sent_once_as_are_all_others(
    connect, gateway, sink, tmp_path, knows_it, caplog
):
    """The window belongs to one selection either way, so that coverage shows no gap."""
    past = (QUARTER.start.subtract(minutes=15 * number) for number in range(96))
    quarters = (Window(start, start.add(minutes=15)) for start in past)
    # Some quarter hours of a weekend lack the metric.
    quarter = next(
        each for each in quarters if any(point.metric == NAME for point in generated(gateway, each))
    )
    with SandboxGateway(Scenario(unknown_metrics=frozenset({LABEL})), rate_limit_calls=0) as ignorant:
        gateways = [gateway, ignorant] if knows_it == "at the first fetch only" else [ignorant, gateway]
        for asked in gateways:
            connect(asked, sink, otlp={"ledger_url": f"file://{tmp_path}/ledger"})
            run(quarter, revisit_after=None)
        assert [len(call.metrics) for call in ignorant.calls if call.outcome == "ok" and call.metrics] == [10]
    assert Counter(sink.points) == generated(gateway, quarter)
    assert NAME in {point.metric for point in sink.points}
    assert caplog.text.count(f"does not know the metrics {LABEL}: they are left out") == 1
    assert len([path for path in tmp_path.rglob("selections/*") if path.is_file()]) == 1


def test_an_option_or_version_that_changes_the_data_keeps_the_ledger_valid(recorded, sink):
    run(resource_attributes={"team": "a"})
    recorded(protocol="http/json", compression="none")
    assert run(conform=False)["sent"] == 0


def test_another_destination_has_a_ledger_of_its_own(recorded, gateway, sink):
    run()
    with OtlpSink() as other:
        recorded(other)
        assert run()["sent"] == len(other.points) == len(sink.points)
        recorded()
        assert run()["sent"] == 0


def test_resend_sends_all_again(recorded, sink):
    points = run()["points"]
    for spelling in ("True", "true", True):
        assert run(resend=spelling)["sent"] == points
    for spelling in ("False", "", False):
        assert run(resend=spelling)["sent"] == 0


def test_late_points_of_an_old_window_are_sent_alone(recorded, gateway, sink):
    gateway.add_fault(Fault("empty", max_times=1, operation="appMetrics"))
    empty = run()
    assert (empty["points"], empty["empty"]) == (0, 1)
    assert run()["sent"] == len(sink.points)
    assert Counter(sink.points) == generated(gateway, QUARTER)


def test_a_live_run_revisits_the_window_of_an_hour_ago(recorded, gateway, sink):
    earlier = LIVE.shifted(timedelta(hours=-1))
    gateway.add_fault(Fault("empty", max_times=1, operation="appMetrics"))
    run(earlier, revisit_after=None)
    summary = run(LIVE)
    assert summary["window"] == str(LIVE)
    assert summary["calls"] == 2
    assert Counter(sink.points) == generated(gateway, LIVE) + generated(gateway, earlier)


def test_a_revisit_leaves_an_undelivered_window_to_its_own_run(recorded, gateway):
    assert run(LIVE)["calls"] == 1


def test_a_long_live_run_does_not_revisit_its_own_windows(recorded, gateway):
    run(Window(LIVE.start.subtract(hours=2), LIVE.end), revisit_after=None)
    calls = len(windows := [call for call in gateway.calls if call.operation == "appMetrics"])
    assert run(Window(LIVE.start.subtract(hours=1), LIVE.end))["calls"] == 9
    again = [call for call in gateway.calls if call.operation == "appMetrics"][calls:]
    assert len({call.start for call in again}) == len(again) == len(windows)


@pytest.mark.parametrize(
    ("window", "arguments"),
    [
        (QUARTER, {}),
        (LIVE, {"revisit_after": None}),
        (LIVE, {"resend": True}),
        (LIVE, {"revisit_after": timedelta(seconds=1)}),
    ],
    ids=["backfill", "switched off", "resend", "not so live"],
)
def test_other_runs_do_not_revisit_windows(recorded, gateway, window, arguments):
    run(window.shifted(timedelta(hours=-1)), revisit_after=None)
    assert run(window, **arguments)["calls"] == 1


def test_without_a_ledger_a_live_run_does_not_revisit_windows(connect, gateway, sink, caplog):
    connect(gateway, sink)
    assert run(LIVE)["calls"] == 1
    assert caplog.text.count("There is no ledger") == 1


def test_a_window_too_old_for_the_destination_costs_no_call(recorded, gateway, caplog):
    recorded(max_age="1h")
    with pytest.raises(
        AirflowFailException, match="The destination discards points older than 1 hour"
    ) as failed:
        run(on_expired="fail")
    assert "max_age" in str(failed.value)
    with pytest.raises(AirflowSkipException):
        run()
    assert "1,340 of the windows of Atlassian's 14 days are skipped" in caplog.text
    assert "raise the OTLP Connection's extra max_age" in caplog.text
    assert gateway.calls == []


def test_a_revisit_skips_a_window_too_old_for_the_destination(recorded, gateway):
    run(LIVE.shifted(timedelta(hours=-1)))
    recorded(max_age="1h")
    assert run(LIVE)["calls"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=504, longer_than=240, operation="appMetrics"),
        Fault("errors", status_code=413, longer_than=240, operation="appMetrics"),
        Fault("errors", status_code=400, classification="ExecutionAborted", longer_than=240),
    ],
    ids=["time-out", "too large", "too complex"],
)
def test_a_window_that_is_too_large_is_fetched_in_halves(recorded, gateway, sink, fault):
    gateway.add_fault(fault)
    summary = run()
    assert summary["calls"] > 2
    assert Counter(sink.points) == generated(gateway, QUARTER)
    assert {call.start.second for call in gateway.calls if call.operation == "appMetrics"} == {0}


def test_a_minute_that_is_too_much_is_an_error(recorded, gateway):
    gateway.add_fault(Fault("status", status=504, operation="appMetrics"))
    with pytest.raises(Exception, match="504"):
        run()
    lengths = [call.end - call.start for call in gateway.calls if call.operation == "appMetrics"]
    assert min(lengths) == timedelta(minutes=1)


def test_a_window_that_another_task_delivers_is_deferred_without_using_a_retry(
    recorded, gateway, sink, monkeypatch
):
    monkeypatch.setitem(leases.FileLeases.__init__.__kwdefaults__, "patience", 0.05)
    arrived, go_on = threading.Event(), threading.Event()
    respond = sink.respond

    def wait(request):
        arrived.set()
        go_on.wait(60)
        return respond(request)

    monkeypatch.setattr(sink, "respond", wait)
    results = []
    first = threading.Thread(target=lambda: results.append(run()))
    first.start()
    assert arrived.wait(60)
    with pytest.raises(TaskDeferred) as deferred:
        run()
    assert deferred.value.method_name == "execute_complete"
    go_on.set()
    first.join()
    assert run()["sent"] == 0
    assert Counter(sink.points) == generated(gateway, QUARTER)
    assert [result["contended"] for result in results] == [False]


def test_the_ledger_contains_no_secret(recorded, gateway, tmp_path, variables):
    run()
    kept = [path.read_text() for path in (tmp_path / "ledger").rglob("*.json")] + list(variables.values())
    assert len(kept) > 4
    assert not any(gateway.api_token in text or gateway.email in text for text in kept)


def test_a_ledger_that_cannot_be_read_sends_nothing(recorded, sink, tmp_path):
    run()
    sent = len(sink.points)
    (tmp_path / "ledger").rename(tmp_path / "elsewhere")
    (tmp_path / "ledger").write_text("a file in the place of a directory")
    with pytest.raises(LedgerUnavailable, match="ledger cannot be read"):
        run()
    assert len(sink.points) == sent


def test_a_damaged_record_makes_its_points_ambiguous(recorded, sink, tmp_path):
    run()
    sent = len(sink.points)
    for path in (tmp_path / "ledger").rglob("2*.json"):
        path.write_text("{half")
    with pytest.raises(AirflowFailException, match="it is not known whether they arrived"):
        run(on_ambiguous="fail")
    assert len(sink.points) == sent
    assert run()["ambiguous"] == sent


def test_a_lost_ledger_is_noticed_by_its_sentinel_variable(recorded, sink, tmp_path, variables):
    run()
    (key,) = [key for key in variables if key.startswith("forge_ledger_")]
    assert json.loads(variables[key])["store"].endswith("/ledger")
    (tmp_path / "ledger").rename(tmp_path / "elsewhere")
    with pytest.raises(AirflowFailException, match="it is not known whether they arrived"):
        run(on_ambiguous="fail")
    (tmp_path / "elsewhere").rename(tmp_path / "ledger2")
    assert run()["ambiguous"] > 0


def test_a_tenant_is_a_destination_of_its_own(recorded, gateway, sink):
    run()
    recorded(tenant="other account")
    assert run()["sent"] > 0
    recorded()
    assert run()["sent"] == 0


def test_a_rejection_survives_a_later_failure(recorded, gateway, sink):
    recorded(max_body_bytes=20_000)
    sink.add_fault(Fault("partial_success", rejected=2, message="too old", calls={1}))
    sink.add_fault(Fault("status", status=503, calls={2}))
    started = SimpleNamespace(run_after=NOW, start_date=pendulum.now("UTC"))
    interval = {"data_interval_start": QUARTER.start, "data_interval_end": QUARTER.end, "dag_run": started}
    task = ForgeMetricsToOtlpOperator(task_id="x")
    with pytest.raises(ReceiverUnavailable):
        task.execute(interval)
    with pytest.raises(AirflowFailException, match="rejected points in an earlier try of this run"):
        task.execute(interval)
    assert len(sink.points) + 2 == generated(gateway, QUARTER).total()


def test_a_deferral_resumes_at_its_checkpoint(recorded, gateway, sink, monkeypatch):
    """Also with resend, which would otherwise send again what was sent before it."""
    from airflow_provider_forge.delivery import exporter
    from airflow_provider_forge.exceptions import DeliveryBusy

    deliver, delivered = exporter.deliver, []

    def busy_at_the_second(metrics, *arguments):
        delivered.append(metrics.window.start)
        if len(delivered) == 2:
            raise DeliveryBusy("busy", retry_after=60)
        return deliver(metrics, *arguments)

    monkeypatch.setattr(exporter, "deliver", busy_at_the_second)
    hour = Window(QUARTER.start.subtract(minutes=45), QUARTER.end)
    context = {"data_interval_start": hour.start, "data_interval_end": hour.end}
    task = ForgeMetricsToOtlpOperator(task_id="x", resend=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    kept = json.loads(json.dumps(deferred.value.kwargs))
    summary = task.execute_complete(context, event=None, **kept)
    assert Counter(sink.points) == generated(gateway, hour)
    assert (summary["calls"], summary["sent"]) == (4, len(sink.points))


def test_a_lost_acknowledgement_is_named(recorded, gateway, sink, caplog):
    sink.add_fault(Fault("reset_after", first=1))
    with pytest.raises(ReceiverUnavailable):
        run()
    with pytest.raises(AirflowFailException, match="on_ambiguous='resend'"):
        run(on_ambiguous="fail")
    summary = run()
    assert summary["ambiguous"] == summary["sent"] == generated(gateway, QUARTER).total()
    assert "one duplicate of each is possible" in caplog.text


class TestAsset:
    def test_it_is_inlet_and_outlet_beside_the_users(self):
        own = Asset("own")
        task = ForgeMetricsToOtlpOperator(task_id="x", outlets=[own], otlp_conn_id="otlp_b")
        assert task.inlets == task.assets == [Asset("forge_metrics:forge_default:otlp_b")]
        assert task.outlets == [own, *task.assets]

    def test_its_event_carries_the_summary(self, recorded):
        event = SimpleNamespace(extra={})

        class Events:
            # No dictionary: before 3.2 no Asset could be a key.
            def __getitem__(self, asset):
                return {"forge_metrics:forge_default:otlp_default": event}[asset.name]

        task = ForgeMetricsToOtlpOperator(task_id="x")
        interval = {"data_interval_start": QUARTER.start, "data_interval_end": QUARTER.end}
        context = {**interval, "outlets": task.outlets, "outlet_events": Events()}
        assert event.extra is not task.execute(context)
        assert event.extra["sent"] > 0

    def test_a_mapped_task_goes_without(self, connect, gateway, sink):
        class NoSuchAsset:
            def __getitem__(self, asset):
                raise KeyError(asset)

        connect(gateway, sink)
        task = ForgeMetricsToOtlpOperator(task_id="x")
        interval = {"data_interval_start": QUARTER.start, "data_interval_end": QUARTER.end}
        context = {**interval, "outlets": [], "outlet_events": {}, "asset_state_store": NoSuchAsset()}
        assert task.execute(context)["sent"] == len(sink.points)
