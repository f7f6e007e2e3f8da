"""Forge app metrics to OTLP: one run for each quarter hour, from 14 days ago until now.

Copy this file into your DAGs folder: it is all there is to it, meant to be read and changed. It needs two
Connections, `forge_default` and `otlp_default`. Unpause the DAG, and catchup delivers the last 14 days,
oldest first. For a gap: Backfill, "Missing Runs" or "Missing and Errored Runs".
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, Param

from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.timetables import ForgeMetricsTimetable

# One DAG for each entry. For a second app of the same account, add for instance
#   "forge_metrics_other": {"app_id": "ari:cloud:ecosystem::app/…"},
# and for an app of another account, `"forge_conn_id": "forge_other"`. For points that are fresher than a
# quarter of an hour, add a DAG that asks every five minutes; this one then sends only what that one missed:
#   "forge_metrics_live": {
#       "schedule": ForgeMetricsTimetable(interval=timedelta(minutes=5)),
#       "catchup": False,
#       "revisit_after": None,
#   },
DAGS = {
    "forge_metrics": {"forge_conn_id": "forge_default", "otlp_conn_id": "otlp_default"},
}

for dag_id, options in DAGS.items():
    app = {"schedule": ForgeMetricsTimetable(), "catchup": True, **options}
    with DAG(
        dag_id,
        schedule=app.pop("schedule"),
        # The timetable never goes further back than the gateway does.
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        catchup=app.pop("catchup"),
        max_active_runs=8,
        params={"resend": Param(False, type="boolean", description="Send again what was delivered already")},
        default_args={"retries": 10, "retry_delay": timedelta(minutes=5)},
        tags=["forge", "otlp", "metrics"],
        doc_md=__doc__,
    ):
        ForgeMetricsToOtlpOperator(
            task_id="export",
            # The run's data interval; empty for a manual run without a logical date, which takes the last
            # settled quarter hour.
            interval_start="{{ data_interval_start | default('', true) }}",
            interval_end="{{ data_interval_end | default('', true) }}",
            resend="{{ params.resend }}",
            # Of all runs, backfills included: more would only wait for the rate limit.
            max_active_tis_per_dag=3,
            # Airflow takes waiting tasks oldest first: a backfill would hold back the live window.
            weight_rule="airflow_provider_forge.priority.LiveFirst",
            execution_timeout=timedelta(hours=1),
            **app,
        )
