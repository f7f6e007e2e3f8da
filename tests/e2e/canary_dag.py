"""An asset that is only an outlet: Airflow forgets it once the file that declares it cannot be imported."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, task

with DAG("canary", schedule=None):

    @task(outlets=[Asset("canary")])
    def nothing() -> None:
        """Do nothing."""

    nothing()
