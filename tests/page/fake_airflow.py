"""The page as Airflow serves it, with as much of Airflow's REST API as the page uses."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route

from airflow_provider_forge.coverage.coverage import QUARTER, Coverage, Quarter, WindowStatus
from airflow_provider_forge.coverage.document import XCOM_KEY, to_document
from airflow_provider_forge.page.app import URL_PREFIX, PageFiles
from airflow_provider_forge.windows import floor
from demo.processes import free_ports

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Json = dict[str, Any]
COVERAGE_DAG = "forge_metrics_coverage"
DAYS = dt.timedelta(days=1)
MINUTE = dt.timedelta(minutes=1)
KEEP = 14 * DAYS
FACTS = {
    "app_id": "app",
    "receiver": "collector.example.com",
    "calls": [5, 60],
    "left_out": [],
    "budget": {"used": 4, "live": 1, "backfill": 7, "paused": 0},
    "token_days": 212,
    "alerts": 0,
}


def window(start: dt.datetime, status: WindowStatus, *, late: bool = False) -> Quarter:
    """Return a quarter hour with plausible figures."""
    end = start + QUARTER
    if status is WindowStatus.DELIVERED:
        points = 380 + (start.hour * 37 + start.minute) % 130
        latest = end + (66 if late else 7) * MINUTE
        return Quarter(start, status, points, 2 if late else 1, end + 7 * MINUTE, latest)
    if status is WindowStatus.REJECTED:
        return Quarter(start, status, 371, 3, end + 8 * MINUTE, end + 8 * MINUTE)
    if status is WindowStatus.EMPTY:
        return Quarter(start, status, 0, 1, end + 7 * MINUTE)
    return Quarter(start, status, attempts=status is WindowStatus.FAILED)


def coverage(now: dt.datetime, **special: tuple[float, int]) -> Coverage:
    """Return fourteen days, delivered but for some windows.

    Args:
        now: When they end.
        special: By their status, which can also be `late`: how many hours ago they begin, and their number.
    """
    first = floor(now - KEEP, QUARTER) + QUARTER
    quarters = []
    for number in range(1343):
        start = first + number * QUARTER
        end = start + QUARTER
        status, late = WindowStatus.DELIVERED, False
        for name, (hours, count) in special.items():
            begin = floor(now - dt.timedelta(hours=hours), QUARTER)
            if begin <= start < begin + count * QUARTER:
                status, late = (status, True) if name == "late" else (WindowStatus(name), False)
        if end > now - 30 * MINUTE:
            status = WindowStatus.PENDING
        quarters.append(window(start, status, late=late))
    return Coverage(tuple(quarters), ("production",), ("COUNT",), KEEP)


def document(now: dt.datetime, found: Coverage, dag_id: str = "forge_metrics") -> Json:
    return {**to_document(found, now, 2 * DAYS, dag_id), **FACTS}


def dag(dag_id: str, now: dt.datetime, *, paused: bool = False) -> Json:
    start = floor(now, QUARTER)
    return {
        "dag_id": dag_id,
        "is_paused": paused,
        "next_dagrun_logical_date": start.isoformat(),
        "next_dagrun_data_interval_start": start.isoformat(),
        "next_dagrun_run_after": (start + 20 * MINUTE).isoformat(),
    }


@dataclass
class FakeAirflow:
    """What Airflow knows, and what it was asked.

    Attributes:
        documents: Coverage by the id of the DAG that exports.
        dags: Those with the tag.
        runs: Runs of the DAGs that export.
        elsewhere: Ids of DAGs whose coverage an XCom backend stores.
        retries: Number of their tasks that wait for a retry.
        refuses: Status of all responses; None for ordinary ones.
        may_heal: Whether the user may start backfills.
        connections: Ids of the Connections.
        delay: Seconds before a response.
        asked: Methods and paths of all calls.
        bodies: What was posted, by path.
    """

    documents: dict[str, Json] = field(default_factory=dict)
    dags: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    retries: int = 0
    refuses: int | None = None
    may_heal: bool = True
    connections: set[str] = field(default_factory=set)
    delay: float = 0.0
    asked: list[str] = field(default_factory=list)
    bodies: dict[str, list[Json]] = field(default_factory=dict)
    healed: Json | None = None

    def __post_init__(self) -> None:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        routes = [
            Route("/api/v2/{path:path}", self._answer, methods=["GET", "POST"]),
            Mount(URL_PREFIX, PageFiles()),
            Route("/{path:path}", lambda request: HTMLResponse("<title>Airflow</title>")),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=port, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> FakeAirflow:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.asked.append(f"{request.method} {path}")
        if self.delay:
            await asyncio.sleep(self.delay)
        if request.method == "POST":
            self.bodies.setdefault(path, []).append(await request.json())
        if self.refuses:
            return JSONResponse({"detail": "no"}, self.refuses)
        answer = self._get(path, request) if request.method == "GET" else self._post(path)
        return JSONResponse(*answer) if isinstance(answer, tuple) else JSONResponse(answer)

    def _get(self, path: str, request: Request) -> Any:
        parts = path.split("/")
        if path == "dags":
            return {"dags": self.dags, "total_entries": len(self.dags)}
        if path.endswith("/xcomEntries"):
            rows = [self._entry(dag_id) for dag_id in self.documents]
            return {"xcom_entries": rows, "total_entries": len(rows)}
        if path.endswith(f"/xcomEntries/{XCOM_KEY}"):
            if parts[5] in self.elsewhere:
                return {"value": "s3://bucket/forge_coverage"}
            return {"value": self.documents[parts[5]]}
        if parts[0] == "connections":
            return {} if parts[1] in self.connections else ({"detail": "none"}, 404)
        if parts[-1] == "taskInstances":
            return {"task_instances": [], "total_entries": self.retries}
        if parts[-1] == "dagRuns":
            runs = self._runs(request.query_params)
            return {"dag_runs": runs, "total_entries": len(runs)}
        if parts[2:3] == ["dagRuns"]:
            return {"state": "success"}
        return {"detail": path}, 404

    def _entry(self, dag_id: str) -> Json:
        at = self.documents[dag_id]["checked_at"]
        names = {"dag_id": COVERAGE_DAG, "task_id": dag_id, "run_id": "manual__1", "map_index": -1}
        return {**names, "key": XCOM_KEY, "timestamp": at}

    def _runs(self, query: Any) -> list[Json]:
        states = query.getlist("state")
        found = [run for run in self.runs if not states or run["state"] in states]
        if "end_date_gte" in query:
            found = [run for run in found if run["end_date"]]
        if first := query.get("logical_date_gte"):
            last = dt.datetime.fromisoformat(query["logical_date_lte"].replace("Z", "+00:00"))
            begin = dt.datetime.fromisoformat(first.replace("Z", "+00:00"))
            found = [run for run in found if begin <= dt.datetime.fromisoformat(run["logical_date"]) <= last]
        return found

    def _post(self, path: str) -> Any:
        body = self.bodies[path][-1]
        if path.startswith("backfills") and not self.may_heal:
            return {"detail": "Forbidden"}, 403
        if path == "backfills/dry_run":
            return {"backfills": [], "total_entries": len(self._windows(body))}
        if path == "backfills":
            self.runs += [self._run(start) for start in self._windows(body)]
            return {"id": 1, "created_at": dt.datetime.now(dt.timezone.utc).isoformat()}
        if self.healed:
            self.documents[self.healed["dag_id"]] = self.healed
        return {"dag_run_id": "manual__2"}

    def _windows(self, body: Json) -> list[dt.datetime]:
        dates = (body["from_date"], body["to_date"])
        first, last = (dt.datetime.fromisoformat(each.replace("Z", "+00:00")) for each in dates)
        return [first + number * QUARTER for number in range(int((last - first) / QUARTER) + 1)]

    def _run(self, start: dt.datetime) -> Json:
        end = start + QUARTER
        return {
            "dag_run_id": f"backfill__{start.isoformat()}",
            "run_type": "backfill",
            "state": "success",
            "logical_date": start.isoformat(),
            "data_interval_start": start.isoformat(),
            "data_interval_end": end.isoformat(),
            "end_date": dt.datetime.now(dt.timezone.utc).isoformat(),
        }
