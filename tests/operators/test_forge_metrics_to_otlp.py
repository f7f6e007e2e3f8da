from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from google.protobuf import json_format
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

import airflow_provider_forge.http
from airflow_provider_forge.coverage import catchup
from airflow_provider_forge.delivery.progress import Progress
from airflow_provider_forge.exceptions import (
    BrokenAnswer,
    ConfigurationError,
    GatewayUnavailable,
    RateLimited,
    ReceiverUnavailable,
)
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Fault, SandboxGateway, Scenario, SinkResource, points_of
from airflow_provider_forge.sandbox.catalogue import METRICS
from airflow_provider_forge.windows import Window, ceil

QUARTER = Window.last_settled(pendulum.now("UTC"))


def run(window: Window | None = QUARTER, **arguments):
    """Run the operator for a data interval; None for a manual run without a logical date."""
    context = {"dag_run": SimpleNamespace(run_after=pendulum.now("UTC"))}
    if window is not None:
        context.update(data_interval_start=window.start, data_interval_end=window.end)
    return ForgeMetricsToOtlpOperator(task_id="export", **arguments).execute(context)


def generated(gateway, window, environment="production", metrics=DEFAULT_METRICS):
    ids = [known.id for known in gateway.environments if known.key == environment]
    return Counter(gateway.generated(window.start, window.end, environments=ids, metrics=metrics))


