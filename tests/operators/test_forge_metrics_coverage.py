"""The operator, over records that deliveries have really made; hours pass by a clock that stands still."""

from __future__ import annotations

import json
import logging
import shutil
from datetime import timedelta
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException

from airflow_provider_forge.connections.ledger import open_ledger
from airflow_provider_forge.coverage import telemetry
from airflow_provider_forge.delivery.ledger import Selection
from airflow_provider_forge.delivery.stores import ObjectStore
from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.operators.forge_metrics_coverage import ForgeMetricsCoverageOperator
from airflow_provider_forge.sandbox import OtlpSink
from airflow_provider_forge.utils.dag_runs import DagRuns
from airflow_provider_forge.utils.ledger import delivery_asset
from airflow_provider_forge.windows import MAX_WINDOW, RETENTION, ceil, floor

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
NOW = pendulum.datetime(2026, 11, 23, 12, 12)
# What there is to look at is made short, because a record takes a file for five minutes.
KEEP = timedelta(hours=30)
FIRST = ceil(NOW - KEEP, MAX_WINDOW)
# It begins to expire in 27 hours, and has three windows.
GAP = (FIRST.add(hours=27), FIRST.add(hours=27, minutes=45))


@pytest.fixture
def connect(monkeypatch, variables, tmp_path):
    def connect(*, forge=None, otlp=None, receiver="http://receiver:4318"):
        extras = {
            "FORGE": {"app_id": APP, **(forge or {})},
            "OTLP": {"ledger_url": f"file://{tmp_path}/ledger", "max_age": "30h", **(otlp or {})},
        }
        for name, extra in extras.items():
            connection = {"conn_type": name.lower(), "host": receiver, "extra": extra}
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}_DEFAULT", json.dumps(connection))

    connect()
    return connect


@pytest.fixture
def deliver(connect, tmp_path):
    """Return a function that records all windows as delivered, in hours to come too, but for some gaps."""

    def deliver(*gaps, first=FIRST):
        otlp = OtlpHook()
        store = ObjectStore(tmp_path / "ledger")
        ledger = open_ledger(otlp.runtime, store, APP, otlp.endpoint().destination)
        # By the real clock it would tidy up; and an hour ago, all could still be delivered.
        ledger.records._now = lambda: NOW.subtract(hours=1)
        edges = [first, *(edge for gap in gaps for edge in gap), floor(NOW, MAX_WINDOW).add(hours=12)]
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            with ledger.open_session([], Selection(["production"], ["COUNT"]), start, end) as page:
                page.record_window()
                page.save()

    return deliver


@pytest.fixture
def runs(monkeypatch):
    """The runs of the DAG that delivers: how many are under way, and which were started."""
    state = SimpleNamespace(active=0, started=[], newest=NOW)
    monkeypatch.setattr(DagRuns, "count_active", lambda self, now: state.active)
    monkeypatch.setattr(DagRuns, "newest_at", lambda self, dates: state.newest)
    monkeypatch.setattr(DagRuns, "count_at", lambda self, dates: len(dates))
    monkeypatch.setattr(
        DagRuns, "start", lambda self, run_id, conf: state.started.append((self.dag_id, run_id, conf))
    )
    return state


@pytest.fixture
def pushed():
    """What tasks have pushed as XCom, by key."""
    return {}


@pytest.fixture
def look(runs, caplog, monkeypatch, pushed):
    """Run a task so many hours later."""
    caplog.set_level(logging.INFO)

    def look(hours=0, **arguments):
        caplog.clear()
        monkeypatch.setattr(pendulum, "now", lambda timezone: NOW.add(hours=hours))
        arguments = {"task_id": "coverage", "telemetry": False, **arguments}
        ti = SimpleNamespace(xcom_push=pushed.__setitem__)
        return ForgeMetricsCoverageOperator(**arguments).execute({"ti": ti})

    return look


