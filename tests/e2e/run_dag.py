"""Run `dag.test()` for every window that a DAG's schedule has in a period.

A program of its own, because Airflow reads its settings, and the system its clock and time zone, only once:

    python run_dag.py dags/forge_metrics.py 2026-03-29T00:00+01:00 2026-03-29T05:00+02:00
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pendulum
from airflow.timetables.base import TimeRestriction

try:
    from airflow.dag_processing.dagbag import DagBag
except ModuleNotFoundError:  # Airflow 3.0 and 3.1
    from airflow.models.dagbag import DagBag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow.sdk import DAG


def logical_dates(dag: DAG, earliest: str, latest: str) -> Iterator[datetime]:
    if earliest == latest:
        # A schedule by cron has no next run here.
        yield pendulum.parse(earliest)
        return
    restriction = TimeRestriction(pendulum.parse(earliest), pendulum.parse(latest), catchup=True)
    interval = None
    while info := dag.timetable.next_dagrun_info(
        last_automated_data_interval=interval, restriction=restriction
    ):
        if info.run_after > pendulum.now("UTC"):
            return
        interval = info.data_interval
        yield info.logical_date


def activate_assets(dag: DAG) -> None:
    """Do what the scheduler does, without which Airflow 3.0 runs no task that has an asset."""
    from airflow.models.asset import AssetActive, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        known = {model.name: model for model in session.query(AssetModel)}
        active = {model.name for model in session.query(AssetActive)}
        for asset in {
            asset.name: asset for task in dag.tasks for asset in (*task.inlets, *task.outlets)
        }.values():
            model = known.get(asset.name) or AssetModel.from_public(asset)
            session.add(model)
            if asset.name not in active:
                session.add(AssetActive.for_asset(model))


def main(file: str, earliest: str, latest: str) -> None:
    bag = DagBag(file)
    if bag.import_errors:
        raise RuntimeError(bag.import_errors)
    [dag] = bag.dags.values()
    if metadata.version("apache-airflow").startswith("3.0."):
        activate_assets(dag)
    runs = [dag.test(logical_date=date) for date in logical_dates(dag, earliest, latest)]
    print(json.dumps({run.logical_date.isoformat(): str(run.state) for run in runs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