def windows_asked(gateway):
    return [(call.start, call.end) for call in gateway.calls if call.operation == "appMetrics"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
@pytest.mark.parametrize("conform", [True, False])
def test_every_point_of_the_window_arrives_once(gateway, sink, connect, protocol, conform):
    connect(gateway, sink, otlp={"protocol": protocol})
    summary = run(conform=conform)
    assert Counter(sink.points) == generated(gateway, QUARTER)
    assert summary == {
        "window": str(QUARTER),
        "calls": 1,
        "replayed": 0,
        "unarchived": 0,
        "empty": 0,
        "points": len(sink.points),
        "sent": len(sink.points),
        "unchanged": 0,
        "changed": 0,
        "ambiguous": 0,
        "rejected": 0,
        "batches": 1,
        "warnings": 0,
        "expired": 0,
        "digested": False,
        "contended": False,
        "request_ids": [gateway.calls[-1].request_id],
    }


def test_conform_false_sends_atlassians_json_byte_for_byte(gateway, sink, connect):
    served = json.dumps([{"resource": {}, "odd ": 1.50, "scopeMetrics": [{"metrics": [{"name": "x"}]}]}])
    body = f'{{"data":{{"ecosystem":{{"forgeMetrics":{{"appMetrics":{{"resourceMetrics": {served} }}}}}}}}}}'
    gateway.add_fault(Fault("body", body=body, operation="appMetrics"))
    connect(gateway, sink, otlp={"protocol": "http/json"})
    run(conform=False)
    assert sink.requests[0].body == f'{{"resourceMetrics":{served}}}'.encode()


def test_an_interval_is_cut_at_the_quarter_hours_and_sent_oldest_first(gateway, sink, connect):
    connect(gateway, sink)
    start, end = QUARTER.start - timedelta(minutes=22), QUARTER.end
    summary = run(interval_start=start.isoformat(), interval_end=end.isoformat())
    assert windows_asked(gateway) == [
        (start, QUARTER.start - timedelta(minutes=15)),
        (QUARTER.start - timedelta(minutes=15), QUARTER.start),
        (QUARTER.start, QUARTER.end),
    ]
    assert summary["calls"] == len(sink.requests) == 3
    assert Counter(sink.points) == generated(gateway, Window(start, end))
    latest = [max(point.time for point in request.points) for request in sink.requests]
    assert latest == sorted(latest)


def test_arguments_win_over_the_data_interval(gateway, sink, connect):
    connect(gateway, sink)
    earlier = Window(QUARTER.start - timedelta(hours=1), QUARTER.end - timedelta(hours=1))
    run(interval_start=earlier.start, interval_end=earlier.end)
    assert windows_asked(gateway) == [(earlier.start, earlier.end)]


@pytest.mark.parametrize("empty", [None, ""])
def test_a_run_without_a_logical_date_delivers_the_last_settled_quarter_hour(gateway, sink, connect, empty):
    connect(gateway, sink)
    before = Window.last_settled(pendulum.now("UTC"))
    run(window=None, interval_start=empty, interval_end=empty)
    after = Window.last_settled(pendulum.now("UTC"))
    assert windows_asked(gateway)[0] in [(before.start, before.end), (after.start, after.end)]


def test_no_traffic_is_a_success_and_nothing_is_sent(gateway, sink, connect):
    gateway.add_fault(Fault("empty"))
    connect(gateway, sink)
    assert run()["points"] == 0
    assert sink.requests == []


def test_several_environments_travel_in_one_call_and_get_a_resource_each(gateway, sink, connect):
    connect(gateway, sink, forge={"environments": ["production", "staging", "development"]})
    assert run()["calls"] == 1
    names = {resource.attributes.get("deployment.environment.name") for resource in sink.resources}
    assert names >= {"production", "staging"}
    # Some points of containers name no environment.
    of_containers = [
        resource for resource in sink.resources if "service.instance.id" not in resource.attributes
    ]
    assert len(of_containers) == len(sink.resources) - len(names - {None}) == 1


def test_every_metric_of_the_gateway_is_exported(gateway, sink, connect):
    connect(gateway, sink)
    names = {metric.name for metric in METRICS.values()}
    # Some quarter hours of a weekend lack one of them.
    back = (QUARTER.start - timedelta(minutes=15 * number) for number in range(96))
    quarters = (Window(start, start + timedelta(minutes=15)) for start in back)
    quarter = next(
        each
        for each in quarters
        if {point.metric for point in generated(gateway, each, metrics=METRICS)} == names
    )
    run(quarter)
    assert Counter(sink.points) == generated(gateway, quarter, metrics=METRICS)
    assert {point.metric for point in sink.points} == names
    assert {point.kind for point in sink.points} == {"sum", "gauge", "histogram"}


EXPIRED = Window(QUARTER.start - timedelta(days=14, hours=1), QUARTER.start - timedelta(days=14, minutes=45))


def test_an_expired_window_fails_for_good_before_any_call_on_request(gateway, sink, connect):
    connect(gateway, sink)
    with pytest.raises(AirflowFailException, match="keeps metrics for 14 days"):
        run(EXPIRED, on_expired="fail")
    assert gateway.calls == []


def test_an_expired_window_is_skipped(gateway, sink, connect):
    connect(gateway, sink)
    with pytest.raises(AirflowSkipException, match="too old"):
        run(EXPIRED)
    assert gateway.calls == []


def test_the_rest_of_a_partly_expired_interval_is_delivered(gateway, sink, connect):
    connect(gateway, sink)
    edge = ceil(pendulum.now("UTC") - timedelta(days=14), timedelta(minutes=15))
    # A quarter hour of distance to the edge, should the clock cross one meanwhile.
    edge += timedelta(minutes=15)
    interval = {"interval_start": edge - timedelta(minutes=45), "interval_end": edge + timedelta(minutes=30)}
    with pytest.raises(AirflowFailException, match="begins before"):
        run(**interval, on_expired="fail")
    summary = run(**interval)
    assert summary["calls"] + summary["expired"] == 5
    assert summary["calls"] in (2, 3)


def test_the_rest_of_an_interval_is_skipped_without_making_a_list_of_all_its_windows(gateway, sink, connect):
    connect(gateway, sink)
    edge = ceil(pendulum.now("UTC") - timedelta(days=14), timedelta(minutes=15))
    ages = {"interval_start": "0202-11-09T00:00:00Z", "interval_end": edge + timedelta(minutes=30)}
    assert run(**ages, on_expired="skip")["expired"] > 60_000_000


class TimetableWithSettle:
    settle = timedelta(minutes=5)


def too_early(minutes: float):
    """Return the context of a run whose interval ends in so many minutes."""
    end = pendulum.now("UTC").add(seconds=round(minutes * 60)).replace(microsecond=0)
    dag = SimpleNamespace(timetable=TimetableWithSettle())
    return {"dag": dag, "data_interval_start": end.subtract(minutes=15), "data_interval_end": end}


@pytest.mark.parametrize("minutes", [-4, -0.5, 1, 14])
def test_a_run_before_its_interval_has_settled_is_deferred_until_then(gateway, sink, connect, minutes):
    connect(gateway, sink)
    context = too_early(minutes)
    with pytest.raises(TaskDeferred) as deferred:
        ForgeMetricsToOtlpOperator(task_id="export").execute(context)
    assert deferred.value.trigger.moment == context["data_interval_end"].add(minutes=5)
    assert deferred.value.method_name == "execute_complete"
    assert gateway.calls == []


def test_a_deferred_run_resumes_even_if_this_machines_clock_is_slow(gateway, sink, connect):
    connect(gateway, sink)
    summary = ForgeMetricsToOtlpOperator(task_id="export").execute_complete(too_early(-1), event="woken")
    assert summary["points"] == len(sink.points) > 0


def test_a_run_starts_others_once_even_if_it_was_deferred(gateway, sink, connect, monkeypatch):
    connect(gateway, sink)
    started = []
    monkeypatch.setattr(catchup, "start_other_runs", lambda context, interval, now: started.append(interval))
    monkeypatch.setattr(catchup, "continue_healing", lambda context, interval, now: None)
    context = too_early(-30)
    task = ForgeMetricsToOtlpOperator(task_id="export", live_first=True)
    for resume in (
        lambda: task.execute(context),
        lambda: task.execute_complete(context, event="settled"),
        lambda: task.execute_complete(context, progress=[Progress.begin([], [], expired=0).to_json()]),
    ):
        resume()
    assert len(started) == 2


def test_an_interval_far_in_the_future_is_a_mistake(gateway, sink, connect):
    connect(gateway, sink)
    with pytest.raises(AirflowFailException, match=r"interval_end: .* is more than 2 hours in the future"):
        run(interval_start="2999-01-01T00:00:00Z", interval_end="2999-01-01T00:15:00Z")


@pytest.mark.parametrize("given", ["data interval", "arguments"])
def test_the_empty_interval_of_a_cron_schedule_is_named(gateway, sink, connect, given):
    connect(gateway, sink)
    moment = QUARTER.start
    context = {"data_interval_start": moment, "data_interval_end": moment} if given == "data interval" else {}
    arguments = {"interval_start": str(moment), "interval_end": str(moment)} if given == "arguments" else {}
    with pytest.raises(AirflowFailException, match=r"interval_end: .*ForgeMetricsTimetable"):
        ForgeMetricsToOtlpOperator(task_id="x", **arguments).execute(context)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"app_id": "not-an-app"}, "app_id: 'not-an-app' is neither"),
        ({"environments": "prod"}, "environments: there is no 'prod'.*production.*staging"),
        ({"environments": ["ari:cloud:ecosystem::environment/x"]}, "environments: .*malformed"),
        ({"metrics": "forge api"}, "metrics: 'forge api' is not a metric label"),
        ({"interval_start": "2026-11-23T05:00:00Z"}, "interval_end: is missing"),
        ({"interval_end": "2026-11-23T05:00:00Z"}, "interval_start: is missing"),
        ({"interval_start": "2026-11-23T05:00:00", "interval_end": "x"}, "interval_start: .*no UTC offset"),
        ({"interval_start": "yesterday", "interval_end": "x"}, "interval_start: 'yesterday' is not a time"),
        ({"interval_start": datetime(2026, 1, 1), "interval_end": "x"}, "interval_start: .*no UTC offset"),  # noqa: DTZ001
        (
            {"interval_start": "2026-11-23T05:00:00Z", "interval_end": "2026-11-23T04:00:00Z"},
            "interval_end: .*is before interval_start",
        ),
        ({"resend": "maybe"}, "resend: 'maybe' is not one of true, false"),
        ({"resource_attributes": {"team": object()}}, "resource_attributes: 'team'"),
        ({"resource_attributes": "team=a"}, "resource_attributes: is not an object"),
    ],
)
def test_bad_input_fails_for_good_and_before_any_metrics_call(gateway, sink, connect, arguments, message):
    connect(gateway, sink)
    with pytest.raises(AirflowFailException, match=message):
        run(**arguments)
    assert windows_asked(gateway) == []
    assert sink.requests == []