def test_a_complete_coverage_is_summarized(deliver, look, connect):
    connect(otlp={"max_age": ""})
    deliver(first=ceil(NOW - RETENTION, MAX_WINDOW))
    assert look() == {
        "windows": {"pending": 0, "empty": 1343, "delivered": 0, "rejected": 0, "failed": 0, "missing": 0},
        "gaps": 0,
        "expiring": 0,
        "healing": [],
        "token_days": None,
    }


def test_gaps_that_expire_soon_fail_it_once(deliver, look, caplog):
    deliver(GAP)
    with pytest.raises(AirflowFailException) as failed:
        look()
    message = str(failed.value).splitlines()
    assert message[0].startswith("3 windows of 15 minutes not delivered, in 1 gap; the first is lost after")
    assert message[1].startswith("Run one at a time, ")
    assert message[2].endswith(": 3 missing, 27 h left")
    assert message[3].startswith("  Backfill dialog: From 2026-11-23 09:15, To 2026-11-23 09:45 (UTC), ")
    assert message[4].startswith(
        "  airflow backfill create --dag-id forge_metrics --from-date 2026-11-23T09:15:00Z"
    )
    for hours in range(1, 4):
        summary = look(hours)
        assert (summary["gaps"], summary["expiring"]) == (1, 1)
        assert "Missing, and already reported: 23 Nov 09:15\u201310:00 UTC: 3 missing" in caplog.text


def test_the_log_shows_the_coverage(deliver, look, caplog):
    deliver(GAP)
    look(alert_before=timedelta(hours=1))
    log = caplog.text
    assert "UTC        0   2   4 " in log
    assert "119 windows of 15 minutes: 0 pending, 116 empty, 0 delivered" in log
    assert "airflow backfill create --dag-id forge_metrics --from-date 2026-11-23T09:15:00Z" in log


def test_the_page_has_the_whole_coverage_also_of_a_task_that_fails(deliver, look, pushed):
    deliver(GAP)
    with pytest.raises(AirflowFailException):
        look(export_dag_id="mine")
    document = pushed["forge_coverage"]
    assert document["cells"].count("M") == 3
    assert (document["dag_id"], document["app_id"], document["receiver"]) == ("mine", APP, "receiver")
    assert (document["gap_count"], document["token_days"], document["alerts"]) == (1, None, 1)
    assert document["calls"] == [5, 60]
    assert document["budget"] is None, "the Connection has no credentials"


def test_the_page_has_the_state_of_the_rate_limit(deliver, look, pushed, monkeypatch):
    deliver()
    account = {"conn_type": "forge", "login": "me@example.com", "password": "token", "extra": {"app_id": APP}}
    monkeypatch.setenv("AIRFLOW_CONN_FORGE_DEFAULT", json.dumps(account))
    ForgeMetricsHook().get_conn().limiter.pause(3600)
    look()
    budget = pushed["forge_coverage"]["budget"]
    assert budget["paused"] > 0
    assert (budget["live"], budget["backfill"]) == (0, 0)
    assert pushed["forge_coverage"]["left_out"] == []


def test_the_page_has_the_metrics_that_the_gateway_does_not_know(deliver, look, pushed, monkeypatch):
    deliver()
    account = {"conn_type": "forge", "login": "me@example.com", "password": "token", "extra": {"app_id": APP}}
    monkeypatch.setenv("AIRFLOW_CONN_FORGE_DEFAULT", json.dumps(account))
    monkeypatch.setattr(ForgeMetricsHook, "left_out_metrics", lambda hook: ("FORGE_MADE_UP",))
    look()
    assert pushed["forge_coverage"]["left_out"] == ["FORGE_MADE_UP"]


