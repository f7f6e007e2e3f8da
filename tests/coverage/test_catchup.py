"""The runs that a run of a catchup starts, with a DAG's runs in a list; tests/e2e has a real Airflow."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pendulum
import pytest

from airflow_provider_forge.coverage.catchup import (
    continue_healing,
    find_catchup,
    restore_scheduled,
    start_accepted,
    start_other_runs,
)
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.timetables import ForgeMetricsTimetable
from airflow_provider_forge.utils.dag_runs import DagRuns
from airflow_provider_forge.windows import MAX_WINDOW, Window, ceil

NOW = pendulum.datetime(2026, 11, 27, 14, 22)
NEWEST = Window(pendulum.datetime(2026, 11, 27, 14), pendulum.datetime(2026, 11, 27, 14, 15))
LIVE = "live__2026-11-27T14:00:00+00:00_to_14:15"
OLDEST = ceil(NOW - ForgeMetricsTimetable().retention, MAX_WINDOW)


def at(start, windows=1):
    return Window(start, start + windows * MAX_WINDOW)


class Dag:
    """A DAG with these runs, by the starts of their intervals; `started` are the runs that a task starts."""

    dag_id = "forge_metrics"
    start_date = pendulum.datetime(2024, 1, 1)
    end_date: pendulum.DateTime | None = None
    catchup = True

    def __init__(self, *starts, timetable=None) -> None:
        self.timetable = timetable or ForgeMetricsTimetable()
        self.starts = set(starts)
        self.ids: set[str] = set()
        self.started: list[tuple[str, dict]] = []
        self.longest = 0

    def get_dr_count(self, dag_id, logical_dates=None, run_ids=None, states=None):
        assert (dag_id, states) == ("forge_metrics", None)
        self.longest = max(self.longest, len(logical_dates or ()))
        return len(self.starts & set(logical_dates or ())) + len(self.ids & set(run_ids or ()))

    def run(self, interval, run_type="scheduled", conf=None, now=NOW):
        """Do as the task of a run; return the runs that it starts."""
        before = len(self.started)
        start_other_runs(self.context(run_type, conf), interval, now)
        return self.started[before:]

    def end(self, interval, conf, now=NOW):
        """Do as a healing run's task in the end; return the runs that it starts."""
        before = len(self.started)
        continue_healing(self.context("manual", conf), interval, now)
        return self.started[before:]

    def context(self, run_type="scheduled", conf=None):
        return {"dag": self, "dag_run": SimpleNamespace(run_type=run_type, conf=conf), "ti": self}


@pytest.fixture(autouse=True)
def airflow(monkeypatch):
    def start(self, run_id, conf):
        self._ti.ids.add(run_id)
        self._ti.started.append((run_id, dict(conf)))

    monkeypatch.setattr(DagRuns, "start", start)


def test_the_first_run_of_a_catchup_starts_the_newest_window_and_no_other_does():
    dag = Dag(OLDEST)
    form = {"from": "2026-11-27T14:00:00Z", "to": "2026-11-27T14:15:00Z"}
    assert dag.run(at(OLDEST)) == [(LIVE, form)]
    dag.starts.add(OLDEST + MAX_WINDOW)
    assert dag.run(at(OLDEST + MAX_WINDOW)) == []


def test_no_run_is_started_for_a_window_after_the_end_of_the_dag():
    dag = Dag(OLDEST)
    dag.end_date = OLDEST + timedelta(hours=2, minutes=1)
    [(_, conf)] = dag.run(at(OLDEST))
    assert pendulum.parse(conf["from"]) == OLDEST + timedelta(hours=2)
    start_accepted(dag.context(), at(OLDEST), NOW, NOW - OLDEST)
    assert pendulum.parse(dag.started[1][1]["until"]) == OLDEST + timedelta(hours=2)
    dag.started.clear()
    start_accepted(dag.context(), at(OLDEST), NOW, timedelta(hours=48))
    assert dag.started == []


def test_each_quarter_hour_of_a_catchup_starts_its_own():
    dag = Dag(OLDEST)
    later = [dag.run(at(OLDEST), now=NOW.add(minutes=minutes)) for minutes in (0, 12, 13, 28)]
    assert [[run_id[-23:] for run_id, _ in runs] for runs in later] == [
        ["T14:00:00+00:00_to_14:15"[-23:]],
        [],
        ["T14:15:00+00:00_to_14:30"[-23:]],
        ["T14:30:00+00:00_to_14:45"[-23:]],
    ]


