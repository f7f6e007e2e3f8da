from __future__ import annotations

import re
from datetime import timedelta

import pytest

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.otlp.destinations import default_max_age, parse_max_age
from airflow_provider_forge.otlp.endpoint import Endpoint, Limits, metrics_url


@pytest.mark.parametrize(
    ("given", "age"),
    [
        (3600, timedelta(hours=1)),
        (0.5, timedelta(seconds=0.5)),
        ("3600", timedelta(hours=1)),
        (" 90.5 ", timedelta(seconds=90.5)),
        ("45s", timedelta(seconds=45)),
        ("90m", timedelta(minutes=90)),
        ("1h", timedelta(hours=1)),
        ("48H", timedelta(hours=48)),
        ("14d", timedelta(days=14)),
        ("1d12h", timedelta(hours=36)),
        ("1h30m15s", timedelta(hours=1, minutes=30, seconds=15)),
        ("PT1H", timedelta(hours=1)),
        ("PT90M", timedelta(minutes=90)),
        ("P14D", timedelta(days=14)),
        ("p1dt12h", timedelta(hours=36)),
        ("none", None),
        (" None", None),
    ],
)
def test_an_age_is_seconds_or_text(given, age):
    assert parse_max_age(given) == age


@pytest.mark.parametrize(
    "wrong",
    [
        *("", " ", "soon", "h", "1 h", "1x", "-1h", "1h2d", "1.5h", "1w", "h1", "1hh", "1e3", "nan", "inf"),
        *("P", "PT", "P1M", "P1H", "1T2H", "P1Y", "no", "all", "9" * 400, "9" * 5000 + "d", "9" * 20 + "d"),
        *(-1, float("nan"), float("inf"), True, False, [], ["1h"], {"hours": 1}),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_malformed_ages(wrong):
    with pytest.raises(ConfigurationError, match=r"48h.*'none'") as refused:
        parse_max_age(wrong)
    assert refused.value.field == "max_age"


HOUR, TWO_DAYS = timedelta(hours=1), timedelta(hours=48)


@pytest.mark.parametrize(
    ("host", "age", "remedy"),
    [
        ("https://otlp.datadoghq.com", HOUR, "Historical Metrics.*'none'"),
        ("https://otlp.us5.datadoghq.com:443", HOUR, "Historical Metrics.*'none'"),
        ("https://OTLP.DatadogHQ.eu", HOUR, "Historical Metrics.*'none'"),
        ("https://otlp.ddog-gov.com", HOUR, "not support Historical Metrics"),
        ("https://otlp.nr-data.net", TWO_DAYS, "New Relic"),
        ("https://otlp.eu01.nr-data.net:4318", TWO_DAYS, "New Relic"),
        ("https://abc12345.live.dynatrace.com/api/v2/otlp", HOUR, "Dynatrace"),
        ("https://abc12345.apps.dynatrace.com/api/v2/otlp", HOUR, "Dynatrace"),
        ("https://abc12345.sprint.dynatrace.com", HOUR, "Dynatrace"),
        ("https://collector:4318", None, "raise.*max_age"),
        ("https://notdatadoghq.com", None, "raise.*max_age"),
        ("https://datadoghq.com.example", None, "raise.*max_age"),
        ("https://collector/otlp.nr-data.net", None, "raise.*max_age"),
        ("http://[::1]:4318", None, "raise.*max_age"),
    ],
)
def test_known_age_limits(host, age, remedy):
    url = metrics_url(host)
    assert default_max_age(url) == age
    assert re.search(remedy, Endpoint(url, limits=Limits(max_age=age)).age_remedy)


def test_an_age_of_the_users_own_is_mended_by_the_user():
    assert "raise" in Endpoint("https://otlp.nr-data.net/v1/metrics", limits=Limits(max_age=HOUR)).age_remedy
