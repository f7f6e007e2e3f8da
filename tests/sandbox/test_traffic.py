from __future__ import annotations

import hashlib
import itertools
import math
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import timedelta

import pytest

from airflow_provider_forge.sandbox import SandboxGateway, Scenario
from airflow_provider_forge.sandbox.catalogue import MINUTE_NS, Sample
from airflow_provider_forge.sandbox.environments import DEFAULT_APP
from airflow_provider_forge.sandbox.traffic import samples_of_minute
from tests.sandbox.asking import DAY, END, START, points_of_answer

HOUR = timedelta(hours=1)
INVOCATIONS, ERRORS = "FORGE_BACKEND_INVOCATION_COUNT", "FORGE_BACKEND_INVOCATION_ERRORS"
REQUESTS, LATENCY = "FORGE_API_REQUEST_COUNT", "FORGE_API_REQUEST_LATENCY"
SECOND = 10**9
LATENESS = ((0, 180), (180, 1200), (7200, 21600))
IN_ANOTHER_PROCESS = f"""
import datetime, hashlib
from airflow_provider_forge.sandbox import SandboxGateway
start = datetime.datetime.fromisoformat("{START.isoformat()}")
points = SandboxGateway().generated(start, start + datetime.timedelta(minutes=15))
print(hashlib.sha256(repr(points).encode()).hexdigest())
"""


def generated(start=START, end=START + 2 * HOUR, environments=("production",), metrics=None, **switches):
    return SandboxGateway(Scenario(**switches)).generated(
        start, end, environments=environments, metrics=metrics
    )


def digest(points):
    return hashlib.sha256(repr(points).encode()).hexdigest()


def without(point, *names):
    return tuple(pair for pair in point.attributes if pair[0] not in names)


def test_it_depends_on_nothing_but_seed_app_environment_and_minute():
    found = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert found.stdout.strip() == digest(generated(START, END, environments=None))
    assert generated(seed=2) != generated(seed=1)
    assert generated(environments=["staging"]) != generated()


def test_it_is_the_same_as_it_ever_was():
    # A change here invalidates the data behind every recorded run and documented figure.
    assert digest(generated(START, END)) == "99fe62b833f6a6eee29c63364ef06bf1fca1126a9e96d702033e5e2593b7a0f4"


def test_volumes_are_those_of_an_app_in_use():
    keys = ("production", "staging", "default", "feature-x")
    per_minute = {key: len(generated(environments=[key])) / 120 for key in keys}
    assert 30 < per_minute["production"] < 80
    assert per_minute["production"] / 2 > per_minute["staging"] > per_minute["default"] > 0
    assert per_minute["feature-x"] < 5
    assert 18_000 < len(generated(START, END, large_app=True)) < 22_000


def test_weekends_and_nights_are_quiet():
    invocations = {
        name: sum(point.data().as_int for point in generated(at, at + 2 * HOUR, metrics=[INVOCATIONS]))
        for name, at in (("day", START), ("weekend", START + timedelta(days=4)), ("night", DAY + 3 * HOUR))
    }
    assert invocations["weekend"] < invocations["day"] / 3
    assert invocations["night"] < invocations["day"]


def test_a_few_sites_have_most_of_the_traffic_and_some_come_and_go():
    by_site = Counter()
    days = defaultdict(set)
    for day in range(9):
        start = START + timedelta(days=day)
        for point in generated(start, start + 4 * HOUR, metrics=[INVOCATIONS]):
            site = dict(point.attributes)["contextAri"]
            by_site[site] += point.data().as_int
            days[site].add(day)
    counts = sorted(by_site.values(), reverse=True)
    assert 35 <= len(counts) <= 40
    assert sum(counts[:8]) > sum(counts) / 2
    assert counts[-1] <= 9
    assert any(len(found) == 5 for site, found in days.items() if by_site[site] > 30)


def test_errors_are_never_more_than_invocations_and_sometimes_an_explicit_zero():
    invocations, errors = Counter(), Counter()
    zeros = 0
    for point in generated(metrics=[INVOCATIONS, ERRORS]):
        key = (point.time, without(point, "errorType", "moduleKey"))
        if point.metric.endswith("_errors"):
            errors[key] += point.data().as_int
            zeros += point.data().as_int == 0
        else:
            invocations[key] += point.data().as_int
    assert len(errors) > 50
    assert all(errors[key] <= invocations[key] for key in errors)
    assert 0.2 < zeros / len(errors) < 0.4


@pytest.mark.parametrize("latency_shape", ["histogram", "exponential_histogram", "summary"])
@pytest.mark.parametrize(
    ("count", "latency"), [(INVOCATIONS, "FORGE_BACKEND_INVOCATION_LATENCY"), (REQUESTS, LATENCY)]
)
def test_a_latency_has_one_observation_for_each_event(latency_shape, count, latency):
    counts, latencies = Counter(), Counter()
    for point in generated(START, END, metrics=[count, latency], latency_shape=latency_shape):
        key = (point.time, without(point, "status"))
        if point.metric.endswith("_latency"):
            assert key not in latencies
            latencies[key] = point.data().count
        else:
            counts[key] += point.data().as_int
    assert counts == latencies