def test_a_schedule_that_keeps_up_starts_nothing():
    dag = Dag(*(NEWEST.start - number * MAX_WINDOW for number in range(3)))
    assert dag.run(NEWEST) == []
    # A retry, when the next window has a run of its own.
    assert dag.run(at(NEWEST.start - MAX_WINDOW)) == []


@pytest.mark.parametrize(
    ("max_age", "start", "end"),
    [
        (timedelta(hours=1), "13:30", "14:00"),
        (timedelta(minutes=53), "13:30", "14:00"),
        (timedelta(minutes=52), "13:30", "14:00"),
        (timedelta(minutes=51), "13:45", "14:00"),
        (timedelta(hours=48), "14:30", "02:30"),
        (timedelta(days=20), "15:00", "03:00"),
    ],
)
def test_windows_that_a_catchup_would_reach_too_late_are_delivered_first(max_age, start, end):
    """The newest one has a run of its own, and those after twelve hours are not in a hurry."""
    dag = Dag(OLDEST)
    for _ in range(2):
        start_accepted(dag.context(), at(OLDEST), NOW, max_age)
    [(run_id, conf)] = dag.started
    assert run_id.startswith("heal__")
    assert (conf["from"][11:16], conf["to"][11:16], conf["until"]) == (start, end, conf["to"])
    assert dag.end(Window(*map(pendulum.parse, (conf["from"], conf["to"]))), conf) == []


@pytest.mark.parametrize("run_type", ["manual", "backfill", "operator_triggered", "asset_triggered"])
def test_only_a_catchup_delivers_windows_ahead_of_itself(run_type):
    dag = Dag(OLDEST)
    start_accepted(dag.context(run_type), at(OLDEST), NOW, timedelta(hours=1))
    assert dag.started == []


def test_without_windows_between_the_age_limit_and_the_newest_none_is_ahead():
    dag = Dag(OLDEST)
    start_accepted(dag.context(), at(OLDEST), NOW, timedelta(minutes=20))
    assert dag.started == []


@pytest.mark.parametrize("run_type", ["manual", "backfill", "operator_triggered", "asset_triggered"])
def test_other_runs_start_no_newest_window(run_type):
    assert Dag(OLDEST).run(at(OLDEST), run_type) == []


def test_a_backfill_that_makes_a_catchup_jump_is_noticed_and_mended(caplog):
    """Airflow continues after the newest run, so what lies between would never run."""
    jump = OLDEST + timedelta(days=5)
    dag = Dag(OLDEST, OLDEST + MAX_WINDOW, jump)
    [(run_id, conf)] = dag.run(at(jump), "backfill")
    first = OLDEST + 2 * MAX_WINDOW
    assert run_id == f"heal__{first.isoformat()}_to_{first + timedelta(hours=12):%H:%M}"
    assert "The schedule skipped 13 Nov 15:30" in caplog.text
    assert dag.run(at(jump), "backfill") == [], "its retry"
    reached, chain = first, 0
    while True:
        part = Window(pendulum.parse(conf["from"]), pendulum.parse(conf["to"]))
        assert (part.start, part.end - part.start <= timedelta(hours=12)) == (reached, True)
        reached, chain = part.end, chain + 1
        assert dag.run(part, "manual", conf) == [], "one at a time"
        if not (runs := dag.end(part, conf)):
            break
        assert dag.end(part, conf) == [], "its retry"
        [(_, conf)] = runs
    assert (reached, chain) == (jump, 10)
    assert dag.longest <= 96, "they are part of a URL"


@pytest.mark.parametrize("skipped", [1, 2, 95, 96, 97, 98, 192, 193, 194, 500])
def test_what_was_skipped_is_found_whole(skipped):
    start = OLDEST + 600 * MAX_WINDOW
    dag = Dag(start - (skipped + 1) * MAX_WINDOW, start, *(OLDEST + n * MAX_WINDOW for n in range(5)))
    [(_, conf)] = dag.run(at(start), "backfill")
    assert pendulum.parse(conf["from"]) == start - skipped * MAX_WINDOW
    assert pendulum.parse(conf["until"]) == start


