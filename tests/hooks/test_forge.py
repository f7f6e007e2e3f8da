"""The hook as a task uses it: a Connection in, calls to a stand-in gateway, typed answers and errors out."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import threading
import traceback
from collections import Counter
from datetime import date, datetime, timedelta, timezone

import pytest

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    BrokenAnswer,
    ConfigurationError,
    CredentialsRefused,
    ForgeError,
    GatewayUnavailable,
    QueryRefused,
    RateLimited,
    WindowExpired,
)
from airflow_provider_forge.gateway.budget import Priority
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.gateway.ratelimit import RateLimiter
from airflow_provider_forge.gateway.ratelimit_stores import FileStore, RedisStore
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.sandbox import Fault, SandboxGateway, Scenario
from airflow_provider_forge.utils import runtime, secrets
from airflow_provider_forge.windows import Window
from tests.airflow_version import AIRFLOW

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
OTHER_APP = "11111111-2222-4333-8444-555555555555"
PRODUCTION = "8cb293d5-be08-47ae-a75c-95b89da5ad1d"
EMAIL, TOKEN = "dev@example.com", "c4n4ry-t0ken-of-the-account"
BASIC = base64.b64encode(f"{EMAIL}:{TOKEN}".encode()).decode()
LEFT_OUT = object()


@pytest.fixture
def gateway():
    with SandboxGateway(Scenario(), email=EMAIL, api_token=TOKEN, rate_limit_calls=None) as gateway:
        yield gateway


@pytest.fixture
def connection(gateway, monkeypatch):
    """Set the Connection `forge_default`: that of the gateway, but for the fields given."""

    def connection(extra=None, conn_id: str = "forge_default", **fields) -> None:
        default = {"host": gateway.url, "login": EMAIL, "password": TOKEN}
        fields = {"conn_type": "forge", **default, **fields}
        if not isinstance(extra, str):
            extra = {
                "app_id": gateway.app_id,
                "rate_limit_calls": 100,
                "rate_limit_seconds": 0.1,
                **(extra or {}),
            }
            extra = {name: value for name, value in extra.items() if value is not LEFT_OUT}
        fields = {name: value for name, value in fields.items() if value is not LEFT_OUT}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({**fields, "extra": extra}))

    connection()
    return connection


@pytest.fixture
def variables(monkeypatch):
    """Airflow Variables, which can be set only with an Airflow around: here they last as long as a test."""
    stored: dict[str, str] = {}

    class Variable:
        @staticmethod
        def get(key, default):
            return stored.get(key, default)

        @staticmethod
        def set(key, value, description):
            stored[key] = value

    monkeypatch.setattr(secrets, "Variable", Variable)
    return stored


@pytest.fixture
def window():
    return Window.last_settled(datetime.now(timezone.utc))


@pytest.fixture
def fetch(connection, variables, window):
    """Fetch the last settled window as a task does: with a hook of its own."""
    return lambda **options: ForgeMetricsHook().fetch(window.start, window.end, **options)


def assert_tells_no_secret(text: str) -> None:
    assert TOKEN not in text
    assert BASIC not in text


def test_the_token_goes_to_another_machine_in_clear_text_only_if_that_is_allowed(connection):
    connection(host="http://gateway.example/graphql")
    with pytest.raises(ConfigurationError, match="allow_cleartext") as refused:
        ForgeMetricsHook().get_conn()
    assert refused.value.field == "forge_default: host"
    connection({"allow_cleartext": True}, host="http://gateway.example/graphql")
    ForgeMetricsHook().get_conn()
    connection({"allow_cleartext": "yes"}, host="http://gateway.example/graphql")
    with pytest.raises(ConfigurationError, match="neither true nor false"):
        ForgeMetricsHook().get_conn()


# What it fetches


def test_the_connection_has_the_app_and_the_gateway(fetch, gateway, window):
    answer = fetch()
    look_up, call = gateway.calls
    assert (look_up.operation, call.operation) == ("app", "appMetrics")
    assert call.app_id == gateway.app_id
    assert (call.start, call.end) == (window.start, window.end)
    assert call.environments == (PRODUCTION,)
    assert call.metrics == DEFAULT_METRICS
    assert (answer.app_id, answer.window, answer.metrics) == (APP, window, DEFAULT_METRICS)
    assert [(each.id, each.name) for each in answer.environments] == [(PRODUCTION, "production")]
    assert answer.request_id == call.request_id
    assert json.loads(answer.resource_metrics)


@pytest.mark.parametrize("environments", [["production", "default"], "production, default"])
@pytest.mark.parametrize("metrics", [["FORGE_API_REQUEST_COUNT"], "FORGE_API_REQUEST_COUNT,"])
@pytest.mark.parametrize("where", ["arguments", "extras"])
def test_environments_and_metrics_are_lists_or_text_in_arguments_or_extras(
    connection, fetch, gateway, environments, metrics, where
):
    wanted = {"environments": environments, "metrics": metrics}
    if where == "extras":
        connection(wanted)
    answer = fetch(**(wanted if where == "arguments" else {}))
    development = next(each.id for each in gateway.environments if each.key == "default")
    assert [each.name for each in answer.environments] == ["production", "development"]
    assert gateway.calls[-1].environments == (PRODUCTION, development)
    assert gateway.calls[-1].metrics == ("FORGE_API_REQUEST_COUNT",)
    assert [call.operation for call in gateway.calls] == ["app", "appMetrics"]


def test_arguments_win_over_the_connection(connection, variables, gateway, window):
    connection({"environments": "nonsense", "metrics": "NONSENSE", "app_id": OTHER_APP})
    wanted = {"environments": "production", "metrics": "FORGE_API_REQUEST_COUNT"}
    answer = ForgeMetricsHook(app_id=APP).fetch(window.start, window.end, **wanted)
    assert answer.app_id == APP
    assert gateway.calls[-1].environments == (PRODUCTION,)
    assert gateway.calls[-1].metrics == ("FORGE_API_REQUEST_COUNT",)


def test_a_label_that_the_gateway_does_not_know_is_left_out_for_all_tasks(fetch, gateway, caplog):
    labels = ["FORGE_METRIC_OF_2031", "FORGE_API_REQUEST_COUNT"]
    assert fetch(metrics=labels).metrics == ("FORGE_API_REQUEST_COUNT",)
    assert fetch(metrics=labels).metrics == ("FORGE_API_REQUEST_COUNT",)
    asked = [call.metrics for call in gateway.calls if call.metrics]
    assert asked.count(("FORGE_API_REQUEST_COUNT",)) == 2
    assert len(asked) <= 3
    assert caplog.text.count("does not know the metrics FORGE_METRIC_OF_2031") == 1


def test_a_gateway_of_2023_costs_one_call_more_and_delivers_what_it_knows(connection, variables, window):
    """The gateway names each label that it does not know, all in one answer."""
    published, newer = DEFAULT_METRICS[:5], DEFAULT_METRICS[5:]
    scenario = Scenario(unknown_metrics=frozenset(newer))
    with SandboxGateway(scenario, email=EMAIL, api_token=TOKEN, rate_limit_calls=None) as gateway:
        connection(host=gateway.url)
        assert ForgeMetricsHook().left_out_metrics() == ()
        for _ in range(2):
            answer = ForgeMetricsHook().fetch(window.start, window.end)
            assert (answer.metrics, answer.left_out) == (published, newer)
        asked = [call.outcome for call in gateway.calls if call.operation == "appMetrics"]
    assert asked == ["invalid", "ok", "ok"]
    assert ForgeMetricsHook().left_out_metrics() == newer
    connection({"metrics": DEFAULT_METRICS[4:6]}, host=gateway.url)
    assert ForgeMetricsHook().left_out_metrics() == newer[:1]


def test_an_unknown_label_is_passed_on_as_it_is(fetch, gateway):
    with pytest.raises(QueryRefused, match="Check the requested metrics"):
        fetch(metrics=["FORGE_METRIC_OF_2031"])
    assert [call.outcome for call in gateway.calls] == ["ok", "invalid"]


@pytest.mark.parametrize(
    "app_id", [OTHER_APP, f"  {OTHER_APP.upper()} ", f"ari:cloud:ecosystem::app/{OTHER_APP}"]
)
@pytest.mark.parametrize("where", ["argument", "extra"])
def test_the_app_is_the_hooks_or_the_connections(connection, variables, gateway, window, app_id, where):
    connection({"app_id": app_id if where == "extra" else APP})
    hook = ForgeMetricsHook(app_id=app_id if where == "argument" else None)
    assert hook.fetch(window.start, window.end).app_id == OTHER_APP
    assert {call.app_id for call in gateway.calls} == {f"ari:cloud:ecosystem::app/{OTHER_APP}"}


def test_times_may_be_text(connection, variables, gateway, window):
    ForgeMetricsHook().fetch(window.start.isoformat(), window.end.in_timezone("Asia/Kathmandu").isoformat())
    assert (gateway.calls[-1].start, gateway.calls[-1].end) == (window.start, window.end)


def test_another_connection_is_another_account(connection, variables, gateway, window):
    connection(conn_id="forge_2", password="wrong")
    with pytest.raises(CredentialsRefused):
        ForgeMetricsHook("forge_2").fetch(window.start, window.end)
    ForgeMetricsHook(forge_conn_id="forge_default").fetch(window.start, window.end)


def test_without_a_host_it_is_atlassians(connection):
    for host in (LEFT_OUT, "", None):
        connection(host=host)
        assert ForgeMetricsHook()._url() == "https://api.atlassian.com/graphql"


@pytest.mark.parametrize(("extra", "name"), [({}, None), ({"service_name": " My app "}, "My app")])
def test_the_connection_may_name_the_service(connection, extra, name):
    connection(extra)
    assert ForgeMetricsHook().service_name == name


# Bad input: each is refused before any call for metrics, by the name of the field

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda start, end: (end, start), "end", "is not after the start"),
        (lambda start, end: (start, start), "end", "is not after the start"),
        (lambda start, end: (start, end + MINUTE), "end", "15 minutes"),
        (lambda start, end: (start.naive(), end), "start", "has no UTC offset"),
        (lambda start, end: (start, end.naive().isoformat()), "end", "has no UTC offset"),
        (lambda start, end: ("yesterday", end), "start", "is not a time"),
        (lambda start, end: (start, "{{ data_interval_end }}"), "end", "is not a time"),
        (lambda start, end: (None, end), "start", "is not a time"),
        (lambda start, end: (start, 1763874900), "end", "is not a time"),
        (lambda start, end: ("0001-01-01T00:00:00+14:00", end), "start", "is not a time"),
    ],
)
def test_bad_times(connection, gateway, window, change, field, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        ForgeMetricsHook().fetch(*change(window.start, window.end))
    assert caught.value.field == field
    assert gateway.calls == []


def test_a_window_from_more_than_14_days_ago(connection, gateway):
    start = datetime.now(timezone.utc) - timedelta(days=14, seconds=1)
    with pytest.raises(WindowExpired, match="14 days"):
        ForgeMetricsHook().fetch(start, start + timedelta(minutes=15))
    assert gateway.calls == []


BAD_FIELDS = [
    ({"login": LEFT_OUT}, "forge_default: login", "email of the Atlassian account"),
    ({"login": ""}, "forge_default: login", "email of the Atlassian account"),
    ({"password": LEFT_OUT}, "forge_default: password", "id.atlassian.com/manage/api-tokens"),
    ({"password": ""}, "forge_default: password", "id.atlassian.com/manage/api-tokens"),
    ({"password": "token\n"}, "forge_default: password", "whitespace"),
    ({"port": 443}, "forge_default: port", "write it into the host"),
    ({"host": "api.atlassian.com"}, "forge_default: host", "not an http"),
    ({"host": "ftp://example.com"}, "forge_default: host", "not an http"),
    ({"host": "https://host:99999"}, "forge_default: host", "not a URL"),
    ({"host": "https://host/?key=1"}, "forge_default: host", "query"),
    ({"host": "https://gateway..example/graphql"}, "forge_default: host", "URL"),
    ({"extra": {"app_id": LEFT_OUT}}, "app_id", "extra app_id of forge_default"),
    ({"extra": {"app_id": " "}}, "app_id", "extra app_id of forge_default"),
    ({"extra": {"app_id": "my-app"}}, "app_id", "ari:cloud:ecosystem::app/<uuid>"),
    ({"extra": {"app_id": f"ari:cloud:ecosystem::app/{APP[:-1]}"}}, "app_id", "<uuid>"),
    ({"extra": {"app_id": 5}}, "forge_default: app_id", "is not text"),
    ({"extra": {"environments": []}}, "environments", "is empty"),
    ({"extra": {"environments": " , "}}, "environments", "is empty"),
    ({"extra": {"environments": {"production": True}}}, "environments", "comma-separated"),
    ({"extra": {"metrics": []}}, "metrics", "is empty"),
    ({"extra": {"metrics": "FORGE API"}}, "metrics", "'FORGE API' is not a metric label"),
    ({"extra": {"timeout": 0}}, "forge_default: timeout", "number above 0"),
    ({"extra": {"timeout": "soon"}}, "forge_default: timeout", "number above 0"),
    ({"extra": {"rate_limit_calls": 0}}, "forge_default: rate_limit_calls", "number above 0"),
    ({"extra": {"rate_limit_calls": 2.5}}, "forge_default: rate_limit_calls", "whole number"),
    ({"extra": {"rate_limit_seconds": -60}}, "forge_default: rate_limit_seconds", "number above 0"),
    ({"extra": {"rate_limit_seconds": "NaN"}}, "forge_default: rate_limit_seconds", "number above 0"),
    # Before 3.2, Airflow makes no Connection of it at all.
    ({"extra": '["app_id"]'}, "forge_default: extra" if AIRFLOW >= (3, 2) else "forge_conn_id", "object"),
]


@pytest.mark.parametrize(("fields", "field", "words"), BAD_FIELDS)
def test_a_bad_field_of_the_connection(connection, fetch, gateway, fields, field, words):
    connection(**fields)
    with pytest.raises(ConfigurationError) as caught:
        fetch()
    assert caught.value.field == field
    assert words in str(caught.value)
    assert_tells_no_secret("".join(traceback.format_exception(caught.value)))
    assert gateway.calls == []


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        # An empty list is a mistake in the DAG, not a wish for the default: nobody means "no environment".
        ({"environments": []}, "environments", "is empty"),
        ({"metrics": []}, "metrics", "is empty"),
        ({"metrics": ()}, "metrics", "is empty"),
        ({"environments": ["", " "]}, "environments", "is empty"),
        ({"environments": 5}, "environments", "comma-separated"),
        ({"environments": ["production", 5]}, "environments", "comma-separated"),
        ({"metrics": ["FORGE-API"]}, "metrics", "'FORGE-API' is not a metric label"),
        ({"environments": f"ari:cloud:ecosystem::environment/{APP}"}, "environments", "is malformed"),
        (
            {"environments": f"ari:cloud:ecosystem::environment/{OTHER_APP}/{PRODUCTION}"},
            "environments",
            "does not belong to the app",
        ),
    ],
)
def test_a_bad_argument(fetch, gateway, arguments, field, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        fetch(**arguments)
    assert caught.value.field == field
    assert gateway.calls == []


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_text_from_an_unset_template_means_the_default(fetch, gateway, empty):
    answer = fetch(environments=empty, metrics=empty)
    assert [each.name for each in answer.environments] == ["production"]
    assert answer.metrics == DEFAULT_METRICS


def test_an_unknown_environment_costs_a_look_up_but_no_call_for_metrics(fetch, gateway):
    with pytest.raises(ConfigurationError) as caught:
        fetch(environments=["production", "prodution"])
    assert caught.value.field == "environments"
    assert "'prodution'" in str(caught.value)
    assert "There are: development, feature-x, production, staging" in str(caught.value)
    assert [call.operation for call in gateway.calls] == ["app"]


def test_a_connection_that_is_not_there(window):
    with pytest.raises(ConfigurationError, match="there is no Connection 'forge_9'") as caught:
        ForgeMetricsHook("forge_9").fetch(window.start, window.end)
    assert caught.value.field == "forge_conn_id"


@pytest.mark.parametrize(
    "host",
    [
        f"https://{EMAIL}:{TOKEN}@api.atlassian.com/graphql",
        f"https://dev:{TOKEN}@api.atlassian.com/graphql",
        f"//dev:{TOKEN}@api.atlassian.com",
        f"dev:{TOKEN}@api.atlassian.com/graphql",
        f"{EMAIL}:{TOKEN}@api.atlassian.com/graphql",
        f"https://api.atlassian.com/graphql?token={TOKEN}",
        f"https://api.atlassian.com/graphql#{TOKEN}",
    ],
)
def test_a_host_with_credentials_in_it_is_not_repeated(connection, fetch, gateway, host):
    connection(host=host)
    with pytest.raises(ConfigurationError) as caught:
        fetch()
    assert caught.value.field == "forge_default: host"
    assert_tells_no_secret("".join(traceback.format_exception(caught.value)) + repr(caught.value))
    assert gateway.calls == []


# Failures of the gateway: each channel once; all their forms are in tests/gateway/test_client.py


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("status", status=401), CredentialsRefused),
        (Fault("errors", status_code=403), AccessForbidden),
        (Fault("status", status=429, operation="appMetrics"), RateLimited),
        (Fault("query_error", status_code=400), QueryRefused),
        (Fault("html", status=502), GatewayUnavailable),
        (Fault("null", level="ecosystem", operation="appMetrics"), BrokenAnswer),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
@pytest.mark.parametrize("environments", ["production", PRODUCTION])
def test_a_failure_is_one_typed_error_with_a_request_id(fetch, gateway, fault, kind, environments, caplog):
    caplog.set_level(logging.DEBUG)
    gateway.add_fault(fault)
    with pytest.raises(ForgeError) as caught:
        fetch(environments=environments)
    assert type(caught.value) is kind
    assert caught.value.request_id == gateway.calls[-1].request_id
    assert_tells_no_secret("".join(traceback.format_exception(caught.value)) + repr(caught.value))
    assert_tells_no_secret(caplog.text)


def test_nothing_secret_or_bulky_is_logged_on_success(fetch, gateway, caplog):
    caplog.set_level(logging.DEBUG)
    answer = fetch(environments=["production", PRODUCTION])
    assert_tells_no_secret(caplog.text)
    assert answer.resource_metrics.decode()[:200] not in caplog.text


def test_airflow_masks_the_token_as_encoded_for_http_basic(connection, monkeypatch):
    masked: list[str] = []
    monkeypatch.setattr(runtime, "mask_secret", masked.append)
    ForgeMetricsHook().get_conn()
    assert BASIC in masked


# Looked-up environments are remembered


def test_a_name_is_looked_up_once_for_all_tasks(fetch, gateway):
    for _ in range(3):
        fetch(environments="staging")
    fetch(environments="default")
    assert [call.operation for call in gateway.calls] == ["app", *["appMetrics"] * 4]


def test_a_renamed_environment_keeps_its_exported_name(fetch, gateway):
    first = fetch(environments=PRODUCTION).environments
    gateway.rename_environment(PRODUCTION, "renamed")
    assert fetch(environments=PRODUCTION).environments == first
    assert first[0].name == "production"


def test_an_id_whose_look_up_failed_is_exported_without_a_name_for_good(fetch, gateway):
    gateway.add_fault(Fault("status", status=500, operation="app"))
    first = fetch(environments=PRODUCTION).environments
    gateway.clear_faults()
    assert first[0].name is None
    assert fetch(environments=PRODUCTION).environments == first
    assert [call.operation for call in gateway.calls] == ["app", "appMetrics", "appMetrics"]


def test_apps_and_gateways_have_caches_of_their_own(connection, variables, gateway, window):
    ForgeMetricsHook().fetch(window.start, window.end)
    ForgeMetricsHook(app_id=OTHER_APP).fetch(window.start, window.end)
    with SandboxGateway(email=EMAIL, api_token=TOKEN) as another:
        connection(host=another.url)
        ForgeMetricsHook().fetch(window.start, window.end)
        assert [call.operation for call in another.calls] == ["app", "appMetrics"]
    assert [call.operation for call in gateway.calls] == ["app", "appMetrics"] * 2
    assert len(variables) == 3
    assert all(key.startswith("forge_environments_") for key in variables)
    assert_tells_no_secret(json.dumps(variables))


@pytest.mark.parametrize("store", ["file", "redis"])
@pytest.mark.parametrize("environments", ["production", PRODUCTION])
def test_outside_of_a_task_environments_are_cached_beside_the_rate_limit(
    connection, gateway, window, request, store, environments
):
    """And with several teams, where one cannot read the Variable of another."""
    if store == "redis":
        server = request.getfixturevalue("redis_server")
        connection({"rate_limit_store": server.url, "rate_limit_seconds": 0.1})
    for _ in range(3):
        ForgeMetricsHook().fetch(window.start, window.end, environments)
    assert [call.operation for call in gateway.calls] == ["app", *["appMetrics"] * 3]


def test_of_several_processes_at_once_one_looks_up(connection, gateway, window):
    start = threading.Barrier(8)

    def fetch() -> None:
        start.wait()
        ForgeMetricsHook().fetch(window.start, window.end, PRODUCTION)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    operations = Counter(call.operation for call in gateway.calls)
    assert operations == {"app": 1, "appMetrics": 8}


@pytest.mark.parametrize("content", [b"[" * 100_000, b"5", b"\xff", b'{"names": 5}'])
def test_a_damaged_cache_beside_the_rate_limit_counts_as_empty(
    connection, gateway, window, tmp_path, content
):
    ForgeMetricsHook().fetch(window.start, window.end)
    (file,) = (tmp_path / "airflow-provider-forge").glob("environments_*.json")
    file.write_bytes(content)
    ForgeMetricsHook().fetch(window.start, window.end)
    assert [call.operation for call in gateway.calls] == ["app", "appMetrics"] * 2


# One budget for an account


def limit_store_of(hook: ForgeMetricsHook):
    return hook.get_conn().limiter.store


def test_every_call_uses_a_slot_look_ups_too(connection, fetch, gateway, tmp_path):
    # Uses that are over are forgotten: none is, however slow the machine.
    connection({"rate_limit_seconds": 3600})
    fetch()
    fetch()
    (file,) = (tmp_path / "airflow-provider-forge").glob("?" * 32 + ".json")
    assert len(json.loads(file.read_bytes())["uses"]) == len(gateway.calls) == 3


def test_the_limit_is_the_connections(connection):
    connection()
    connection({"rate_limit_calls": LEFT_OUT, "rate_limit_seconds": LEFT_OUT})
    default = limit_store_of(ForgeMetricsHook())
    assert (default.calls, default.period) == (5, 61.0)
    connection({"rate_limit_calls": "7", "rate_limit_seconds": 30})
    changed = limit_store_of(ForgeMetricsHook())
    assert (changed.calls, changed.period) == (7, 30.5)
    assert changed.path == default.path, "it is the same account's budget"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {"login": EMAIL.upper()}, True),
        ({}, {"extra": {"app_id": OTHER_APP, "environments": "staging"}}, True),
        ({}, {"password": "another-token-of-the-account"}, True),
        ({"host": LEFT_OUT}, {"host": "https://api.atlassian.com/graphql"}, True),
        # Written differently, but the same gateway counts the calls.
        ({"host": LEFT_OUT}, {"host": "https://API.Atlassian.com/graphql"}, True),
        ({"host": LEFT_OUT}, {"host": "https://api.atlassian.com/graphql/"}, True),
        ({"host": LEFT_OUT}, {"host": "https://api.atlassian.com:443/graphql"}, True),
        ({}, {"login": "someone-else@example.com"}, False),
        ({}, {"host": "https://api.atlassian-us-gov-mod.com/graphql"}, False),
    ],
)
def test_all_connections_of_an_account_at_a_gateway_share_one_file(connection, one, other, same):
    connection(**one)
    first = limit_store_of(ForgeMetricsHook()).path
    connection(conn_id="forge_2", **other)
    second = limit_store_of(ForgeMetricsHook("forge_2")).path
    assert (first == second) == same
    assert EMAIL not in str(first)


def test_all_connections_of_an_account_share_one_redis_key_without_its_email(connection):
    store = {"rate_limit_store": "redis://host/1", "rate_limit_calls": "7", "rate_limit_seconds": 30}
    connection(store)
    first = limit_store_of(ForgeMetricsHook())
    connection({**store, "app_id": OTHER_APP}, conn_id="forge_2", login=EMAIL.upper())
    second = limit_store_of(ForgeMetricsHook("forge_2"))
    assert isinstance(first, RedisStore)
    assert first.key == second.key
    assert EMAIL not in first.key
    assert (first.calls, first.period) == (7, 30.5)


def test_with_redis_every_call_uses_a_slot_there_and_no_file_is_created(
    connection, fetch, gateway, redis_server, tmp_path, monkeypatch
):
    # Not the minute for which a Redis that has just been started lets nobody in; the key lives for as long.
    connection({"rate_limit_store": redis_server.url, "rate_limit_seconds": 3})
    fetch()
    key, beside = sorted(redis_server.client.keys(), key=lambda key: ":environments_" in key)
    assert ":environments_" in beside
    assert len(json.loads(redis_server.client.get(key))["uses"]) >= 1
    assert list((tmp_path / "airflow-provider-forge").iterdir()) == []


@pytest.mark.parametrize(("age", "live"), [(0, True), (119, True), (121, False), (13 * 24 * 60, False)])
def test_a_window_that_ended_less_than_two_hours_ago_goes_before_older_ones(
    connection, variables, monkeypatch, age, live
):
    asked: list[bool] = []
    acquire = RateLimiter.acquire

    def spy(self, *, priority, patience):
        asked.append(priority is Priority.LIVE)
        return acquire(self, priority=priority, patience=patience)

    monkeypatch.setattr(RateLimiter, "acquire", spy)
    end = datetime.now(timezone.utc) - timedelta(minutes=age)
    ForgeMetricsHook().fetch(end - timedelta(minutes=15), end)
    assert asked == [live, live], "its look-up of environments, too"


def test_patience_is_the_hooks(connection, variables, gateway, window):
    connection({"rate_limit_calls": 1, "rate_limit_seconds": 60})
    hook = ForgeMetricsHook(patience=0)
    with pytest.raises(RateLimited) as caught:
        hook.fetch(window.start, window.end)
    # The look-up of environments took the only place; the next one can be taken in a second.
    assert 0 < caught.value.retry_after <= 1
    assert len(gateway.calls) == 1


# Where the limit is shared


def redis_url(connection, monkeypatch, store, **fields) -> str | None:
    connection({"rate_limit_store": store})
    monkeypatch.setenv("AIRFLOW_CONN_MY_REDIS", json.dumps({"conn_type": "redis", **fields}))
    return ForgeMetricsHook().redis_url


@pytest.mark.parametrize("store", [LEFT_OUT, "", None, "file", " file "])
def test_by_default_it_is_a_file(connection, store):
    connection({"rate_limit_store": store})
    assert ForgeMetricsHook().redis_url is None
    assert isinstance(limit_store_of(ForgeMetricsHook()), FileStore)


@pytest.mark.parametrize(
    "url", ["redis://host", "rediss://host:6380/3?ssl_cert_reqs=none", "redis://me@host"]
)
def test_a_url_without_a_password_may_be_an_extra(connection, url):
    connection({"rate_limit_store": url})
    assert ForgeMetricsHook().redis_url == url
    assert isinstance(limit_store_of(ForgeMetricsHook()), RedisStore)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "h"}, "redis://h:6379/0"),
        ({"host": "h", "port": 6380, "schema": "2"}, "redis://h:6380/2"),
        ({"host": "h", "password": "p/w @"}, "redis://:p%2Fw%20%40@h:6379/0"),
        ({"host": "h", "login": "me@x", "password": "pw"}, "redis://me%40x:pw@h:6379/0"),
        ({"host": "h", "login": "me"}, "redis://me@h:6379/0"),
        ({"host": "h", "extra": {"db": 0}, "schema": "2"}, "redis://h:6379/0"),
        ({"host": "h", "extra": {"ssl": True, "db": "3"}}, "rediss://h:6379/3?"),
        (
            {"host": "h", "extra": {"ssl": "true", "ssl_cert_reqs": "none", "ssl_ca_certs": "/a b"}},
            "rediss://h:6379/0?ssl_cert_reqs=none&ssl_ca_certs=%2Fa+b",
        ),
    ],
)
def test_a_connection_of_type_redis_may_be_named(connection, monkeypatch, fields, url):
    assert redis_url(connection, monkeypatch, "redis_conn:my_redis", **fields) == url
    assert isinstance(limit_store_of(ForgeMetricsHook()), RedisStore)


def test_airflow_masks_the_redis_password_as_encoded_in_a_url(connection, monkeypatch):
    masked: list[str] = []
    monkeypatch.setattr(runtime, "mask_secret", masked.append)
    redis_url(connection, monkeypatch, "redis_conn:my_redis", host="h", password="p/w @")
    assert masked == ["p%2Fw%20%40"]


@pytest.mark.parametrize(
    "url",
    [
        *(f"redis://:{TOKEN}@host", f"rediss://me:{TOKEN}@host:6379/0", f"redis://host?password={TOKEN}"),
        *(
            f"redis://:{TOKEN}@host:port",
            f"http://:{TOKEN}@host",
            f"redis:{TOKEN}",
            f"{TOKEN}",
            f"redis://[{TOKEN}",
        ),
        *("redis://", "memory", "redis_conn", "redis://host:0"),
    ],
)
def test_a_bad_store_is_refused_and_not_repeated(connection, url, caplog):
    connection({"rate_limit_store": url})
    with pytest.raises(ConfigurationError) as caught:
        ForgeMetricsHook().get_conn()
    assert caught.value.field == "forge_default: rate_limit_store"
    assert "redis_conn:<" in str(caught.value)
    assert_tells_no_secret("".join(traceback.format_exception(caught.value)) + caplog.text)


@pytest.mark.parametrize(
    ("store", "fields", "field"),
    [
        ("redis_conn:nowhere", {}, "forge_default: rate_limit_store"),
        ("redis_conn:my_redis", {}, "my_redis: host"),
        ("redis_conn:my_redis", {"host": "h", "extra": {"db": "one"}}, "my_redis: db"),
        (
            "redis_conn:my_redis",
            {"host": "h", "extra": "[]"},
            # Before 3.2, Airflow makes no Connection of it at all.
            "my_redis: extra" if AIRFLOW >= (3, 2) else "forge_default: rate_limit_store",
        ),
    ],
)
def test_a_bad_connection_of_type_redis(connection, monkeypatch, store, fields, field):
    with pytest.raises(ConfigurationError) as caught:
        redis_url(connection, monkeypatch, store, **fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "host", ["https://API.Atlassian.com/graphql", "https://api.atlassian.com:443/graphql/", LEFT_OUT]
)
def test_a_gateway_has_one_cache_for_all_spellings_of_its_url(connection, variables, host):
    """Otherwise how an environment is called would be settled anew, and its series could fork."""
    connection(host=host)
    key = ForgeMetricsHook()._directory(Priority.BACKFILL)._store._stores[0].key
    assert key == f"forge_environments_{APP}_api.atlassian.com"


# What parsing a DAG file may do

CONSTRUCT = """
import sys
# Airflow forks the processes that run tasks from its supervisor, which has loaded httpx.
import airflow.sdk.execution_time.supervisor
from airflow.providers.common.compat.sdk import BaseHook, Variable
before = set(sys.modules)

