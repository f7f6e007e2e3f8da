"""What a retry of a run over several windows asks for, and what a clear or another run does."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_forge.delivery import exporter as exporter_module
from airflow_provider_forge.delivery.checkpoint import Checkpoint
from airflow_provider_forge.delivery.progress import MAX_PROBLEMS, MAX_REQUEST_IDS, DeliveryStats, Progress
from airflow_provider_forge.exceptions import FinalError, GatewayUnavailable, LedgerUnavailable
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.sandbox import Fault
from airflow_provider_forge.windows import Window

QUARTER = Window.last_settled(pendulum.now("UTC").subtract(hours=30))
RANGE = Window(QUARTER.start.subtract(minutes=75), QUARTER.end)
WINDOWS = list(RANGE.split())
BEGUN = pendulum.now("UTC")


class TaskStateStore:
    """Airflow's, of one task instance: it takes JSON."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def get(self, key):
        return json.loads(self.rows[key]) if key in self.rows else None

    def set(self, key, value):
        self.rows[key] = json.dumps(value)

    def delete(self, key):
        self.rows.pop(key, None)


@pytest.fixture(params=["task_state_store", "ledger_url"])
def kept_in(request, connect, gateway, sink, tmp_path):
    """What the contexts of all tries share: on Airflow 3.3, and before with a ledger_url."""
    connect(gateway, sink, otlp={"ledger_url": f"file://{tmp_path}/ledger"})
    return {"task_state_store": TaskStateStore()} if request.param == "task_state_store" else {}


@pytest.fixture
def attempt(kept_in, gateway):
    """Return a function that makes one try, and returns its summary or error and the windows asked for."""

    def attempt(fail_at=None, *, run=None, context=None, interval=RANGE, **arguments):
        run = {"run_id": "manual", "clear_number": 0, "start_date": BEGUN, **(run or {})}
        around = {
            "data_interval_start": interval.start,
            "data_interval_end": interval.end,
            "dag_run": SimpleNamespace(run_type="manual", conf={}, **run),
            "ti": SimpleNamespace(dag_id="d", task_id="export", map_index=-1, run_id=run["run_id"]),
            **kept_in,
            **(context or {}),
        }
        before = len(gateway.calls)
        if fail_at:
            gateway.add_fault(Fault("status", status=503, operation="appMetrics", calls=[fail_at]))
        task = ForgeMetricsToOtlpOperator(task_id="export", revisit_after=None, **arguments)
        try:
            outcome = task.execute(around)
        except (GatewayUnavailable, LedgerUnavailable, AirflowFailException, AirflowTaskTimeout) as error:
            outcome = error
        finally:
            gateway.clear_faults()
        calls = [call for call in gateway.calls[before:] if call.operation == "appMetrics"]
        return outcome, [call.start for call in calls]

    return attempt


def starts(*numbers):
    return [WINDOWS[number].start for number in numbers]


def test_a_retry_begins_with_the_window_that_failed(attempt, gateway, sink):
    outcome, asked = attempt(fail_at=3)
    assert isinstance(outcome, GatewayUnavailable)
    assert set(asked) == set(starts(0, 1, 2))
    outcome, asked = attempt(fail_at=2)
    assert set(asked) == set(starts(2, 3))
    summary, asked = attempt()
    assert asked == starts(3, 4, 5)
    # It tells of all that the run has delivered.
    assert (summary["calls"], summary["sent"]) == (6, len(sink.points))
    assert len(summary["request_ids"]) == 6
    assert set(Counter(sink.points).values()) == {1}


def test_an_interrupted_try_has_saved_its_progress(attempt, monkeypatch):
    export, left = exporter_module.Exporter._export_window, [4]

    def until_the_time_is_over(self, *arguments, **more):
        left[0] -= 1
        if left[0] < 0:
            raise AirflowTaskTimeout("execution_timeout")
        export(self, *arguments, **more)

    monkeypatch.setattr(exporter_module.Exporter, "_export_window", until_the_time_is_over)
    assert isinstance(attempt()[0], AirflowTaskTimeout)
    left[0] = 9
    assert attempt()[1] == starts(4, 5)


