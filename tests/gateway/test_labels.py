"""A label that the gateway does not know is left out, warned of once a day and remembered."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_forge.exceptions import GatewayUnavailable, QueryRefused
from airflow_provider_forge.gateway.labels import LabelDirectory

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
LABELS = ("FORGE_API_REQUEST_COUNT", "FORGE_API_REQUEST_LATENCY", "NEW_METRIC", "OTHER_METRIC")


class Store:
    def __init__(self, content=None):
        self.content = content or {}

    def load(self):
        return dict(self.content)

    def save(self, content):
        self.content = content


class Gateway:
    """Knows some labels, and refuses a query for others as graphql-core does."""

    def __init__(self, *unknown, words="Value '{}' does not exist in 'ForgeMetricsLabels' enum."):
        self.unknown = unknown
        self.words = words
        self.calls = []

    def __call__(self, labels):
        self.calls.append(labels)
        for label in labels:
            if label in self.unknown:
                raise QueryRefused(self.words.format(label))
        return labels


class Clock:
    now = NOON

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def directory(clock):
    return LabelDirectory(Store(), clock)


def test_known_labels_cost_one_call(directory, caplog):
    gateway = Gateway()
    assert directory.fetch(LABELS, gateway) == LABELS
    assert (len(gateway.calls), caplog.messages) == (1, [])


def test_an_unknown_label_is_left_out_and_the_others_flow(directory, caplog):
    gateway = Gateway("NEW_METRIC")
    assert directory.fetch(LABELS, gateway) == tuple(label for label in LABELS if label != "NEW_METRIC")
    assert len(gateway.calls) == 2
    [warning] = caplog.messages
    assert "does not know the metrics NEW_METRIC: they are left out" in warning


def test_it_is_remembered_for_a_day_and_then_tried_again(directory, clock, caplog):
    gateway = Gateway("NEW_METRIC")
    directory.fetch(LABELS, gateway)
    assert directory.left_out(LABELS) == ("NEW_METRIC",)
    clock.now += timedelta(hours=23)
    directory.fetch(LABELS, gateway)
    assert (len(gateway.calls), len(caplog.messages)) == (3, 1)
    clock.now += timedelta(hours=2)
    directory.fetch(LABELS, gateway)
    assert (len(gateway.calls), len(caplog.messages)) == (5, 2)
    clock.now += timedelta(days=1)
    gateway.unknown = ()
    assert directory.fetch(LABELS, gateway) == LABELS
    assert (len(gateway.calls), len(caplog.messages)) == (6, 2)


def test_several_cost_one_call_each(directory):
    gateway = Gateway("NEW_METRIC", "OTHER_METRIC")
    assert directory.fetch(LABELS, gateway) == LABELS[:2]
    assert len(gateway.calls) == 3
    assert directory.left_out(LABELS) == LABELS[2:]


def test_a_label_that_the_server_suggests_is_kept(directory):
    words = "Value '{}' does not exist. Did you mean 'OTHER_METRIC' or 'FORGE_API_REQUEST_COUNT'?"
    assert "OTHER_METRIC" in directory.fetch(LABELS, Gateway("NEW_METRIC", words=words))


@pytest.mark.parametrize("words", ["The environment is unknown", f"invalid: {{}} of {', '.join(LABELS)}"])
def test_a_refusal_that_names_no_label_or_all_is_no_reason_to_leave_one_out(directory, words, caplog):
    gateway = Gateway("NEW_METRIC", words=words)
    with pytest.raises(QueryRefused):
        directory.fetch(LABELS, gateway)
    assert (len(gateway.calls), directory.left_out(LABELS), caplog.messages) == (1, (), [])


def test_nothing_is_remembered_before_an_answer_without_the_label(directory):
    class Gateway:
        def __call__(self, labels):
            raise QueryRefused("NEW_METRIC") if "NEW_METRIC" in labels else GatewayUnavailable("down")

    with pytest.raises(GatewayUnavailable):
        directory.fetch(LABELS, Gateway())
    assert directory.left_out(LABELS) == ()


def test_a_query_for_unknown_labels_only_fails(directory):
    for _ in range(2):
        with pytest.raises(QueryRefused):
            directory.fetch(["NEW_METRIC"], Gateway("NEW_METRIC"))


@pytest.mark.parametrize("content", [{"NEW_METRIC": 5}, {"NEW_METRIC": "2026-11-23"}, {"NEW_METRIC": None}])
def test_a_damaged_record_leaves_nothing_out(content, clock):
    assert LabelDirectory(Store(content), clock).left_out(LABELS) == ()
