"""The log of a task, as people read it: sections that are folded up, and one line for each window."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.delivery.exporter import log_group
from airflow_provider_forge.exceptions import GatewayUnavailable
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Fault
from airflow_provider_forge.windows import Window

QUARTER = Window.last_settled(pendulum.now("UTC").subtract(hours=3))
HALF_HOUR = Window(QUARTER.start.subtract(minutes=15), QUARTER.end)


@pytest.fixture
def lines(caplog):
    """Return a function that gives the log until now: what is in sections, by title, and what is outside."""
    caplog.set_level("INFO")

    def lines():
        sections, outside, title = {}, [], None
        for record in caplog.records:
            if record.name == "httpx":  # Airflow from 3.1 on keeps it quiet
                continue
            message = record.getMessage()
            if message.startswith("::group::"):
                assert title is None, "the UI of Airflow 3.0 knows no section in a section"
                title = message.removeprefix("::group::")
                assert title not in sections
                sections[title] = []
            elif message == "::endgroup::":
                assert title is not None
                title = None
            elif title is None:
                outside.append((record.levelname, message))
            else:
                sections[title].append(message)
        assert title is None
        return sections, outside

    return lines


def run(window=QUARTER, **arguments):
    context = {"dag_run": SimpleNamespace(run_after=pendulum.now("UTC"))}
    context.update(data_interval_start=window.start, data_interval_end=window.end)
    return ForgeMetricsToOtlpOperator(task_id="export", **arguments).execute(context)


def test_each_window_is_one_line_outside_of_its_log_group(gateway, sink, connect, lines):
    connect(gateway, sink)
    summary = run(HALF_HOUR)
    sections, outside = lines()
    windows = [window.humanize() for window in HALF_HOUR.split()]
    assert [*sections] == windows
    told = [message for _, message in outside if message.startswith(tuple(windows))]
    for message, window, call in zip(told, windows, gateway.calls[-2:], strict=True):
        assert re.fullmatch(
            re.escape(window) + r": [\d,]+ points, [\d,]+ sent, 0 unchanged; call \d+\.\d\d s,"
            rf" waited 0\.0 s for the limit, request id {call.request_id}",
            message,
        )
    assert outside[-1][1] == (
        f"Summary: {HALF_HOUR.humanize()}: calls: 2, {summary['points']:,} points, {summary['sent']:,}"
        " sent, 0 unchanged, requests: 2"
    )


def test_the_query_and_each_request_are_in_the_log_group(gateway, sink, connect, lines):
    connect(gateway, sink, otlp={"max_body_bytes": 20_000})
    summary = run()
    sections, outside = lines()
    [details] = sections.values()
    assert details[0].startswith("Atlassian answered with ")
    assert details[0].endswith(" of production")
    requests = [line for line in details if line.startswith("The receiver accepted a request of ")]
    assert len(requests) == summary["batches"] > 1
    assert not any("bytes" in message for _, message in outside)


def test_a_warning_in_a_log_group_is_not_overlooked(gateway, sink, connect, lines):
    connect(gateway, sink)
    gateway.add_fault(Fault("duplicate_points", operation="appMetrics"))
    run()
    sections, outside = lines()
    assert any("duplicate points" in message for message in sections[QUARTER.humanize()])
    [(level, message)] = [each for each in outside if each[1].startswith(QUARTER.humanize())]
    assert level == "WARNING"
    assert " unchanged; warnings above: 1; call " in message


def test_no_traffic_means_no_points(gateway, sink, connect, lines):
    connect(gateway, sink)
    gateway.add_fault(Fault("empty", operation="appMetrics"))
    run()
    _, outside = lines()
    assert any(message.startswith(f"{QUARTER.humanize()}: no points; call") for _, message in outside)


def test_rare_counts_are_logged_only_if_they_are_not_zero(gateway, sink, connect, lines):
    connect(gateway, sink)
    sink.add_fault(Fault("partial_success", rejected=3, operation="metrics"))
    with pytest.raises(AirflowFailException):
        run()
    _, outside = lines()
    assert any(", 0 unchanged, 3 rejected; warnings above: 1; call" in message for _, message in outside)


def test_a_failed_window_closes_its_log_group_and_is_a_line_too(gateway, sink, connect, lines):
    connect(gateway, sink)
    gateway.add_fault(Fault("status", status=503, operation="appMetrics"))
    with pytest.raises(GatewayUnavailable):
        run()
    _, outside = lines()
    assert ("INFO", f"{QUARTER.humanize()}: not delivered, GatewayUnavailable") in outside


def test_halves_and_revisits_have_titles_of_their_own(gateway, sink, connect, lines, tmp_path):
    connect(gateway, sink, otlp={"ledger_url": f"file://{tmp_path}/ledger"})
    gateway.add_fault(Fault("errors", status_code=504, longer_than=600, operation="appMetrics"))
    live = Window.last_settled(pendulum.now("UTC"))
    run(live.shifted(-pendulum.duration(hours=1)), revisit_after=None)
    run(live, revisit_after=pendulum.duration(hours=1))
    sections, _ = lines()
    assert sum(title.endswith(", looked at again") for title in sections) == 3
    assert sum(title[0].isdigit() for title in sections) == 3 + 3 + 3


def test_an_error_ends_the_log_group(lines):
    with pytest.raises(KeyError), log_group("title"):
        raise KeyError
    assert lines() == ({"title": []}, [])