def forbid(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.mkdir")):
        raise AssertionError(f"{event} {arguments}")
    if event == "open" and (set(str(arguments[1])) & set("wax+") or not arguments[0]):
        raise AssertionError(f"{event} {arguments}")

sys.dont_write_bytecode = True
sys.addaudithook(forbid)
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
ForgeMetricsHook()
ForgeMetricsHook("nowhere", app_id="nonsense")
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def test_importing_and_making_a_hook_does_no_io_and_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", CONSTRUCT], capture_output=True, text=True, check=False)
    # Airflow 3.1 itself says things there.
    assert done.returncode == 0, done.stderr
    assert "AssertionError" not in done.stderr
    imported = done.stdout.split()
    assert "airflow_provider_forge" in imported
    assert not {"httpx", "msgspec", "google", "opentelemetry", "graphql"} & set(imported)


def test_fields_of_the_connection_are_checked_when_a_task_runs_not_before(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_FORGE_DEFAULT", "nonsense")
    ForgeMetricsHook(app_id="nonsense")


@pytest.mark.parametrize("text", [None, "", "  "])
def test_a_token_without_a_last_day(connection, text):
    connection(extra={"token_expires_on": text})
    assert ForgeMetricsHook().token_expires_on is None


def test_the_last_day_of_the_token(connection):
    connection(extra={"token_expires_on": " 2027-01-31 "})
    assert ForgeMetricsHook().token_expires_on == date(2027, 1, 31)


@pytest.mark.parametrize("wrong", ["31.1.2027", "2027-02-30", "never", TOKEN, 20270131])
def test_a_last_day_that_is_none_is_refused_and_not_repeated(connection, wrong):
    connection(extra={"token_expires_on": wrong})
    with pytest.raises(ConfigurationError, match=r"^forge_default: token_expires_on: is not") as refused:
        _ = ForgeMetricsHook().token_expires_on
    assert str(wrong) not in str(refused.value)
