"""Time and peak memory of one way from an answer to a request, in a process that has done nothing else.

`python -m benchmarks.memory json 20000` prints, as JSON, seconds and bytes of resident memory beyond the
answer. Linux only.
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
from benchmarks.response import answer

WAYS = {
    "protobuf": lambda body: steps.source(body, HTTP_PROTOBUF),
    "json": lambda body: steps.source(body, HTTP_JSON),
    "pass-through": lambda body: steps.source(body, HTTP_JSON, conform=False, recorded=False),
}


def main() -> None:
    """Print it."""
    way, points = sys.argv[1], int(sys.argv[2])
    steps.compressed(WAYS[way](answer(200)))  # what is made once is none of it
    body = answer(points)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    start = time.process_time()
    steps.compressed(WAYS[way](body))
    taken = time.process_time() - start
    peak = resident("VmHWM") - before
    protobuf = steps.request(WAYS["protobuf"](body)).size
    print(json.dumps({"seconds": taken, "peak": peak, "protobuf": protobuf}))


def resident(field: str) -> int:
    """Return bytes of resident memory: `VmRSS` now, `VmHWM` at its peak."""
    kilobytes = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes[1]) * 1024


if __name__ == "__main__":
    main()
