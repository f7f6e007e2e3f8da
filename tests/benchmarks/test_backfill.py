"""The benchmark of a backfill judges what has arrived."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import httpx
import pytest

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import SETTLE_DELAY
from tests.sandbox.asking import Client, app_metrics

pytest.importorskip("psycopg2", reason="the benchmarks need PostgreSQL's driver")

from benchmarks.backfill import MINUTE, Load, freshness

LOAD = Load(minutes=3, days=1, interval=MINUTE)


def test_a_live_window_is_fresh_once_all_its_points_have_arrived():
    now = datetime.now(timezone.utc)
    with SandboxGateway(rate_limit_calls=None) as gateway, OtlpSink() as sink, httpx.Client() as http:
        client = Client(gateway, http, time.time)
        begin, end = (now - timedelta(minutes=4)).timestamp(), now.timestamp()
        before = freshness(LOAD, gateway, sink, begin, end)
        assert before
        assert set(before) == {None}
        settled = now - SETTLE_DELAY
        metrics = app_metrics(client.metrics(settled - timedelta(minutes=6), settled, DEFAULT_METRICS))
        assert http.post(f"{sink.url}/v1/metrics", json=metrics).status_code == 200
        after = freshness(LOAD, gateway, sink, begin, end)
        assert len(after) == len(before)
        assert all(seconds > 0 for seconds in after)
