from __future__ import annotations

import json
import logging

import pytest

from airflow_provider_forge.delivery.ledger import Selection
from tests.delivery.lines import NOW, SELECTION, Line, Memory, Spot

SOME = [(Spot("requests", "a", 60 * minute), minute) for minute in range(15)]
LATER = [(Spot("requests", "a", 60 * minute), minute) for minute in range(30, 45)]
HEAD = "app/where/head"
STAGING = Selection(["staging"], SELECTION.metrics)


def head(line):
    return json.loads(line.store.values[HEAD])


def own_value(selection):
    return f"app/where/selections/{selection.name}"


def changed(**fields):
    about = {"environments": ["e"], "metrics": ["m"], "names": {}, "begun": "2026", "lost_before": None}
    return {**about, **fields}


GOOD = {"version": 1, "oldest": 5_000_000, "selections": {}}

DAMAGED = [
    {},
    *({**GOOD, "version": version} for version in (None, 0, 2, "1", True, [], float("nan"))),
    {"version": 2, "since": 5},
    *(
        {**GOOD, "oldest": oldest}
        for oldest in (None, "x", -1, 1.5, True, [], 10**30, float("inf"), float("nan"))
    ),
    *({**GOOD, "selections": selections} for selections in (None, [], "x", 5, {"c0ffee": None}, {"a": []})),
    *(
        {**GOOD, "selections": {SELECTION.name: changed(**{field: value})}}
        for field, values in {
            "environments": (None, "x", [5], {}),
            "metrics": (None, 5, [None]),
            "names": ([], 5, {"a": 5}),
            "begun": (None, 5, []),
            "lost_before": ("soon", True, -5, float("nan"), float("inf"), [], 10**400),
        }.items()
        for value in values
    ),
    *({**GOOD, "accounts": accounts} for accounts in (None, [], {"a": 5}, {"a": {"marks": 5, "seen": 5}})),
    *({**GOOD, "spread": spread} for spread in (None, "x", -1, 10**30)),
]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: json.dumps(content)[-70:])
def test_a_damaged_head_is_named_and_holds_nothing_back(content, caplog):
    line = Line()
    line.run(SOME)
    line.store.values[HEAD] = json.dumps(content)
    with caplog.at_level(logging.WARNING):
        report = line.run(LATER, 30, 45, on_ambiguous="fail")
    assert (report.sent, report.ambiguous, report.problems) == (15, 0, [])
    assert "app/where/head is damaged" in caplog.text
    assert line.run(SOME).unchanged == len(SOME)
    assert SELECTION.name in head(line)["selections"]
    caplog.clear()
    line.run(LATER, 30, 45)
    assert "damaged" not in caplog.text


def test_fields_of_a_later_version_are_kept():
    line = Line()
    line.run(SOME)
    line.store.values[HEAD] = json.dumps({**head(line), "more": 5})
    line.run(SOME, selection=STAGING)
    assert head(line)["more"] == 5


@pytest.mark.parametrize("value", ["{}", "[]", '{"environments": 5}', json.dumps(changed(begun=None))])
def test_a_damaged_selection_is_begun_again_and_has_lost_nothing(value):
    line = Line()
    line.run(SOME)
    line.store.values[own_value(SELECTION)] = value
    line.store.values[HEAD] = "{}"
    assert line.run(LATER, 30, 45, on_ambiguous="fail").sent == 15
    assert line.run(SOME).unchanged == 15


def test_a_loss_is_remembered_though_head_and_selection_are_damaged_later():
    line = Line()
    line.run(SOME)
    line.store.values.clear()
    assert line.run(SOME).ambiguous == 15
    line.store.values[HEAD] = line.store.values[own_value(SELECTION)] = "{}"
    assert line.run(LATER, 30, 45).ambiguous == 15


def test_two_tasks_that_begin_at_once_are_both_recorded():
    """The one writes the head that the other has not seen."""
    line, other = Line(), Line()
    other.store = line.store
    write, begun = line.store.set, []

    def set_after_the_other(key, value):
        if key == HEAD and not begun:
            begun.append(value)
            other.run(SOME, selection=STAGING)
        write(key, value)

    line.store.set = set_after_the_other
    line.run(SOME)
    assert list(head(line)["selections"]) == [SELECTION.name], "the store cannot tell"
    for selection in (SELECTION, STAGING):
        report = other.run(LATER, 30, 45, selection=selection, on_ambiguous="fail")
        assert (report.sent, report.problems) == (15, [])
    assert set(head(line)["selections"]) == {SELECTION.name, STAGING.name}


def test_selections_of_an_older_head_are_kept_apart_before_another_begins():
    line = Line()
    line.run(SOME)
    del line.store.values[own_value(SELECTION)]
    line.run(SOME, selection=STAGING)
    assert own_value(SELECTION) in line.store.values


@pytest.mark.parametrize(
    "content",
    [
        {"begun": [5] * 1000},
        {"begun": None, "store": {}},
        {"lost_before": "x"},
        {"lost_before": float("nan")},
    ],
    ids=repr,
)
def test_a_malformed_sentinel_shows_that_there_was_a_ledger(content, caplog):
    line = Line()
    line.sentinels[SELECTION.name] = Memory()
    line.sentinels[SELECTION.name].content = content
    assert line.run(SOME).ambiguous == 15
    assert "it was lost, or is kept elsewhere" in caplog.text
    assert len(caplog.text) < 3000


def test_the_sentinel_keeps_the_time_of_a_loss():
    line = Line()
    line.run(SOME)
    line.store.values.clear()
    line.run(SOME)
    [sentinel] = line.sentinels.values()
    assert sentinel.content["lost_before"] == NOW.timestamp()
