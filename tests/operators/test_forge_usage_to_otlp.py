"""The operator: usage from a stand-in gateway into a sink. The latest value of each series counts."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.exceptions import ConfigurationError, GatewayUnavailable
from airflow_provider_forge.gateway import usage as usage_module
from airflow_provider_forge.gateway.queries import RESOURCES
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.operators.forge_usage_to_otlp import ForgeUsageToOtlpOperator
from airflow_provider_forge.sandbox import Fault, SandboxGateway, Scenario
from airflow_provider_forge.sandbox.installations import Tenant, context_aris
from airflow_provider_forge.usage import metrics
from airflow_provider_forge.usage.months import interval_to_read
from airflow_provider_forge.usage.prices import load_prices
from airflow_provider_forge.windows import Window
from tests.usage.examples import EXAMPLES, reading

NOW = datetime.now(timezone.utc)
START, END = interval_to_read(NOW, timedelta(days=7))
QUARTER = Window.last_settled(NOW - timedelta(hours=3))
MONTH = f"{NOW:%Y-%m}"
APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
ENVIRONMENT, INSTANCE = "deployment.environment.name", "service.instance.id"


def run(**arguments):
    return ForgeUsageToOtlpOperator(task_id="usage", **arguments).execute({})


def latest(sink, metric):
    """Return the latest value of each series of a metric, by environment and the values of its attributes."""
    found = defaultdict(list)
    for request in sink.requests:
        for resource in request.message.resource_metrics:
            of_resource = {each.key: each.value.string_value for each in resource.resource.attributes}
            points = [
                point
                for scope in resource.scope_metrics
                for each in scope.metrics
                if each.name == metric
                for point in each.gauge.data_points
            ]
            for point in points:
                values = [
                    each.value.string_value for each in sorted(point.attributes, key=lambda each: each.key)
                ]
                key = (of_resource.get(ENVIRONMENT, ""), *values)
                found[key].append((point.time_unix_nano, point.as_double or point.as_int))
    return {key: max(values)[1] for key, values in found.items()}


def truth(gateway, resources=RESOURCES, *, by_site=False, at=NOW):
    """Return the usage that is visible, by environment or site, day and resource."""
    names = {each.id: "development" if each.key == "default" else each.key for each in gateway.environments}
    return {
        (each.group if by_site else names[each.group], each.day.isoformat(), each.resource): each.amount
        for each in gateway.usage(START, END, resources=resources, by_site=by_site, at=at)
    }


def totals(amounts, *positions):
    """Add amounts up by some parts of their keys; the day becomes its month."""
    found = defaultdict(Decimal)
    for (group, day, resource), amount in amounts.items():
        found[tuple((group, day[:7], resource)[position] for position in positions)] += amount
    return found


def assert_equal(found, expected):
    """Compare to the sixth decimal; zeros are days without usage."""
    assert {key: f"{value:.6f}" for key, value in found.items() if value} == {
        key: f"{float(value):.6f}" for key, value in expected.items() if value
    }


def test_days_and_months_are_what_the_gateway_knows(gateway, sink, connect):
    connect(gateway, sink)
    run()
    amounts = truth(gateway)
    assert_equal(latest(sink, "forge.usage.daily"), amounts)
    assert_equal(latest(sink, "forge.usage.monthly"), totals(amounts, 0, 1, 2))
    prices = load_prices().resources
    costs = {
        (*("", month), resource): prices[resource].cost(used)
        for (month, resource), used in totals(amounts, 1, 2).items()
    }
    assert_equal(latest(sink, "forge.usage.cost"), costs)
    assert latest(sink, "forge.usage.allowance") == {
        ("", resource): float(price.allowance) for resource, price in prices.items()
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_month_costs_what_was_computed_by_hand(gateway, sink, connect, monkeypatch, name):
    """The dashboard adds these values up."""
    amounts, total = EXAMPLES[name]
    monkeypatch.setattr(
        usage_module, "read_usage", reading({key: used for key, (used, _) in amounts.items()})
    )
    connect(gateway, sink)
    assert Decimal(run()["cost"]) == Decimal(total)
    costs = latest(sink, "forge.usage.cost")
    of_month = {key: value for (_, month, key), value in costs.items() if month == MONTH and value}
    assert of_month == {key: float(cost) for key, (_, cost) in amounts.items() if Decimal(cost)}
    assert sum(of_month.values()) == pytest.approx(float(total), abs=1e-9)


def test_the_summary_is_that_of_the_running_month(gateway, sink, connect):
    connect(gateway, sink)
    summary = run(budget=50)
    assert summary["month"] == MONTH
    assert (summary["resources"], summary["refused"]) == (list(RESOURCES), [])
    assert summary["calls"] >= 12
    costs = latest(sink, "forge.usage.cost")
    assert float(summary["cost"]) == pytest.approx(
        sum(value for (_, month, _), value in costs.items() if month == MONTH)
    )
    forecasts = latest(sink, "forge.usage.cost.forecast")
    assert float(summary["forecast"]) == pytest.approx(sum(forecasts.values()), abs=1e-5)
    assert float(summary["forecast"]) >= float(summary["cost"])
    assert latest(sink, "forge.usage.budget") == {("",): 50.0}
    json.dumps(summary)


def test_points_have_the_time_of_the_observation_and_the_identity_of_the_app(gateway, sink, connect):
    connect(gateway, sink)
    before = datetime.now(timezone.utc)
    run(usage_resources="KVS_READ")
    after = datetime.now(timezone.utc)
    [request] = sink.requests
    for resource in request.message.resource_metrics:
        attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
        assert attributes["atlassian.forge.app.id"] == APP
        assert attributes["service.name"] == f"forge-app-{APP}"
        of_environment = "atlassian.forge.environment.id" in attributes
        assert attributes[INSTANCE] == (
            attributes["atlassian.forge.environment.id"] if of_environment else APP
        )
        for scope in resource.scope_metrics:
            assert scope.scope.name == "atlassian.forge.app_usage"
            for metric in scope.metrics:
                for point in metric.gauge.data_points:
                    time = point.time_unix_nano / 1e9
                    assert before.timestamp() - 0.001 <= time <= after.timestamp() + 0.001


def test_a_rerun_changes_nothing_and_a_revised_day_replaces(sink, connect):
    moment = NOW - timedelta(days=2)
    with SandboxGateway(rate_limit_calls=0, clock=lambda: moment.timestamp()) as gateway:
        connect(gateway, sink)
        # The gateway's clock moves from day to day; the observations follow each other by the real one.
        for days in (0, 0, 1, 2, 2):
            moment = NOW - timedelta(days=2) + timedelta(days=days)
            run(usage_resources="FUNCTION_COMPUTE,OS_REQUESTS")
            amounts = truth(gateway, ["FUNCTION_COMPUTE", "OS_REQUESTS"], at=moment)
            assert_equal(latest(sink, "forge.usage.daily"), amounts)
            assert_equal(latest(sink, "forge.usage.monthly"), totals(amounts, 0, 1, 2))


def test_an_older_observation_that_arrives_later_does_not_win(gateway, sink, connect, monkeypatch):
    """A task may be stopped between reading and sending, for hours."""
    connect(gateway, sink)
    run(usage_resources="KVS_READ")
    before = latest(sink, "forge.usage.daily")
    real = ForgeMetricsHook.fetch_usage

    def fetch_usage(*arguments):
        usage = real(*arguments)
        return dataclasses.replace(usage, observed_at=usage.observed_at - timedelta(hours=1))

    monkeypatch.setattr(ForgeMetricsHook, "fetch_usage", fetch_usage)
    with SandboxGateway(Scenario(seed=2), rate_limit_calls=0) as other:
        connect(other, sink)
        run(usage_resources="KVS_READ")
    assert len(sink.requests) == 2
    assert latest(sink, "forge.usage.daily") == before


def test_by_site(gateway, sink, connect):
    connect(gateway, sink)
    run(usage_resources=["KVS_READ", "OS_REQUESTS"], group_by="site")
    amounts = truth(gateway, ["KVS_READ", "OS_REQUESTS"], by_site=True)
    found = latest(sink, "forge.usage.site.daily")
    assert_equal({(site, day, resource): value for (_, day, resource, site), value in found.items()}, amounts)
    assert not latest(sink, "forge.usage.daily")
    # The app's metrics are the same as by environment.
    assert_equal(
        {key[1:]: value for key, value in latest(sink, "forge.usage.cost").items()},
        {
            (month, resource): load_prices().resources[resource].cost(used)
            for (month, resource), used in totals(amounts, 1, 2).items()
        },
    )


def test_every_instrument_is_sent_by_some_task(gateway, sink, connect):
    connect(gateway, sink)
    run(budget=1, usage_resources=["FUNCTION_COMPUTE", "KVS_READ"])
    run(group_by="site", usage_resources="LLM_INPUT")
    sent = {point.metric for request in sink.requests for point in request.points}
    assert sent == {instrument.name for instrument in metrics.INSTRUMENTS}


def test_a_resource_that_is_refused_or_unknown_holds_back_none_of_the_others(sink, connect, caplog):
    scenario = Scenario(
        refused_resources=frozenset({"LLM_INPUT"}), unknown_resources=frozenset({"FUNCTION_COMPUTE"})
    )
    with SandboxGateway(scenario, rate_limit_calls=0) as gateway, caplog.at_level(logging.WARNING):
        connect(gateway, sink)
        summary = run()
    assert summary["refused"] == ["FUNCTION_COMPUTE", "LLM_INPUT"]
    assert len(summary["resources"]) == 10
    assert {key[-1] for key in latest(sink, "forge.usage.daily")} == set(RESOURCES) - set(summary["refused"])
    assert "The usage of LLM_INPUT is left out" in caplog.text


def test_if_all_are_refused_the_task_fails_for_good(sink, connect):
    with SandboxGateway(Scenario(insufficient_scopes=True), rate_limit_calls=0) as gateway:
        connect(gateway, sink)
        with pytest.raises(AirflowFailException, match="lacks a scope"):
            run()
    assert sink.requests == []


def test_a_resource_that_fails_is_retried_once_the_others_are_sent(gateway, sink, connect):
    connect(gateway, sink)
    gateway.add_fault(Fault("query_error", operation="appResourceUsage", calls=[3]))
    with pytest.raises(GatewayUnavailable):
        run(usage_resources=["KVS_READ", "KVS_WRITE", "LOGS_WRITE"])
    assert {key[-1] for key in latest(sink, "forge.usage.daily")} == {"KVS_READ", "LOGS_WRITE"}
    run(usage_resources=["KVS_READ", "KVS_WRITE", "LOGS_WRITE"])
    assert {key[-1] for key in latest(sink, "forge.usage.daily")} == {"KVS_READ", "KVS_WRITE", "LOGS_WRITE"}


def test_wrong_credentials_cost_one_call(gateway, sink, connect):
    connect(gateway, sink)
    gateway.api_token = "another"
    with pytest.raises(AirflowFailException, match="credentials"):
        run()
    assert len(gateway.calls) == 1


def test_large_requests_are_split(gateway, sink, connect):
    connect(gateway, sink, otlp={"max_body_bytes": 5_000})
    run(usage_resources="KVS_READ")
    assert len(sink.requests) > 2
    assert max(len(request.body) for request in sink.requests) <= 5_000
    assert_equal(latest(sink, "forge.usage.daily"), truth(gateway, ["KVS_READ"]))


def test_prices_come_from_the_connection_or_the_argument(gateway, sink, connect):
    connect(gateway, sink, forge={"usage_prices": {"KVS_READ": {"price": 1, "allowance": 0}}})
    run(usage_resources="KVS_READ")
    used = sum(value for key, value in latest(sink, "forge.usage.monthly").items() if key[1] == MONTH)
    assert latest(sink, "forge.usage.cost")["", MONTH, "KVS_READ"] == pytest.approx(used)
    run(usage_resources="KVS_READ", prices={"KVS_READ": {"price": 2, "allowance": 0}})
    assert latest(sink, "forge.usage.cost")["", MONTH, "KVS_READ"] == pytest.approx(2 * used)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"group_by": "version"}, "group_by"),
        ({"lookback": timedelta(0)}, "lookback"),
        ({"lookback": timedelta(days=29)}, "lookback"),
        ({"lookback": timedelta(days=-7)}, "lookback"),
        *(({"lookback": value}, "lookback") for value in (7, "7", None)),
        *(({"group_by": value}, "group_by") for value in ("", None, ["site"])),
        *(
            ({"budget": value}, "budget")
            for value in (
                -1,
                "-0.01",
                "abc",
                "",
                "nan",
                float("nan"),
                "inf",
                float("-inf"),
                "1e400",
                True,
                [5],
            )
        ),
    ],
)
def test_a_wrong_option_names_its_field(arguments, field):
    with pytest.raises(ConfigurationError) as raised:
        ForgeUsageToOtlpOperator(task_id="usage", **arguments)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"usage_resources": "NO_SUCH"}, "usage_resources: 'NO_SUCH' is not one of FUNCTION_COMPUTE"),
        ({"usage_resources": " , "}, "usage_resources: is empty"),
        ({"usage_resources": 5}, "usage_resources: give a list of names"),
        ({"prices": 5}, "prices: is not an object of resources"),
        ({"prices": "nan"}, "prices: cannot read 'nan'"),
        ({"prices": {"KVS_READ": {"price": -1}}}, "prices: KVS_READ: price: -1 is not"),
    ],
)
def test_a_wrong_argument_fails_the_task_before_any_call(gateway, sink, connect, arguments, message):
    connect(gateway, sink)
    with pytest.raises(AirflowFailException, match=message):
        run(**arguments)
    assert gateway.calls == []


def test_a_wrong_price_in_the_connection_names_it(gateway, sink, connect):
    connect(gateway, sink, forge={"usage_prices": '{"KVS_READ": {}}'})
    with pytest.raises(
        AirflowFailException, match="forge_default: usage_prices: KVS_READ: price: is missing"
    ):
        run()


HOST = re.compile(r"[0-9a-f]{8}\.sites\.example")


def site_info(sink):
    """Return the attributes of the points of `forge.site`."""
    return [dict(point.attributes) for point in sink.points if point.metric == "forge.site"]


def test_the_names_of_sites_are_sent_on_request(gateway, sink, connect):
    connect(gateway, sink)
    run(usage_resources="KVS_READ", export_sites=True)
    found = {each["contextAri"]: each for each in site_info(sink)}
    assert set(found) == set(context_aris(gateway._account, APP))
    for ari, attributes in found.items():
        tenant = Tenant(ari.rpartition("/")[2])
        names = {"forge.site.host": tenant.host, "forge.site.edition": tenant.edition}
        known = {name: text for name, text in names.items() if text}
        assert attributes == {"contextAri": ari, "forge.site.id": tenant.cloud_id, **known}
    # Joined by the attribute that metrics have.
    of_metrics = gateway.generated(START, START + timedelta(minutes=15), environments=["production"])
    assert {dict(point.attributes).get("contextAri") for point in of_metrics} - {None} <= set(found)


def test_by_default_no_output_contains_the_host_name_of_a_site(gateway, sink, connect, caplog):
    connect(gateway, sink)
    with caplog.at_level(logging.DEBUG):
        summary = run(usage_resources=["KVS_READ", "OS_REQUESTS"], group_by="site")
        ForgeMetricsToOtlpOperator(task_id="export").execute(
            {"data_interval_start": QUARTER.start, "data_interval_end": QUARTER.end}
        )
    assert not site_info(sink)
    assert len(sink.requests) > 1
    everything = [repr(request.message) for request in sink.requests]
    assert not HOST.search("\n".join([*everything, caplog.text, json.dumps(summary)]))
    assert {call.operation for call in gateway.calls} == {"app", "appMetrics", "appResourceUsage"}


def test_if_the_names_of_sites_are_refused_usage_is_sent_nevertheless(gateway, sink, connect, caplog):
    connect(gateway, sink)
    gateway.add_fault(Fault("errors", operation="tenantContexts", status_code=403))
    run(usage_resources="KVS_READ", export_sites=True)
    assert not site_info(sink)
    assert latest(sink, "forge.usage.daily")
    assert "The series forge.site is left out: Atlassian does not let this account" in caplog.text


@pytest.mark.parametrize("status", [401, 500])
def test_if_the_look_up_of_sites_fails_usage_has_been_sent(gateway, sink, connect, status):
    connect(gateway, sink)
    gateway.add_fault(Fault("status", operation="tenantContexts", status=status))
    with pytest.raises((AirflowFailException, GatewayUnavailable)):
        run(usage_resources="KVS_READ", export_sites=True)
    assert not site_info(sink)
    assert latest(sink, "forge.usage.daily")