@pytest.mark.parametrize("start_date", [Dag.start_date, NOW - timedelta(days=3), None])
def test_what_no_schedule_had_is_not_skipped(start_date):
    dag = Dag(NEWEST.start)
    dag.start_date = start_date
    first = ceil(start_date, MAX_WINDOW) if start_date and start_date > OLDEST else OLDEST
    dag.ids.add(LIVE)
    assert dag.run(at(first)) == []


@pytest.mark.parametrize("conf", [None, {}, {"from": "2026-11-14T00:00:00Z"}])
def test_a_run_that_is_part_of_no_chain_starts_none(conf):
    assert Dag(OLDEST).end(at(OLDEST), conf) == []


def test_where_a_catchup_is():
    dag = Dag(OLDEST, OLDEST + MAX_WINDOW)
    runs = DagRuns(dag.dag_id, dag)
    assert find_catchup(runs, NOW) == OLDEST + 2 * MAX_WINDOW
    # By hand, with a date that happens to be aligned.
    dag.starts.add(NEWEST.start - 2 * MAX_WINDOW)
    assert find_catchup(runs, NOW) == OLDEST + 2 * MAX_WINDOW
    dag.starts.add(NEWEST.start - 3 * MAX_WINDOW)
    assert find_catchup(runs, NOW) is None, "the schedule is live"
    assert find_catchup(DagRuns(dag.dag_id, Dag()), NOW) is None


def test_without_catchup_nothing_was_skipped():
    dag = Dag(NEWEST.start)
    dag.catchup = False
    assert dag.run(NEWEST) == []


def test_a_dag_that_takes_no_runs_delivers_its_own_window(monkeypatch, caplog):
    def refuse(self, run_id, conf):
        raise ConfigurationError("export_dag_id", "Airflow did not start a run")

    monkeypatch.setattr(DagRuns, "start", refuse)
    assert Dag(OLDEST).run(at(OLDEST)) == []
    start_accepted(Dag(OLDEST).context(), at(OLDEST), NOW, timedelta(hours=1))
    assert caplog.text.count("No other run was started: export_dag_id: Airflow did not") == 2


def test_an_airflow_that_ignores_a_runs_conf_is_asked_for_none(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS", "False")
    assert Dag(OLDEST).run(at(OLDEST)) == []


def test_a_dag_with_another_schedule_is_left_alone():
    assert Dag(OLDEST, timetable=SimpleNamespace()).run(at(OLDEST)) == []


STAGING = {"environments": "staging"}
ELSEWHERE = {"interval_start": OLDEST, "interval_end": OLDEST + MAX_WINDOW}
ITSELF = {"interval_start": NEWEST.start, "interval_end": NEWEST.end}


@pytest.mark.parametrize(
    ("form", "displaces"),
    [
        (STAGING, True),
        ({"metrics": "FORGE_API_REQUEST_COUNT"}, True),
        ({"check_only": True}, True),
        (ELSEWHERE, True),
        ({**ITSELF, **STAGING}, True),
        (ITSELF, False),
        ({"resend": True}, False),
    ],
)
def test_a_manual_run_with_a_date_of_the_schedule_leaves_its_interval_to_a_healing_run(form, displaces):
    dag = Dag()

    def restore(run_type="manual", date=NEWEST.start, start=NEWEST.start):
        context = dag.context(run_type)
        context["dag_run"].logical_date = date
        context |= {"data_interval_start": start, "data_interval_end": NEWEST.end}
        restore_scheduled(context, form, NOW)

    for other in ({"run_type": "scheduled"}, {"run_type": "backfill"}, {"date": None}, {"date": NOW}):
        restore(**other)
    assert dag.started == []
    for _ in range(2):
        restore()
    [run] = dag.started or [None]
    assert (run is not None) is displaces
    if run:
        name, conf = run
        assert name == "heal__2026-11-27T14:00:00+00:00_to_14:15"
        assert (conf["from"], conf["to"]) == ("2026-11-27T14:00:00Z", "2026-11-27T14:15:00Z")


@pytest.mark.parametrize("strays", [[], [40], [40, 300], [40, 200, 300, 1000]])
@pytest.mark.parametrize("delivered", [1, 2, 20])
def test_manual_runs_ahead_of_a_catchup_are_not_taken_for_it(strays, delivered):
    dag = Dag(
        *(OLDEST + number * MAX_WINDOW for number in [*range(delivered), *(25 + each for each in strays)])
    )
    assert find_catchup(DagRuns("forge_metrics", dag), NOW) == OLDEST + delivered * MAX_WINDOW
