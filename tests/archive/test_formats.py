"""The archive's format is public: programs that nobody here has written read it."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from pathlib import Path

import httpx
import pytest

from airflow_provider_forge.sandbox import OtlpSink
from tests.archive.conftest import run
from tests.archive.test_replay import HOUR, generated, objects
from tests.receivers.collector import SIDECAR, Collector

PAGE = Path(__file__).parents[2] / "docs" / "archive.md"


def test_the_recipe_for_duckdb_counts_every_point(archived, gateway, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    run(HOUR)
    [recipe] = re.findall(r"^```sql\n(.+?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert "'archive/*/2026/11/*/*.json.gz'" in recipe
    found = duckdb.sql(recipe.replace("archive/*/2026/11/*/*", f"{tmp_path}/archive/*/*/*/*/*")).fetchall()
    points = generated(gateway, HOUR)
    assert {name: count for name, count, _ in found} == Counter(point.metric for point in points.elements())
    sums = [point for point in points.elements() if point.kind == "sum"]
    for name in {point.metric for point in sums}:
        [total] = [total for metric, _, total in found if metric == name]
        assert total == sum(point.data().as_int for point in sums if point.metric == name)


def test_a_collector_takes_the_content_of_an_object_as_it_is(archived, gateway, tmp_path):
    run(HOUR)
    with OtlpSink() as sink, Collector(tmp_path, SIDECAR, DESTINATION_URL=sink.url) as collector:
        for path in objects(tmp_path):
            response = httpx.post(
                f"{collector.url}/v1/metrics",
                content=gzip.decompress(path.read_bytes()),
                headers={"Content-Type": "application/json"},
                trust_env=False,
            )
            assert response.is_success, response.text
        assert Counter(sink.points) == generated(gateway, HOUR)
