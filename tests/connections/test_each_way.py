"""A Connection means the same in whichever way it is defined, and nothing that is set is left unread."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from airflow_provider_forge.cli.runtime import ShellRuntime
from airflow_provider_forge.connections.forge import ForgeAccess
from airflow_provider_forge.connections.otlp import OtlpAccess
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
SECRET = "ATATT3x/aa+bb@cc:dd%ee?ff#gg=hh&ii jj"
MASK = "***"


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def define(monkeypatch, name: str, connection: dict[str, object] | str) -> None:
    text = connection if isinstance(connection, str) else json.dumps(connection)
    monkeypatch.setenv(f"AIRFLOW_CONN_{name}", text)


def refused(read) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read()
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.fixture
def forge(monkeypatch):
    def forge(connection) -> ForgeMetricsHook:
        define(monkeypatch, "FORGE_DEFAULT", connection)
        return ForgeMetricsHook()

    return forge


@pytest.fixture
def otlp(monkeypatch):
    def otlp(connection) -> OtlpHook:
        define(monkeypatch, "OTLP_DEFAULT", connection)
        return OtlpHook()

    return otlp


def test_a_uri_with_the_url_encoded_keeps_its_path(forge, otlp):
    user = f"{quoted('me@example.com')}:{quoted(SECRET)}"
    hook = forge(f"forge://{user}@{quoted('https://gateway.example/graphql')}/?app_id={APP}")
    assert hook.get_conn().secrets[0] == SECRET
    endpoint = otlp(f"otlp://:{quoted(SECRET)}@{quoted('https://receiver.example/otlp')}/").endpoint()
    assert endpoint.url == "https://receiver.example/otlp/v1/metrics"
    assert endpoint.headers == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("path", ["graphql", "gateway/api/graphql"])
def test_the_path_of_a_uri_is_never_dropped(forge, otlp, path):
    user = f"{quoted('me@example.com')}:{quoted(SECRET)}"
    error = refused(forge(f"forge://https://{user}@gateway.example/{path}?app_id={APP}").get_conn)
    assert error.field == "forge_default: schema"
    assert "percent-encoded" in error.problem
    error = refused(otlp(f"otlp://https://receiver.example/{path}").get_conn)
    assert error.field == "otlp_default: schema"


@pytest.mark.parametrize(
    ("field", "value"), [("schema", "graphql"), ("schema", "https"), ("port", 4318), ("login", "user")]
)
def test_a_field_that_nothing_reads_is_refused(forge, otlp, field, value):
    connection = {"host": "https://a.example", field: value}
    error = refused(otlp({"conn_type": "otlp", **connection}).get_conn)
    assert error.field == f"otlp_default: {field}"
    assert error.problem.startswith("is not used: ")
    if field != "login":
        error = refused(forge({"conn_type": "forge", **connection}).get_conn)
        assert error.field == f"forge_default: {field}"


@pytest.mark.parametrize("empty", [None, "", " "])
def test_an_empty_one_counts_as_left_out(otlp, empty):
    connection = {"conn_type": "otlp", "host": "https://a.example", "schema": empty, "login": empty}
    assert otlp(connection).endpoint().url == "https://a.example/v1/metrics"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"password": MASK}, "password"),
        ({"password": SECRET, "extra": {"auth_header": MASK}}, "auth_header"),
        ({"extra": {"headers": {"X-Api-Key": MASK}}}, "headers"),
        ({"extra": {"headers": json.dumps({"X-Api-Key": MASK})}}, "headers"),
        ({"extra": {"headers": MASK}}, "headers"),
        ({"extra": {"extra__otlp__auth_header": MASK}}, "auth_header"),
    ],
)
def test_the_mask_of_a_secret_is_refused(otlp, fields, field):
    hook = otlp({"conn_type": "otlp", "host": "https://a.example", **fields})
    error = refused(hook.endpoint)
    assert error.field == f"otlp_default: {field}"
    assert "Airflow shows instead of a secret" in error.problem


def test_nor_is_that_of_the_api_token(forge):
    fields = {"conn_type": "forge", "login": "me@example.com", "password": MASK, "extra": {"app_id": APP}}
    assert refused(forge(fields).get_conn).field == "forge_default: password"
    hook = forge({**fields, "extra": {"token_expires_on": MASK}})
    assert refused(lambda: hook.token_expires_on).field == "forge_default: token_expires_on"


UNENCODABLE = "\ud800"


@pytest.mark.parametrize("wrong", [UNENCODABLE, "\0"])
@pytest.mark.parametrize(
    "field", ["login", "password", "app_id", "environments", "usage_prices", "rate_limit_store"]
)
def test_text_that_cannot_be_sent_is_refused_before_an_error_quotes_it(monkeypatch, field, wrong):
    """Python's error for it has the whole text as an argument: of a token, all of it."""
    fields = {"login": "me@example.com", "password": SECRET}
    extra = {"app_id": APP}
    (fields if field in fields else extra)[field] = f"{SECRET}{wrong}"
    define(monkeypatch, "FORGE_DEFAULT", {"conn_type": "forge", **fields, "extra": extra})
    error = refused(ForgeAccess("forge_default", ShellRuntime()).get_conn)
    assert error.field == f"forge_default: {field}"
    assert SECRET not in repr(error)
    assert "enter it again" in error.problem


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"password": f"{SECRET}{UNENCODABLE}"}, "password"),
        ({"extra": {"tenant": UNENCODABLE}}, "tenant"),
        ({"extra": {"ca_file": "ca\0.pem"}}, "ca_file"),
        ({"extra": {"headers": {"X-Key": UNENCODABLE}}}, "headers"),
        ({"extra": {"headers": {UNENCODABLE: "a"}}}, "headers"),
        ({"extra": {"headers": json.dumps({"X-Key": UNENCODABLE})}}, "headers"),
        ({"extra": {UNENCODABLE: "a"}}, "extra"),
    ],
)
def test_so_is_that_of_a_receiver(monkeypatch, fields, field):
    define(monkeypatch, "OTLP_DEFAULT", {"conn_type": "otlp", "host": "https://a.example", **fields})
    access = OtlpAccess("otlp_default", ShellRuntime())
    assert refused(access.endpoint).field == f"otlp_default: {field}"


@pytest.mark.parametrize("url", ["http://[::1", "s3://[x@b/c", "s3://\u2100@b/c"])
def test_a_url_of_storage_with_a_malformed_host_is_refused(forge, otlp, url):
    ledger = otlp({"conn_type": "otlp", "host": "https://a.example", "extra": {"ledger_url": url}})
    archive = forge({"conn_type": "forge", "extra": {"archive_url": url}})
    for read in (lambda: ledger.ledger_url, lambda: archive.archive_url):
        assert "is not a URL" in refused(read).problem


@pytest.mark.parametrize("field", ["ca_file", "cert_file"])
def test_a_path_that_is_too_long_is_a_missing_file(otlp, field):
    hook = otlp({"conn_type": "otlp", "host": "https://a.example", "extra": {field: "a" * 5000}})
    assert "there is no file" in refused(hook.endpoint).problem
