from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.gateway.queries import (
    DEFAULT_METRICS,
    PUBLISHED_METRICS,
    app_ari,
    app_metrics_variables,
    parse_app_id,
    parse_list,
    parse_metrics,
    parse_uuid,
)
from airflow_provider_forge.sandbox.catalogue import METRICS
from airflow_provider_forge.windows import Window

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
ENVIRONMENT = "8cb293d5-be08-47ae-a75c-95b89da5ad1d"


def test_the_variables_are_those_of_the_published_query():
    start = datetime(2023, 6, 18, 2, 55, tzinfo=timezone.utc)
    window = Window(start, start.replace(minute=57))
    assert app_metrics_variables(APP, window, [ENVIRONMENT], ("FORGE_API_REQUEST_COUNT",)) == {
        "appId": "ari:cloud:ecosystem::app/8ce114f4-d82c-45e2-b4fb-c6a0751d7d57",
        "query": {
            "filters": {
                "environments": ["8cb293d5-be08-47ae-a75c-95b89da5ad1d"],
                "interval": {"start": "2023-06-18T02:55:00.000Z", "end": "2023-06-18T02:57:00.000Z"},
                "metrics": ["FORGE_API_REQUEST_COUNT"],
            }
        },
    }


def test_the_published_metrics_are_the_five_of_the_published_query():
    assert sorted(PUBLISHED_METRICS) == [
        "FORGE_API_REQUEST_COUNT",
        "FORGE_API_REQUEST_LATENCY",
        "FORGE_BACKEND_INVOCATION_COUNT",
        "FORGE_BACKEND_INVOCATION_ERRORS",
        "FORGE_BACKEND_INVOCATION_LATENCY",
    ]


def test_the_default_metrics_are_all_that_are_known():
    assert set(PUBLISHED_METRICS) < set(DEFAULT_METRICS)
    assert set(DEFAULT_METRICS) == METRICS.keys()


@pytest.mark.parametrize("given", [APP, APP.upper(), f"  {APP}\n", app_ari(APP), app_ari(APP.upper())])
def test_an_app_id_is_a_uuid_or_an_ari(given):
    assert parse_app_id(given) == APP


@pytest.mark.parametrize(
    "malformed",
    [
        *("", "my-app", APP[:-1], APP.replace("-", ""), f"{{{APP}}}", f"urn:uuid:{APP}", f"{APP}/{APP}"),
        *(f"ari:cloud:ecosystem::application/{APP}", f"ari:cloud:ecosystem::app/{APP[:-1]}"),
        *(f"ari:cloud:ecosystem::environment/{APP}/{ENVIRONMENT}", app_ari(app_ari(APP))),
        *(None, 5),
    ],
)
def test_a_malformed_app_id_is_refused_with_its_two_forms(malformed):
    with pytest.raises(ConfigurationError) as caught:
        parse_app_id(malformed)
    assert caught.value.field == "app_id"
    assert "ari:cloud:ecosystem::app/<uuid>" in str(caught.value)
    assert "UUID" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "uuid"),
    [
        (ENVIRONMENT, ENVIRONMENT),
        (ENVIRONMENT.upper(), ENVIRONMENT),
        ("production", None),
        (ENVIRONMENT.replace("-", ""), None),
        (f"{{{ENVIRONMENT}}}", None),
        ("", None),
    ],
)
def test_a_uuid_has_hyphens(text, uuid):
    assert parse_uuid(text) == uuid


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("production", ("production",)),
        ("production, staging ,,", ("production", "staging")),
        (["staging", " production ", "staging", ""], ("staging", "production")),
        (("a",), ("a",)),
        # A list's entries are not split: a comma could be part of one.
        (["a,b"], ("a,b",)),
    ],
)
def test_a_list_is_a_list_or_comma_separated_and_keeps_its_order(given, names):
    assert parse_list("environments", given) == names


@pytest.mark.parametrize(
    "wrong", [5, {"production": 1}, {"production"}, ["production", 5], [None], b"a", None]
)
def test_a_value_that_is_not_a_list_of_names_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="comma-separated") as caught:
        parse_list("environments", wrong)
    assert caught.value.field == "environments"


@pytest.mark.parametrize("wrong", ["production,\ud800", ["production", "\ud800"]])
def test_names_that_cannot_be_sent_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="cannot be sent"):
        parse_list("environments", wrong)


@pytest.mark.parametrize("empty", ["", " , ", [], [""], ()])
def test_an_empty_list_is_refused(empty):
    with pytest.raises(ConfigurationError, match="is empty") as caught:
        parse_list("metrics", empty)
    assert caught.value.field == "metrics"


def test_an_unknown_label_is_passed_on_unchanged():
    assert parse_metrics("FORGE_METRIC_OF_2031, lower_2") == ("FORGE_METRIC_OF_2031", "lower_2")


@pytest.mark.parametrize("label", ["FORGE API", "1ST", "FORGE-API", 'X"}', "FÖRGE", "A\nB"])
def test_a_malformed_label_is_refused(label):
    with pytest.raises(ConfigurationError, match="FORGE_API_REQUEST_COUNT") as caught:
        parse_metrics([label])
    assert caught.value.field == "metrics"
    assert repr(label) in str(caught.value)
