from __future__ import annotations

import base64
import json
import re
import traceback
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.otlp.endpoint import Endpoint, Limits, TlsFiles
from airflow_provider_forge.otlp.requests import encode_request
from airflow_provider_forge.sandbox import OtlpSink
from airflow_provider_forge.utils import runtime

CANARY = "hunter2-canary"
HOST = "https://collector:4318"
URL = f"{HOST}/v1/metrics"


@pytest.fixture
def connect(monkeypatch):
    """Sets the Connection `otlp_default`, and returns its hook."""

    def connect(host: str | None = HOST, password: str | None = None, port=None, **extra) -> OtlpHook:
        connection = {"conn_type": "otlp", "host": host, "password": password, "port": port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_OTLP_DEFAULT", json.dumps(connection))
        return OtlpHook()

    return connect


@pytest.fixture
def masked(monkeypatch) -> list[str]:
    """What Airflow is told to mask."""
    masked: list[str] = []
    monkeypatch.setattr(runtime, "mask_secret", masked.append)
    return masked


def refusal(hook: OtlpHook) -> ConfigurationError:
    """Return the error; whatever it is, the canary is nowhere in it."""
    with pytest.raises(ConfigurationError) as refused:
        hook.get_conn()
    assert CANARY not in "".join(traceback.format_exception(refused.value))
    return refused.value


def test_airflow_finds_the_hook():
    assert issubclass(OtlpHook, BaseHook)
    assert (OtlpHook.conn_type, OtlpHook.conn_name_attr) == ("otlp", "otlp_conn_id")
    assert OtlpHook.default_conn_name == "otlp_default"
    assert OtlpHook().otlp_conn_id == "otlp_default"
    assert OtlpHook("other").otlp_conn_id == "other"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (HOST, URL),
        (f" {HOST}/ ", URL),
        (URL, URL),
        ("http://vm:8428/opentelemetry/v1/metrics", "http://vm:8428/opentelemetry/v1/metrics"),
    ],
)
def test_host(connect, host, url):
    assert connect(host).endpoint() == Endpoint(url)


def test_another_connection(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "otlp", "host": "http://other"}))
    assert OtlpHook("other").endpoint().url == "http://other/v1/metrics"


def test_a_connection_as_a_url(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_OTLP_DEFAULT", "otlp://:s%2Fcret@https%3A%2F%2Fcollector%3A4318/?timeout=5"
    )
    endpoint = OtlpHook().endpoint()
    assert (endpoint.url, endpoint.limits.timeout) == (URL, 5)
    assert endpoint.headers == {"Authorization": "Bearer s/cret"}


def test_every_field(connect, tmp_path):
    files = {name: str(tmp_path / name) for name in ("ca_file", "cert_file", "key_file")}
    for name in files:
        (tmp_path / name).touch()
    hook = connect(
        password="secret",
        auth_header="X-Api-Key",
        headers={"X-Scope-OrgID": "tenant"},
        protocol="http/json",
        compression="none",
        timeout=2.5,
        max_body_bytes=2**26,
        max_compressed_bytes="1048576",
        max_age="14d",
        ledger_url="s3://aws_default@bucket/path",
        **files,
    )
    headers = {"X-Scope-OrgID": "tenant", "X-Api-Key": "secret"}
    assert hook.endpoint() == Endpoint(
        URL,
        headers=headers,
        protocol="http/json",
        compression="none",
        limits=Limits(
            timeout=2.5,
            max_body_bytes=64 * 1024 * 1024,
            max_compressed_bytes=1024 * 1024,
            max_age=timedelta(days=14),
        ),
        tls=TlsFiles(**files),
    )
    assert hook.ledger_url == "s3://aws_default@bucket/path"


def test_the_fields_of_an_empty_form_count_as_left_out(connect):
    names = (
        "auth_header",
        "headers",
        "protocol",
        "compression",
        "timeout",
        "ca_file",
        "cert_file",
        "key_file",
        "max_body_bytes",
        "max_compressed_bytes",
        "max_age",
        "ledger_url",
    )
    for empty in ("", None):
        hook = connect(password="", **dict.fromkeys(names, empty))
        assert hook.endpoint() == Endpoint(URL)
        assert hook.ledger_url is None


