from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.endpoint import Endpoint, Limits, TlsFiles, metrics_url
from tests.otlp.building import exhaustively

CANARY = "hunter2-canary"
URL = "https://collector:4318/v1/metrics"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://collector:4318", "https://collector:4318/v1/metrics"),
        ("https://collector:4318/", "https://collector:4318/v1/metrics"),
        ("http://collector", "http://collector/v1/metrics"),
        ("https://collector:4318/v1/metrics", "https://collector:4318/v1/metrics"),
        ("https://collector:4318/v1/metrics/", "https://collector:4318/v1/metrics"),
        ("https://gateway/otlp", "https://gateway/otlp/v1/metrics"),
        ("https://gateway/otlp/", "https://gateway/otlp/v1/metrics"),
        ("http://vm:8428/opentelemetry", "http://vm:8428/opentelemetry/v1/metrics"),
        ("http://vm:8428/opentelemetry/v1/metrics", "http://vm:8428/opentelemetry/v1/metrics"),
        ("http://prom:9090/api/v1/otlp", "http://prom:9090/api/v1/otlp/v1/metrics"),
        ("http://prom:9090/api/v1/otlp/v1/metrics", "http://prom:9090/api/v1/otlp/v1/metrics"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/metrics"),
        ("http://127.0.0.1:43170", "http://127.0.0.1:43170/v1/metrics"),
        # `v1/metrics` within a longer word is a prefix like any other.
        ("https://gateway/my-v1/metrics", "https://gateway/my-v1/metrics/v1/metrics"),
    ],
)
def test_a_base_url_gets_the_path_of_metrics_and_a_full_one_keeps_it(host, url):
    assert metrics_url(host) == url


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("http://collector:4317", "gRPC.*4318"),
        ("http://collector:4317/v1/metrics", "gRPC.*4318"),
        ("https://collector:4318/v1/traces", "/v1/traces is for another signal.*/v1/metrics"),
        ("https://collector:4318/v1/traces/", "another signal"),
        ("https://collector/otlp/v1/logs", "another signal"),
        ("https://collector/v1development/profiles", "another signal"),
        ("collector", "is not an http"),
        ("collector:4318", "is not an http"),
        ("//collector:4318", "is not an http"),
        ("grpc://collector:4318", "is not an http"),
        ("https://", "is not an http"),
        ("https:///v1/metrics", "is not an http"),
        ("", "is not an http"),
        (" ", "is not an http"),
        ("https://collector:0", "is not an http"),
        ("https://collector:99999", "is not a URL"),
        ("https://collector:port", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://collector\n:4318", "URL"),
        ("https://bad host:4318", "URL"),
        ("https://[v1.x]", "URL"),
        ("https://ex\u2024ample", "URL"),
        ("https://collector?key=value", "query"),
        ("https://collector/#there", "fragment"),
    ],
)
def test_urls_that_are_no_metrics_endpoint(host, problem):
    with pytest.raises(ConfigurationError, match=problem) as refused:
        metrics_url(host)
    assert refused.value.field == "host"


@pytest.mark.parametrize(
    "host",
    [
        f"https://user:{CANARY}@collector:4318",
        f"https://{CANARY}@collector:4318",
        f"grpc://user:{CANARY}@collector:4317",
        f"https://user:{CANARY}@collector:99999",
        f"https://collector:4318/?api-key={CANARY}",
        f"https://collector:4318/#{CANARY}",
        f"user:{CANARY}@collector:4318",
        f"https:/user:{CANARY}@collector:4318",
        f"collector:4318?api-key={CANARY}",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(host):
    with pytest.raises(ConfigurationError) as refused:
        metrics_url(host)
    assert CANARY not in str(refused.value)
    assert "password" in str(refused.value) or "URL" in str(refused.value)


@exhaustively
@given(host=st.text(st.characters(codec="utf-8"), max_size=12))
def test_an_accepted_url_can_be_sent_to(host):
    try:
        url = metrics_url(f"https://{host}")
    except ConfigurationError:
        return
    assert httpx.URL(url).host


def test_an_endpoint_needs_no_more_than_a_url():
    endpoint = Endpoint(URL)
    assert (endpoint.protocol, endpoint.compression, endpoint.limits.timeout) == (
        "http/protobuf",
        "gzip",
        30.0,
    )
    assert not endpoint.headers
    assert (endpoint.limits.max_body_bytes, endpoint.limits.max_compressed_bytes) == (4 * 1024 * 1024, None)
    assert endpoint.limits.max_age is None


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("protocol", "grpc", "'grpc' is not one of http/protobuf, http/json"),
        ("protocol", "", "'' is not one of"),
        ("protocol", "HTTP/JSON", "is not one of"),
        ("compression", "zstd", "'zstd' is not one of gzip, none"),
        ("compression", "", "is not one of"),
    ],
)
def test_unknown_choices(name, value, problem):
    with pytest.raises(ConfigurationError, match=problem) as refused:
        Endpoint(URL, **{name: value})
    assert refused.value.field == name


@pytest.mark.parametrize("name", ["X-Api-Key", "x_scope", "a", "!#$%&'*+.^_`|~0-9"])
@pytest.mark.parametrize("value", ["", "value", "a b", "Bearer a=,;/+\"'"])
def test_headers(name, value):
    assert Endpoint(URL, headers={name: value}).headers == {name: value}


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", "a\n", "ä", "Content-Type", "content-encoding", "Host", "CONTENT-LENGTH"]
)
def test_names_that_no_header_can_have(name):
    with pytest.raises(ConfigurationError, match="not the name of a header") as refused:
        Endpoint(URL, headers={name: CANARY})
    assert refused.value.field == "headers"
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        f"{CANARY}\r\nX: y",
        f"{CANARY}\n",
        f"{CANARY}\0",
        f"ü{CANARY}",
        f"{CANARY} ",
        f" {CANARY}",
        f"{CANARY}\t",
    ],
)
def test_values_that_no_header_can_have_are_refused_and_not_repeated(value):
    with pytest.raises(ConfigurationError, match="'X-Api-Key'") as refused:
        Endpoint(URL, headers={"X-Api-Key": value})
    assert refused.value.field == "headers"
    assert CANARY not in str(refused.value)


