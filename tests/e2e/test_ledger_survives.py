"""The ledger in Airflow's own store outlives a DAG that is absent for a while."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_forge.utils.ledger import delivery_asset
from demo.dagfile import DAG_ID, SHIPPED
from demo.waiting import wait_for
from tests.e2e.deliveries import Deliveries, deliveries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ASSET = delivery_asset("forge_default", "otlp_default").name
CANARY = "canary"
BROKEN_FOR = timedelta(minutes=3)
# By default Airflow looks for removed files every five minutes; for assets without a DAG every minute.
SETTINGS = {"AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10"}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deliveries]:
    """Deliver beside a DAG whose asset is only an outlet."""
    home = tmp_path_factory.mktemp("ledger")
    (home / "dags").mkdir()
    shutil.copy(Path(__file__).with_name("canary_dag.py"), home / "dags")
    with deliveries(home, **SETTINGS) as airflow:
        airflow.airflow.wait_for_dag(CANARY)
        yield airflow


def test_a_syntax_error_in_the_dag_file_loses_nothing(airflow: Deliveries) -> None:
    before = airflow.deliver()
    ledger = entries(airflow)

    with broken_dag_file(airflow):
        assert entries(airflow) == ledger
    after = airflow.deliver_again(before)

    assert after.summary["points"] > 0
    assert after.summary["sent"] == 0
    assert after.summary["unchanged"] == after.summary["points"]
    assert after.received == before.received == before.generated


def test_deleting_the_dag_loses_the_ledger_and_the_next_run_warns(airflow: Deliveries) -> None:
    before = airflow.deliver()
    assert entries(airflow)

    with deleted_dag(airflow):
        wait_for(lambda: not entries(airflow), timeout=180, what="the end of the record")
    after = airflow.finish(airflow.airflow.api.trigger(DAG_ID, before.start), before.start)

    assert "it was lost, or is kept elsewhere" in after.log
    assert after.summary["ambiguous"] == after.summary["sent"] == before.generated.total()
    assert after.received == before.generated + before.generated


@contextmanager
def broken_dag_file(airflow: Deliveries) -> Iterator[None]:
    """Have a DAG file that cannot be imported, for as long as Airflow needs to clean up after that.

    Airflow then forgets the outlets of all its DAGs that cannot be imported, but only if a DAG file has been
    removed, which is why the canary's is. The inlets it leaves.
    """
    api, file = airflow.airflow.api, airflow.airflow.dags_folder / SHIPPED.name
    source = file.read_text()
    file.write_text(f"{source}\n)\n")
    file.with_name("canary_dag.py").unlink()
    began = time.monotonic()
    wait_for(api.import_errors, timeout=120, what="the import error")
    wait_for(lambda: not outlets(airflow), timeout=300, what="the end of the DAG's outlets")
    wait_for(lambda: CANARY not in api.assets(), timeout=300, what="the end of the canary's asset")
    wait_for(lambda: time.monotonic() > began + BROKEN_FOR.total_seconds(), timeout=300, what="the repair")
    yield
    file.write_text(source)
    wait_for(lambda: not api.get(f"dags/{DAG_ID}")["is_stale"], timeout=120, what="the repaired DAG")


@contextmanager
def deleted_dag(airflow: Deliveries) -> Iterator[None]:
    """Delete the DAG together with its file, and bring it back."""
    api, file = airflow.airflow.api, airflow.airflow.dags_folder / SHIPPED.name
    source = file.read_text()
    # With the file in place it is a race: the DAG may be back before Airflow has cleaned up.
    file.unlink()
    wait_for(lambda: api.get(f"dags/{DAG_ID}")["is_stale"], timeout=120, what="the DAG without a file")
    api.delete_dag(DAG_ID)
    yield
    file.write_text(source)
    airflow.airflow.wait_for_dag(DAG_ID)
    api.pause(DAG_ID, paused=False)


def outlets(airflow: Deliveries) -> list[Any]:
    """Return the tasks whose outlet the asset is, as far as Airflow knows."""
    api = airflow.airflow.api
    return api.get(f"assets/{api.assets(only_active=False)[ASSET]}")["producing_tasks"]


def entries(airflow: Deliveries) -> dict[str, Any]:
    """Return the record as Airflow keeps it."""
    api = airflow.airflow.api
    return api.asset_state(api.assets(only_active=False)[ASSET])
