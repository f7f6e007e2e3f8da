"""Monitor `forge_metrics`: fails before missing windows of the last 14 days are lost.

Copy this file into your DAGs folder, beside `forge_metrics.py`, and unpause the DAG. Once an hour, its log
shows the delivered and missing windows. It fails once for each new cause: missing windows that expire soon,
or an API token that expires soon. Set up Airflow's notifications of failed tasks to be alerted.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_forge import DOCUMENTATION
from airflow_provider_forge.operators.forge_metrics_coverage import ForgeMetricsCoverageOperator
from airflow_provider_forge.operators.help import COVERAGE_HELP

# Each entry becomes a task that monitors one DAG of forge_metrics.py. It has the same Connections and app as
# that DAG. For a second DAG, add
#   "forge_metrics_other": {"app_id": "ari:cloud:ecosystem::app/…"},
# With `"heal": True` in an entry, the task starts runs of that DAG for missing windows.
DAGS = {
    "forge_metrics": {"forge_conn_id": "forge_default", "otlp_conn_id": "otlp_default"},
}

with DAG(
    "forge_metrics_coverage",
    # By then, the previous quarter hour has been delivered.
    schedule="12 * * * *",
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # One after the other, so that tasks with the same Connection report an expiring token only once.
    max_active_tasks=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["forge", "otlp", "metrics"],
    doc_md=COVERAGE_HELP,
    owner_links={"airflow": DOCUMENTATION},
):
    for dag_id, options in DAGS.items():
        ForgeMetricsCoverageOperator(
            task_id=dag_id,
            execution_timeout=timedelta(minutes=15),
            **{"export_dag_id": dag_id, **options},
        )
