"""Wrong arguments of the operators: each is an error that names it, when the DAG is parsed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.sdk import task

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.operators.forge_metrics_coverage import ForgeMetricsCoverageOperator as Coverage
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator as Export
from airflow_provider_forge.operators.forge_usage_to_otlp import ForgeUsageToOtlpOperator as Usage

ALL = (Export, Coverage, Usage)
SWITCHES = (
    *((Export, name) for name in ("conform", "live_first", "deferrable", "telemetry")),
    *((Coverage, name) for name in ("heal", "telemetry")),
    (Usage, "export_sites"),
)


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.parametrize("value", [None, "", 5, {"a": 1}, ["a"]])
def test_an_id_of_a_connection_is_text(operator, value):
    with pytest.raises(ConfigurationError, match=r"^forge_conn_id: .* is not the id of a Connection"):
        operator(task_id="x", forge_conn_id=value)


@pytest.mark.parametrize("operator", [Coverage, Usage])
def test_a_list_of_receivers_needs_as_many_operators(operator):
    with pytest.raises(ConfigurationError, match=r"^otlp_conn_id: .*: give its id, one for each operator"):
        operator(task_id="x", otlp_conn_id=["a", "b"])


@pytest.mark.parametrize("value", [None, "", 5, {"a": 1}, {"a", "b"}, [], ["a", None]])
def test_the_ids_of_several_are_a_list(value):
    with pytest.raises(ConfigurationError, match=r"^otlp_conn_id: give the id of a Connection, or a list"):
        Export(task_id="x", otlp_conn_id=value)


def test_no_task_can_return_them():
    with DAG("it", schedule=None):

        @task
        def find():
            return "otlp_default"

        with pytest.raises(ConfigurationError, match="no other task can return it"):
            Export(task_id="x", otlp_conn_id=find())


@pytest.mark.parametrize("value", [3600, "1h", timedelta(0), timedelta(hours=-1)])
@pytest.mark.parametrize(("operator", "name"), [(Export, "revisit_after"), (Coverage, "alert_before")])
def test_a_duration_is_a_timedelta(operator, name, value):
    with pytest.raises(ConfigurationError, match=f"^{name}: .* is not a timedelta above 0"):
        operator(task_id="x", **{name: value})


def test_only_an_optional_one_may_be_missing():
    assert Export(task_id="x", revisit_after=None).revisit_after is None
    with pytest.raises(ConfigurationError, match=r"^alert_before: None is not a timedelta"):
        Coverage(task_id="x", alert_before=None)


@pytest.mark.parametrize("value", ["false", "False", "", 1, None])
@pytest.mark.parametrize(("operator", "name"), SWITCHES)
def test_a_switch_is_true_or_false(operator, name, value):
    """Text, as a Variable has it, would count as true."""
    with pytest.raises(ConfigurationError, match=f"^{name}: .* is neither True nor False"):
        operator(task_id="x", **{name: value})
