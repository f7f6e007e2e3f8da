"""The Test buttons: what they say, over real sockets; secrets never among it."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import threading

import pytest

from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.sandbox import Fault, SandboxGateway, Scenario
from tests.certificates import make_certificate, refused_handshake
from tests.raw_server import raw_server, response

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
EMAIL, TOKEN = "dev@example.com", "c4n4ry-t0ken-of-the-account"
BASIC = base64.b64encode(f"{EMAIL}:{TOKEN}".encode()).decode()
# As Airflow makes one up for a Connection that is tried.
CONN_ID = "a1b2c3"


@pytest.fixture
def gateway():
    with SandboxGateway(api_token=TOKEN) as gateway:
        yield gateway


@pytest.fixture
def press(monkeypatch):
    """Press the Test button of a Connection with these fields; Airflow goes the same way."""

    def press(hook, extra=None, **fields) -> tuple[bool, str]:
        content = {"conn_type": hook.conn_type, "password": TOKEN, "extra": extra or {}, **fields}
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(content))
        works, message = hook(CONN_ID).test_connection()
        for kept_out in (TOKEN, BASIC, CONN_ID):
            assert kept_out not in message
        return works, message

    return press


@pytest.fixture
def press_forge(gateway, press):
    def press_forge(extra=None, **fields) -> tuple[bool, str]:
        extra = {"app_id": APP, **(extra or {})}
        return press(ForgeMetricsHook, extra, **{"host": gateway.url, "login": EMAIL, **fields})

    return press_forge


@pytest.fixture
def press_otlp(sink, press):
    def press_otlp(extra=None, **fields) -> tuple[bool, str]:
        return press(OtlpHook, extra, **{"host": sink.url, **fields})

    return press_otlp


# ---- Forge


def test_success_is_described_and_costs_one_call(press_forge, gateway):
    works, message = press_forge()
    assert works
    assert re.fullmatch(
        "Atlassian accepts the credentials. The app is Sandbox app 8ce114f4; environments: development,"
        " staging, production, [a-z0-9-]+. The account may read its metrics. Exports production: 11 metrics.",
        message,
    )
    assert len(gateway.calls) == 1


def test_a_label_that_the_gateway_does_not_know_is_named(press_forge, gateway):
    for calls in (2, 3):
        works, message = press_forge({"metrics": "FORGE_API_REQUEST_COUNT,FORGE_METRIC_OF_2031"})
        assert works
        assert message.endswith(
            "The gateway does not know the metrics FORGE_METRIC_OF_2031, which are left out."
        )
        assert len(gateway.calls) == calls


def test_without_an_app_the_credentials_are_tried(press_forge, gateway):
    works, message = press_forge({"app_id": ""})
    assert works
    assert message.startswith("Atlassian accepts the credentials. Nothing else was checked")
    assert "app_id" in message
    assert len(gateway.calls) == 1
    works, message = press_forge({"app_id": ""}, login="someone@else")
    assert not works
    assert message.startswith("Atlassian refused the credentials")


@pytest.mark.parametrize(
    ("extra", "fields", "said"),
    [
        (
            {},
            {"login": "someone@else"},
            "Atlassian refused the credentials.*tokens expire.*manage/api-tokens",
        ),
        ({}, {"login": ""}, "^login: is missing"),
        ({}, {"password": ""}, "^password: is missing.*id.atlassian.com/manage/api-tokens"),
        ({"app_id": "my app"}, {}, r"^app_id: 'my app' is neither .*manifest\.yml"),
        (
            {"environments": "prod"},
            {},
            "^environments: there is no 'prod'. Did you mean 'production'.*There are: .*production",
        ),
        ({"metrics": "A-B"}, {}, "^metrics: 'A-B' is not a metric label"),
        ({"timeout": "soon"}, {}, "^timeout: 'soon' is not a number"),
        ({}, {"host": "api.atlassian.com"}, "^host: 'api.atlassian.com' is not an http"),
        ({}, {"port": 443}, "^port: is not used"),
        ({"metrics": "NO_SUCH_METRIC"}, {}, "refused the query.*Check the requested metrics"),
    ],
)
def test_a_failure_is_described_with_its_remedy(press_forge, extra, fields, said):
    works, message = press_forge(extra, **fields)
    assert not works
    assert re.search(said, message)


def test_not_the_owner(press):
    with SandboxGateway(Scenario(forbidden_apps=frozenset({APP})), api_token=TOKEN) as gateway:
        works, message = press(ForgeMetricsHook, {"app_id": APP}, host=gateway.url, login=EMAIL)
    assert not works
    assert "does not let this account read this app" in message
    assert "must belong to the account that owns the app" in message


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", status=404), "Check the Forge Connection's host"),
        (Fault("redirect", status=302), "Check the Forge Connection's host"),
        (Fault("status", status=503), r"The gateway failed \(503"),
        (Fault("html", status=200), "not GraphQL.*check the Connection's host"),
        (Fault("rate_limited", seconds=1), "too many calls"),
        (Fault("reset"), "^No answer from 127.0.0.1:[0-9]+: it closed the connection"),
        (
            Fault("null", level="ecosystem"),
            "production.*. It is not known whether the account may read",
        ),
    ],
)
def test_a_gateway_that_fails(press_forge, gateway, fault, said):
    gateway.add_fault(fault)
    works, message = press_forge()
    assert not works
    assert re.search(said, message)
    assert len(gateway.calls) == 1


def test_a_reserved_budget_is_reported_without_waiting(press_forge, gateway):
    gateway.add_fault(Fault("rate_limited", seconds=300))
    assert not press_forge()[0]
    # That account pauses now, as it would behind a long queue.
    works, message = press_forge()
    assert not works
    assert re.search("^Rate limit: other tasks have reserved .*Next call possible in 2[34][0-9] s$", message)
    assert len(gateway.calls) == 1


def test_no_gateway(press_forge, gateway):
    gateway.stop()
    works, message = press_forge()
    assert not works
    assert re.search(r"^No answer from 127\.0\.0\.1:\d+: nothing listens on that port\. Check", message)


# ---- OTLP


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_the_receiver_is_described(press_otlp, sink, protocol):
    works, message = press_otlp({"protocol": protocol})
    assert works
    assert re.fullmatch(
        r"127\.0\.0\.1:\d+( \(.*\))? answered 200 to an empty request, in [0-9.]+ s\.", message
    )
    (request,) = sink.requests
    assert request.points == []


@pytest.mark.parametrize(
    ("extra", "fields", "said"),
    [
        ({}, {"host": "collector:4318"}, "^host: .*is not an http"),
        ({}, {"host": "http://collector:4317"}, "^host: .*gRPC.*4318"),
        (
            {"allow_cleartext": True},
            {"host": "http://no-such-host.invalid:4318"},
            "cannot resolve the host name. Check the host",
        ),
        ({}, {"host": ""}, "^host: is missing: give it together with password"),
        ({"ledger_url": "bucket"}, {}, "^ledger_url: 'bucket' is not a URL"),
        ({"ledger_url": "nosuch://b/c"}, {}, "^ledger_url: this Airflow cannot open nosuch://.*install the"),
        ({"ledger_url": "s3://c@b"}, {}, r"^ledger_url: .* s3://.*apache-airflow-providers-amazon\[s3fs\]"),
        ({"headers": "X: y"}, {}, "^headers: is not an object"),
        ({"ca_file": "no.pem"}, {}, "^ca_file: there is no file no.pem"),
    ],
)
def test_a_field_that_is_wrong_is_named(press_otlp, extra, fields, said):
    works, message = press_otlp(extra, **fields)
    assert not works
    assert re.search(said, message)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", status=401), "answered 401 .*password"),
        (Fault("status", status=404), "answered 404 .*check the path.*v1/metrics is added"),
        (Fault("status", status=400), "answered 400 .*Some receivers refuse a request without points"),
        (Fault("status", status=503), "answered 503"),
        (Fault("redirect", status=301), "answered 301.*new URL"),
        (Fault("html", status=200), "page of HTML or XML"),
        (Fault("reset"), "^No answer from 127.0.0.1:[0-9]+: it closed the connection"),
    ],
)
def test_a_receiver_that_refuses(press_otlp, sink, fault, said):
    sink.add_fault(fault)
    works, message = press_otlp()
    assert not works
    assert re.search(said, message)


def test_a_wrong_path(press_otlp, sink):
    works, message = press_otlp(host=f"{sink.url}/other/v1/metrics")
    assert not works
    assert "check the path" in message


def test_no_receiver(press_otlp, sink):
    sink.stop()
    works, message = press_otlp()
    assert not works
    assert re.search(r"^No answer from 127\.0\.0\.1:\d+: nothing listens on that port\. Check", message)


def test_https_to_a_server_that_speaks_http(press_otlp, sink):
    works, message = press_otlp(host=sink.url.replace("http:", "https:"))
    assert not works
    assert "does not speak TLS on this port. Replace https:// with http://" in message


def test_a_certificate_that_is_not_trusted(press_otlp, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path, "receiver"))
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as secure:
        thread = threading.Thread(target=refused_handshake, args=(secure,))
        thread.start()
        works, message = press_otlp(host=f"https://127.0.0.1:{secure.getsockname()[1]}")
        thread.join()
    assert not works
    assert "Name the PEM file of its authority in the extra ca_file" in message


def test_the_standard_variables_are_used_if_the_connection_is_empty(press_otlp, sink, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
    works, _ = press_otlp(host="", password="")
    assert works
    assert len(sink.requests) == 1


@pytest.mark.parametrize("status", [407, 403, 502, None])
def test_a_proxy_that_refuses_or_hangs_up_is_named(press_forge, monkeypatch, status):
    with raw_server(lambda _: response(status) if status else None) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://someone:hunter2222@127.0.0.1:{server.port}")
        works, message = press_forge(host="https://elsewhere.example/graphql")
    assert not works
    assert "elsewhere.example" in message
    assert "the proxy" in message
    assert str(status or server.port) in message
    assert "hunter2222" not in message


def test_one_that_is_not_there_too(press_forge, monkeypatch):
    with raw_server(lambda _: None) as server:
        pass
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    works, message = press_forge(host="https://elsewhere.example/graphql")
    assert not works
    assert f"the proxy {server.url} (HTTPS_PROXY) on the way to elsewhere.example: nothing listens" in message


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (
            {"enviroments": "production"},
            "enviroments is not a field of this Connection. Did you mean 'environments'?",
        ),
        (
            {"x9": "production"},
            "x9 is not a field of this Connection. The fields are allow_cleartext, app_id, ",
        ),
        ({"token_expires_on": "31.1.2027"}, "token_expires_on: is not a date"),
        ({"service_name": 5}, "service_name: is not text"),
        ({"usage_prices": "x"}, "usage_prices: cannot read 'x'"),
        ({"usage_prices": {"FUNCTION_COMPUTE": "a"}}, "usage_prices"),
    ],
)
def test_every_field_of_forge_is_checked_before_a_call(press_forge, gateway, extra, words):
    works, message = press_forge(extra)
    assert not works
    assert words in message
    assert gateway.calls == []


def test_an_unknown_field_of_otlp_is_named(press_otlp, sink):
    works, message = press_otlp({"max-age": "1h"})
    assert not works
    assert "max-age is not a field of this Connection. Did you mean 'max_age'?" in message


def test_fields_of_older_forms_are_known(press_forge):
    assert press_forge({"extra__forge__environments": "production"})[0]
