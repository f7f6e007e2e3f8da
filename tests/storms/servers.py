"""The gateway and the receiver of a storm: real sockets, and a fault drawn for each call."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import os
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from airflow_provider_forge.sandbox.server import LocalServer, Reply
from tests.storms.plans import APP, ENVIRONMENTS

if TYPE_CHECKING:
    import random

    from airflow_provider_forge.sandbox.server import Request
    from tests.storms.journal import Journal
    from tests.storms.plans import Plan, PlannedPoint

__all__ = ["StormyGateway", "StormyReceiver", "user_agent"]

ID = "functionKey"
"""The attribute that tells a point from all others."""

CALM_AFTER = 4
"""Times that the same window goes wrong at most, and tries of a run that the receiver treats badly."""

_JSON = (("Content-Type", "application/json"),)


class StormyGateway(LocalServer):
    """Has the plan's points, and fails in every way that Atlassian's can.

    Args:
        plan: Of the storm.
        journal: For what happens.
    """

    def __init__(self, plan: Plan, journal: Journal) -> None:
        super().__init__()
        self._plan = plan
        self._journal = journal
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._answers = 0
        self._calm = False

    def respond(self, request: Request) -> Reply:
        """Answer a query."""
        if request.path == "/calm":
            self._calm = True
            return Reply.of_json({})
        query = json.loads(request.body)
        if "appMetrics" not in query["query"]:
            return _environments()
        filters = query["variables"]["query"]["filters"]
        with self._lock:
            window = "{start}/{end}".format(**filters["interval"])
            self._asked[window] += 1
            nth = self._asked[window]
            self._answers += 1
            answers = self._answers
        ordinary = Reply.of_json(_envelope(self._visible(filters, answers)))
        draw = self._plan.random("gateway", window, nth)
        if self._calm or nth > CALM_AFTER or draw.random() >= self._plan.fault_rate:
            return ordinary
        kind, reply = _gateway_fault(draw, ordinary)
        self._journal.write("gateway", kind, window=window)
        return reply

    def _visible(self, filters: dict[str, Any], answers: int) -> list[dict[str, Any]]:
        plan = self._plan
        start, end = (
            (dt.datetime.fromisoformat(filters["interval"][name].replace("Z", "+00:00")) - plan.start)
            / dt.timedelta(minutes=1)
            for name in ("start", "end")
        )
        metrics: dict[str, list[Any]] = {}
        for point in plan.points:
            if (
                start <= point.minute < end
                and point.label in filters["metrics"]
                and point.environment in filters["environments"]
                and (self._calm or point.late < answers)
            ):
                metrics.setdefault(point.label, []).extend([self._data_point(point, answers)] * point.copies)
        return [_metric(label, points) for label, points in metrics.items()]

    def _data_point(self, point: PlannedPoint, answers: int) -> dict[str, Any]:
        time = int(self._plan.moment(point.minute).timestamp()) * 10**9
        attributes = {"appId": APP, "environmentId": point.environment, ID: point.id}
        return {
            "attributes": [
                {"key": key, "value": {"stringValue": value}} for key, value in attributes.items()
            ],
            "startTimeUnixNano": str(time - 60 * 10**9),
            "timeUnixNano": str(time),
            "asInt": str(1 + point.grows * answers),
        }


def _metric(label: str, points: list[Any]) -> dict[str, Any]:
    return {"name": label.lower(), "unit": "s", "sum": {"aggregationTemporality": 1, "dataPoints": points}}


def _envelope(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    resources = [{"resource": {}, "scopeMetrics": [{"metrics": metrics}]}] if metrics else []
    data = {"ecosystem": {"forgeMetrics": {"appMetrics": {"resourceMetrics": resources}}}}
    return {"data": data, "extensions": {"gateway": {"request_id": "storm"}}}


def _environments() -> Reply:
    nodes = [{"id": uuid, "key": name, "type": name.upper()} for uuid, name in ENVIRONMENTS.items()]
    page = {"nodes": nodes, "pageInfo": {"hasNextPage": False}}
    return Reply.of_json({"data": {"app": {"environmentsPage": page}}})


def _error(status: int) -> dict[str, Any]:
    entry = {"statusCode": status, "errorType": "STORM", "classification": "DataFetchingException"}
    return {"message": "A storm", "extensions": entry}


def _gateway_fault(draw: random.Random, ordinary: Reply) -> tuple[str, Reply]:
    refusal = {"message": "A storm", "identifier": "storm", **_error(503)}
    failed = {"data": {"ecosystem": {"forgeMetrics": {"appMetrics": refusal}}}}
    partial = {**json.loads(ordinary.body), "errors": [_error(500)]}
    resources = partial["data"]["ecosystem"]["forgeMetrics"]["appMetrics"]["resourceMetrics"]
    for resource in resources:
        del resource["scopeMetrics"][0]["metrics"][0]
    replies = {
        "500": Reply.of_json({}, 500),
        "502 of a proxy": Reply(502, b"<html>Bad gateway</html>", (("Content-Type", "text/html"),)),
        "504": Reply.of_json({}, 504),
        "429": Reply.of_json({"errors": [_error(429)]}, 429, (("Retry-After", "1"),)),
        "broken JSON": Reply(200, ordinary.body[: len(ordinary.body) // 2], _JSON),
        "hang-up": Reply(delivery="reset"),
        "truncated": Reply(200, ordinary.body, _JSON, delivery="truncate"),
        "slow": Reply(200, ordinary.body, _JSON, delay=0.05),
        "QueryError": Reply.of_json(failed),
        "part of the data beside errors": Reply.of_json(partial),
        "null": Reply.of_json({"data": None}),
    }
    kind = draw.choice([*replies])
    return kind, replies[kind]


def user_agent(who: str) -> str:
    """Return the User-Agent by which a try makes itself known to the receiver."""
    return f"storm {who} {os.getpid()}"


@dataclass
class _Delivery:
    """A request, with what the receiver is going to do."""

    who: str
    pid: int
    nth: int
    ids: list[str]
    metrics: set[str]
    kept: list[str] = field(default_factory=list)


class StormyReceiver(LocalServer):
    """Keeps points, writes down which and from whom, and fails in every way that a receiver can.

    Args:
        plan: Of the storm.
        journal: For what happens.
        parent: Process whose children may be killed: the tries of the tasks.
    """

    def __init__(self, plan: Plan, journal: Journal, parent: int) -> None:
        super().__init__()
        self._plan = plan
        self._journal = journal
        self._parent = parent
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._calm = False

    def respond(self, request: Request) -> Reply:
        """Take points."""
        if request.path == "/calm":
            self._calm = True
            return Reply.of_json({})
        _, who, pid = request.headers["User-Agent"].split()
        with self._lock:
            self._requests[who] += 1
            nth = self._requests[who]
        delivery = _Delivery(who, int(pid), nth, *_read(request))
        draw = self._plan.random("receiver", who, nth)
        tries = int(who.rpartition("/")[2])
        if self._calm or tries > CALM_AFTER:
            return self._keep(delivery, "200")
        if draw.random() < self._plan.kill_rate / 8:
            return self._kill(delivery, draw)
        if draw.random() < self._plan.fault_rate:
            return self._misbehave(delivery, draw)
        return self._keep(delivery, "200")

    def _keep(self, delivery: _Delivery, answer: str, reply: Reply | None = None, lost: int = 0) -> Reply:
        ids = delivery.ids[: len(delivery.ids) - lost]
        self._write("kept", delivery, answer=answer, ids=ids, rejected=delivery.ids[len(ids) :])
        return reply or Reply(200, b"{}", _JSON)

    def _refuse(self, delivery: _Delivery, answer: str, reply: Reply) -> Reply:
        self._write("refused", delivery, answer=answer)
        return reply

    def _write(self, what: str, delivery: _Delivery, **details: Any) -> None:
        request = f"{delivery.who}#{delivery.nth}"
        self._journal.write("receiver", what, by=delivery.who, request=request, **details)

    def _kill(self, delivery: _Delivery, draw: random.Random) -> Reply:
        """End the sender at a moment that no signal from outside would hit."""
        moment = draw.choice(
            ["before it keeps", "before it answers", "after the status line", "after the answer"]
        )
        if moment == "before it keeps":
            reply = self._refuse(delivery, f"killed {moment}", Reply(delivery="reset"))
        elif moment == "before it answers":
            reply = self._keep(delivery, f"killed {moment}", Reply(delivery="reset"))
        elif moment == "after the status line":
            reply = self._keep(
                delivery, f"200, killed {moment}", Reply(200, b"{}", _JSON, delivery="truncate")
            )
        else:
            reply = self._keep(delivery, f"200, killed {moment}")
            timer = threading.Timer(draw.choice([0, 0.001, 0.003]), self._end, [delivery])
            timer.start()
            return reply
        self._end(delivery)
        return reply

    def _end(self, delivery: _Delivery) -> None:
        """Kill a try, should it still be one."""
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{delivery.pid}/stat").read_text()
            if int(status.rpartition(")")[2].split()[1]) == self._parent:
                os.kill(delivery.pid, signal.SIGKILL)

    def _misbehave(self, delivery: _Delivery, draw: random.Random) -> Reply:
        busy = {
            "503": Reply.of_json({}, 503),
            "503 with Retry-After": Reply.of_json({}, 503, (("Retry-After", "1"),)),
            "429": Reply.of_json({}, 429, (("Retry-After", "2"),)),
            "413": Reply.of_json({}, 413),
            "400": Reply.of_json({"message": "one metric"}, 400),
        }
        doubtful = {
            "500": Reply.of_json({}, 500),
            "502": Reply.of_json({}, 502),
            "504": Reply.of_json({}, 504),
            "hang-up": Reply(delivery="reset"),
        }
        gzip_label = (*_JSON, ("Content-Encoding", "gzip"))
        taken = {
            "200 that is no gzip": Reply(200, b"\xff\xfe{", gzip_label),
            "200, cut off": Reply(200, b'{"partialSuccess": {}}', _JSON, delivery="truncate"),
            "200, empty": Reply(200),
        }
        kind = draw.choice([*busy, *doubtful, *taken, "partial success"])
        if kind in busy:
            return self._refuse(delivery, kind, busy[kind])
        if kind in doubtful:
            if draw.random() < 0.5:
                return self._keep(delivery, f"{kind} after it kept", doubtful[kind])
            return self._refuse(delivery, kind, doubtful[kind])
        if kind in taken:
            return self._keep(delivery, kind, taken[kind])
        lost = draw.randint(1, len(delivery.ids)) if delivery.ids else 0
        partial = {"partialSuccess": {"rejectedDataPoints": str(lost), "errorMessage": "storm"}}
        return self._keep(delivery, f"200, {lost} rejected", Reply.of_json(partial), lost)


def _read(request: Request) -> tuple[list[str], set[str]]:
    body = gzip.decompress(request.body) if request.headers["Content-Encoding"] == "gzip" else request.body
    message = ExportMetricsServiceRequest()
    if "json" in request.headers["Content-Type"]:
        ParseDict(json.loads(body), message)
    else:
        message.ParseFromString(body)
    metrics = [
        metric
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    ids = [
        attribute.value.string_value
        for metric in metrics
        for point in metric.sum.data_points
        for attribute in point.attributes
        if attribute.key == ID
    ]
    return ids, {metric.name for metric in metrics}
