"""Tasks that are killed at any moment, between servers that fail: no point is lost, or comes twice unnamed.

`tests/storms` run as a program does the work, in processes that hold nothing but what a task needs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent

# How many storms a long test goes through.
SEEDS = int(os.environ.get("STORM_SEEDS", "1000"))
# The long one among them, with hundreds of windows, is left to the long test.
A_HANDFUL = 5


def storms(home: Path, first: int, end: int) -> str:
    """Run the storms of these seeds; return what they say."""
    command = [sys.executable, "-m", "tests.storms", "--seeds", str(first), str(end)]
    process = subprocess.Popen(
        [*command, "--jobs", str(os.cpu_count() or 2)],
        cwd=CHECKOUT,
        env={**os.environ, "AIRFLOW_HOME": str(home), "TMPDIR": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    assert process.returncode == 0, said
    return said


def test_a_handful_of_storms(tmp_path):
    assert f"{A_HANDFUL} seeds" in storms(tmp_path, 0, A_HANDFUL)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_storms(tmp_path):
    print(storms(tmp_path, A_HANDFUL, A_HANDFUL + SEEDS))
