"""Time and peak memory of one path from a response to a request, in a fresh process.

`python -m benchmarks.memory json 20000` prints seconds, and bytes of resident memory on top of the response,
as JSON. Linux only.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from pathlib import Path

from airflow_provider_forge.otlp.endpoint import HTTP_JSON, HTTP_PROTOBUF
from benchmarks import steps
from benchmarks.response import response_body

PATHS = {
    "protobuf": lambda body: steps.source(body, HTTP_PROTOBUF),
    "json": lambda body: steps.source(body, HTTP_JSON),
    "pass-through": lambda body: steps.source(body, HTTP_JSON, conform=False, recorded=False),
}


def main() -> None:
    """Print the measurements."""
    path, points = sys.argv[1], int(sys.argv[2])
    steps.compressed(PATHS[path](response_body(200)))  # warms up the caches
    body = response_body(points)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    start = time.process_time()
    steps.compressed(PATHS[path](body))
    taken = time.process_time() - start
    peak = resident("VmHWM") - before
    protobuf = steps.request(PATHS["protobuf"](body)).size
    print(json.dumps({"seconds": taken, "peak": peak, "protobuf": protobuf}))


def resident(field: str) -> int:
    """Return resident memory in bytes: `VmRSS` is the current value, `VmHWM` the peak."""
    kilobytes = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes[1]) * 1024


if __name__ == "__main__":
    main()
