"""The Connections in docs/destinations.md are valid and behave as documented."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest

from airflow_provider_forge.hooks.otlp import OtlpHook
from tests.deploy.compose import ROOT

DOCS = ROOT / "docs" / "destinations.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.+?)(?=^## |\Z)", DOCS.read_text(), re.MULTILINE | re.DOTALL))
CONNECTIONS = {
    name: json.loads(block)
    for name, text in SECTIONS.items()
    for block in re.findall(r"```json\n(.+?)```", text, re.DOTALL)
}
SPLUNK = "https://ingest.us1.signalfx.com/v2/datapoint/otlp"

# Its URL, the header with the secret, and the maximum age of points.
EXPECTED = {
    "A Collector as a sidecar": ("http://localhost:4318/v1/metrics", {}, None),
    "Prometheus": ("http://prometheus:9090/api/v1/otlp/v1/metrics", {}, None),
    "Mimir": ("https://mimir.example.com/otlp/v1/metrics", {"X-Scope-OrgID": "forge"}, None),
    "Grafana Cloud": ("http://localhost:4318/v1/metrics", {}, dt.timedelta(hours=1)),
    "VictoriaMetrics": ("http://victoria-metrics:8428/opentelemetry/v1/metrics", {}, None),
    "Datadog": ("https://otlp.datadoghq.com/v1/metrics", {"dd-api-key": "<API key>"}, dt.timedelta(hours=1)),
    "Splunk Observability": (SPLUNK, {"X-SF-Token": "<access token>"}, dt.timedelta(hours=1)),
    "New Relic": (
        "https://otlp.nr-data.net/v1/metrics",
        {"api-key": "<license key>"},
        dt.timedelta(hours=48),
    ),
    "Dynatrace": (
        "https://abc12345.live.dynatrace.com/api/v2/otlp/v1/metrics",
        {"Authorization": "Api-Token <token>"},
        dt.timedelta(hours=1),
    ),
}


def test_each_connection_is_expected():
    assert CONNECTIONS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_hook_accepts_the_connection(name, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTLP_DEFAULT", json.dumps(CONNECTIONS[name]))
    for variable, value in re.findall(r"^(OTEL_\w+)=(.+)$", SECTIONS[name], re.MULTILINE):
        monkeypatch.setenv(variable, value)

    endpoint = OtlpHook("otlp_default").endpoint()

    url, headers, max_age = EXPECTED[name]
    assert endpoint.url == url
    told = {key.lower(): value for key, value in endpoint.headers.items()}
    assert told == {key.lower(): value for key, value in headers.items()}
    assert endpoint.limits.max_age == max_age


@pytest.mark.parametrize("name", [name for name in EXPECTED if name in DOCS.read_text().partition("## ")[0]])
def test_the_table_has_the_max_age_of_the_connection(name):
    [row] = re.findall(rf"^\| \[{name}\]\(#[\w-]+\) \| (.+) \|$", DOCS.read_text(), re.MULTILINE)
    _, _, _, told, _ = row.split(" | ")

    _, _, max_age = EXPECTED[name]
    assert re.findall(r"`(\d+)h`", told) == (
        [] if max_age is None else [str(max_age // dt.timedelta(hours=1))]
    )


def test_every_configuration_is_in_the_documentation():
    for folder in ("destinations", "privacy"):
        for file in (ROOT / "deploy" / "collector" / folder).iterdir():
            assert f"](../deploy/collector/{folder}/{file.name})" in DOCS.read_text()