@pytest.mark.parametrize(
    "run", [{"clear_number": 1}, {"start_date": BEGUN.add(hours=1)}, {"run_id": "another"}]
)
def test_a_clear_and_another_run_ask_for_all_of_it(attempt, kept_in, run):
    attempt(fail_at=3)
    if "run_id" in run:
        kept_in = {"task_state_store": TaskStateStore()} if kept_in else {}
    summary, asked = attempt(run=run, context=kept_in)
    assert asked == starts(0, 1, 2, 3, 4, 5)
    assert summary["unchanged"] > 0


@pytest.mark.parametrize(
    "changed", [{"environments": "staging"}, {"metrics": "FORGE_API_REQUEST_COUNT"}, {"conform": False}]
)
def test_a_run_with_other_options_begins_from_scratch(attempt, changed):
    attempt(fail_at=3)
    assert len(attempt(**changed)[1]) == 6


def test_a_clear_after_a_success_fetches_again(attempt):
    attempt(fail_at=3)
    attempt()
    assert len(attempt(run={"clear_number": 1})[1]) == 6


def test_resend_sends_each_point_once_more_and_loses_none(attempt, sink):
    attempt()
    attempt(fail_at=3, resend=True)
    attempt(resend=True)
    assert set(Counter(sink.points).values()) == {2}


def test_windows_that_expired_in_the_meantime_are_reported_one_by_one(
    attempt, connect, gateway, sink, tmp_path
):
    attempt(fail_at=3)
    # The destination keeps nothing so old as what the run has left.
    age = (pendulum.now("UTC") - WINDOWS[3].start).total_seconds()
    connect(gateway, sink, otlp={"ledger_url": f"file://{tmp_path}/ledger", "max_age": age})
    summary, asked = attempt(on_expired="skip")
    assert asked == starts(4, 5)
    assert (summary["calls"], summary["expired"]) == (4, 2)
    outcome, asked = attempt(run={"clear_number": 1}, on_expired="fail")
    assert isinstance(outcome, AirflowFailException)
    assert asked == []


def test_damaged_progress_counts_as_none(attempt, kept_in, tmp_path):
    attempt(fail_at=3)
    if kept_in:
        store = kept_in["task_state_store"]
        [key] = store.rows
        kept = store.get(key)
        store.set(key, {**kept, "progress": {"todo": ["nonsense"]}})
    else:
        [file] = (path for path in tmp_path.rglob("*progress*") if path.is_file())
        kept = json.loads(file.read_text())
        file.write_text(json.dumps({**kept, "progress": {"todo": ["nonsense"]}}))
    assert len(attempt()[1]) == 6


