"""Replay archived Forge app metrics to an OTLP receiver: a backfill delivers any dates of the archive.

Copy this file into your DAGs folder, name the Connections, and unpause the DAG: it has no scheduled runs.
Then backfill the dates that the receiver lacks. No call is made to Atlassian. Delivery is idempotent, so a
backfill may be stopped, and started again with "Missing and Errored Runs".

The Forge Connection needs the extra `archive_url`, which `forge_metrics` fills from then on. The receiver has
to accept points of that age: see `docs/destinations.md`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.operators.form import trigger_form
from airflow_provider_forge.timetables import ForgeMetricsTimetable

# Each entry becomes a DAG. For a second receiver, add
#   "forge_metrics_replay_other": {"otlp_conn_id": "otlp_other"},
DAGS = {
    "forge_metrics_replay": {"forge_conn_id": "forge_default", "otlp_conn_id": "otlp_default"},
}

for dag_id, options in DAGS.items():
    with DAG(
        dag_id,
        # An hour per run: a year has 8,760 of them. `retention` is how far back a backfill may begin.
        schedule=ForgeMetricsTimetable(timedelta(hours=1), retention=timedelta(days=3650), scheduled=False),
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        is_paused_upon_creation=True,
        max_active_runs=8,
        params=trigger_form(),
        default_args={"retries": 10, "retry_delay": timedelta(minutes=5)},
        tags=["forge", "otlp", "metrics"],
        doc_md=__doc__,
    ):
        ForgeMetricsToOtlpOperator(
            task_id="replay",
            source="archive",
            interval_start="{{ data_interval_start | default('', true) }}",
            interval_end="{{ data_interval_end | default('', true) }}",
            # Windows that the archive does not have fail the run; "skip" leaves them out.
            on_expired="fail",
            # Some receivers need points in their order: then set 1.
            max_active_tis_per_dag=3,
            execution_timeout=timedelta(hours=1),
            **options,
        )
