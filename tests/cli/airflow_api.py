"""As much of Airflow's REST API as a ledger needs: one asset and its state store."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

from airflow_provider_forge.sandbox.server import LocalServer, Reply, Request

ASSET = "forge_metrics:forge_default:otlp_default"


class AirflowApi(LocalServer):
    """Answers as Airflow 3.3 does; `values` are the rows of the asset."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}
        self.asset = ASSET
        self.requests: list[tuple[str, str]] = []
        self.failure: Reply | None = None
        self.dag: Reply = Reply.of_json({"detail": "no DAG"}, 404)
        self._token = token

    def respond(self, request: Request) -> Reply:
        self.requests.append((request.method, request.path))
        if self.failure:
            return self.failure
        if request.headers["Authorization"] != f"Bearer {self._token}":
            return Reply.of_json({"detail": "Invalid JWT token"}, 401)
        if request.path.startswith("/api/v2/dags/"):
            return self.dag
        query = dict(urllib.parse.parse_qsl(request.query))
        if request.path == "/api/v2/assets":
            similar = [{"id": 6, "name": f"{self.asset}2"}, {"id": 7, "name": self.asset}]
            return Reply.of_json(
                {"assets": [each for each in similar if query["name_pattern"] in each["name"]]}
            )
        rows = "/api/v2/assets/7/state-store"
        if request.path == rows:
            return self._page(int(query["limit"]), int(query["offset"]))
        key = urllib.parse.unquote(request.path.removeprefix(f"{rows}/"))
        if request.method == "GET":
            if key not in self.values:
                return Reply.of_json({"detail": f"Asset state store key {key!r} not found"}, 404)
            return Reply.of_json({"key": key, "value": self.values[key]})
        if request.method == "PUT":
            self.values[key] = json.loads(request.body)["value"]
        elif request.method == "DELETE":
            self.values.pop(key, None)
        return Reply(204)

    def _page(self, limit: int, offset: int) -> Reply:
        keys = sorted(self.values)
        rows = [{"key": key, "value": self.values[key]} for key in keys[offset : offset + min(limit, 100)]]
        return Reply.of_json({"asset_state_store": rows, "total_entries": len(keys)})
