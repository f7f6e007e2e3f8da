"""Watches over `forge_metrics`: what is missing of the last 14 days, and fails before it is lost.

Copy this file into your DAGs folder, beside `forge_metrics.py`, and unpause the DAG. Once an hour its log
shows what was delivered, hour by hour. It fails once for each new cause: windows that are missing and soon
expire, or an API token that soon does. Have Airflow tell you of failed tasks as you do for others.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_forge.operators.forge_metrics_coverage import ForgeMetricsCoverageOperator

# One task for each DAG of forge_metrics.py that is to be complete, with the Connections and the app that it
# has there. For a second one add for instance
#   "forge_metrics_other": {"app_id": "ari:cloud:ecosystem::app/…"},
# `"heal": True` in an entry starts runs of that DAG for what is missing.
DAGS = {
    "forge_metrics": {"forge_conn_id": "forge_default", "otlp_conn_id": "otlp_default"},
}

with DAG(
    "forge_metrics_coverage",
    # When the quarter hour before has been delivered.
    schedule="12 * * * *",
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # Tasks with one Connection tell once of its token: the second has to see that the first has.
    max_active_tasks=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["forge", "otlp", "metrics"],
    doc_md=__doc__,
):
    for dag_id, options in DAGS.items():
        ForgeMetricsCoverageOperator(
            task_id=dag_id,
            export_dag_id=dag_id,
            execution_timeout=timedelta(minutes=15),
            **options,
        )
