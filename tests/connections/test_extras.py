from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_forge.connections.extras import Extras
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.utils.runtime import find_connection
from tests.airflow_version import AIRFLOW


@pytest.fixture
def extras_of(monkeypatch):
    """Read the extras of a Connection that has these."""

    def extras_of(extra) -> Extras:
        monkeypatch.setenv("AIRFLOW_CONN_MY_FORGE", json.dumps({"conn_type": "forge", "extra": extra}))
        return Extras(find_connection(ForgeMetricsHook, "forge_conn_id", "my_forge", "Atlassian Forge"))

    return extras_of


def refused(read, *arguments) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(*arguments)
    return caught.value


def test_a_connection_that_does_not_exist_is_named_with_a_remedy():
    error = refused(find_connection, ForgeMetricsHook, "forge_conn_id", "my_forge", "Atlassian Forge")
    assert error.field == "forge_conn_id"
    for words in ("'my_forge'", "'Atlassian Forge'", "Admin, Connections", "AIRFLOW_CONN_MY_FORGE"):
        assert words in str(error)


def test_an_unreadable_variable_is_not_reported_as_missing(monkeypatch):
    def find(conn_id):
        raise AirflowNotFoundException  # as before 3.2

    monkeypatch.setenv("AIRFLOW_CONN_MY_FORGE", '{"conn_type": "forge", "extra": [1]}')
    monkeypatch.setattr(ForgeMetricsHook, "get_connection", find)
    error = refused(find_connection, ForgeMetricsHook, "forge_conn_id", "my_forge", "Atlassian Forge")
    assert "cannot read the Connection 'my_forge' in AIRFLOW_CONN_MY_FORGE" in str(error)


@pytest.mark.parametrize(
    "left_out",
    [
        {},
        {"field": None},
        {"field": ""},
        {"field": " \n"},
        {"extra__forge__field": ""},
        {"extra__forge__field": None, "field": ""},
    ],
)
def test_an_empty_field_counts_as_left_out_because_forms_send_those(extras_of, left_out):
    extras = extras_of(left_out)
    assert extras.get("field") is None
    assert extras.get("field", "default") == "default"
    assert extras.text("field", "default") == "default"
    assert extras.text("field") is None
    assert extras.choice("field", ("a", "b"), "b") == "b"
    assert extras.number("field", 2.5) == 2.5
    assert extras.whole_number("field", 5) == 5
    assert extras.object("field") == {}
    assert extras.names() == set()


@pytest.mark.parametrize("plain", [{}, {"field": ""}, {"field": None}])
def test_a_field_may_have_the_prefix_of_older_forms(extras_of, plain):
    extras = extras_of({"extra__forge__field": "5", **plain})
    assert (extras.get("field"), extras.whole_number("field", 1)) == ("5", 5)
    assert extras.names() == {"field"}


def test_a_field_without_a_prefix_wins_over_one_with_it(extras_of):
    assert extras_of({"extra__forge__field": "old", "field": "new"}).get("field") == "new"


def test_another_types_prefix_is_none(extras_of):
    assert extras_of({"extra__otlp__field": "5"}).get("field") is None


@pytest.mark.parametrize("given", [{"a": "b"}, '{"a": "b"}', ' {"a":\n"b"} '])
def test_an_object_may_be_written_as_text(extras_of, given):
    assert extras_of({"field": given}).object("field") == {"a": "b"}


@pytest.mark.parametrize("wrong", ["a: b", "[]", '"a"', ["a"], 5, False])
def test_a_value_that_is_not_an_object_is_refused(extras_of, wrong):
    error = refused(extras_of({"field": wrong}).object, "field")
    assert error.field == "my_forge: field"
    assert "is not an object" in error.problem


@pytest.mark.parametrize("no_extra", [None, "", {}])
def test_a_connection_needs_no_extra(extras_of, no_extra):
    assert extras_of(no_extra).get("field", "default") == "default"


@pytest.mark.parametrize("no_object", ["[1]", '"text"', "5", "true"])
def test_an_extra_that_is_not_an_object_is_refused(extras_of, no_object):
    error = refused(lambda: extras_of(no_object).get("field"))
    # Before 3.2, Airflow makes no Connection of it at all.
    assert error.field == ("my_forge: extra" if AIRFLOW >= (3, 2) else "forge_conn_id")
    assert "my_forge" in str(error)
    assert "object" in error.problem