@pytest.mark.parametrize(
    ("password", "extra", "headers"),
    [
        (None, {}, {}),
        ("secret", {}, {"Authorization": "Bearer secret"}),
        ("secret", {"auth_header": "X-Api-Key"}, {"X-Api-Key": "secret"}),
        ("Api-Token secret", {"auth_header": "Authorization"}, {"Authorization": "Api-Token secret"}),
        (None, {"auth_header": "X-Api-Key"}, {}),
        (None, {"headers": {"Authorization": "Basic x"}}, {"Authorization": "Basic x"}),
        ("secret", {"headers": {"X-Scope": "a"}}, {"X-Scope": "a", "Authorization": "Bearer secret"}),
        # Where both say the same header, the password does.
        ("secret", {"headers": {"Authorization": "Basic x"}}, {"Authorization": "Bearer secret"}),
        ("secret", {"headers": {"authorization": "Basic x"}}, {"Authorization": "Bearer secret"}),
    ],
)
def test_headers(connect, password, extra, headers):
    assert connect(password=password, **extra).endpoint().headers == headers


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"host": "collector:4318"}, "host", "not an http"),
        ({"host": "http://collector:4317"}, "host", "gRPC.*4318"),
        ({"host": "https://collector/v1/traces"}, "host", "another signal"),
        ({"host": f"https://user:{CANARY}@collector"}, "host", "password"),
        ({"host": " "}, "host", "URL"),
        ({"port": 4318}, "port", "write it into the host"),
        ({"password": f"{CANARY}\n"}, "headers", "'Authorization'"),
        ({"password": f"{CANARY} "}, "headers", "'Authorization'"),
        ({"password": CANARY, "auth_header": "X Api Key"}, "headers", "'X Api Key'"),
        ({"password": CANARY, "auth_header": ["X"]}, "auth_header", "not text"),
        ({"headers": f"X: {CANARY}"}, "headers", "object"),
        ({"headers": [CANARY]}, "headers", "object"),
        ({"headers": {"X": 1}}, "headers", "object"),
        ({"headers": {"X": None}}, "headers", "object"),
        ({"headers": {"Content-Type": CANARY}}, "headers", "'Content-Type'"),
        ({"headers": {"X": f"ü{CANARY}"}}, "headers", "'X'"),
        ({"protocol": "grpc"}, "protocol", "'grpc' is not one of http/protobuf, http/json"),
        ({"protocol": 1}, "protocol", "not text"),
        ({"compression": "zstd"}, "compression", "'zstd' is not one of gzip, none"),
        ({"timeout": "soon"}, "timeout", "'soon' is not a number above 0"),
        ({"timeout": 0}, "timeout", "number above 0"),
        ({"timeout": -1}, "timeout", "number above 0"),
        ({"timeout": True}, "timeout", "number above 0"),
        ({"timeout": "nan"}, "timeout", "number above 0"),
        ({"timeout": [1]}, "timeout", "number above 0"),
        ({"max_body_bytes": 1023}, "max_body_bytes", "1023 is not .* 1024 to 67108864"),
        ({"max_body_bytes": "4 MiB"}, "max_body_bytes", "'4 MiB' is not a number"),
        ({"max_body_bytes": 1024.5}, "max_body_bytes", "not a whole number"),
        ({"max_body_bytes": 2**26 + 1}, "max_body_bytes", "up to 67108864"),
        ({"max_compressed_bytes": 1023}, "max_compressed_bytes", "1023 is not .* 1024 to 67108864"),
        ({"max_compressed_bytes": 0}, "max_compressed_bytes", "number above 0 and up to 67108864"),
        ({"max_compressed_bytes": True}, "max_compressed_bytes", "number above 0"),
        ({"max_compressed_bytes": 2**26 + 1}, "max_compressed_bytes", "up to 67108864"),
        ({"max_age": "soon"}, "max_age", "'soon' is not an age: .* 48h .* 'none'"),
        ({"max_age": 0}, "max_age", "above 0"),
        ({"max_age": "0h"}, "max_age", "above 0"),
        ({"max_age": False}, "max_age", "not an age"),
        ({"max_age": "4000d"}, "max_age", "up to 3650 days"),
        ({"ca_file": "missing.pem"}, "ca_file", r"no file missing\.pem"),
        ({"cert_file": "missing.pem"}, "cert_file", r"no file missing\.pem"),
        ({"key_file": __file__}, "cert_file", "missing, though key_file is set"),
        ({"ca_file": __file__}, "ca_file", r"test_otlp\.py"),
        ({"cert_file": __file__}, "cert_file", r"test_otlp\.py"),
    ],
)
def test_a_bad_field_is_named_with_its_connection(connect, fields, field, problem):
    error = refusal(connect(**fields))
    assert error.field == f"otlp_default: {field}"
    assert str(error).startswith(f"otlp_default: {field}: ")
    assert re.search(problem, error.problem)