def test_a_header_is_named_once_in_any_case():
    with pytest.raises(ConfigurationError, match=r"(?i)authorization"):
        Endpoint(URL, headers={"Authorization": "a", "authorization": "b"})


def test_header_values_are_not_in_the_repr():
    assert CANARY not in repr(Endpoint(URL, headers={"X-Api-Key": CANARY}))


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_file_that_is_not_there(name, tmp_path):
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigurationError, match=r"missing\.pem") as refused:
        TlsFiles(**{name: missing})
    assert refused.value.field == name


def test_a_key_that_is_not_there_or_has_no_certificate(tmp_path):
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    with pytest.raises(ConfigurationError, match=r"^key_file: .*missing\.pem"):
        TlsFiles(cert_file=str(certificate), key_file=str(tmp_path / "missing.pem"))
    with pytest.raises(ConfigurationError, match=r"^cert_file: is missing"):
        TlsFiles(key_file=str(certificate))


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\n"])
def test_a_file_that_holds_something_else(name, content, tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text(content)
    files = TlsFiles(**{name: str(wrong)})
    with pytest.raises(ConfigurationError, match=r"wrong\.pem") as refused:
        _ = files.ssl_context
    assert refused.value.field == name


def test_certificates_are_checked():
    context = TlsFiles().ssl_context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


# ---- limits


@pytest.mark.parametrize("name", ["max_body_bytes", "max_compressed_bytes"])
def test_a_size_is_from_a_kibibyte_to_64_mebibytes(name):
    for size in (1024, 64 * 1024 * 1024):
        assert getattr(Limits(**{name: size}), name) == size
    for size in (-1, 0, 1023, 64 * 1024 * 1024 + 1):
        with pytest.raises(ConfigurationError, match=f"^{name}: {size} is not.*1024 to 67108864") as refused:
            Limits(**{name: size})
        assert refused.value.field == name


@pytest.mark.parametrize("age", [timedelta(0), timedelta(hours=-1), timedelta(days=3651), timedelta.max])
def test_an_age_that_none_can_be(age):
    with pytest.raises(ConfigurationError, match="above 0 and up to 3650 days") as refused:
        Limits(max_age=age)
    assert refused.value.field == "max_age"


# ---- destinations


def destination(url: str, **headers: str) -> str:
    return Endpoint(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    ).destination


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://collector/v1/metrics", "https://collector:443/v1/metrics"),
        ("https://collector/v1/metrics", "https://collector:0443/v1/metrics/"),
        ("https://collector/v1/metrics", "HTTPS://Collector/v1/metrics"),
        ("http://collector/v1/metrics", "http://COLLECTOR:80/v1/metrics/"),
        ("http://collector", "http://collector/"),
        ("http://[2001:DB8::1]:80/x", "http://[2001:db8::1]/x/"),
    ],
)
def test_two_spellings_of_one_destination(url, same):
    assert destination(url) == destination(same)


def test_fields_that_do_not_change_the_destination(tmp_path):
    plain = destination(URL)
    assert plain == URL
    other = Endpoint(
        URL,
        headers={"Authorization": f"Bearer {CANARY}", "X-Api-Key": CANARY},
        protocol="http/json",
        compression="none",
        limits=Limits(
            timeout=1.5, max_body_bytes=1024, max_compressed_bytes=1024, max_age=timedelta(hours=1)
        ),
    )
    assert other.destination == plain


def test_fields_that_change_the_destination():
    others = [
        destination(URL),
        destination("http://collector:4318/v1/metrics"),
        destination("https://collector:4319/v1/metrics"),
        destination("https://collector/v1/metrics"),
        destination("http://collector:443/v1/metrics"),
        destination("https://collector2:4318/v1/metrics"),
        destination("https://collector:4318/V1/metrics"),
        destination("https://collector:4318/otlp/v1/metrics"),
        destination("https://[::1]:4318/v1/metrics"),
        destination(URL, X_Scope_OrgID="a"),
        destination(URL, X_Scope_OrgID="A"),
        destination(URL, X_Scope_OrgID="a b"),
        destination(URL, THANOS_TENANT="a"),
        destination(URL, THANOS_TENANT="a", X_Scope_OrgID="b"),
        destination(URL, X_Scope_OrgID="b&thanos-tenant=a"),
        destination(URL, THANOS_TENANT="a&x-scope-orgid=b"),
    ]
    assert len(set(others)) == len(others)


def test_the_spelling_and_order_of_tenant_headers_do_not_matter():
    one = destination(URL, X_Scope_OrgID="a", THANOS_TENANT="b")
    assert one == destination(URL, thanos_tenant="b", x_scope_orgid="a")


def test_authorities_are_loaded_once_and_for_https_only(monkeypatch):
    loaded, real = [], ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **given: loaded.append(given) or real(**given))
    OtlpClient(Endpoint("http://localhost:4318/v1/metrics")).close()
    assert not loaded
    endpoint = Endpoint("https://localhost:4318/v1/metrics")
    for each in (endpoint, replace(endpoint, limits=Limits(timeout=1))):
        OtlpClient(each).close()
    assert len(loaded) == 1
