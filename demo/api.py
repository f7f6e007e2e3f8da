"""The part of Airflow's REST API that the demo and the tests use."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]
PAGE = 100


def parse_time(text: str) -> datetime:
    """Parse a time of the REST API."""
    # Python 3.10 does not parse the Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


class AirflowApi:
    """A client for one Airflow, logged in as a user of the simple auth manager.

    Args:
        url: URL of the API server.
        username: Name of the user.
        password: Password of the user.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=60.0, trust_env=False)
        response = self.client.post("/auth/token", json={"username": username, "password": password})
        self.token: str = response.raise_for_status().json()["access_token"]
        self.client.headers["Authorization"] = f"Bearer {self.token}"

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON response to `GET /api/v2/<path>`."""
        return self._json(self.client.get(f"/api/v2/{path}", params=params))

    def send(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        """Send `body` to `/api/v2/<path>` and return the JSON response."""
        return self._json(self.client.request(method, f"/api/v2/{path}", json=body))

    def create_connection(self, conn_id: str, conn_type: str, **fields: Any) -> Json:
        """Create a Connection with the fields of the REST API: host, login, password, extra (a string)."""
        return self.send("POST", "connections", {"connection_id": conn_id, "conn_type": conn_type, **fields})

    def import_errors(self) -> list[Json]:
        """Return the DAG files that could not be imported."""
        return self.get("importErrors")["import_errors"]

    def has_dag(self, dag_id: str) -> bool:
        """Return whether the DAG has been parsed."""
        return self.client.get(f"/api/v2/dags/{dag_id}").status_code == httpx.codes.OK

    def pause(self, dag_id: str, paused: bool = True) -> Json:
        """Pause or unpause a DAG."""
        return self.send("PATCH", f"dags/{dag_id}", {"is_paused": paused})

    def trigger(self, dag_id: str, logical_date: datetime | None = None, conf: Json | None = None) -> str:
        """Start a manual run and return its run id."""
        body = {"logical_date": logical_date and logical_date.isoformat(), "conf": conf or {}}
        return self.send("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear all tasks of a run, so that they run again."""
        body = {"dag_run_id": run_id, "dry_run": False, "only_failed": False}
        self.send("POST", f"dags/{dag_id}/clearTaskInstances", body)

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run as `success` or `failed`, as in the UI."""
        self.send("PATCH", f"dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def delete_dag(self, dag_id: str) -> None:
        """Delete a DAG from the database; it comes back if its file still exists."""
        self.client.delete(f"/api/v2/dags/{dag_id}").raise_for_status()

    def run(self, dag_id: str, run_id: str) -> Json:
        """Return one run."""
        return self.get(f"dags/{dag_id}/dagRuns/{run_id}")

    def runs(self, dag_id: str, **filters: Any) -> list[Json]:
        """Return all runs, oldest first, that match the API's filters, such as `state` and `run_type`."""
        return self._pages(f"dags/{dag_id}/dagRuns", "dag_runs", order_by="run_after", **filters)

    def count_runs(self, dag_id: str, **filters: Any) -> int:
        """Return the number of runs that match the filters."""
        return self.get(f"dags/{dag_id}/dagRuns", limit=1, **filters)["total_entries"]

    def backfill(self, dag_id: str, start: datetime, end: datetime, reprocess: str = "none") -> int:
        """Start a backfill of a DAG that is not paused, and return its id.

        Args:
            reprocess: `none`, `failed` or `completed`.
        """
        dates = {"from_date": start.isoformat(), "to_date": end.isoformat()}
        body = {"dag_id": dag_id, **dates, "reprocess_behavior": reprocess}
        # Airflow's scheduler crashes if a backfill creates a run that it is about to create.
        self.pause(dag_id)
        backfill_id = self.send("POST", "backfills", body)["id"]
        self.pause(dag_id, paused=False)
        return backfill_id

    def backfill_is_complete(self, backfill_id: int) -> bool:
        """Return whether all runs of a backfill have ended."""
        return self.get(f"backfills/{backfill_id}")["completed_at"] is not None

    def asset_events(self, name: str) -> list[Json]:
        """Return all events of the asset with that name."""
        [asset] = [asset for asset in self._pages("assets", "assets") if asset["name"] == name]
        return self._pages("assets/events", "asset_events", asset_id=asset["id"])

    def task_instances(self, dag_id: str, run_id: str = "~") -> list[Json]:
        """Return the task instances of a run, or of all runs, with their rendered fields."""
        return self._pages(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")

    def count_task_instances(self, dag_id: str, **filters: Any) -> int:
        """Return the number of task instances of all runs that match the filters."""
        return self.get(f"dags/{dag_id}/dagRuns/~/taskInstances", limit=1, **filters)["total_entries"]

    def task_log(self, ti: Mapping[str, Any]) -> str:
        """Return the log of a task instance's last attempt, as in the UI."""
        path = f"dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}"
        response = self.client.get(f"/api/v2/{path}/logs/{ti['try_number']}", params={"full_content": True})
        return response.raise_for_status().text

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom's value."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.get(path, deserialize=True)["value"]

    def assets(self, *, only_active: bool = True) -> dict[str, int]:
        """Return the ids of assets by name: of active ones only, or also of those without a DAG."""
        found = self._pages("assets", "assets", only_active=only_active)
        return {asset["name"]: asset["id"] for asset in found}

    def asset_state(self, asset_id: int) -> Json:
        """Return the state that tasks store with an asset, by key."""
        entries = self._pages(f"assets/{asset_id}/state-store", "asset_state_store")
        return {entry["key"]: entry["value"] for entry in entries}

    def _pages(self, path: str, key: str, **params: Any) -> list[Json]:
        found: list[Json] = []
        while True:
            page = self.get(path, limit=PAGE, offset=len(found), **params)
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    @staticmethod
    def _json(response: httpx.Response) -> Any:
        if response.is_error:
            call = f"{response.request.method} {response.request.url}"
            raise RuntimeError(f"{call}: {response.status_code} {response.text[:2000]}")
        return response.json()
