"""Tasks that fail in every way in which a secret could be repeated: for the test of secrets."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator

START = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)

FAILURES = {
    "expired_token": {"forge_conn_id": "forge_expired"},
    "echoing_gateway": {"forge_conn_id": "forge_echo"},
    "echoing_receiver": {"otlp_conn_id": "otlp_echo"},
    "unknown_environment": {"environments": ["nowhere"]},
}

with DAG("failing", schedule=None):
    for task_id, arguments in FAILURES.items():
        ForgeMetricsToOtlpOperator(
            task_id=task_id,
            interval_start=START.isoformat(),
            interval_end=(START + timedelta(minutes=15)).isoformat(),
            retries=0,
            **arguments,
        )
