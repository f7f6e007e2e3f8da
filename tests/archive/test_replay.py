"""The operator with an archive: it is filled on the way, replayed without a call, and holds up nothing."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import logging
from collections import Counter

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_forge.archive import sources
from airflow_provider_forge.archive.storage import Storage
from airflow_provider_forge.delivery import exporter as exporter_module
from airflow_provider_forge.exceptions import ArchiveUnavailable, LedgerUnavailable, ReceiverUnavailable
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import Fault, OtlpSink
from airflow_provider_forge.utils import ledger
from airflow_provider_forge.windows import Window
from tests.archive.conftest import context_of, run

QUARTER = Window.last_settled(pendulum.now("UTC").subtract(hours=3))
HOUR = Window(QUARTER.start.subtract(minutes=45), QUARTER.end)


def generated(gateway, window):
    return Counter(
        gateway.generated(window.start, window.end, environments=["production"], metrics=DEFAULT_METRICS)
    )


def calls(gateway):
    return [call for call in gateway.calls if call.operation == "appMetrics"]


def objects(tmp_path, ending=".json.gz"):
    return sorted(path for path in (tmp_path / "archive").rglob(f"*{ending}"))


def test_each_answer_is_kept_before_anything_of_it_is_sent(archived, gateway, sink, tmp_path, monkeypatch):
    kept = []
    deliver = exporter_module.deliver

    def watched(*arguments):
        kept.append(len(objects(tmp_path, ".about.json")))
        return deliver(*arguments)

    monkeypatch.setattr(exporter_module, "deliver", watched)
    summary = run(HOUR)
    assert kept == [1, 2, 3, 4]
    assert (summary["calls"], summary["replayed"], summary["unarchived"]) == (4, 0, 0)
    content = [json.loads(gzip.decompress(path.read_bytes())) for path in objects(tmp_path)]
    assert all(list(each) == ["resourceMetrics"] for each in content)


def test_an_empty_window_is_kept_too(archived, gateway, tmp_path):
    gateway.add_fault(Fault("empty", operation="appMetrics"))
    run(QUARTER)
    [path] = objects(tmp_path)
    assert gzip.decompress(path.read_bytes()) == b'{"resourceMetrics":[]}\n'


def test_what_the_receiver_never_got_is_replayed_without_a_call(archived, gateway, sink):
    with OtlpSink() as down:
        archived(down)
        down.add_fault(Fault("status", status=503))
        for quarter in HOUR.split():
            with pytest.raises(ReceiverUnavailable):
                run(quarter)
    archived()
    made = len(gateway.calls)
    gateway.stop()
    summary = run(HOUR, source="archive")
    assert Counter(sink.points) == generated(gateway, HOUR)
    assert (summary["calls"], summary["replayed"], summary["sent"]) == (0, 4, len(sink.points))
    assert run(HOUR, source="archive")["sent"] == 0
    assert len(gateway.calls) == made


def test_a_replay_into_another_destination_gives_the_same_requests_as_the_gateway(archived, sink):
    run(HOUR)
    with OtlpSink() as other:
        archived(other)
        run(HOUR, source="archive")
        assert other.points == sink.points
        assert [request.body for request in other.requests] == [request.body for request in sink.requests]


def test_it_needs_no_credentials(archived, gateway, sink):
    run(QUARTER)
    with OtlpSink() as other:
        gateway.api_token = ""
        archived(other)
        run(QUARTER, source="archive")
        assert other.points == sink.points


def test_all_versions_of_a_window_are_replayed_and_the_latest_value_wins(archived, gateway, tmp_path):
    gateway.add_fault(Fault("empty", max_times=1, operation="appMetrics"))
    run(QUARTER)
    run(QUARTER)
    run(QUARTER)
    assert len(objects(tmp_path)) == 2
    with OtlpSink() as other:
        archived(other)
        run(QUARTER, source="archive")
        assert Counter(other.points) == generated(gateway, QUARTER)


def test_auto_asks_the_gateway_for_what_it_has_and_the_archive_for_the_rest(archived, gateway, monkeypatch):
    run(HOUR)
    made = len(calls(gateway))
    with OtlpSink() as other:
        archived(other)
        assert run(QUARTER, source="auto")["calls"] == 1
        monkeypatch.setattr(Window, "expired", lambda window, now: window.start < QUARTER.start)
        summary = run(HOUR, source="auto")
        assert (summary["calls"], summary["replayed"]) == (1, 3)
        assert Counter(other.points) == generated(gateway, HOUR)
    assert len(calls(gateway)) == made + 2


@pytest.mark.parametrize("source", ["archive", "auto"])
def test_an_interval_since_the_year_1_is_refused(archived, source):
    archived()
    interval = Window(pendulum.datetime(1, 1, 1), HOUR.end)
    with pytest.raises(AirflowFailException, match="longer than 10 years"):
        run(interval, source=source)


@pytest.mark.parametrize("again", [{"try_number": 2}, {"reschedules": 1}])
def test_a_retry_takes_from_the_archive_what_an_earlier_try_of_the_run_has_fetched(
    archived, gateway, sink, again
):
    started = pendulum.now("UTC")
    sink.add_fault(Fault("status", status=503, calls={1}))
    with pytest.raises(ReceiverUnavailable):
        run(QUARTER, context=context_of(QUARTER, started=started))
    summary = run(QUARTER, context=context_of(QUARTER, started=started, **again))
    assert (summary["calls"], summary["replayed"]) == (0, 1)
    assert Counter(sink.points) == generated(gateway, QUARTER)
    # A run that was cleared begins anew, also if it had not ended, and so has the same start.
    assert run(QUARTER, context=context_of(QUARTER, try_number=3))["calls"] == 1
    cleared = context_of(QUARTER, started=started, try_number=3, clear_number=1)
    assert run(QUARTER, context=cleared)["calls"] == 1
    assert len(calls(gateway)) == 3


def test_other_environments_are_left_where_they_are(archived, gateway, sink):
    run(QUARTER, environments="staging")
    with OtlpSink() as other:
        archived(other)
        with pytest.raises(AirflowFailException, match="is not in the archive"):
            run(QUARTER, source="archive", on_expired="fail")
        run(QUARTER, source="archive", environments=["staging", "production"])
        assert other.points == sink.points


class TestDamage:
    @pytest.fixture
    def replayed(self, archived, gateway, tmp_path):
        """Archive an hour, damage its second window, and return what a replay says and delivers."""

        def replayed(damage):
            run(HOUR)
            damage(objects(tmp_path)[1])
            with OtlpSink() as other:
                archived(other)
                with pytest.raises(AirflowFailException) as failed:
                    run(HOUR, source="archive")
                return str(failed.value), Counter(other.points)

        return replayed

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.write_bytes(path.read_bytes()[:-20]),
            lambda path: path.write_bytes(path.read_bytes()[:60] + b"x" + path.read_bytes()[61:]),
            lambda path: path.unlink(),
            lambda path: path.with_name(path.name.replace(".json.gz", ".about.json")).write_text(
                '{"version": 9}'
            ),
        ],
        ids=["truncated", "flipped", "missing", "later version"],
    )
    def test_it_is_named_and_the_rest_is_delivered(self, replayed, gateway, damage, tmp_path):
        message, delivered = replayed(damage)
        second = Window(HOUR.start.add(minutes=15), HOUR.start.add(minutes=30))
        assert f"{second.start:%H%M}-{second.end:%H%M}_" in message
        assert delivered == generated(gateway, HOUR) - generated(gateway, second)

    def test_a_window_that_was_never_archived_is_named_too_or_skipped(self, archived, gateway, tmp_path):
        for quarter in [*HOUR.split()][1:]:
            run(quarter)
        with OtlpSink() as other:
            archived(other)
            with pytest.raises(AirflowFailException, match="is not in the archive"):
                run(HOUR, source="archive", on_expired="fail")
            missing = next(HOUR.split())
            assert Counter(other.points) == generated(gateway, HOUR) - generated(gateway, missing)
            assert run(HOUR, source="archive", on_expired="skip")["expired"] == 1
            with pytest.raises(AirflowSkipException, match="not in the archive"):
                run(missing, source="archive", on_expired="skip")


class TestAStoreThatFails:
    def warnings(self, caplog):
        return [each for each in caplog.messages if "not archived" in each and not each.startswith("Summary")]

    def test_delivery_goes_on_and_it_is_told_once_and_counted(
        self, archived, gateway, sink, tmp_path, caplog
    ):
        caplog.set_level(logging.INFO)
        (tmp_path / "archive").write_text("a file in the place of the directory")
        summary = run(HOUR)
        assert Counter(sink.points) == generated(gateway, HOUR)
        assert summary["unarchived"] == 4
        assert len(self.warnings(caplog)) == 1
        assert "extra archive_url" in self.warnings(caplog)[0]
        assert "windows not archived: 4" in caplog.text

    def test_a_hiccup_costs_one_window_of_the_archive(self, archived, sink, tmp_path, monkeypatch):
        write, failures = Storage.write, [ArchiveUnavailable("full")]

        def once(self, key, content):
            if failures:
                raise failures.pop()
            write(self, key, content)

        monkeypatch.setattr(Storage, "write", once)
        assert run(HOUR)["unarchived"] == 1
        assert len(objects(tmp_path)) == 3

    def test_a_store_that_does_not_answer_is_left_alone(self, archived, gateway, sink, monkeypatch, caplog):
        import threading

        asked, released = [], threading.Event()

        def hang(self, key):
            asked.append(key)
            released.wait(60)

        monkeypatch.setattr(Storage, "exists", hang)
        monkeypatch.setattr(sources.Archivist.__init__, "__defaults__", (0.05,))
        try:
            assert run(HOUR)["unarchived"] == 4
        finally:
            released.set()
        assert len(asked) == 1
        assert "did not answer within" in caplog.text
        assert Counter(sink.points) == generated(gateway, HOUR)

    def test_one_that_cannot_be_opened_does_not_hold_up_live_data(self, archived, gateway, sink, monkeypatch):
        opened = ledger.open_storage

        def away(url, field="ledger_url"):
            if field == "archive_url":
                raise LedgerUnavailable("no credentials")
            return opened(url, field)

        monkeypatch.setattr(ledger, "open_storage", away)
        assert run(QUARTER)["unarchived"] == 1
        assert run(QUARTER, source="auto")["unarchived"] == 1
        with pytest.raises(ArchiveUnavailable):
            run(QUARTER, source="archive")

    def test_a_replay_from_it_is_retried(self, archived, monkeypatch):
        def fail(self, directory):
            raise ArchiveUnavailable("away")

        run(QUARTER)
        monkeypatch.setattr(Storage, "names", fail)
        with pytest.raises(ArchiveUnavailable):
            run(QUARTER, source="archive")

    def test_what_is_not_archived_is_in_the_telemetry(self, archived, sink, tmp_path):
        def unarchived():
            [value] = [
                point.data().as_int
                for point in sink.telemetry[-1].telemetry
                if point.metric == "forge.exporter.unarchived"
            ]
            return value

        run(QUARTER)
        assert unarchived() == 0
        (tmp_path / "archive").rename(tmp_path / "elsewhere")
        (tmp_path / "archive").write_text("")
        run(QUARTER)
        assert unarchived() == 1


@pytest.mark.parametrize("source", ["archive", "auto"])
def test_a_source_without_an_archive_is_refused_before_any_call(connect, gateway, sink, source):
    connect(gateway, sink)
    with pytest.raises(AirflowFailException, match="archive_url"):
        run(QUARTER, source=source)
    assert gateway.calls == []


def test_without_an_archive_nothing_of_it_is_loaded(connect, gateway, sink, tmp_path, monkeypatch):
    connect(gateway, sink)
    monkeypatch.setattr(sources.Archivist, "__init__", lambda *_: pytest.fail("an archive was opened"))
    run(QUARTER)
    assert not (tmp_path / "archive").exists()
    assert "forge.exporter.unarchived" not in {each.metric for each in sink.telemetry[-1].telemetry}


def test_no_object_has_the_token(archived, gateway, tmp_path):
    run(HOUR)
    kept = [path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    kept += [gzip.decompress(path.read_bytes()) for path in objects(tmp_path)]
    assert len(kept) == 12
    secrets = [gateway.api_token, gateway.email, "Authorization"]
    assert not any(secret.encode() in each for secret in secrets for each in kept)


def test_a_destination_that_takes_no_old_points_is_named_before_the_archive_is_read(archived, sink):
    run(QUARTER)
    sent = len(sink.points)
    archived(max_age="1h", tenant="other")
    with pytest.raises(AirflowFailException, match="destination discards points older than 1 hour"):
        run(QUARTER, source="archive", on_expired="fail")
    with pytest.raises(AirflowSkipException):
        run(QUARTER, source="archive")
    assert len(sink.points) == sent


def test_years_old_windows_are_delivered_once(archived, gateway, sink, tmp_path, monkeypatch):
    """With the record of deliveries in a store, as the replay of years needs it."""
    run(HOUR)
    years = dt.timedelta(days=3 * 365)
    with OtlpSink() as other:
        archived(other)
        later = lambda: dt.datetime.now(dt.timezone.utc) + years  # noqa: E731
        from airflow_provider_forge.delivery.ledger import Ledger

        monkeypatch.setitem(Ledger.__init__.__kwdefaults__, "now", later)
        monkeypatch.setattr(pendulum, "now", lambda zone="UTC", now=pendulum.now: now(zone) + years)
        sent = [run(quarter, source="archive")["sent"] for quarter in HOUR.split()]
        assert sum(sent) == generated(gateway, HOUR).total()
        assert [run(quarter, source="archive")["sent"] for quarter in HOUR.split()] == [0, 0, 0, 0]
        assert Counter(other.points) == generated(gateway, HOUR)