@pytest.mark.parametrize(
    ("otlp", "message"),
    [
        ({"protocol": "grpc"}, "otlp_default: protocol: 'grpc' is not one of"),
        ({"compression": "zstd"}, "otlp_default: compression"),
        ({"timeout": "soon"}, "otlp_default: timeout"),
        ({"headers": "a=b"}, "otlp_default: headers"),
        ({"ca_file": "nowhere.pem"}, "otlp_default: ca_file"),
    ],
)
def test_a_bad_receiver_fails_for_good_and_before_any_call(gateway, sink, connect, otlp, message):
    connect(gateway, sink, otlp=otlp)
    with pytest.raises(AirflowFailException, match=message):
        run()
    assert gateway.calls == []


def test_no_endpoint_fails_for_good_and_before_any_call(gateway, sink, connect, monkeypatch):
    connect(gateway, sink)
    monkeypatch.setenv("AIRFLOW_CONN_OTLP_DEFAULT", '{"conn_type": "otlp"}')
    with pytest.raises(AirflowFailException, match="otlp_default: host: no endpoint"):
        run()
    assert gateway.calls == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"on_expired": "ignore"}, "on_expired"),
        ({"on_changed": "resend"}, "on_changed"),
        ({"on_ambiguous": "skip"}, "on_ambiguous"),
        ({"revisit_after": timedelta(0)}, "revisit_after"),
        ({"conform": False, "resource_attributes": {"team": "a"}}, "resource_attributes"),
    ],
)
def test_contradictory_arguments_are_refused_when_the_dag_is_parsed(arguments, field):
    with pytest.raises(ConfigurationError) as refused:
        ForgeMetricsToOtlpOperator(task_id="export", **arguments)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", status=401), AirflowFailException),
        (Fault("query_error", status_code=403), AirflowFailException),
        (Fault("errors", status_code=400), AirflowFailException),
        (Fault("status", status=429), RateLimited),
        (Fault("status", status=503), GatewayUnavailable),
        (Fault("truncate"), GatewayUnavailable),
        (Fault("null", level="appMetrics"), BrokenAnswer),
    ],
)
def test_a_failing_gateway_sends_nothing(gateway, sink, connect, fault, error):
    connect(gateway, sink, forge={"environments": [gateway.environments[0].id]})
    gateway.add_fault(fault)
    with pytest.raises(error):
        run()
    assert sink.requests == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", status=400), AirflowFailException),
        (Fault("redirect"), AirflowFailException),
        (Fault("status", status=503), ReceiverUnavailable),
        (Fault("reset"), ReceiverUnavailable),
    ],
)
def test_a_failing_receiver_fails_the_task(gateway, sink, connect, fault, error):
    connect(gateway, sink)
    sink.add_fault(fault)
    with pytest.raises(error):
        run()


