"""Connections that only Airflow's own processes can read, for hooks outside of a task."""

from __future__ import annotations

import json
import os
from argparse import Namespace

import pytest
from airflow.models.connection import Connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_forge.cli.context import forge_hook, otlp_hook

FORGE = {"conn_type": "forge", "extra": {"rate_limit_store": "redis_conn:limiter"}}
OTLP = {
    "conn_type": "otlp",
    "host": "http://localhost",
    "extra": {"ledger_url": "s3://bucket_owner@bucket/a"},
}
NAMED = {"conn_type": "generic", "host": "somewhere"}


@pytest.fixture
def kept(monkeypatch):
    """Connections as Airflow's database has them, by id."""
    kept = {}

    def get(conn_id):
        if conn_id not in kept:
            raise AirflowNotFoundException(conn_id)
        return Connection.from_json(json.dumps(kept[conn_id]), conn_id=conn_id)

    monkeypatch.setattr(Connection, "get_connection_from_secrets", get)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return kept


def published():
    return {name for name in os.environ if name.startswith("AIRFLOW_CONN_")}


def test_the_redis_of_the_rate_limit(kept):
    kept |= {"forge_default": FORGE, "limiter": NAMED}
    forge_hook(Namespace(forge_conn_id="forge_default", app_id=None))
    assert published() == {"AIRFLOW_CONN_FORGE_DEFAULT", "AIRFLOW_CONN_LIMITER"}


def test_the_connection_of_the_ledgers_bucket(kept):
    kept |= {"otlp_default": OTLP, "bucket_owner": NAMED, "other": NAMED}
    otlp_hook(Namespace(otlp_conn_id="otlp_default"))
    assert published() == {"AIRFLOW_CONN_OTLP_DEFAULT", "AIRFLOW_CONN_BUCKET_OWNER"}


def test_that_of_the_option(kept):
    kept |= {"otlp_default": OTLP, "bucket_owner": NAMED, "other": NAMED}
    otlp_hook(Namespace(otlp_conn_id="otlp_default", ledger_url="s3://other@bucket/a"))
    assert published() == {"AIRFLOW_CONN_OTLP_DEFAULT", "AIRFLOW_CONN_OTHER"}


@pytest.mark.parametrize("url", ["bucket", "s3://[bucket", "s3://nobody@bucket", "s3://bucket/a@b"])
def test_a_url_without_a_connection_is_left_to_the_hook(kept, url):
    kept["otlp_default"] = {**OTLP, "extra": {"ledger_url": url}}
    otlp_hook(Namespace(otlp_conn_id="otlp_default"))
    assert published() == {"AIRFLOW_CONN_OTLP_DEFAULT"}
    otlp_hook(Namespace(otlp_conn_id="nowhere"))
    forge_hook(Namespace(forge_conn_id="nowhere", app_id=None))
