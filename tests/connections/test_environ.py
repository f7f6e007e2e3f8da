"""Connections in variables are read as Airflow reads them; what is unusual is left to it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from airflow.sdk import Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_forge.connections.environ import connection_from_environ

if not hasattr(Connection, "from_uri"):  # Airflow 3.0, whose tasks have no class of their own that reads it
    from airflow.models.connection import Connection

FIELDS = ("conn_id", "conn_type", "host", "schema", "login", "password", "port", "extra")

# With "/" in a user or host, "%" without digits, and both kinds of extra.
URIS = (
    "forge://dev%40example.com:t0k%2Fen@https%3A%2F%2FGateway.example%2Fgraphql?app_id=1&metrics=a%2Cb",
    "forge://dev%40example.com:token@/?__extra__=%7B%22app_id%22%3A+%221%22%2C+%22n%22%3A+5%7D",
    "otlp://https://:secret@otlp.example:4318/v1/metrics?compression=gzip",
    "otlp://https://otlp.example/v1/metrics?max_age=",
    "otlp://otlp.example:4318",
    "otlp://",
    "otlp:///?ledger_url=s3%3A%2F%2Fbucket%2Fpath",
    "otlp://host/?headers=%7B%7D&headers=2",
    "my-type://User@Host/Schema%2Fa",
    "postgresql://u:p@h/db",
    "otlp://[::1]:4318/a",
    "otlp://100%@host%zz",
)
JSONS = (
    {"conn_type": "forge", "login": "a", "password": "b", "extra": {"app_id": "1", "n": 1.5}},
    {"conn_type": "my-type", "host": "https://h/p", "port": "4318", "extra": '{"a": 1}'},
    {"conn_type": "otlp", "port": 4318, "extra": None, "description": "of mine", "schema": ""},
    {"conn_type": "otlp", "port": 0, "extra": {}},
    {"host": None},
    {},
)
LEFT_TO_AIRFLOW = (
    "",
    "text",
    "a://b://c://d",
    "otlp://:secret@https://otlp.example",
    "otlp://host:port",
    "otlp://[half",
    '{"conn_type": 5}',
    '{"conn_type": "otlp", "uri": "otlp://host"}',
    '{"conn_type": "otlp", "port": "many"}',
    '{"conn_type": "otlp", "port": [1]}',
    '{"conn_type": "otlp"',
    '{"conn_type": "otlp", "extra": "not JSON"}',
    '{"conn_type": "otlp", "extra": [1]}',
    '{"conn_id": "other"}',
)


def read(monkeypatch, text):
    monkeypatch.setenv("AIRFLOW_CONN_MINE", text)
    return connection_from_environ("mine")


def of_uri(uri):
    return (
        Connection.from_uri(uri, "mine") if hasattr(Connection, "from_uri") else Connection("mine", uri=uri)
    )


def fields(connection):
    return {name: getattr(connection, name) for name in FIELDS}


@pytest.mark.parametrize("uri", URIS)
def test_a_uri_has_the_same_fields_as_in_airflow(monkeypatch, uri):
    ours = read(monkeypatch, f" {uri}\n")
    assert fields(ours) == fields(of_uri(uri))


@pytest.mark.parametrize("content", JSONS, ids=str)
def test_json_has_the_same_fields_as_in_airflow(monkeypatch, content):
    text = json.dumps(content)
    ours, theirs = read(monkeypatch, text), Connection.from_json(text, conn_id="mine")
    assert fields(ours) == fields(theirs)
    assert ours.extra_dejson == theirs.extra_dejson


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {"conn_type": st.sampled_from(("forge", "otlp", "my-type"))},
        optional={
            "host": st.text(min_size=1),
            "login": st.text(),
            "password": st.text(),
            "schema": st.text(min_size=1),
            "port": st.integers(1, 65535),
            "extra": st.dictionaries(st.text(min_size=1), st.text() | st.integers()).map(json.dumps),
        },
    )
)
def test_a_uri_that_airflow_writes_has_the_same_fields_as_in_airflow(written):
    uri = Connection(conn_id="mine", **written).get_uri()
    try:
        theirs = fields(of_uri(uri))
    except Exception:  # noqa: BLE001 - Airflow writes some that it cannot read
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        ours = read(monkeypatch, uri)
    assert fields(ours) == theirs


@pytest.mark.parametrize("text", LEFT_TO_AIRFLOW)
def test_what_is_malformed_or_unusual_is_left_to_airflow(monkeypatch, text):
    assert read(monkeypatch, text) is None


def test_there_may_be_none(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_MINE", raising=False)
    assert connection_from_environ("mine") is None


def test_the_room_imports_no_airflow():
    code = (
        "import sys, airflow_provider_forge.connections.checks, airflow_provider_forge.connections.environ,"
        " airflow_provider_forge.connections.forge, airflow_provider_forge.connections.ledger,"
        " airflow_provider_forge.connections.otlp; print('airflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