class TestWindowsOfWhichSomethingIsLeft:
    """They are not asked for again in the run, and it does not end green without naming them."""

    @pytest.fixture
    def poison(self, gateway):
        """Let a window have one good point, and one that is no OTLP."""
        time = f"{int(WINDOWS[1].start.timestamp()) + 60}000000000"
        points = f'[{{"asInt":1,"timeUnixNano":"{time}"}},{{"asInt":1.5,"timeUnixNano":"{time}"}}]'
        metrics = f'[{{"scopeMetrics":[{{"metrics":[{{"name":"n","gauge":{{"dataPoints":{points}}}}}]}}]}}]'
        answer = f'{{"forgeMetrics":{{"appMetrics":{{"resourceMetrics":{metrics}}}}}}}'
        start, end = WINDOWS[1].start, WINDOWS[1].end
        body = f'{{"data":{{"ecosystem":{answer}}}}}'
        gateway.add_fault(Fault("body", body=body, operation="appMetrics", start=start, end=end))

    @pytest.fixture
    def rejection(self, sink):
        """Let the receiver reject a point of the second window."""
        fault = Fault("partial_success", rejected=1, operation="metrics", calls=[2], message="no room")
        sink.add_fault(fault)

    @pytest.mark.parametrize(
        ("given", "told"),
        [("poison", "1 points that are not OTLP: .*asInt is 1.5"), ("rejection", "no room")],
    )
    def test_a_retry_names_the_points_left_out_by_the_previous_try(
        self, attempt, request, kept_in, given, told
    ):
        request.getfixturevalue(given)
        outcome, asked = attempt(fail_at=3)
        assert isinstance(outcome, GatewayUnavailable)
        assert set(asked) == set(starts(0, 1, 2))
        outcome, asked = attempt()
        assert asked == starts(2, 3, 4, 5)
        assert isinstance(outcome, AirflowFailException)
        assert re.search(told, str(outcome))
        if kept_in:
            # Whatever makes Airflow start it once more: the run has not delivered all of it.
            outcome, asked = attempt()
            assert asked == []
            assert re.search(told, str(outcome))

    @pytest.mark.usefixtures("poison")
    def test_a_cleared_run_sends_the_points_left_out_before(self, attempt, sink):
        attempt(fail_at=3)
        attempt()
        before = Counter(sink.points)
        summary, asked = attempt(run={"clear_number": 1})
        assert len(asked) == 6
        assert summary["sent"] > 0
        assert set((Counter(sink.points) - before).values()) == {1}

    def test_problems_of_many_windows_are_few_bytes(self, caplog):
        progress = Progress.begin([], [], expired=0)
        progress.add(
            DeliveryStats(problems=[FinalError(f"{number} is wrong") for number in range(MAX_PROBLEMS + 2)])
        )
        again = Progress.from_json(json.loads(json.dumps(progress.to_json())), RANGE)
        assert again.to_json() == progress.to_json()
        with pytest.raises(FinalError, match=r"^0 is wrong \| .* \| 19 is wrong \| and 2 more of these"):
            again.check()
        assert "20 is wrong" in caplog.text
        assert "21 is wrong" in caplog.text

    def test_progress_of_an_earlier_version_is_read(self):
        content = Progress.begin(WINDOWS, [], expired=0).to_json()
        del content["more_problems"]
        assert list(Progress.from_json(content, RANGE).todo) == WINDOWS


class TestTaskStateStoreThatFails:
    """Airflow can be told to keep it anywhere."""

    def test_a_checkpoint_that_cannot_be_stored_does_not_stop_the_delivery(self, attempt, caplog):
        class Full(TaskStateStore):
            def set(self, key, value):
                raise OSError("full")

        assert attempt(context={"task_state_store": Full()})[0]["calls"] == 6
        assert "The progress of this try was not stored: OSError: full" in caplog.text

    def test_a_checkpoint_that_cannot_be_read_is_not_mistaken_for_none(self, attempt):
        class Away(TaskStateStore):
            def get(self, key):
                raise OSError("away")

        outcome, asked = attempt(context={"task_state_store": Away()})
        assert isinstance(outcome, LedgerUnavailable)
        assert asked == []


def test_a_single_window_stores_no_checkpoint(attempt, kept_in, tmp_path):
    attempt(interval=QUARTER)
    assert not kept_in or kept_in["task_state_store"].rows == {}
    assert not list(tmp_path.rglob("*progress*"))


def test_nothing_is_left_in_the_ledgers_store(attempt, kept_in, tmp_path):
    attempt(fail_at=3)
    attempt()
    assert not list(tmp_path.rglob("*progress*"))
    # Airflow's goes with its run.
    assert len(kept_in["task_state_store"].rows) == 1 if kept_in else True


def test_fourteen_days_are_few_bytes():
    fortnight = Window(QUARTER.start.subtract(days=14), QUARTER.end)
    progress = Progress.begin(fortnight.split(), [QUARTER], expired=0)
    progress.stats.request_ids = ["0123456789abcdef0123456789abcdef"] * 1344
    content = progress.to_json()
    assert content["todo"] == [str(fortnight)]
    assert len(json.dumps(content)) < 20_000
    again = Progress.from_json(json.loads(json.dumps(content)), fortnight)
    assert (again.todo, again.late) == (progress.todo, progress.late)
    assert len(again.stats.request_ids) == MAX_REQUEST_IDS


