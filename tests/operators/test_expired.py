"""What is told about windows that are too old, and the run that is started for those that soon will be."""

from __future__ import annotations

import logging
from datetime import timedelta
from types import SimpleNamespace

import pendulum
import pytest

from airflow_provider_forge.coverage import catchup
from airflow_provider_forge.operators.expired import report_expired
from airflow_provider_forge.otlp.endpoint import Endpoint, Limits
from airflow_provider_forge.timetables import ForgeMetricsTimetable
from airflow_provider_forge.windows import MAX_WINDOW, Window, ceil

NOW = pendulum.datetime(2026, 11, 27, 14, 22)
OLDEST = ceil(NOW - ForgeMetricsTimetable().retention, MAX_WINDOW)
HOUR = timedelta(hours=1)


class Report:
    """Reports one window of a scheduled run; `lines` are the levels and messages, `started` the runs."""

    def __init__(self, monkeypatch, caplog, start, max_age=HOUR, **options) -> None:
        self.started: list[timedelta] = []
        monkeypatch.setattr(catchup, "start_accepted", lambda *args: self.started.append(args[-1]))
        endpoint = Endpoint("https://otlp.example.com/v1/metrics", limits=Limits(max_age=max_age))
        destination = SimpleNamespace(receiver=SimpleNamespace(endpoint=endpoint), label="{}".format)
        context = {"dag": SimpleNamespace(timetable=ForgeMetricsTimetable())}
        window = Window(start, start + MAX_WINDOW)
        with caplog.at_level(logging.INFO):
            options = {"others_delivered": False, "may_start": True, **options}
            report_expired(context, window, destination, NOW, **options)
        self.lines = [(record.levelname, record.message) for record in caplog.records]


def test_the_oldest_run_tells_number_and_remedy_and_delivers_the_others_ahead(monkeypatch, caplog):
    report = Report(monkeypatch, caplog, OLDEST)
    [(level, number), (_, remedy)] = report.lines
    assert level == "WARNING"
    assert number == (
        "1,340 of the windows of Atlassian's 14 days are skipped, those before 27 Nov 13:30 UTC"
    )
    assert remedy.startswith("The destination discards points older than 1 hour. If")
    assert report.started == [HOUR]


def test_each_later_run_tells_why_its_window_is_skipped(monkeypatch, caplog):
    report = Report(monkeypatch, caplog, OLDEST + MAX_WINDOW)
    [(level, message)] = report.lines
    assert level == "INFO"
    assert message.startswith("13 Nov 15:15")
    assert message.endswith("UTC is skipped: the destination discards points older than 1 hour (max_age)")
    assert report.started == []


def test_a_window_older_than_the_gateway_keeps_is_skipped_for_that(monkeypatch, caplog):
    [(_, message)] = Report(monkeypatch, caplog, OLDEST + MAX_WINDOW, None).lines
    assert message.endswith("UTC is skipped: Atlassian keeps metrics for 14 days")


@pytest.mark.parametrize(
    ("max_age", "options"),
    [(None, {}), (HOUR, {"others_delivered": True}), (HOUR, {"may_start": False})],
)
def test_no_run_is_started_without_need(monkeypatch, caplog, max_age, options):
    report = Report(monkeypatch, caplog, OLDEST, max_age, **options)
    assert "are skipped" in report.lines[0][1]
    assert report.started == []
