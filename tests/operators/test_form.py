"""What a run by hand may say, and what is said of it where it is of no use."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.operators.form import check_conf_names, read_form, trigger_form
from airflow_provider_forge.windows import Window

NOW = pendulum.now("UTC")
HALF_HOUR = Window.last_settled(NOW.subtract(hours=3), length=pendulum.duration(minutes=30))
EMPTY = {
    "from": None,
    "to": None,
    "environments": None,
    "metrics": None,
    "resend": False,
    "check_only": False,
}
FILLED = {"from": HALF_HOUR.start.isoformat(), "to": HALF_HOUR.end.isoformat()}


def run(params, *, run_type="manual", conf=None, **arguments):
    """Run a task whose arguments say the quarter hour before."""
    start = HALF_HOUR.start.subtract(minutes=15)
    context = {
        "dag_run": SimpleNamespace(run_after=NOW, run_type=run_type, conf=conf),
        "data_interval_start": start,
        "data_interval_end": HALF_HOUR.start,
        "params": params,
    }
    return ForgeMetricsToOtlpOperator(task_id="export", **arguments).execute(context)


@pytest.fixture(autouse=True)
def connected(connect, gateway, sink, tmp_path):
    connect(gateway, sink, otlp={"ledger_url": f"file://{tmp_path}/ledger"})


def test_an_empty_form_overrides_nothing():
    assert read_form(EMPTY, NOW) == {}
    assert read_form({**EMPTY, "from": "", "environments": ""}, NOW) == {}
    assert {name: param.value for name, param in trigger_form().items()} == EMPTY


def test_the_fields_accept_the_empty_values_that_airflow_allows():
    for param in trigger_form().values():
        param.resolve()
        json.dumps(param.dump())


def test_a_run_may_span_several_windows(gateway):
    summary = run({**EMPTY, **FILLED})
    assert summary["window"] == str(HALF_HOUR)
    assert summary["calls"] == 2


def test_without_times_it_is_the_runs_own_interval(gateway):
    assert run(EMPTY)["calls"] == 1


@pytest.mark.parametrize("times", [FILLED, {"from": FILLED["from"]}, {"to": "yesterday"}])
def test_in_a_backfill_each_run_has_its_own_interval_and_the_rest_of_the_form_counts(gateway, caplog, times):
    summary = run({**EMPTY, **times, "environments": "staging, development"}, run_type="backfill")
    quarter = Window(HALF_HOUR.start.subtract(minutes=15), HALF_HOUR.start)
    assert summary["window"] == str(quarter)
    assert len(gateway.calls[-1].environments) == 2
    assert "from and to are for single runs" in caplog.text


def test_environments_and_metrics_win_over_the_arguments(gateway):
    params = {**EMPTY, "environments": "staging, development", "metrics": "FORGE_API_REQUEST_COUNT"}
    run(params, environments=["production"], metrics=["FORGE_API_REQUEST_LATENCY"])
    assert len(gateway.calls[-1].environments) == 2
    assert gateway.calls[-1].metrics == ("FORGE_API_REQUEST_COUNT",)


def test_resend(gateway):
    points = run(EMPTY)["points"]
    assert run(EMPTY)["sent"] == 0
    assert run({**EMPTY, "resend": True})["sent"] == points
    # Off is what a form has that nobody touched.
    assert run(EMPTY, resend=True)["sent"] == points


def test_a_task_keeps_the_forms_values_after_a_deferral(gateway):
    task = ForgeMetricsToOtlpOperator(task_id="export")
    context = {"dag_run": SimpleNamespace(run_after=NOW), "params": {**EMPTY, **FILLED}}
    assert task.execute_complete(context)["window"] == str(HALF_HOUR)


@pytest.mark.parametrize(
    ("filled", "message"),
    [
        ({"from": "yesterday", "to": FILLED["to"]}, "^from: 'yesterday' is not a time"),
        ({"from": "2026-11-23T05:00:00", "to": FILLED["to"]}, "^from: .* has no UTC offset"),
        ({"from": FILLED["from"]}, "^to: is missing: give it together with from"),
        ({"to": FILLED["to"]}, "^from: is missing: give it together with to"),
        ({"from": FILLED["to"], "to": FILLED["from"]}, "^to: .* is not after from"),
        ({"from": FILLED["from"], "to": FILLED["from"]}, "^to: .* is not after from"),
        ({**FILLED, "to": NOW.add(hours=3).isoformat()}, "^to: .* is more than 2 hours in the future"),
        ({"from": 5, "to": 6}, "^from: 5 is not a time"),
        ({"environments": ["production"]}, "^environments: give one comma-separated string"),
        ({"environments": "prodution"}, "^environments: there is no 'prodution'"),
        ({"environments": ", "}, "^environments: is empty"),
        ({"metrics": "forge api"}, "^metrics: 'forge api' is not a metric label"),
        ({"resend": "yes"}, "^resend: 'yes' is neither"),
    ],
)
def test_an_invalid_value_is_named_and_fails_without_a_retry(gateway, sink, filled, message):
    with pytest.raises(AirflowFailException, match=message):
        run({**EMPTY, **filled})
    assert sink.requests == []


@pytest.mark.parametrize("removed", ["environments", "metrics", "resend"])
def test_a_form_without_one_of_its_fields_is_still_read(removed):
    filled = {**FILLED, "environments": "staging", "metrics": "FORGE_API_REQUEST_COUNT", "resend": True}
    expected = read_form(filled, NOW)
    assert set(expected) == {"interval_start", "interval_end", "environments", "metrics", "resend"}
    del filled[removed], expected[removed]
    assert read_form(filled, NOW) == expected


def test_the_times_of_a_run_count_without_a_form(gateway):
    """The coverage DAG starts its runs with these two."""
    assert run(FILLED)["window"] == str(HALF_HOUR)


def test_a_form_with_only_one_time_is_refused():
    with pytest.raises(ConfigurationError, match=r"^to: is missing: give it together with from"):
        read_form({"from": FILLED["from"], "environments": None, "metrics": None, "resend": False}, NOW)


def test_other_params_are_ignored_and_a_value_that_is_not_a_time_is_refused():
    assert read_form({"city": "Berlin"}, NOW) == {}
    assert read_form({}, NOW) == {}
    with pytest.raises(ConfigurationError, match=r"^from: 'Berlin' is not a time"):
        read_form({"from": "Berlin", "to": "Rome"}, NOW)


def test_an_error_is_a_value_error_of_ours():
    with pytest.raises(ConfigurationError) as refused:
        read_form({**EMPTY, "from": "x"}, NOW)
    assert refused.value.field == "from"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("From", "from"),
        ("TO", "to"),
        ("Resend", "resend"),
        ("Check only", "check_only"),
        ("check-only", "check_only"),
        ("checkonly", "check_only"),
        ("Deliver from", "from"),
        ("Deliver until", "to"),
        ("start", "from"),
        ("form", "from"),
        ("until", "to"),
        ("fro", "from or to"),
        ("début", "from or to"),
        ("interval_end", "to"),
        ("environment", "environments"),
        ("metric", "metrics"),
    ],
)
def test_a_misspelled_field_or_a_title_fails_instead_of_delivering_something_else(gateway, name, field):
    conf = {name: "2026-11-23T08:00:00Z"}
    with pytest.raises(AirflowFailException, match=f"^{name}: the form's field is named {field} in the conf"):
        run({**EMPTY, **conf}, conf=conf)
    assert gateway.calls == []


def test_other_keys_of_the_conf_and_declared_params_are_not_mistakes():
    conf = {"top": 5, "city": "Berlin", "start": "Rome"}
    check_conf_names(conf, {"start"})
    assert read_form({**EMPTY, **conf}, NOW) == {}


class TestConfThatDoesNotOverrideParams:
    """With `[core] dag_run_conf_overrides_params = False` the params are those of the DAG."""

    @pytest.fixture(autouse=True)
    def no_override(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS", "False")

    @pytest.mark.parametrize(
        ("conf", "named"),
        [
            (FILLED, "from, to"),
            ({"environments": "staging"}, "environments"),
            ({**EMPTY, "resend": True}, "resend"),
            ({"From": FILLED["from"]}, "From"),
        ],
    )
    def test_a_run_fails_instead_of_delivering_something_else(self, gateway, conf, named):
        with pytest.raises(AirflowFailException, match=rf"dag_run_conf_overrides_params.*\({named}\)"):
            run(EMPTY, conf=conf)
        assert gateway.calls == []

    @pytest.mark.parametrize("conf", [None, {}, EMPTY, {"something": "else"}])
    def test_a_run_without_conf_continues(self, conf):
        assert run(EMPTY, conf=conf)["calls"] == 1

    def test_so_does_a_run_whose_conf_was_merged(self):
        assert run({**EMPTY, **FILLED}, conf=FILLED)["calls"] == 2

    def test_in_a_backfill_the_times_mean_nothing_anyway(self):
        assert run(EMPTY, run_type="backfill", conf=FILLED)["calls"] == 1


def test_nothing_is_compared_if_conf_overrides_params():
    assert run(EMPTY, conf=FILLED)["calls"] == 1


def test_check_only_tests_both_connections_on_the_worker_and_delivers_nothing(gateway, sink, caplog):
    caplog.set_level("INFO")
    with pytest.raises(AirflowSkipException, match="all Connections work"):
        run({**EMPTY, "check_only": True})
    assert "\u2713 forge_default: Atlassian accepts the credentials" in caplog.text
    assert "Exports production: 11 metrics" in caplog.text
    assert "\u2713 otlp_default: " in caplog.text
    assert (len(gateway.calls), sink.points) == (1, [])


def test_check_only_fails_with_what_has_to_be_corrected(connect, gateway, sink, caplog):
    connect(gateway, sink, forge={"enviroments": "production"})
    with pytest.raises(AirflowFailException, match="not working: forge_default"):
        run({**EMPTY, "check_only": True})
    [error] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "enviroments is not a field of this Connection. Did you mean 'environments'?" in error.getMessage()