def test_many_gaps_are_summarized(deliver, look):
    starts = [FIRST.add(hours=2, minutes=30 * number) for number in range(12)]
    deliver(*((start, start + MAX_WINDOW) for start in starts))
    with pytest.raises(AirflowFailException) as failed:
        look(export_dag_id="mine")
    lines = str(failed.value).splitlines()
    assert lines[0].startswith("12 windows of 15 minutes not delivered, in 12 gaps;")
    assert len([line for line in lines if "--dag-id mine" in line]) == 10
    assert lines[-1] == "and 2 more gaps: see the log"


def test_a_gap_that_a_catchup_is_about_to_fill_is_not_a_failure(deliver, look, runs):
    deliver(GAP)
    runs.active = 8
    assert look()["expiring"] == 1


CATCHUP = (FIRST.add(hours=3), floor(NOW, MAX_WINDOW))
"""Windows that a catchup has yet to deliver; its eight active runs are those of the first two hours."""


def test_windows_that_a_catchup_has_yet_to_come_to_are_pending(deliver, look, runs, pushed, caplog):
    deliver(CATCHUP)
    runs.active, runs.newest = 8, FIRST.add(hours=4, minutes=45)
    summary = look()
    assert (summary["gaps"], summary["expiring"], summary["windows"]["missing"]) == (0, 0, 0)
    assert pushed["forge_coverage"]["catchup"] == f"{CATCHUP[0]:%Y-%m-%dT%H:%M:%SZ}"
    log = caplog.text
    assert f"Catchup has come to {CATCHUP[0]:%Y-%m-%dT%H:%M:%SZ}: the windows after it are pending" in log
    assert "backfill" not in log


def test_a_catchup_that_stands_still_is_not_waited_for(deliver, look, runs):
    """It is trusted at first, then noticed, then reported: windows are lost behind it."""
    deliver(CATCHUP)
    runs.active, runs.newest = 8, FIRST.add(hours=4, minutes=45)
    assert [look(hours)["gaps"] for hours in (0, 1)] == [0, 1]
    with pytest.raises(AirflowFailException, match="not delivered, in 1 gap"):
        look(2)


def test_a_catchup_with_a_recent_run_has_come_to_all(deliver, look, runs):
    """Its active runs are those of a backfill."""
    deliver(CATCHUP)
    runs.active, runs.newest = 8, floor(NOW, MAX_WINDOW).subtract(hours=1)
    assert look()["gaps"] == 1


def test_nothing_is_healed_by_default(deliver, look, runs):
    deliver(GAP)
    with pytest.raises(AirflowFailException):
        look()
    assert runs.started == []


def test_healing_starts_a_run_and_fails_when_that_has_not_helped(deliver, look, runs):
    deliver(GAP)
    interval = {"from": "2026-11-23T09:15:00Z", "to": "2026-11-23T10:00:00Z"}
    assert look(heal=True)["healing"] == ["2026-11-23T09:15:00Z/2026-11-23T10:00:00Z"]
    assert [(dag_id, conf) for dag_id, _, conf in runs.started] == [("forge_metrics", interval)]
    for hours in (1, 2):
        assert look(hours, heal=True)["healing"] == []
    with pytest.raises(AirflowFailException, match="3 missing, 24 h left, a healing run did not fill it"):
        look(3, heal=True)
    assert len(runs.started) == 1
    assert look(6, heal=True)["healing"]
    assert len(runs.started) == 2


def test_a_gap_that_is_healed_is_forgotten(deliver, look, runs, variables):
    deliver(GAP)
    look(heal=True)
    deliver()
    assert look(1, heal=True)["gaps"] == 0
    [notes] = [json.loads(value) for key, value in variables.items() if key.startswith("forge_coverage_")]
    assert (notes["tried"], notes["told"]) == ([], [])


def test_nothing_is_healed_while_other_runs_are_active(deliver, look, runs, caplog):
    deliver(GAP)
    runs.active = 3
    assert look(heal=True)["healing"] == []
    assert runs.started == []
    assert "3 runs of forge_metrics active: no gap is healed now" in caplog.text


