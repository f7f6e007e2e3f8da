"""Export what a Forge app uses and costs to OTLP, once a day: usage, share of the allowance, cost, forecast.

Copy this file into your DAGs folder, beside `forge_metrics.py`, and unpause the DAG. It uses the same two
Connections. Atlassian refreshes usage at 12:00 UTC and revises earlier days, so each run reads them again: a
revised day replaces its earlier value. Missed runs need no catchup.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_forge.operators.forge_usage_to_otlp import ForgeUsageToOtlpOperator

# Each entry becomes a task. For a second app of the same account, add
#   "other": {"app_id": "ari:cloud:ecosystem::app/…"},
# For usage by site, which makes a series for each site, resource and day, add
#   "sites": {"group_by": "site"},
# With `"export_sites": True`, the names of customers' sites are exported as well.
# With `"budget": 50` in an entry, an alert rule warns when the forecast exceeds that many US dollars.
APPS = {
    "usage": {"forge_conn_id": "forge_default", "otlp_conn_id": "otlp_default"},
}

with DAG(
    "forge_usage",
    # After the refresh. A run takes a few minutes, at five calls a minute.
    schedule="20 12 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # One after the other: tasks of the same account share its limit.
    max_active_tasks=1,
    default_args={"retries": 10, "retry_delay": timedelta(minutes=15)},
    tags=["forge", "otlp", "usage"],
    doc_md=__doc__,
):
    for task_id, options in APPS.items():
        ForgeUsageToOtlpOperator(task_id=task_id, execution_timeout=timedelta(hours=2), **options)