def test_windows_apart_and_halves_stay_themselves():
    _, second = WINDOWS[0].halves()
    todo = [second, WINDOWS[1], WINDOWS[3]]
    content = Progress.begin(todo, [], expired=0).to_json()
    assert content["todo"] == [str(Window(second.start, WINDOWS[1].end)), str(WINDOWS[3])]
    assert list(Progress.from_json(content, RANGE).todo) == todo
    halved = [WINDOWS[0], *WINDOWS[1].halves(), *WINDOWS[2].halves()[0].halves(), WINDOWS[3]]
    content = json.loads(json.dumps(Progress.begin(halved, [], expired=0).to_json()))
    assert list(Progress.from_json(content, RANGE).todo) == halved
    # As they were kept one by one.
    assert list(Progress.from_json({**content, "todo": [str(window) for window in todo]}, RANGE).todo) == todo


STORED = {
    **Progress.begin(WINDOWS, [WINDOWS[0].shifted(pendulum.duration(hours=-1))], expired=0).to_json(),
    "problems": ["x"],
}


RUN = {"interval": str(RANGE), "asked_for": "0123"}
CHECKPOINT = Checkpoint(None, "", RUN, lasting=False)


@pytest.mark.parametrize(
    "damage",
    [
        *({"todo": value} for value in (None, 5, "x", [5], [None], ["a/b"], [["x"]], ["2026-11-23/P1D/x"])),
        # Windows that the task was never given.
        {"todo": ["0001-01-01T00:00:00Z/9999-12-31T23:59:00Z"]},
        {"todo": [str(WINDOWS[0].shifted(pendulum.duration(days=-30)))]},
        *({"late": value} for value in (None, [True], ["9999-12-31T23:50:00Z/0001-01-01T00:00:00Z"])),
        *({"summary": value} for value in (None, [], {"calls": "x"}, {"calls": None}, {"points": [1]})),
        *({"summary": value} for value in ({"request_ids": 5}, {"request_ids": [5]}, {"problems": ["x"]})),
        *({"problems": value} for value in (None, 5, [5], [None], {"a": 1})),
        *({"more_problems": value} for value in (None, "x", [1])),
    ],
    ids=str,
)
def test_damage_of_any_kind_counts_as_no_progress(damage, caplog):
    """A retry reads the same, so an error of another type would fail each."""
    assert CHECKPOINT.restore([{"run": RUN, "progress": STORED}], RANGE)
    assert CHECKPOINT.restore([{"run": RUN, "progress": {**STORED, **damage}}], RANGE) is None
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    "stored", [None, 5, "x", [], {"0": STORED}, [None], [[]], [5], [{}], [STORED], [{"run": RUN}]], ids=str
)
def test_so_does_what_is_no_progress(stored):
    assert CHECKPOINT.restore(stored, RANGE) is None


def test_the_progress_of_another_run_or_destination_is_not_taken():
    other = {"run": {"interval": str(RANGE), "asked_for": "other"}, "progress": STORED}
    assert CHECKPOINT.restore([other], RANGE) is None
    mine = CHECKPOINT.describe(Progress.begin(WINDOWS[1:], [], expired=0))
    assert list(CHECKPOINT.restore([other, mine], RANGE).todo) == WINDOWS[1:]


@pytest.mark.parametrize("stored", [[], [None], [{"todo": [5]}], {}])
def test_a_task_with_damaged_progress_in_its_deferral_begins_again(connect, gateway, sink, stored):
    connect(gateway, sink)
    task = ForgeMetricsToOtlpOperator(
        task_id="export", interval_start=QUARTER.start, interval_end=QUARTER.end, revisit_after=None
    )
    run = SimpleNamespace(run_type="manual", conf={}, run_id="manual", clear_number=0, start_date=BEGUN)
    summary = task.execute_complete({"dag_run": run}, progress=stored)
    assert (summary["calls"], summary["sent"]) == (1, len(sink.points))
