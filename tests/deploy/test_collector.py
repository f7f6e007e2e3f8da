"""Each Collector configuration under deploy/ is valid and has the intended effect."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone

import pytest
import yaml

from airflow_provider_forge.gateway.sites import Site
from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.endpoint import Endpoint, metrics_url
from airflow_provider_forge.payload.conform import Identity
from airflow_provider_forge.sandbox import Fault
from airflow_provider_forge.usage import metrics as usage
from airflow_provider_forge.usage.sites import SITE_INFO, points_of_sites
from tests.deploy.conftest import totals
from tests.receivers.collector import CONFIGURATIONS, SIDECAR, Collector
from tests.receivers.programs import program

FILES = sorted(CONFIGURATIONS.rglob("*.yaml"))
PRIVACY = CONFIGURATIONS / "privacy"
WITH_EXPORTER = [file for file in FILES if file.parent != PRIVACY]
# The tests' Collector lacks its exporter, some of whose modules are not available.
SIGNALFX = CONFIGURATIONS / "destinations" / "splunk-signalfx.yaml"
HASH, DROP = PRIVACY / "hash-sites.yaml", PRIVACY / "drop-sites.yaml"
SALT = "0123456789abcdef"
QUARTER, HOUR = timedelta(minutes=15), timedelta(hours=1)
RESTARTS = "container_status_restarts_total"
DELTA, CUMULATIVE = 1, 2

# By destination: the variables with its address, and the header with its secret.
DESTINATIONS = {
    "datadog": ({"DATADOG_METRICS_URL": "{url}/v1/metrics", "DD_API_KEY": "s3cret"}, "dd-api-key", "s3cret"),
    "dynatrace": (
        {"DYNATRACE_OTLP_URL": "{url}", "DYNATRACE_API_TOKEN": "s3cret"},
        "authorization",
        "Api-Token s3cret",
    ),
    "grafana-cloud": (
        {"GRAFANA_CLOUD_OTLP_URL": "{url}", "GRAFANA_CLOUD_BASIC_AUTH": "aTpz"},
        "authorization",
        "Basic aTpz",
    ),
    "sidecar": ({"DESTINATION_URL": "{url}"}, "content-type", "application/x-protobuf"),
    "splunk": (
        {"SPLUNK_METRICS_URL": "{url}/v1/metrics", "SPLUNK_ACCESS_TOKEN": "s3cret"},
        "x-sf-token",
        "s3cret",
    ),
}


def destination(name, sink, directory, *more, **variables):
    named, _, _ = DESTINATIONS[name]
    told = {key: value.format(url=sink.url) for key, value in named.items()}
    return Collector(directory, CONFIGURATIONS / "destinations" / f"{name}.yaml", *more, **told, **variables)


@pytest.fixture
def through(sink, tmp_path):
    """Return a function that sends a window through a Collector and returns the points that arrived."""

    def through(source, start, end, name, *more, **variables):
        with destination(name, sink, tmp_path, *more, **variables) as collector:
            done = source.send(collector.url, start, end)
        assert done.returncode == 0, done.stderr
        return sink.points

    return through


@pytest.mark.parametrize("file", [file for file in FILES if file != SIGNALFX], ids=lambda file: file.stem)
def test_the_collector_accepts_it(file):
    done = validated(*([SIDECAR, file] if file.parent == PRIVACY else [file]))

    assert done.returncode == 0, done.stderr


def test_the_collector_accepts_all_but_the_exporter_signalfx(tmp_path):
    configuration = yaml.safe_load(SIGNALFX.read_text())
    exporter = configuration["exporters"].pop("signalfx")
    configuration["exporters"]["debug"] = {}
    [pipeline] = configuration["service"]["pipelines"].values()
    assert pipeline["exporters"] == ["signalfx"]
    pipeline["exporters"] = ["debug"]
    (tmp_path / "debug.yaml").write_text(yaml.safe_dump(configuration))

    done = validated(tmp_path / "debug.yaml")

    assert done.returncode == 0, done.stderr
    # The settings on Atlassian's page, and on Splunk's page about histograms.
    assert exporter["access_token"] == "${env:SPLUNK_ACCESS_TOKEN}"
    assert exporter["realm"] == "${env:SPLUNK_REALM:-us1}"
    assert exporter["send_otlp_histograms"] is True


@pytest.mark.parametrize("file", WITH_EXPORTER, ids=lambda file: file.stem)
def test_it_has_no_queue(file):
    # `validate` ignores unknown keys.
    off = "    {}:\n      enabled: false\n"
    assert all(off.format(key) in file.read_text() for key in ("sending_queue", "retry_on_failure"))


def test_every_destination_is_sent_data():
    files = set((CONFIGURATIONS / "destinations").iterdir()) - {SIGNALFX}

    assert {file.stem for file in files} == DESTINATIONS.keys()


@pytest.mark.parametrize("name", sorted(DESTINATIONS.keys() - {"grafana-cloud"}))
def test_all_but_cumulative_points_arrive_as_they_are(name, through, source_of, sink, noon):
    source = source_of()
    sent = [point for point in source.generated(noon, noon + QUARTER) if point.metric != RESTARTS]

    arrived = through(source, noon, noon + QUARTER, name)

    assert {"gauge", "histogram", "sum"} == {point.kind for point in sent}
    assert Counter(point for point in arrived if point.metric != RESTARTS) == Counter(sent)
    assert_secret(name, sink)


@pytest.mark.parametrize("name", ["datadog", "dynatrace"])
def test_restarts_become_differences(name, through, source_of, noon):
    source = source_of()
    # For each counter, from its first observed point to its last; a new one starts with a delta of 0.
    seen = defaultdict(list)
    for point in source.generated(noon, noon + 4 * HOUR):
        if point.metric == RESTARTS:
            seen[dict(point.attributes)["pod"], point.start].append((point.time, point.data().as_int))
    restarts = sum(max(points)[1] - min(points)[1] for points in seen.values())

    arrived = through(source, noon, noon + 4 * HOUR, name)

    differences = [point for point in arrived if point.metric == RESTARTS]
    assert {point.temporality for point in differences} == {DELTA}
    assert sum(point.data().as_int for point in differences) == restarts > 0


def test_for_grafana_cloud_deltas_are_summed_up(through, source_of, sink, noon):
    source = source_of()

    arrived = through(source, noon, noon + HOUR, "grafana-cloud")

    assert DELTA not in {point.temporality for point in arrived}
    last = {}
    for point in sorted(arrived, key=lambda point: point.time):
        if point.temporality == CUMULATIVE and point.metric != RESTARTS:
            last[point.metric, point.attributes] = point
    deltas = [point for point in source.generated(noon, noon + HOUR) if point.temporality == DELTA]
    assert totals(last.values()) == totals(deltas)
    assert_secret("grafana-cloud", sink)


@pytest.mark.parametrize(("told", "answered"), [(400, 400), (401, 401), (413, 500), (429, 429), (503, 503)])
def test_the_destinations_response_reaches_the_task(sink, source_of, noon, tmp_path, told, answered):
    sink.add_fault(Fault("status", status=told))
    with destination("sidecar", sink, tmp_path) as collector:
        done = source_of().send(collector.url, noon, noon + QUARTER)

    assert f"answered {answered}" in done.stderr


@pytest.mark.parametrize("shape", ["histogram", "summary"])
def test_hashed_sites_keep_their_series(through, source_of, noon, shape):
    source = source_of(latency_shape=shape)
    sent = source.generated(noon, noon + HOUR)

    arrived = through(source, noon, noon + HOUR, "sidecar", HASH, SITE_SALT=SALT)

    sites = {dict(point.attributes).get("contextAri") for point in arrived} - {None}
    assert all(re.fullmatch("[0-9a-f]{16}", site) for site in sites)
    assert len(sites) == len({dict(point.attributes).get("contextAri") for point in sent} - {None}) > 1
    # The same number of points with the same values: only the one attribute has changed.
    assert Counter(without_site(point) for point in arrived) == Counter(without_site(point) for point in sent)
    assert len(series_and_time(arrived)) == len(series_and_time(sent))


def test_without_a_salt_nothing_leaves(sink, source_of, noon, tmp_path):
    with destination("sidecar", sink, tmp_path, HASH, SITE_SALT=SALT[:15]) as collector:
        done = source_of().send(collector.url, noon, noon + QUARTER)

    assert "SITE_SALT needs 16 characters" in done.stderr
    assert SALT[:15] not in done.stderr + collector.log()
    assert not sink.points


@pytest.mark.parametrize("shape", ["histogram", "exponential_histogram"])
def test_dropping_sites_keeps_totals_and_merges_points(through, source_of, noon, shape):
    # Enough traffic for several sites to call one function in one minute.
    source = source_of(latency_shape=shape, traffic=10.0)
    sent = source.generated(noon, noon + HOUR)

    arrived = through(source, noon, noon + HOUR, "sidecar", DROP)

    assert not any("contextAri" in dict(point.attributes) for point in arrived)
    assert len(arrived) < len(sent) / 2
    assert totals(arrived) == pytest.approx(totals(sent))
    assert max(series_and_time(arrived).values()) == 1
    histograms = [point.data() for point in arrived if point.kind == "histogram"]
    assert histograms
    assert all(sum(each.bucket_counts) == each.count for each in histograms)
    assert sum(each.sum for each in histograms) == pytest.approx(
        sum(point.data().sum for point in sent if point.kind.lower().endswith("histogram"))
    )


def test_dropped_sites_leave_no_quantiles(through, source_of, noon):
    source = source_of(latency_shape="summary")

    arrived = through(source, noon, noon + QUARTER, "sidecar", DROP)

    assert "summary" in {point.kind for point in source.generated(noon, noon + QUARTER)}
    assert "summary" not in {point.kind for point in arrived}


def validated(*files):
    names = {name for each in files for name in re.findall(r"\{env:(\w+)\}", each.read_text())}
    env = {**os.environ, **dict.fromkeys(names, "http://127.0.0.1:1")}
    command = [program("otelcol"), "validate", *(f"--config={each}" for each in files)]
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True)


def assert_secret(name, sink):
    _, header, value = DESTINATIONS[name]
    assert {request.headers[header] for request in sink.requests} == {value}


def without_site(point):
    attributes = tuple(pair for pair in point.attributes if pair[0] != "contextAri")
    return point.metric, point.kind, attributes, point.start, point.time, point.value


def series_and_time(points):
    """Count the points by the properties that identify them to a backend."""
    return Counter((point.metric, point.attributes, point.time) for point in points)


@pytest.mark.parametrize("file", [HASH, DROP], ids=lambda file: file.stem)
def test_usage_and_names_of_sites_name_no_site(file, sink, tmp_path):
    site = "ari:cloud:jira::site/customer"
    now = datetime.now(timezone.utc)
    attributes = {usage.RESOURCE: "KVS_READ", usage.DATE: "2026-11-26"}
    points = [
        usage.UsagePoint(usage.SITE_DAILY, 1.5, now, {**attributes, usage.SITE: site}),
        usage.UsagePoint(usage.DAILY, 2.5, now, attributes),
        *points_of_sites([Site(site, "customer", "customer.example", "PREMIUM")], now),
    ]
    with destination("sidecar", sink, tmp_path, file, SITE_SALT=SALT) as collector:
        endpoint = Endpoint(metrics_url(collector.url))
        identity = Identity("12345678-1234-4234-8234-123456789abc")
        with OtlpClient(endpoint) as client:
            for request in usage.encode_points(points, identity, endpoint.protocol, 2**20):
                client.export(request)
    arrived = {point.metric: dict(point.attributes).get(usage.SITE) for point in sink.points}
    expected = {usage.DAILY.name: None}
    if file == HASH:
        hashed = hashlib.sha256((SALT + site).encode()).hexdigest()[:16]
        expected |= {usage.SITE_DAILY.name: hashed, SITE_INFO.name: None}
        [info] = [dict(point.attributes) for point in sink.points if point.metric == SITE_INFO.name]
        assert info == {"contextAri": hashed, "forge.site.edition": "PREMIUM"}
    assert arrived == expected