def test_buckets_and_quantiles_add_up():
    for point in generated(START, END, metrics=[LATENCY]):
        data = point.data()
        assert sum(data.bucket_counts) == data.count
        assert len(data.bucket_counts) == len(data.explicit_bounds) + 1
        assert data.min * data.count <= data.sum <= data.max * data.count
    for point in generated(START, END, metrics=[LATENCY], latency_shape="exponential_histogram"):
        data = point.data()
        base = 2 ** (2**-data.scale)
        assert sum(data.positive.bucket_counts) == data.count
        assert base**data.positive.offset < data.min <= base ** (data.positive.offset + 1) * (1 + 1e-9)
    for point in generated(START, END, metrics=[LATENCY], latency_shape="summary"):
        values = [quantile.value for quantile in point.data().quantile_values]
        assert values == sorted(values)
    assert {point.kind for point in generated(metrics=[LATENCY], latency_shape="gauge")} == {"gauge"}


def test_a_version_is_rolled_out_step_by_step_and_rolled_back():
    versions = []
    for hour in range(3 * 24):
        start = DAY + hour * HOUR
        found = generated(start, start + timedelta(minutes=4), metrics=[INVOCATIONS], traffic=10.0)
        versions.append({dict(point.attributes)["appVersion"] for point in found})
    sizes = [len(found) for found in versions]
    assert 3 <= sizes.count(2) <= 6
    everywhere = set().union(*versions)
    assert len(everywhere) >= 2


def test_an_incident_of_jira_alone():
    def requests(day):
        start = DAY + timedelta(days=day, hours=13, minutes=7)
        end = start + timedelta(minutes=47)
        found = defaultdict(Counter)
        for point in generated(start, end, metrics=[REQUESTS], traffic=5.0):
            attributes = dict(point.attributes)
            found[attributes["remote"]][attributes["status"]] += point.data().as_int
        return found

    usual, incident = requests(0), requests(1)
    assert 0.35 < incident["jira"]["5xx"] / incident["jira"].total() < 0.45
    assert usual["jira"]["5xx"] / usual["jira"].total() < 0.05
    assert incident["confluence"]["5xx"] / incident["confluence"].total() < 0.05
    ratio = incident["jira"].total() / usual["jira"].total()
    assert 1.5 < ratio / (incident["confluence"].total() / usual["confluence"].total()) < 2.1


def test_an_incident_of_one_site_that_the_total_hides():
    start = DAY + timedelta(days=2, hours=9, minutes=20)
    by_site = defaultdict(Counter)
    for point in generated(start, start + timedelta(minutes=105), metrics=[INVOCATIONS, ERRORS], traffic=3.0):
        by_site[dict(point.attributes)["contextAri"]][point.metric[-6:]] += point.data().as_int
    shares = sorted(each["errors"] / each["_count"] for each in by_site.values() if each["_count"] > 30)
    assert shares[-1] > 0.5 > shares[-2]
    total = sum((each for each in by_site.values()), Counter())
    assert total["errors"] / total["_count"] < 0.12


def test_an_unnormalised_url_adds_500_series():
    end = START + 2 * HOUR
    plain, more = (
        {point.attributes for point in generated(START, end, metrics=[REQUESTS], unnormalised_url=switch)}
        for switch in (False, True)
    )
    assert plain <= more
    urls = {dict(attributes)["url"] for attributes in more - plain}
    assert 485 <= len(urls) <= 500
    assert 20 <= len({dict(attributes)["url"] for attributes in plain}) <= 40


def test_pods_churn_and_restarts_start_again():
    points = generated(DAY, DAY + 24 * HOUR, metrics=["CONTAINER_STATUS_RESTARTS_TOTAL"])
    assert {point.temporality for point in points} == {2}
    by_pod = defaultdict(list)
    for point in points:
        by_pod[dict(point.attributes)["pod"]].append(point)
    assert 6 <= len(by_pod) <= 8
    resets = 0
    for series in by_pod.values():
        for before, after in itertools.pairwise(series):
            if after.start != before.start:
                resets += before.data().as_int > after.data().as_int == 0
            else:
                assert after.data().as_int >= before.data().as_int
    assert resets > 4


def test_some_points_have_no_environment():
    found = {point.metric for point in generated() if "environmentId" not in dict(point.attributes)}
    assert found == {"container_uptime_seconds", "service_instance_count"}
    assert not any(point.metric.startswith(("container", "service")) for point in generated(containers=False))


