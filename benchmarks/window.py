"""`python -m benchmarks.window`: one window through the operator, with a gateway and a receiver of its own.

Prints CPU time from the start of a process to the first byte to the gateway, Airflow's part apart, and the
peak of resident memory for a window of 280,000 points, as a multiple of the response. Linux only.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import response
from benchmarks.memory import resident

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

POINTS = 280_000

START = dt.datetime.now(dt.timezone.utc).replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=3)

TARGET = 3
"""Upper limit of the peak memory on top of Airflow, as a multiple of the response."""

ENVIRONMENTS = {
    "data": {
        "app": {
            "name": "app",
            "environmentsPage": {
                "pageInfo": {"hasNextPage": False},
                "nodes": [{"id": response.ENVIRONMENTS[0], "key": "production", "type": "PRODUCTION"}],
            },
        }
    }
}


class _Handler(BaseHTTPRequestHandler):
    """Answers the gateway's queries, and accepts everything else."""

    protocol_version = "HTTP/1.1"
    metrics = b""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        answer, kind = b"", "application/x-protobuf"
        if b'"query"' in content:
            kind = "application/json"
            answer = self.metrics if b"appMetrics" in content else json.dumps(ENVIRONMENTS).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def serve(points: int, ready: Connection) -> None:
    """Serve the gateway and the receiver on one port; send the port, and the size of the response."""
    response.MINUTE = int(START.timestamp() // 60)
    _Handler.metrics = response.response_body(points)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    ready.send((server.server_port, len(_Handler.metrics)))
    server.serve_forever()


def prepare(directory: str, port: int) -> None:
    """Set the environment of a task, with both Connections and a new ledger."""
    url = f"http://127.0.0.1:{port}"
    forge = {"app_id": response.APP, "environments": "production", "rate_limit_calls": 1000}
    otlp = {"ledger_url": Path(directory, "ledger").as_uri()}
    connections = {
        "FORGE": {"conn_type": "forge", "host": url, "login": "a@b.c", "password": "t", "extra": forge},
        "OTLP": {"conn_type": "otlp", "host": url, "extra": otlp},
    }
    os.environ |= {"AIRFLOW_HOME": directory, "TMPDIR": directory}
    os.environ |= {f"AIRFLOW_CONN_{name}_DEFAULT": json.dumps(each) for name, each in connections.items()}


def run(size: int) -> bool:
    """Deliver the window in this process, print the figures, and return whether the target is missed."""
    import httpx
    from airflow.dag_processing.dagbag import DagBag  # noqa: F401 - a task process parses its DAG file
    from airflow.sdk.execution_time import task_runner  # noqa: F401

    airflow = time.process_time()
    from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator

    operator = ForgeMetricsToOtlpOperator(
        task_id="deliver", interval_start=START, interval_end=START + dt.timedelta(minutes=15)
    )
    before, first = resident("VmRSS"), []
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    send = httpx.Client.send

    def timed(client: httpx.Client, *arguments: Any, **options: Any) -> httpx.Response:
        first.append(time.process_time())
        return send(client, *arguments, **options)

    httpx.Client.send = timed  # type: ignore[method-assign]
    report = operator.execute({})
    peak = resident("VmHWM") - before
    print(
        f"to the first byte: Airflow {airflow * 1000:.0f} ms, ours {(first[0] - airflow) * 1000:.0f} ms",
        f"{report['sent']} points, response {size / 1e6:.1f} MB: peak {peak / 1e6:.0f} MB on top of"
        f" {before / 1e6:.0f} MB, {peak / size:.1f} times the response (limit {TARGET})",
        sep="\n",
    )
    return peak / size > TARGET


def main() -> None:
    """Run the benchmark."""
    context = get_context("spawn")
    ready, there = context.Pipe()
    server = context.Process(target=serve, args=(int(sys.argv[1]) if sys.argv[1:] else POINTS, there))
    server.start()
    try:
        with tempfile.TemporaryDirectory() as directory:
            port, size = ready.recv()
            prepare(directory, port)
            if run(size):
                sys.exit("Missed: memory of a window")
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