def test_a_dag_that_does_not_exist_fails_it_each_time(deliver, look, runs, monkeypatch):
    def refuse(self, run_id, conf):
        raise ConfigurationError("export_dag_id", "there is none")

    monkeypatch.setattr(DagRuns, "start", refuse)
    deliver(GAP)
    for hours in range(2):
        with pytest.raises(AirflowFailException, match=r"^export_dag_id: there is none"):
            look(hours, heal=True)


def test_the_token_is_reported_once_at_each_threshold(deliver, look, connect):
    deliver()
    connect(forge={"token_expires_on": NOW.add(days=31).to_date_string()})
    assert look()["token_days"] == 31
    rung = []
    for hours in range(24, 24 * 34, 24):
        try:
            look(hours)
        except AirflowFailException as failed:
            rung.append((hours / 24, str(failed)))
    tokens = [(days, text) for days, text in rung if "API token" in text]
    assert [days for days, _ in tokens] == [1, 24, 30, 32]
    assert "of forge_default expires in 30 days (24 December 2026): create a new one" in tokens[0][1]
    assert "expires in 1 day (" in tokens[2][1]
    assert "has expired (" in tokens[3][1]


def test_a_new_token_resets_the_alerts(deliver, look, connect):
    deliver()
    for days in (5, 6):
        connect(forge={"token_expires_on": NOW.add(days=days).to_date_string()})
        with pytest.raises(AirflowFailException, match=f"expires in {days} days"):
            look()
        assert look()["token_days"] == days


def test_a_gap_and_a_token_are_one_failure(deliver, look, connect):
    deliver(GAP)
    connect(forge={"token_expires_on": NOW.to_date_string()})
    with pytest.raises(AirflowFailException, match=r"(?s)3 windows of .*expires today"):
        look()
    assert look()["token_days"] == 0


def test_a_token_is_checked_without_a_ledger_too(connect, look):
    connect(forge={"token_expires_on": NOW.add(days=1).to_date_string()})
    with pytest.raises(AirflowFailException, match="expires in 1 day "):
        look()
    with pytest.raises(AirflowSkipException):
        look()


def test_it_is_skipped_if_nothing_was_delivered_yet(connect, look, variables, caplog):
    with pytest.raises(AirflowSkipException):
        look()
    assert "has no ledger: nothing was delivered yet" in caplog.text
    assert variables == {}


def test_it_is_skipped_if_no_ledger_is_kept(connect, look, caplog):
    connect(otlp={"ledger_url": ""})
    with pytest.raises(AirflowSkipException):
        look()
    assert "Set the extra ledger_url of otlp_default to keep one" in caplog.text


def test_a_lost_ledger_is_reported_once(deliver, look, tmp_path):
    deliver()
    look()
    shutil.rmtree(tmp_path / "ledger")
    with pytest.raises(AirflowFailException, match="The ledger is gone: it was in file:"):
        look(1)
    with pytest.raises(AirflowSkipException):
        look(2)


def test_a_store_that_does_not_answer_is_tried_again_and_nothing_is_lost(deliver, look, connect, tmp_path):
    deliver(GAP)
    connect(forge={"token_expires_on": NOW.to_date_string()})
    ledger, elsewhere = tmp_path / "ledger", tmp_path / "elsewhere"
    ledger.rename(elsewhere)
    ledger.write_text("a file in the place of a directory")
    with pytest.raises(LedgerUnavailable):
        look()
    ledger.unlink()
    elsewhere.rename(ledger)
    with pytest.raises(AirflowFailException, match=r"(?s)3 windows of .*expires today"):
        look()


def test_an_alert_is_not_lost_if_the_task_fails_before_raising_it(deliver, look, connect, runs, monkeypatch):
    deliver(GAP)
    connect(forge={"token_expires_on": NOW.to_date_string()})

    def fail(*_):
        raise OSError("no route")

    with monkeypatch.context() as broken:
        broken.setattr(telemetry, "report_coverage", fail)
        with pytest.raises(OSError, match="no route"):
            look(telemetry=True)
    with pytest.raises(AirflowFailException, match=r"(?s)3 windows of .*expires today"):
        look()
    assert look()["expiring"] == 1


