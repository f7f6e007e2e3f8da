from __future__ import annotations

import datetime as dt
import json
import logging

import pytest

from airflow_provider_forge.delivery.accounts import CREDENTIALS_BYTES, DAY, MAX_HASHES, Account
from tests.delivery.lines import NOW, Line, Spot

SOME = [(Spot("requests", "a", 60 * minute), minute) for minute in range(15)]
HEAD = "app/where/head"


def key(conn_id, secret, name="Authorization"):
    return Account(conn_id, {name: secret})


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def warned(line, caplog):
    """Run a task with an account, and return what is said of it."""

    def run(account):
        caplog.clear()
        line.account = account
        with caplog.at_level(logging.WARNING):
            report = line.run(SOME)
        assert report.points == report.sent + report.unchanged
        return [record.getMessage() for record in caplog.records if "tenant" in record.getMessage()]

    return run


def test_a_tenant_distinguishes_connections_with_different_keys(warned):
    assert warned(key("otlp_one", "key-1")) == []
    for _ in range(2):
        (said,) = warned(key("otlp_two", "key-2"))
        assert "otlp_one and otlp_two" in said
        (said,) = warned(key("otlp_one", "key-1"))
        assert "otlp_two and otlp_one" in said


def test_two_connections_with_one_key_are_one_account(warned):
    for conn_id in ("otlp_one", "otlp_two", "otlp_one"):
        assert warned(key(conn_id, "key-1")) == []
    assert warned(key("otlp_three", "key-1", "AUTHORIZATION")) == [], "names of headers have no case"


def test_a_rotated_key_does_not_reset_the_ledger(line, warned):
    for number in range(MAX_HASHES + 3):
        assert warned(key("otlp_one", f"key-{number}")) == []
    assert line.receiver.points.total() == len(SOME)
    assert len(json.loads(line.store.values[HEAD])["accounts"]["otlp_one"]["marks"]) == MAX_HASHES


def test_keys_that_alternate_are_two_accounts(warned):
    """As those of two Airflows that call their Connections by the same name."""
    assert warned(key("otlp_default", "key-1")) == []
    assert warned(key("otlp_default", "key-2")) == []
    (said,) = warned(key("otlp_default", "key-1"))
    assert "otlp_default delivers to one URL with alternating credentials" in said


def test_a_connection_that_delivers_no_more_is_forgotten(line, warned):
    warned(key("otlp_one", "key-1"))
    line.now = lambda: NOW + dt.timedelta(days=16)
    assert warned(key("otlp_two", "key-2")) == []


def test_a_connection_that_delivered_while_the_clock_was_ahead_is_forgotten(line, warned):
    line.now = lambda: NOW + dt.timedelta(days=3650)
    warned(key("otlp_one", "key-1"))
    line.now = lambda: NOW
    assert warned(key("otlp_two", "key-2")) == []
    warned(key("otlp_one", "key-1"))
    [said] = warned(key("otlp_two", "key-2"))
    assert "otlp_one and otlp_two" in said


def test_without_credentials_nothing_is_noted(line, warned):
    assert warned(None) == []
    assert "accounts" not in json.loads(line.store.values[HEAD])


def test_it_costs_one_writing_a_day(line, warned):
    warned(key("otlp_one", "key-1"))
    seen = line.store.values[HEAD]
    warned(key("otlp_one", "key-1"))
    assert line.store.values[HEAD] == seen
    line.now = lambda: NOW + DAY
    warned(key("otlp_one", "key-1"))
    assert line.store.values[HEAD] != seen


def test_no_key_can_be_recovered_from_the_stored_hashes(line, warned):
    warned(key("otlp_one", "c4n4ry-key"))
    assert "c4n4ry" not in str(line.store.values)
    [point_hash] = json.loads(line.store.values[HEAD])["accounts"]["otlp_one"]["marks"]
    assert len(bytes.fromhex(point_hash)) == CREDENTIALS_BYTES == 3
    assert key("otlp_one", "c4n4ry-key").hash("another/record") != point_hash
