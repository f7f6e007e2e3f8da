"""Connections that only Airflow's own processes can read, for commands."""

from __future__ import annotations

import json
import os
import traceback
from argparse import Namespace

import pytest
from airflow.models.connection import Connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_forge.cli.context import forge_access, otlp_access
from airflow_provider_forge.cli.runtime import ShellRuntime
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.utils import ledger

FORGE = {"conn_type": "forge", "extra": {"rate_limit_store": "redis_conn:limiter"}}
OTLP = {"conn_type": "otlp", "host": "http://localhost", "extra": {"ledger_url": "s3://bucket_owner@b/a"}}
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


@pytest.fixture
def opened(monkeypatch):
    """The URLs that Airflow is asked to open."""
    opened = []
    monkeypatch.setattr(ledger, "open_storage", lambda url, field: opened.append(url))
    return opened


def published():
    return {name for name in os.environ if name.startswith("AIRFLOW_CONN_")}


def test_a_connection_and_the_one_that_it_names_come_from_airflow(kept):
    kept |= {"forge_default": FORGE, "limiter": NAMED}
    forge = forge_access(Namespace(forge_conn_id="forge_default", app_id=None))
    assert forge.redis_url == "redis://somewhere:6379/0"
    assert published() == set()


@pytest.mark.parametrize(
    "text", ["{broken", '{"conn_type": "otlp", "bogus": "s3cr3t"}', '{"port": "s3cr3t"}']
)
def test_a_malformed_variable_is_an_error_and_not_passed_over(kept, monkeypatch, text):
    """Airflow itself would take the Connection of its database."""
    kept["otlp_default"] = OTLP
    monkeypatch.setenv("AIRFLOW_CONN_OTLP_DEFAULT", text)
    with pytest.raises(ConfigurationError, match=r"otlp_conn_id: .*AIRFLOW_CONN_OTLP_DEFAULT") as raised:
        _ = otlp_access(Namespace(otlp_conn_id="otlp_default")).ledger_url
    assert "s3cr3t" not in "".join(traceback.format_exception(raised.value))


def test_a_variable_goes_before_airflows_database(kept, monkeypatch):
    kept["otlp_default"] = OTLP
    monkeypatch.setenv("AIRFLOW_CONN_OTLP_DEFAULT", "otlp://http%3A%2F%2Fother.example")
    otlp = otlp_access(Namespace(otlp_conn_id="otlp_default"))
    assert otlp.endpoint().url == "http://other.example/v1/metrics"


def test_one_that_is_nowhere_is_an_error_that_says_what_to_do(kept):
    with pytest.raises(ConfigurationError, match=r"there is no Connection 'nowhere'.*AIRFLOW_CONN_NOWHERE"):
        otlp_access(Namespace(otlp_conn_id="nowhere")).endpoint()


@pytest.mark.parametrize("home", ["/srv/airflow", ""])
def test_it_says_in_which_airflow_it_has_looked(kept, monkeypatch, home):
    monkeypatch.setitem(os.environ, "AIRFLOW_HOME", home)
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://me:s3cret@db/airflow")
    with pytest.raises(ConfigurationError, match="whose AIRFLOW_HOME is /") as caught:
        otlp_access(Namespace(otlp_conn_id="nowhere")).endpoint()
    assert ("the default" in str(caught.value)) == (not home)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["app_id", "environments", "metrics"])
def test_an_empty_selection_is_not_the_connections(name):
    options = Namespace(forge_conn_id="forge_default", **{"app_id": None, name: ""})
    with pytest.raises(ConfigurationError, match=f"^--{name.replace('_', '-')}: is empty"):
        forge_access(options)


@pytest.mark.parametrize("owner", ["bucket_owner", "bucket%5Fowner"])
def test_the_owner_of_a_bucket_is_put_where_airflows_storage_looks(kept, opened, owner):
    kept |= {"bucket_owner": NAMED, "other": NAMED}
    ShellRuntime().open_storage(f"s3://{owner}@bucket/a")
    assert published() == {"AIRFLOW_CONN_BUCKET_OWNER"}
    assert opened == [f"s3://{owner}@bucket/a"]


@pytest.mark.parametrize("url", ["bucket", "s3://[bucket", "s3://nobody@bucket", "s3://bucket/a@b"])
def test_a_url_that_names_no_connection_is_left_to_the_storage(kept, opened, url):
    ShellRuntime().open_storage(url)
    assert published() == set()
    assert opened == [url]
