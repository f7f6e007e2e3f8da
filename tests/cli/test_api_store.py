from __future__ import annotations

import itertools
import socket

import pytest

from airflow_provider_forge.cli import api_store
from airflow_provider_forge.cli.api_store import ApiStore
from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.sandbox.server import Reply
from tests.cli.airflow_api import ASSET, AirflowApi

TOKEN = "c4n4ry-jwt"


@pytest.fixture
def airflow():
    with AirflowApi(TOKEN) as airflow:
        yield airflow


@pytest.fixture
def store(airflow):
    return ApiStore(f"{airflow.address}/", TOKEN, ASSET)


def test_a_stored_value_is_visible_to_this_store_and_to_others(airflow, store):
    assert store.get("app/where/20261123T0600Z") is None
    store.set("app/where/20261123T0600Z", {"a": 1})
    assert airflow.values == {"app/where/20261123T0600Z": {"a": 1}}
    for each in (store, ApiStore(airflow.address, TOKEN, ASSET)):
        assert each.get("app/where/20261123T0600Z") == {"a": 1}
    store.delete("app/where/20261123T0600Z")
    assert (airflow.values, store.get("app/where/20261123T0600Z")) == ({}, None)


def test_each_value_is_read_again_because_tasks_write_as_well(airflow, store):
    assert store.get("key") is None
    for value in ({"n": 1}, {"n": 2}):
        airflow.values["key"] = value
        assert store.get("key") == value
    del airflow.values["key"]
    assert store.get("key") is None
    store.delete("key")


@pytest.mark.parametrize("value", [None, [1], "text", 5])
def test_a_row_of_another_form_is_a_damaged_value(airflow, store, value):
    airflow.values["key"] = value
    assert store.get("key") == {}


def test_an_endless_response_is_not_read(airflow, store):
    airflow.values["key"] = {"n": "x" * 5_000_000}
    with pytest.raises(LedgerUnavailable, match="larger than"):
        store.get("key")


def test_a_snapshot_of_large_rows_is_read_in_smaller_pages(airflow):
    airflow.values = {f"key/{number:04}": {"n": "x" * 60_000} for number in range(100)}
    snapshot = ApiStore(airflow.address, TOKEN, ASSET, snapshot=True)
    assert [snapshot.get(key) for key in airflow.values] == list(airflow.values.values())


def test_all_rows_are_read_once_page_by_page(airflow):
    airflow.values = {f"key/{number:04}": {"n": number} for number in range(250)}
    store = ApiStore(airflow.address, TOKEN, ASSET, snapshot=True)
    before = len(airflow.requests)
    assert [store.get(key) for key in airflow.values] == list(airflow.values.values())
    assert len(airflow.requests) - before == 3


def test_it_has_a_name_and_a_maximum_size(store):
    assert store.name == f"the asset {ASSET} of 127.0.0.1"
    assert store.largest == 65_000


def refused(*arguments):
    with pytest.raises((ConfigurationError, LedgerUnavailable)) as caught:
        ApiStore(*arguments)
    assert TOKEN not in str(caught.value)
    return caught.value


def test_a_token_that_is_refused(airflow):
    assert refused(airflow.address, "another", ASSET).field == "AIRFLOW_API_TOKEN"


def test_an_asset_that_is_not_there(airflow):
    assert "has no asset forge_metrics:x" in str(refused(airflow.address, TOKEN, "forge_metrics:x"))


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (Reply.of_json({"detail": TOKEN}, 403), ConfigurationError, "must be allowed to use assets"),
        (Reply.of_json({"detail": "no"}, 404), ConfigurationError, "not Airflow 3.3 or later"),
        (Reply(200, b"<html>", (("Content-Type", "text/html"),)), ConfigurationError, "is not Airflow"),
        (Reply(200, b"[1]"), ConfigurationError, "is not Airflow"),
        (Reply(200, b"\xff"), ConfigurationError, "is not Airflow"),
        (Reply(503), LedgerUnavailable, "503"),
    ],
)
def test_other_answers(airflow, reply, kind, said):
    airflow.failure = reply
    error = refused(airflow.address, TOKEN, ASSET)
    assert type(error) is kind
    assert said in str(error)


ODD = [None, 5, "x", [None], [5], [{}], {"a": 1}]
PAGE = {"asset_state_store": [], "total_entries": 0}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        *({"assets": value} for value in ODD),
        *({"assets": [{"name": ASSET, "id": value}]} for value in (None, "x", [], 1.5)),
        {"assets": [{"name": [], "id": 1}]},
    ],
    ids=str,
)
def test_assets_of_another_form(airflow, answer):
    airflow.failure = Reply.of_json(answer)
    error = refused(airflow.address, TOKEN, ASSET)
    assert (type(error), error.field) == (ConfigurationError, "--api-url")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        *({**PAGE, "asset_state_store": value} for value in ODD),
        {**PAGE, "asset_state_store": [{"key": [], "value": 1}]},
        *({**PAGE, "total_entries": value} for value in (None, "x", [], 1.5)),
    ],
    ids=str,
)
def test_rows_of_another_form(airflow, answer):
    snapshot = ApiStore(airflow.address, TOKEN, ASSET, snapshot=True)
    airflow.failure = Reply.of_json(answer)
    with pytest.raises(ConfigurationError, match="--api-url"):
        snapshot.get("key")


@pytest.mark.parametrize("content", [b"[]", b"5", b"null", b"9" * 5000, b"[" * 100_000])
def test_a_value_of_another_form(airflow, store, content):
    airflow.failure = Reply(200, content)
    for ask in (lambda: store.get("key"), lambda: store.set("key", {}), lambda: store.delete("key")):
        with pytest.raises(ConfigurationError, match="--api-url"):
            ask()


def test_text_that_cannot_be_sent_is_damage(airflow, store):
    airflow.values["key"] = {"a": "\ud800"}
    assert store.get("key") == {}


@pytest.mark.parametrize("wrong", ["\ud800", "é", "\r\nX: y", " "])
def test_a_token_that_is_no_header_is_not_quoted(airflow, wrong):
    error = refused(airflow.address, f"{TOKEN}{wrong}", ASSET)
    assert error.field == "AIRFLOW_API_TOKEN"
    assert TOKEN not in repr(error)
    assert airflow.requests == []


def test_a_call_is_limited_in_time():
    """Also if Airflow sends a byte now and then, so that it is never silent for long."""
    clock = itertools.count(step=api_store.CALL_TIMEOUT)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LedgerUnavailable, match="not within 120 s"):
            ApiStore(address, TOKEN, ASSET, clock=lambda: next(clock))


def test_no_answer(airflow):
    airflow.stop()
    assert isinstance(refused(airflow.address, TOKEN, ASSET), LedgerUnavailable)


def test_no_url():
    assert refused("localhost:8080", TOKEN, ASSET).field == "--api-url"


def test_a_response_to_a_part_of_the_request_is_no_response(airflow, store, monkeypatch):
    class Unsent(api_store.Wire):
        sent = property(lambda _: False, lambda *_: None)

    monkeypatch.setattr(api_store, "Wire", Unsent)
    with pytest.raises(LedgerUnavailable, match="before all of the request was sent"):
        store.set("key", {"a": 1})