def test_the_connection_of_the_given_id_is_used(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "otlp", "host": "collector"}))
    assert refusal(OtlpHook("mine")).field == "mine: host"


def test_a_missing_connection_is_named_with_a_remedy():
    error = refusal(OtlpHook("not_there"))
    assert error.field == "otlp_conn_id"
    assert "'not_there'" in str(error)
    assert "AIRFLOW_CONN_NOT_THERE" in str(error)


@pytest.fixture
def otel(monkeypatch):
    """Sets standard variables."""

    def otel(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)

    return otel


@pytest.mark.parametrize("host", [None, ""])
def test_without_a_host_the_standard_variables_define_the_endpoint(connect, otel, host):
    otel(ENDPOINT="http://standard:4318", HEADERS="a=b", PROTOCOL="http/json", TIMEOUT="1500")
    expected = Endpoint(
        "http://standard:4318/v1/metrics",
        headers={"a": "b"},
        protocol="http/json",
        limits=Limits(timeout=1.5, export_timeout=1.5),
    )
    assert connect(host).endpoint() == expected


def test_with_a_host_the_standard_variables_are_ignored(connect, otel):
    otel(
        ENDPOINT="http://standard:4317",
        METRICS_ENDPOINT="http://standard/other",
        HEADERS="a=b",
        METRICS_HEADERS="nonsense",
        PROTOCOL="grpc",
        COMPRESSION="nonsense",
        TIMEOUT="nonsense",
        CERTIFICATE="missing.pem",
    )
    assert connect().endpoint() == Endpoint(URL)


def test_without_either_the_error_names_both(connect):
    error = refusal(connect(None))
    assert error.field == "otlp_default: host"
    assert "https://host:4318" in str(error)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in str(error)


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"ENDPOINT": "http://standard:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"TIMEOUT": "soon"}, "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"HEADERS": CANARY}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_a_bad_variable_is_named_with_the_connection_too(connect, otel, variables, field):
    otel(**{"ENDPOINT": "http://standard:4318", **variables})
    assert refusal(connect(None)).field == f"otlp_default: {field}"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"password": CANARY}, "password"),
        ({"protocol": "http/json"}, "protocol"),
        ({"max_age": "1h", "timeout": 5, "ca_file": "x"}, "ca_file, timeout;"),
        ({"password": CANARY, "no_such_extra": 5}, "password, no_such_extra;"),
    ],
)
def test_fields_that_nothing_would_read_are_refused(connect, otel, fields, named):
    otel(ENDPOINT="http://standard:4318")
    error = refusal(connect(None, **fields))
    assert error.field == "otlp_default: host"
    assert f"is missing: give it together with {named}" in error.problem


# ---- this provider's own settings


def test_its_own_settings_go_with_the_standard_variables_too(connect, otel):
    otel(ENDPOINT="http://standard:4318", HEADERS="a=b", PROTOCOL="http/json")
    hook = connect(
        None, max_body_bytes=2048, max_compressed_bytes=1024, max_age="90m", ledger_url="file:///ledger"
    )
    assert hook.endpoint() == Endpoint(
        "http://standard:4318/v1/metrics",
        headers={"a": "b"},
        protocol="http/json",
        limits=Limits(max_body_bytes=2048, max_compressed_bytes=1024, max_age=timedelta(minutes=90)),
    )
    assert hook.ledger_url == "file:///ledger"


@pytest.mark.parametrize("from_variables", [False, True])
@pytest.mark.parametrize(
    ("extra", "age"),
    [
        ({}, timedelta(hours=48)),
        ({"max_age": "14d"}, timedelta(days=14)),
        ({"max_age": 60}, timedelta(minutes=1)),
        ({"max_age": "none"}, None),
    ],
)
def test_a_known_host_has_an_age_limit_by_default(connect, otel, from_variables, extra, age):
    host = "https://otlp.nr-data.net"
    otel(ENDPOINT=host)
    assert connect(None if from_variables else host, **extra).endpoint().limits.max_age == age


