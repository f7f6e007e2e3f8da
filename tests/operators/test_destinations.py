"""The operator with several destinations: one call for all, and each has its own record and errors."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.sdk import Asset

from airflow_provider_forge.delivery import exporter as exporter_module
from airflow_provider_forge.exceptions import (
    ConfigurationError,
    DeliveryBusy,
    GatewayUnavailable,
    LedgerUnavailable,
    ReceiverUnavailable,
)
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Fault, OtlpSink
from airflow_provider_forge.windows import Window

NOW = pendulum.now("UTC")
QUARTER = Window.last_settled(NOW.subtract(hours=3))
HOUR = Window(QUARTER.start.subtract(minutes=45), QUARTER.end)
IDS = ["otlp_default", "otlp_b", "otlp_c"]


class TaskStates(dict):
    """The values of one task, which outlive its tries."""

    def set(self, key, value):
        self[key] = json.loads(json.dumps(value))

    def delete(self, key):
        self.pop(key, None)


class Task:
    """A task over three receivers, of which each try sees the same state."""

    def __init__(self, sinks, **arguments):
        self.sinks = dict(zip(IDS, sinks, strict=True))
        self.states = TaskStates()
        self.started = pendulum.now("UTC")
        self.tries = 0
        self.task = ForgeMetricsToOtlpOperator(task_id="export", otlp_conn_id=IDS, **arguments)

    def run(self, window=HOUR, **context):
        self.tries += 1
        run = SimpleNamespace(run_after=NOW, start_date=self.started, clear_number=0)
        return self.task.execute(
            {
                "dag_run": run,
                "ti": SimpleNamespace(try_number=self.tries),
                "task_state_store": self.states,
                "data_interval_start": window.start,
                "data_interval_end": window.end,
                **context,
            }
        )

    def points(self):
        return {conn_id: Counter(sink.points) for conn_id, sink in self.sinks.items()}


@pytest.fixture
def sinks(sink):
    with OtlpSink() as second, OtlpSink() as third:
        yield sink, second, third


@pytest.fixture
def three(connect, gateway, sinks, tmp_path, monkeypatch):
    """Return a function that sets the Connections, with `extras` of each receiver by its id."""

    def three(extras=None, *, forge=None, **arguments):
        connect(gateway, sinks[0], forge=forge)
        for conn_id, sink in zip(IDS, sinks, strict=True):
            extra = {"ledger_url": f"file://{tmp_path}/ledger", **(extras or {}).get(conn_id, {})}
            value = {"conn_type": "otlp", "host": sink.url, "extra": extra}
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))
        return Task(sinks, **arguments)

    return three


def generated(gateway, window=HOUR):
    return Counter(
        gateway.generated(window.start, window.end, environments=["production"], metrics=DEFAULT_METRICS)
    )


def calls(gateway):
    return len([call for call in gateway.calls if call.operation == "appMetrics"])


def test_one_call_a_window_serves_all(three, gateway, sinks, caplog):
    with caplog.at_level("INFO"):
        summary = three({"otlp_b": {"protocol": "http/json"}}).run()
    every = {conn_id: Counter(each.points) for conn_id, each in zip(IDS, sinks, strict=True)}
    assert calls(gateway) == 4
    assert all(points == generated(gateway) for points in every.values())
    each = summary["destinations"]
    assert list(each) == IDS
    assert [one["sent"] for one in each.values()] == [generated(gateway).total()] * 3
    assert (summary["calls"], summary["sent"], len(summary["request_ids"])) == (
        4,
        3 * each["otlp_b"]["sent"],
        4,
    )
    assert [f"Summary: {conn_id}: {HOUR.humanize()}: calls: " in caplog.text for conn_id in IDS] == [True] * 3


@pytest.mark.parametrize("down", IDS)
def test_one_that_is_down_holds_up_none_and_its_retry_asks_only_for_what_is_missing(three, gateway, down):
    task = three()
    task.sinks[down].add_fault(Fault("status", status=503, calls={2, 3}))
    with pytest.raises(ReceiverUnavailable, match=f"^{down}: "):
        task.run()
    for conn_id, points in task.points().items():
        window = next(HOUR.split()) if conn_id == down else HOUR
        assert points == generated(gateway, window)
    assert calls(gateway) == 4
    task.sinks[down].clear_faults()
    summary = task.run()
    assert all(points == generated(gateway) for points in task.points().values())
    assert calls(gateway) == 4 + 3
    assert sum(one["calls"] for one in summary["destinations"].values()) == 7


def test_with_an_archive_the_retry_makes_no_call(three, gateway, tmp_path):
    task = three(forge={"archive_url": f"file://{tmp_path}/archive"})
    for number, conn_id in enumerate(IDS):
        task.sinks[conn_id].add_fault(Fault("status", status=503, calls={number + 1}))
    with pytest.raises(ReceiverUnavailable):
        task.run()
    summary = task.run()
    assert all(points == generated(gateway) for points in task.points().values())
    assert calls(gateway) <= 4
    assert summary["replayed"] >= 1


def test_one_that_rejects_fails_the_task_once_all_have_what_they_need(three, gateway):
    task = three()
    task.sinks["otlp_b"].add_fault(Fault("partial_success", rejected=3, message="too old", calls={1}))
    with pytest.raises(AirflowFailException, match=r"^otlp_b: .*too old"):
        task.run()
    every = task.points()
    assert every["otlp_b"].total() + 3 == generated(gateway).total()
    assert every["otlp_default"] == every["otlp_c"] == generated(gateway)


def test_one_that_refuses_leaves_the_others_their_retries(three, gateway):
    task = three()
    task.sinks["otlp_b"].add_fault(Fault("status", status=401))
    task.sinks["otlp_c"].add_fault(Fault("status", status=503, calls={1}))
    with pytest.raises(ReceiverUnavailable, match=r"otlp_b: .* \| otlp_c: "):
        task.run()
    with pytest.raises(AirflowFailException, match=r"^otlp_b: "):
        task.run()
    every = task.points()
    assert every["otlp_default"] == every["otlp_c"] == generated(gateway)


def test_the_retry_comes_when_the_first_of_them_is_ready(three):
    task = three()
    task.sinks["otlp_b"].add_fault(Fault("status", status=503, retry_after="3000"))
    task.sinks["otlp_c"].add_fault(Fault("status", status=503, retry_after="900"))
    with pytest.raises(ReceiverUnavailable) as failed:
        task.run(QUARTER)
    assert failed.value.retry_after < 1200


def test_a_ledger_that_cannot_be_read_stops_only_its_own_destination(three, gateway, tmp_path):
    (tmp_path / "broken").write_text("a file in the place of a directory")
    task = three({"otlp_b": {"ledger_url": f"file://{tmp_path}/broken"}})
    with pytest.raises(LedgerUnavailable, match=r"^otlp_b: "):
        task.run()
    every = task.points()
    assert every["otlp_default"] == every["otlp_c"] == generated(gateway)
    assert not every["otlp_b"]


def test_an_age_limit_is_of_one_destination(three, gateway):
    limits = {"otlp_b": {"max_age": "1h"}}
    task = three(limits, on_expired="fail")
    with pytest.raises(AirflowFailException, match=r"^otlp_b: .*discards points older than 1 hour"):
        task.run()
    assert task.points()["otlp_c"] == generated(gateway)
    summary = three(limits, on_expired="skip").run()
    assert {conn_id: one["expired"] for conn_id, one in summary["destinations"].items()} == {
        "otlp_default": 0,
        "otlp_b": 4,
        "otlp_c": 0,
    }
    every = {conn_id: {"max_age": "1h"} for conn_id in IDS}
    with pytest.raises(AirflowSkipException):
        three(every, on_expired="skip").run()


def test_an_error_of_the_gateway_is_none_of_a_destination(three, gateway):
    task = three()
    gateway.add_fault(Fault("status", status=500, calls={3}))
    with pytest.raises(GatewayUnavailable) as failed:
        task.run()
    assert "otlp_" not in str(failed.value)
    task.run()
    assert all(points == generated(gateway) for points in task.points().values())


def defer(task, monkeypatch):
    """Run a task of which one receiver is busy; return the arguments with which it resumes."""
    deliver, busy = exporter_module.deliver, task.sinks["otlp_b"].url

    def deliver_unless_busy(metrics, payload, destination, *arguments):
        if destination.receiver.endpoint.url.startswith(busy):
            raise DeliveryBusy("busy", retry_after=60)
        return deliver(metrics, payload, destination, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(exporter_module, "deliver", deliver_unless_busy)
        with pytest.raises(TaskDeferred) as deferred:
            task.run()
    return json.loads(json.dumps(deferred.value.kwargs))


def test_one_that_is_busy_defers_the_task_after_the_others(three, gateway, monkeypatch):
    task = three()
    kept = defer(task, monkeypatch)
    assert task.points()["otlp_c"] == generated(gateway)
    context = {"data_interval_start": HOUR.start, "data_interval_end": HOUR.end}
    task.task.execute_complete(context, event=None, **kept)
    assert all(points == generated(gateway) for points in task.points().values())


@pytest.mark.parametrize("change", ["other order", "one more", "another receiver"])
def test_destinations_that_change_during_a_deferral_get_their_own_progress(
    three, gateway, monkeypatch, tmp_path, change
):
    """Nobody has the progress of another: what it lacks would count as delivered."""
    task = three()
    kept = defer(task, monkeypatch)
    if change == "other order":
        kept["progress"].reverse()
    elif change == "one more":
        del kept["progress"][2]
    with OtlpSink() as fourth:
        if change == "another receiver":
            monkeypatch.setenv(
                "AIRFLOW_CONN_OTLP_C",
                json.dumps(
                    {"conn_type": "otlp", "host": fourth.url, "extra": {"ledger_url": f"file://{tmp_path}/l"}}
                ),
            )
            task.sinks["otlp_c"] = fourth
        run = SimpleNamespace(run_after=NOW, start_date=task.started, clear_number=0)
        context = {"data_interval_start": HOUR.start, "data_interval_end": HOUR.end, "dag_run": run}
        task.task.execute_complete(context, event=None, **kept)
        assert all(points == generated(gateway) for points in task.points().values())


def test_each_gets_the_telemetry_of_its_own_deliveries(three):
    task = three()
    task.sinks["otlp_b"].add_fault(Fault("status", status=503, calls={1, 2}))
    with pytest.raises(ReceiverUnavailable):
        task.run(QUARTER)
    failures = {}
    for conn_id, sink in task.sinks.items():
        points = [point for each in sink.telemetry for point in each.telemetry]
        assert {dict(point.attributes).get("forge.exporter.destination") for point in points} <= {conn_id}
        failures[conn_id] = [point for point in points if point.metric == "forge.exporter.failures"]
    assert not failures["otlp_default"]
    assert not failures["otlp_c"]


def test_each_has_its_own_asset(three):
    task = three()
    own = [Asset(f"forge_metrics:forge_default:{conn_id}") for conn_id in IDS]
    assert task.task.outlets == own
    extras = {asset.name: SimpleNamespace(extra=None) for asset in own}

    class Events:
        def __getitem__(self, asset):
            return extras[asset.name]

    summary = task.run(QUARTER, outlets=own, outlet_events=Events())
    assert [each.extra for each in extras.values()] == list(summary["destinations"].values())


@pytest.mark.parametrize("ids", [[], ["a", "a"], [""], "", [1]])
def test_ids_that_name_no_destinations_are_refused(ids):
    with pytest.raises(ConfigurationError, match="otlp_conn_id"):
        ForgeMetricsToOtlpOperator(task_id="export", otlp_conn_id=ids)


def test_two_connections_to_the_same_destination_are_refused(three, gateway, sinks, monkeypatch):
    task = three()
    value = {"conn_type": "otlp", "host": sinks[0].url}
    monkeypatch.setenv("AIRFLOW_CONN_OTLP_B", json.dumps(value))
    with pytest.raises(AirflowFailException, match="otlp_default and otlp_b are the same destination"):
        task.run()
    assert gateway.calls == []
