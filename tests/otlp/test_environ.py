from __future__ import annotations

import pytest

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.otlp.endpoint import Endpoint, Limits, TlsFiles
from airflow_provider_forge.otlp.environ import endpoint_from_environ

CANARY = "hunter2-canary"
URL = "https://collector:4318/v1/metrics"

OTEL = "OTEL_EXPORTER_OTLP_"
BASE = {f"{OTEL}ENDPOINT": "https://collector:4318"}


def of(**environ: str) -> Endpoint:
    """Return the endpoint of these variables, beside the base URL."""
    return endpoint_from_environ({**BASE, **{OTEL + name: value for name, value in environ.items()}})


def test_the_base_url_alone():
    assert of() == Endpoint("https://collector:4318/v1/metrics")


def test_every_variable(tmp_path):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    settings = {
        "PROTOCOL": "http/json",
        "COMPRESSION": "none",
        "TIMEOUT": "1500",
        "HEADERS": "api-key=a",
        "CERTIFICATE": str(tmp_path / "ca"),
        "CLIENT_CERTIFICATE": str(tmp_path / "cert"),
        "CLIENT_KEY": str(tmp_path / "key"),
    }
    everything = Endpoint(
        url=URL,
        headers={"api-key": "a"},
        protocol="http/json",
        compression="none",
        limits=Limits(timeout=1.5, export_timeout=1.5),
        tls=TlsFiles(str(tmp_path / "ca"), str(tmp_path / "cert"), str(tmp_path / "key")),
    )
    assert of(**settings) == everything
    # The same by the variables for metrics, which win over the general ones.
    for_metrics = {f"METRICS_{name}": value for name, value in settings.items()}
    nonsense = dict.fromkeys(settings, "nonsense")
    assert of(**for_metrics) == everything
    assert of(**for_metrics, **nonsense) == everything


def test_an_empty_variable_counts_as_unset():
    names = ("ENDPOINT", "HEADERS", "PROTOCOL", "COMPRESSION", "TIMEOUT", "CERTIFICATE", "CLIENT_KEY")
    assert of(**{f"METRICS_{name}": " " for name in names}) == of()
    assert of(METRICS_TIMEOUT="", TIMEOUT="1500").limits.timeout == 1.5


@pytest.mark.parametrize(
    "url",
    [
        "https://vm/opentelemetry/api/v1/push",
        "https://vm/v1/metrics/",
        "https://vm",
        "https://vm/",
        "https://vm/v1/metrics",
    ],
)
def test_the_endpoint_for_metrics_is_used_unchanged_and_takes_precedence(url):
    assert of(METRICS_ENDPOINT=url).url == url
    assert endpoint_from_environ({f"{OTEL}METRICS_ENDPOINT": url}).url == url


@pytest.mark.parametrize("name", ["ENDPOINT", "METRICS_ENDPOINT"])
@pytest.mark.parametrize(
    "url",
    [
        "http://collector:4317",
        "https://collector/v1/traces",
        "collector:4318",
        f"https://u:{CANARY}@collector",
    ],
)
def test_either_endpoint_is_checked(name, url):
    with pytest.raises(ConfigurationError) as refused:
        endpoint_from_environ({OTEL + name: url})
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    "environ", [{}, {f"{OTEL}ENDPOINT": ""}, {f"{OTEL}TRACES_ENDPOINT": "https://collector"}]
)
def test_without_an_endpoint_the_error_names_the_variable(environ):
    with pytest.raises(ConfigurationError, match=f"{OTEL}ENDPOINT") as refused:
        endpoint_from_environ(environ)
    assert refused.value.field == "host"


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("a=1", {"a": "1"}),
        ("a=1,b=2", {"a": "1", "b": "2"}),
        (" a = 1 , b = 2 ,", {"a": "1", "b": "2"}),
        ("a=", {"a": ""}),
        ("a=b=c==", {"a": "b=c=="}),
        ("Authorization=Basic%20dTpw", {"Authorization": "Basic dTpw"}),
        ("Authorization=Bearer x", {"Authorization": "Bearer x"}),
        ("a=1%2C2%3D%25", {"a": "1,2=%"}),
        # Form encoding is not percent encoding.
        ("a=1+2", {"a": "1+2"}),
    ],
)
def test_headers_from_the_environment(text, headers):
    assert of(HEADERS=text).headers == headers


@pytest.mark.parametrize(
    "text", [f"{CANARY}", f"a=1,{CANARY}", f"={CANARY}", f"a b={CANARY}", f"a=%0A{CANARY}"]
)
def test_nonsense_headers_are_refused_and_not_repeated(text):
    with pytest.raises(ConfigurationError, match=r"(?i)headers") as refused:
        of(HEADERS=text)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(("milliseconds", "seconds"), [("1", 0.001), ("10000", 10.0), ("2500.5", 2.5005)])
def test_time_outs_are_in_milliseconds(milliseconds, seconds):
    assert of(TIMEOUT=milliseconds).limits.timeout == seconds


@pytest.mark.parametrize("nonsense", ["0", "-1", "soon", "10s", "nan", "inf", "1e999"])
def test_nonsense_time_outs(nonsense):
    with pytest.raises(ConfigurationError, match=f"{OTEL}TIMEOUT.*milliseconds"):
        of(TIMEOUT=nonsense)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("PROTOCOL", "grpc", "PROTOCOL"),
        ("METRICS_PROTOCOL", "grpc", "METRICS_PROTOCOL"),
        ("COMPRESSION", "deflate", "COMPRESSION"),
        ("CERTIFICATE", "missing.pem", "CERTIFICATE"),
        ("CLIENT_CERTIFICATE", "missing.pem", "CLIENT_CERTIFICATE"),
        ("CLIENT_KEY", "missing.pem", "CLIENT_CERTIFICATE"),
        ("ENDPOINT", "http://collector:4317", "ENDPOINT"),
        ("METRICS_ENDPOINT", "http://collector:4317", "METRICS_ENDPOINT"),
    ],
)
def test_nonsense_in_other_variables_names_the_variable_and_the_value(name, value, named):
    with pytest.raises(ConfigurationError) as refused:
        of(**{name: value})
    assert refused.value.field == OTEL + named