def test_a_field_is_returned_as_it_is(extras_of):
    assert extras_of({"field": [0, False, {"a": ""}]}).get("field") == [0, False, {"a": ""}]
    assert extras_of({"field": 0}).get("field", 5) == 0
    assert extras_of({"field": []}).get("field", ["default"]) == []


def test_text_has_no_white_space_around_it(extras_of):
    assert extras_of({"field": "  some text\n"}).text("field") == "some text"


@pytest.mark.parametrize("wrong", [5, True, ["text"], {"a": "text"}])
def test_a_value_that_is_not_text_is_refused(extras_of, wrong):
    error = refused(extras_of({"field": wrong}).text, "field")
    assert error.field == "my_forge: field"
    assert "is not text" in error.problem


@pytest.mark.parametrize("wrong", ["c", "A", "a,b"])
def test_a_choice_is_one_of_those_there_are(extras_of, wrong):
    assert extras_of({"field": " a "}).choice("field", ("a", "b"), "b") == "a"
    error = refused(extras_of({"field": wrong}).choice, "field", ("a", "b"), "b")
    assert error.field == "my_forge: field"
    assert f"{wrong!r} is not one of a, b" in error.problem


@pytest.mark.parametrize(
    ("given", "number"), [(5, 5.0), (0.5, 0.5), ("2.5", 2.5), (" 7 ", 7.0), ("1e2", 100.0)]
)
def test_a_number_may_be_written_as_text(extras_of, given, number):
    assert extras_of({"field": given}).number("field", 1) == number


BAD_NUMBERS = [
    0,
    -1,
    "0",
    "-0.5",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "five",
    "5s",
    True,
    False,
    [],
    [5],
    {},
    10**400,
]


@pytest.mark.parametrize("wrong", BAD_NUMBERS, ids=lambda value: str(value)[:10])
@pytest.mark.parametrize("kind", ["number", "whole_number"])
def test_a_number_is_finite_and_above_zero(extras_of, kind, wrong):
    error = refused(getattr(extras_of({"field": wrong}), kind), "field", 1)
    assert error.field == "my_forge: field"
    assert "is not a number above 0" in error.problem


def test_a_whole_number_has_no_fraction(extras_of):
    assert extras_of({"field": "5.0"}).whole_number("field", 1) == 5
    error = refused(extras_of({"field": 5.5}).whole_number, "field", 1)
    assert error.field == "my_forge: field"
    assert "5.5 is not a whole number" in error.problem


@pytest.mark.parametrize("kind", ["number", "whole_number"])
def test_a_number_is_at_most_a_day_or_the_given_maximum(extras_of, kind):
    day = 24 * 60 * 60
    assert getattr(extras_of({"field": day}), kind)("field", 1) == day
    assert getattr(extras_of({"field": day + 1}), kind)("field", 1, day + 1) == day + 1
    for most in (day, 7):
        error = refused(getattr(extras_of({"field": most + 1}), kind), "field", 1, most)
        assert error.problem.endswith(f"is not a number above 0 and up to {most}")
    assert refused(getattr(extras_of({"field": day + 1}), kind), "field", 1)


def test_the_names_are_those_of_the_fields_that_are_set(extras_of):
    assert extras_of({}).names() == set()
    fields = {"x1": "", "x2": None, "x3": 0, "x4": False, "x5": "x", "x6": []}
    assert extras_of(fields).names() == {"x3", "x4", "x5", "x6"}


def test_misspelled_fields_are_all_named(extras_of):
    with pytest.raises(ConfigurationError) as raised:
        extras_of({"enviroments": "staging", "max-age": "1h", "metric": "X", "app_id": "y"})
    assert str(raised.value) == (
        "my_forge: extra: enviroments is not a field of this Connection. Did you mean 'environments'?"
        " metric is not a field of this Connection. Did you mean 'metrics'?"
    )


def test_a_field_that_resembles_none_is_an_error_only_of_a_check(extras_of):
    extras = extras_of({"owner": "us"})
    with pytest.raises(ConfigurationError, match=r"owner is not a field of this Connection\. The fields are"):
        extras.check_names()


def test_a_refusal_names_connection_and_field(extras_of):
    error = refused(extras_of({}).fail, "password", "is missing")
    assert str(error) == "my_forge: password: is missing"