@pytest.mark.parametrize("extra", [{"max_age": "soon"}, {"max_body_bytes": 5}])
def test_a_bad_one_is_named_beside_the_standard_variables_too(connect, otel, extra):
    otel(ENDPOINT="http://standard:4318")
    (field,) = extra
    assert refusal(connect(None, **extra)).field == f"otlp_default: {field}"


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/path",
        "s3://aws_default@bucket/path",
        "s3://aws_default@bucket/a:b/c",
        "gs://bucket",
        "file:///var/lib/ledger",
        "simplecache::s3://bucket/path",
        "abfs://container@account.dfs.core.windows.net/path",
        "sftp://host:2222/path",
    ],
)
def test_the_url_of_the_ledger(connect, url):
    assert connect(ledger_url=f" {url} ").ledger_url == url


def test_there_is_no_ledger_url_by_default(connect):
    assert connect().ledger_url is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("/var/lib/ledger", "'/var/lib/ledger' is not a URL; .*s3://conn_id@bucket/path"),
        ("bucket", "not a URL"),
        ("s3:/bucket", "not a URL"),
        ("s3://", "not a URL"),
        ("://bucket", "not a URL"),
        (f"user:{CANARY}@bucket/path", "is not a URL"),
        (["s3://bucket"], "not text"),
        (f"s3://key:{CANARY}@bucket/path", "password"),
        (f"s3://:{CANARY}@bucket/path", "password"),
        (f"s3://key:sec/{CANARY}/ret@bucket/path", "password"),
        (f"s3://key:a@{CANARY}@bucket/path", "password"),
        (f"simplecache::s3://key:{CANARY}@bucket/path", "password"),
        (f"ftp://user:@{CANARY}/path", "password"),
    ],
)
def test_a_ledger_url_that_is_none(connect, url, problem):
    with pytest.raises(ConfigurationError, match=problem) as refused:
        _ = connect(ledger_url=url).ledger_url
    assert refused.value.field == "otlp_default: ledger_url"
    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_secret_header_values_are_masked_in_airflows_logs_and_no_others(connect, masked):
    connect(password="secret", headers={"X-Api-Key": CANARY, "X-Env": "production"}).get_conn().close()
    assert {"Bearer secret", CANARY} <= set(masked)
    assert "production" not in masked


def test_those_of_the_standard_variables_too(connect, otel, masked):
    otel(ENDPOINT="https://standard:4318", HEADERS=f"X-Api-Key={CANARY},Authorization=Bearer%20{CANARY}2")
    connect(None).get_conn().close()
    # The token is a secret without the word in front of it, too.
    assert {CANARY, f"Bearer {CANARY}2", f"{CANARY}2"} <= set(masked)


def test_the_login_in_a_header_is_masked_as_the_receiver_reads_it(connect, masked):
    token = base64.b64encode(f"123:{CANARY}".encode()).decode()
    connect(headers={"Authorization": f"Basic {token}"}).get_conn().close()
    assert {f"Basic {token}", token, f"123:{CANARY}", CANARY} <= set(masked)


@pytest.mark.parametrize(
    ("password", "extra"),
    [("secret", {}), ("secret", {"auth_header": "X-Scope"}), (None, {"headers": {"X-Api-Key": "secret"}})],
)
def test_a_secret_goes_to_another_machine_in_clear_text_only_if_that_is_allowed(connect, password, extra):
    with pytest.raises(ConfigurationError, match="allow_cleartext") as refused:
        connect("http://collector", password, **extra).endpoint()
    assert refused.value.field == "otlp_default: host"
    for allowed in (True, "true", " True "):
        connect("http://collector", password, **extra, allow_cleartext=allowed).endpoint()
    for harmless in ({}, {"headers": {"X-Env": "production"}}):
        connect("http://collector", None, **harmless).endpoint()


def test_so_does_one_of_the_standard_variables(connect, otel):
    otel(ENDPOINT="http://standard:4318", HEADERS="X-Api-Key=secret")
    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT: .*allow_cleartext"):
        connect(None).endpoint()
    connect(None, allow_cleartext="true").endpoint()


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_it_sends(connect, protocol):
    with OtlpSink() as sink:
        hook = connect(sink.url, "secret", auth_header="X-Api-Key", protocol=protocol)
        with hook.get_conn() as client:
            client.export(encode_request([{"scopeMetrics": []}], protocol))
        (request,) = sink.requests
    assert request.headers["x-api-key"] == "secret"
    assert "authorization" not in request.headers