def test_a_started_run_is_remembered_if_the_task_fails_afterwards(deliver, look, runs, monkeypatch):
    deliver(GAP)

    def fail(*_):
        raise OSError("no route")

    with monkeypatch.context() as broken:
        broken.setattr(telemetry, "report_coverage", fail)
        with pytest.raises(OSError, match="no route"):
            look(heal=True, telemetry=True)
    assert look(heal=True)["healing"] == []
    assert len(runs.started) == 1


def test_without_an_app_nothing_is_saved_as_reported(look, connect, variables):
    connect(forge={"app_id": "", "token_expires_on": NOW.to_date_string()}, otlp={"ledger_url": ""})
    with pytest.raises(AirflowFailException, match="app_id"):
        look(telemetry=True)
    assert variables == {}


def test_two_tasks_with_one_token_are_one_failure_for_it(deliver, look, connect):
    deliver()
    connect(forge={"token_expires_on": NOW.to_date_string()})
    with pytest.raises(AirflowFailException, match="expires today"):
        look()
    assert look(export_dag_id="other")["token_days"] == 0


def test_two_dags_of_one_app_are_alerted_separately(deliver, look):
    deliver(GAP)
    for dag_id in ("one", "other"):
        with pytest.raises(AirflowFailException, match=f"--dag-id {dag_id} "):
            look(export_dag_id=dag_id)
    assert look(export_dag_id="one")["expiring"] == 1


def test_windows_too_old_for_the_destination_are_not_missing(connect, deliver, look):
    deliver()
    assert sum(look()["windows"].values()) == 4 * 29 + 3


def test_a_damaged_alert_state_is_reset(deliver, look, variables, caplog):
    deliver(GAP)
    with pytest.raises(AirflowFailException):
        look()
    [key] = [key for key in variables if key.startswith("forge_coverage_")]
    variables[key] = '{"seen": 5}'
    with pytest.raises(AirflowFailException):
        look(1)
    assert caplog.text.count(f"The Variable {key} is malformed") == 1


def test_a_wrong_date_is_named_before_anything_is_read(connect, look):
    connect(forge={"token_expires_on": "soon"})
    with pytest.raises(AirflowFailException, match=r"^forge_default: token_expires_on: is not a date"):
        look()


@pytest.mark.parametrize("hours", [0, -1])
def test_alert_before_has_to_be_above_0(hours):
    with pytest.raises(ConfigurationError, match=r"^alert_before: "):
        ForgeMetricsCoverageOperator(task_id="coverage", alert_before=timedelta(hours=hours))


def test_it_has_the_asset_as_inlet_only_so_that_it_starts_no_other_dag():
    task = ForgeMetricsCoverageOperator(task_id="coverage")
    assert delivery_asset("forge_default", "otlp_default") in task.inlets
    assert not task.outlets


# What the receiver hears of it


def told(sink):
    """Return what the one request told: values by name and outcome."""
    [request] = sink.telemetry
    found = {}
    for point in request.telemetry:
        attributes = dict(point.attributes)
        assert attributes.pop("forge.exporter.dag.id") == "mine"
        [outcome] = attributes.values() or [""]
        data = point.data()
        found[point.metric.removeprefix("forge.exporter."), outcome] = data.as_int + data.as_double
    return found


def test_the_receiver_hears_of_gaps_and_of_the_token(connect, deliver, look):
    with OtlpSink() as sink:
        connect(receiver=sink.url, forge={"token_expires_on": "2026-12-24"})
        deliver(GAP)
        with pytest.raises(AirflowFailException):
            look(telemetry=True, export_dag_id="mine")
    counts = {"pending": 0, "empty": 116, "delivered": 0, "rejected": 0, "failed": 0, "missing": 3}
    assert told(sink) == {
        **{("coverage", outcome): number for outcome, number in counts.items()},
        ("gap.expiry", ""): (GAP[0] + KEEP - NOW).total_seconds(),
        # The token is good until the day is over.
        ("token.expiry", ""): (pendulum.datetime(2026, 12, 25) - NOW).total_seconds(),
    }