def test_container_points_may_repeat_with_other_values():
    points = generated(START, END, metrics=["CONTAINER_CPU_USAGE_PERCENTAGE"], repeated_container_points=True)
    series = Counter((point.attributes, point.time) for point in points)
    assert set(series.values()) == {4}
    assert len(set(points)) > 0.9 * len(points)


def test_points_may_be_unaligned_or_last_six_milliseconds():
    assert {(point.start % MINUTE_NS, point.time - point.start) for point in generated() if point.start} >= {
        (0, MINUTE_NS)
    }
    aligned, points = generated(), generated(unaligned_points=True)
    lengths = Counter(point.time - point.start for point in points if point.temporality == 1)
    assert lengths.keys() == {MINUTE_NS, 6 * 10**6}
    assert any(point.start % MINUTE_NS for point in points)
    assert sorted(point.value for point in points) == sorted(point.value for point in aligned)


def test_points_may_exist_twice():
    once, points = generated(), generated(exact_duplicates=True)
    assert set(once) == set(points)
    assert max(Counter(points).values()) == 2
    assert 1.01 < len(points) / len(once) < 1.05


def test_the_latency_shape_and_the_switches_leave_the_counts_alone():
    counts = generated(metrics=[INVOCATIONS, ERRORS])
    assert generated(metrics=[INVOCATIONS, ERRORS], latency_shape="gauge", lateness=True) == counts


def test_inclusive_ends_give_the_edge_to_both_windows(start_gateway):
    client = start_gateway(Scenario(inclusive_ends=True))
    before = points_of_answer(client.metrics(START - timedelta(minutes=15), START))
    after = points_of_answer(client.metrics())
    edge = int(START.timestamp()) * SECOND
    shared = Counter(before) & Counter(after)
    assert shared == Counter(point for point in before if point.time == edge)
    assert shared
    assert set(after) - set(shared) == set(client.gateway.generated(START, END, metrics=[INVOCATIONS])) & set(
        after
    )


def test_responses_may_have_points_of_other_windows(start_gateway):
    client = start_gateway(Scenario(points_outside_window=True))
    points = points_of_answer(client.metrics())
    inside = set(client.gateway.generated(START, END))
    outside = [point for point in points if point not in inside]
    assert 2 <= len(outside) <= 6
    minute = timedelta(minutes=1)
    assert set(outside) <= set(client.gateway.generated(START - minute, END + minute))


@pytest.fixture(scope="module")
def late_samples() -> list[Sample]:
    scenario = Scenario(lateness=True)
    production = next(each for each in SandboxGateway().environments if each.key == "production")
    first = int(START.timestamp()) // 60
    return [
        sample
        for minute in range(first, first + 240)
        for sample in samples_of_minute(scenario, DEFAULT_APP, production, minute)
    ]


def test_most_points_are_visible_soon_and_the_last_after_hours(late_samples):
    final = [sample for sample in late_samples if math.isinf(sample.visible_until)]
    delays = [sample.visible_from - sample.time / SECOND for sample in final]
    shares = [sum(low <= each <= high for each in delays) / len(final) for low, high in LATENESS]
    assert shares == pytest.approx([0.95, 0.04, 0.01], abs=0.006)


def test_some_values_are_raised_later(late_samples):
    earlier = [sample for sample in late_samples if not math.isinf(sample.visible_until)]
    assert earlier
    for sample in earlier:
        (raised,) = [
            each
            for each in late_samples
            if each.visible_from == sample.visible_until and each.attributes == sample.attributes
        ]
        assert raised.value > sample.value > 0
        assert sample.visible_until - sample.visible_from >= 2 * 3600


def test_a_late_point_is_served_once_it_is_visible(start_gateway):
    client = start_gateway(Scenario(lateness=True))
    gateway = client.gateway
    final = gateway.generated(START, END, environments=["production"], metrics=[INVOCATIONS])
    client.clock.now = END.timestamp()
    early = points_of_answer(client.metrics())
    assert early == gateway.visible(START, END, END, environments=["production"], metrics=[INVOCATIONS])
    assert len(early) < len(final)
    client.clock.now = (END + 6 * HOUR).timestamp()
    assert points_of_answer(client.metrics()) == final


def test_an_outage_has_no_points_and_is_filled_later(start_gateway):
    client = start_gateway(Scenario(outage=True))
    start = DAY + timedelta(hours=5, minutes=20)
    end = start + timedelta(minutes=15)
    client.clock.now = (DAY + timedelta(hours=6, minutes=59)).timestamp()
    assert points_of_answer(client.metrics(start, end)) == []
    assert points_of_answer(client.metrics(start - timedelta(minutes=15), start))
    client.clock.now = (DAY + timedelta(hours=7)).timestamp()
    assert points_of_answer(client.metrics(start, end)) == client.gateway.generated(
        start, end, environments=["production"], metrics=[INVOCATIONS]
    )
