"""Export Forge app metrics to OTLP: one run per quarter hour, from 14 days ago to the present.

Copy this file into your DAGs folder, and change it as you need. It requires two Connections, `forge_default`
and `otlp_default`. Unpaused, it delivers the newest quarter hour, then the last 14 days, oldest first.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_forge import DOCUMENTATION
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.operators.form import trigger_form
from airflow_provider_forge.operators.help import EXPORT_HELP
from airflow_provider_forge.timetables import ForgeMetricsTimetable

# Each entry becomes a DAG. For a second app of the same account, add
#   "forge_metrics_other": {"app_id": "ari:cloud:ecosystem::app/…"},
# For an app of another account, also set `"forge_conn_id": "forge_other"`. For fresher points, add a DAG that
# runs every five minutes; `forge_metrics` then only sends the points that the other DAG has missed:
#   "forge_metrics_live": {
#       "schedule": ForgeMetricsTimetable(interval=timedelta(minutes=5)),
#       "catchup": False,
#       "revisit_after": None,
#   },
DAGS = {
    "forge_metrics": {"forge_conn_id": "forge_default", "otlp_conn_id": "otlp_default"},
}

for dag_id, options in DAGS.items():
    # Catchup delivers the last 14 days, oldest first, and each new quarter hour before them.
    app = {"schedule": ForgeMetricsTimetable(), "catchup": True, "live_first": True, **options}
    with DAG(
        dag_id,
        schedule=app.pop("schedule"),
        # The timetable starts 14 days ago at the earliest, because the gateway has no older metrics.
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        catchup=app.pop("catchup"),
        max_active_runs=8,
        params=trigger_form(),
        default_args={"retries": 10, "retry_delay": timedelta(minutes=5)},
        tags=["forge", "otlp", "metrics"],
        doc_md=EXPORT_HELP,
        owner_links={"airflow": DOCUMENTATION},
    ):
        ForgeMetricsToOtlpOperator(
            task_id="export",
            # The run's data interval. Empty for a manual run without a logical date, which delivers the last
            # settled quarter hour.
            interval_start="{{ data_interval_start | default('', true) }}",
            interval_end="{{ data_interval_end | default('', true) }}",
            # At a time: 2 to heal, and seconds to start, run and end a task, divided by 12 and rounded up.
            max_active_tis_per_dag=3,
            # Airflow starts waiting tasks oldest first, so a backfill would delay live windows without this.
            weight_rule="airflow_provider_forge.priority.LiveFirst",
            execution_timeout=timedelta(hours=1),
            **app,
        )
