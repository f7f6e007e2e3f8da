"""A label that the gateway does not know is left out, warned of once a day and remembered."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_forge.exceptions import QueryRefused, RateLimited
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
    """Knows some labels, and refuses a query for others: for the first, as graphql-java, or naming each."""

    def __init__(
        self,
        *unknown,
        words="Value '{}' does not exist in 'ForgeMetricsLabels' enum.",
        names_each=False,
        then=None,
    ):
        self.unknown = unknown
        self.words = words
        self.names_each = names_each
        self.then = then
        self.calls = []

    def __call__(self, labels):
        self.calls.append(labels)
        reasons = [self.words.format(label) for label in labels if label in self.unknown]
        if reasons:
            raise QueryRefused("refused", reasons=reasons if self.names_each else reasons[:1])
        if self.then:
            raise self.then
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


def test_a_refusal_that_names_each_costs_one_call(directory, caplog):
    gateway = Gateway("NEW_METRIC", "OTHER_METRIC", names_each=True)
    assert directory.fetch(LABELS, gateway) == LABELS[:2]
    assert len(gateway.calls) == 2
    [warning] = caplog.messages
    assert "the metrics NEW_METRIC, OTHER_METRIC: they" in warning


def test_one_that_names_the_first_costs_a_call_for_each(directory):
    gateway = Gateway("NEW_METRIC", "OTHER_METRIC")
    assert directory.fetch(LABELS, gateway) == LABELS[:2]
    assert len(gateway.calls) == 3
    assert directory.left_out(LABELS) == LABELS[2:]


@pytest.mark.parametrize(
    ("labels", "lists"), [(("FOO",), True), (("FOO", "BAR"), True), (("FORGE_API_REQUEST_COUNT",), False)]
)
def test_a_refusal_of_labels_that_are_all_unknown_lists_those_of_atlassian(directory, labels, lists):
    with pytest.raises(QueryRefused, match="refused") as caught:
        directory.fetch(labels, Gateway(*labels))
    assert ("Atlassian's metrics are FORGE_API_REQUEST_COUNT, " in str(caught.value)) is lists


def test_a_label_that_the_server_suggests_is_kept(directory):
    words = "Value '{}' does not exist. Did you mean 'OTHER_METRIC' or 'FORGE_API_REQUEST_COUNT'?"
    assert "OTHER_METRIC" in directory.fetch(LABELS, Gateway("NEW_METRIC", words=words))


@pytest.mark.parametrize("words", ["Invalid input", f"invalid: {{}} of {', '.join(LABELS)}"])
def test_a_refusal_that_names_no_label_leaves_only_the_published_ones(directory, words, caplog):
    gateway = Gateway("NEW_METRIC", words=words)
    for calls in (3, 4):
        assert directory.fetch(LABELS, gateway) == LABELS[:2]
        assert len(gateway.calls) == calls
    assert gateway.calls == [LABELS, LABELS[:2], LABELS, LABELS[:2]]
    assert directory.left_out(LABELS) == LABELS[2:]
    [warning] = caplog.messages
    assert "NEW_METRIC, OTHER_METRIC: they are left out" in warning
    assert "does not say which" in warning


def test_a_refusal_that_does_not_happen_again_leaves_nothing_out(directory, caplog):
    calls = []

    def refuse_once(labels):
        calls.append(labels)
        if len(calls) == 1:
            raise QueryRefused("refused", reasons=["Bad request"])
        return labels

    assert directory.fetch(LABELS, refuse_once) == LABELS
    assert calls == [LABELS, LABELS[:2], LABELS]
    assert (directory.left_out(LABELS), caplog.messages) == ((), [])


def test_if_the_published_labels_are_refused_as_well_there_is_another_reason(directory, caplog):
    gateway = Gateway(*LABELS, words="The environment is unknown")
    with pytest.raises(QueryRefused):
        directory.fetch(LABELS, gateway)
    assert gateway.calls == [LABELS, LABELS[:2]]
    assert (directory.left_out(LABELS), caplog.messages) == ((), [])
    gateway.unknown = ()
    assert directory.fetch(LABELS, gateway) == LABELS


def test_a_refusal_of_a_part_of_the_query_costs_no_further_call(directory):
    calls = []

    def refuse(labels):
        calls.append(labels)
        raise QueryRefused("The environment is unknown")

    with pytest.raises(QueryRefused):
        directory.fetch(LABELS, refuse)
    assert calls == [LABELS]


def test_nothing_is_proven_before_an_answer_without_the_label_and_no_call_is_wasted_until_then(
    directory, clock, caplog
):
    with pytest.raises(RateLimited):
        directory.fetch(LABELS, Gateway("NEW_METRIC", then=RateLimited("all calls are reserved")))
    assert (directory.left_out(LABELS), caplog.messages) == ((), [])
    # The task was deferred: it does not spend another call on the refusal that it knows.
    clock.now += timedelta(minutes=50)
    gateway = Gateway("NEW_METRIC")
    assert "NEW_METRIC" not in directory.fetch(LABELS, gateway)
    assert len(gateway.calls) == 1
    assert directory.left_out(LABELS) == ("NEW_METRIC",)
    assert len(caplog.messages) == 1


def test_without_proof_a_suspicion_ends_after_an_hour(directory, clock):
    with pytest.raises(RateLimited):
        directory.fetch(LABELS, Gateway("NEW_METRIC", then=RateLimited("busy")))
    clock.now += timedelta(hours=1)
    assert directory.fetch(LABELS, Gateway()) == LABELS


@pytest.mark.parametrize("then", [None, RateLimited("busy")])
def test_what_was_refused_while_the_clock_was_ahead_is_tried_again(directory, clock, then):
    clock.now = NOON + timedelta(days=3650)
    with contextlib.suppress(RateLimited):
        directory.fetch(LABELS, Gateway("NEW_METRIC", then=then))
    clock.now = NOON
    assert directory.left_out(LABELS) == ()
    assert directory.fetch(LABELS, Gateway()) == LABELS


def test_a_task_learns_from_another_while_it_waits(clock):
    store, gateway = Store(), Gateway("NEW_METRIC", "OTHER_METRIC")
    other = LabelDirectory(store, clock)

    def fetch(labels):
        if not gateway.calls:
            other.fetch(LABELS, Gateway("NEW_METRIC", "OTHER_METRIC"))
        return gateway(labels)

    assert LabelDirectory(store, clock).fetch(LABELS, fetch) == LABELS[:2]
    assert len(gateway.calls) == 2


def test_a_query_for_unknown_labels_only_fails(directory):
    for _ in range(2):
        with pytest.raises(QueryRefused):
            directory.fetch(["NEW_METRIC"], Gateway("NEW_METRIC"))


@pytest.mark.parametrize(
    "content",
    [{"unknown": {"NEW_METRIC": value}} for value in (5, "2026-11-23", "2026-11-23T12:00:00", None)]
    + [{"unknown": []}, {"suspected": 5}],
)
def test_a_damaged_record_leaves_nothing_out(content, clock):
    assert LabelDirectory(Store(content), clock).left_out(LABELS) == ()