def test_several_destinations_of_a_dag_are_told_apart(connect, deliver, look):
    with OtlpSink() as sink, DAG("coverage"):
        connect(receiver=sink.url)
        deliver()
        ForgeMetricsCoverageOperator(task_id="other", export_dag_id="mine", otlp_conn_id="otlp_other")
        look(telemetry=True, export_dag_id="mine")
    [request] = sink.telemetry
    destinations = {dict(point.attributes)["forge.exporter.destination"] for point in request.telemetry}
    assert destinations == {"otlp_default"}


def test_a_task_with_another_dag_to_check_is_no_second_destination(connect, deliver, look):
    with OtlpSink() as sink, DAG("coverage"):
        connect(receiver=sink.url)
        deliver()
        ForgeMetricsCoverageOperator(task_id="unrelated", otlp_conn_id="otlp_other")
        look(telemetry=True, export_dag_id="mine")
    assert ("coverage", "missing") in told(sink)


def test_telemetry_includes_a_gap_that_was_already_reported(connect, deliver, look):
    with OtlpSink() as sink:
        connect(receiver=sink.url)
        deliver(GAP)
        with pytest.raises(AirflowFailException):
            look(export_dag_id="mine")
        look(1, telemetry=True, export_dag_id="mine")
    assert told(sink)["gap.expiry", ""] == (GAP[0] + KEEP - NOW.add(hours=1)).total_seconds()


@pytest.mark.parametrize(("under_way", "heal"), [(8, False), (0, True)])
def test_the_receiver_hears_nothing_of_a_gap_that_is_about_to_be_filled(
    connect, deliver, look, runs, under_way, heal
):
    runs.active = under_way
    with OtlpSink() as sink:
        connect(receiver=sink.url)
        deliver(GAP)
        look(telemetry=True, export_dag_id="mine", heal=heal)
    assert {name for name, _ in told(sink)} == {"coverage"}
    assert told(sink)["coverage", "missing"] == 3


def test_windows_that_are_lost_hide_no_window_that_can_be_saved(connect, deliver, look):
    """Otherwise the alert would end as soon as the loss begins."""
    with OtlpSink() as sink:
        connect(receiver=sink.url)
        deliver((FIRST, FIRST.add(hours=2)), GAP)
        with pytest.raises(AirflowFailException):
            look(telemetry=True, export_dag_id="mine")
    savable = FIRST.add(minutes=30)
    assert told(sink)["gap.expiry", ""] == (savable + KEEP - NOW).total_seconds() > 1800


def test_telemetry_excludes_a_gap_that_can_no_longer_be_filled(connect, deliver, look):
    with OtlpSink() as sink:
        connect(receiver=sink.url)
        deliver((FIRST, FIRST.add(minutes=15)))
        look(telemetry=True, export_dag_id="mine")
    assert told(sink)["coverage", "missing"] == 1
    assert ("gap.expiry", "") not in told(sink)


def test_the_receiver_hears_nothing_of_a_gap_or_a_token_that_is_not_there(connect, deliver, look):
    with OtlpSink() as sink:
        connect(receiver=sink.url)
        deliver()
        look(telemetry=True, export_dag_id="mine")
    assert {name for name, _ in told(sink)} == {"coverage"}


def test_a_receiver_that_is_away_changes_nothing(connect, deliver, look, caplog):
    with OtlpSink() as sink:
        connect(receiver=sink.url)
    deliver()
    assert look(telemetry=True)["gaps"] == 0
    assert "The exporter's own metrics are lost" in caplog.text