def test_rejected_points_fail_the_task_for_good_with_all_there_is_to_know(gateway, sink, connect):
    connect(gateway, sink)
    sink.add_fault(Fault("partial_success", rejected=3, message="too old"))
    with pytest.raises(AirflowFailException, match=r"rejected 3 of \d+ points \(too old\)") as failed:
        run()
    assert "forge_api_request_count" in str(failed.value)
    assert f"{QUARTER.start:%Y-%m-%dT%H}" in str(failed.value)


def test_a_rejected_point_does_not_hold_back_later_windows(gateway, sink, connect):
    connect(gateway, sink)
    sink.add_fault(Fault("partial_success", rejected=1, message="too old", calls={1, 3}))
    start = QUARTER.start - timedelta(minutes=30)
    with pytest.raises(AirflowFailException, match=r"rejected 1 of .* \| .*rejected 1 of"):
        run(interval_start=start, interval_end=QUARTER.end)
    assert len(windows_asked(gateway)) == len(sink.requests) == 3


def test_the_published_sample_goes_through_the_whole_line_unchanged(gateway, sink, connect):
    sample = (Path(__file__).parent.parent / "data" / "sample_response.json").read_text()
    gateway.add_fault(Fault("body", body=sample, operation="appMetrics"))
    connect(gateway, sink)
    run()
    metrics = json.loads(sample)["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]
    published = json_format.ParseDict(metrics, MetricsData())
    assert Counter(sink.points) == Counter(points_of(published.resource_metrics))
    sent = [
        metric
        for resource in sink.requests[0].message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    assert {(metric.name, metric.unit, metric.sum.is_monotonic) for metric in sent} == {
        ("forge_api_request_count", "{request}", True),
        ("forge_backend_invocation_count", "{invocation}", True),
        ("forge_backend_invocation_errors", "{error}", True),
    }


@pytest.mark.parametrize("shape", ["histogram", "exponential_histogram", "summary", "gauge"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_latency_is_exported_with_any_type(sink, connect, shape, protocol):
    with SandboxGateway(Scenario(latency_shape=shape), rate_limit_calls=0) as gateway:
        connect(gateway, sink, otlp={"protocol": protocol})
        run()
        assert Counter(sink.points) == generated(gateway, QUARTER)
    kinds = {point.kind for point in sink.points if point.metric.endswith("_latency")}
    assert {re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", kind) for kind in kinds} == {shape}


@pytest.mark.parametrize("conform", [True, False])
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_metrics_that_are_not_otlp_hold_back_themselves(gateway, sink, connect, protocol, conform):
    time = f"{int(QUARTER.start.timestamp()) + 60}000000000"
    good = f'{{"name":"n","sum":{{"dataPoints":[{{"asInt":1,"timeUnixNano":"{time}"}},{{"asInt":1.5}}]}}}}'
    metrics = f'[1,{{"scopeMetrics":[{{"metrics":[{good}]}}]}}]'
    broken = f'{{"data":{{"ecosystem":{{"forgeMetrics":{{"appMetrics":{{"resourceMetrics":{metrics}}}}}}}}}}}'
    gateway.add_fault(Fault("body", body=broken, operation="appMetrics"))
    connect(gateway, sink, otlp={"protocol": protocol})
    with pytest.raises(
        AirflowFailException, match=r"has 2 points that are not OTLP: .*asInt is 1\.5.*request id"
    ):
        run(conform=conform)
    assert [point.metric for point in sink.points] == ["n"]
    assert sum(call.operation == "appMetrics" for call in gateway.calls) == 1


def test_the_identity_survives_everything_that_may_change_around_it(
    gateway, sink, connect, variables, monkeypatch
):
    production = next(known for known in gateway.environments if known.key == "production")
    custom = next(
        known for known in gateway.environments if known.key not in ("default", "staging", "production")
    )
    connect(gateway, sink, forge={"environments": [production.id, custom.id]})

    seen: list[list[SinkResource]] = []

    def export() -> None:
        run()
        seen.append(sorted(sink.resources, key=str))
        sink.clear()

    gateway.add_fault(Fault("status", status=500, operation="app"))
    export()
    gateway.clear_faults()
    export()
    gateway.rename_environment(custom.id, "renamed")
    export()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "airflow")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=airflow")
    monkeypatch.setattr(airflow_provider_forge, "__version__", "99.0.0")
    monkeypatch.setattr(airflow_provider_forge.http, "USER_AGENT", "airflow-provider-forge/99.0.0")
    export()
    assert seen[0]
    assert all(resources == seen[0] for resources in seen)
    for resource in seen[0]:
        assert "deployment.environment.name" not in resource.attributes
        assert (resource.scope_name, resource.scope_version) == ("atlassian.forge.app_metrics", "")


def test_environments_are_looked_up_once_for_many_windows(gateway, sink, connect):
    connect(gateway, sink)
    for _ in range(3):
        run()
    assert [call.operation for call in gateway.calls] == ["app", "appMetrics", "appMetrics", "appMetrics"]


def test_duplicates_are_sent_as_they_are_and_warned_about(gateway, sink, connect, caplog):
    connect(gateway, sink)
    gateway.add_fault(Fault("duplicate_points", operation="appMetrics"))
    summary = run()
    assert summary["sent"] == 2 * generated(gateway, QUARTER).total()
    assert "duplicate points" in caplog.text


def test_the_connections_are_not_templated():
    fields = ForgeMetricsToOtlpOperator.template_fields
    assert {"interval_start", "interval_end", "environments", "metrics", "app_id"} <= set(fields)
    assert not {"forge_conn_id", "otlp_conn_id"} & set(fields)
