"""`make demo` on a machine that has nothing but Python and make: a fresh copy, without an environment."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from demo.processes import ManagedProcess, clean_environment
from demo.waiting import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fresh_copy(tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.mark.long
@pytest.mark.timeout(900)
def test_it_installs_delivers_and_leaves_nothing_behind(fresh_copy: Path, tmp_path: Path) -> None:
    command = ["make", "-C", str(fresh_copy), "demo"]
    env = {**clean_environment(), "DEMO_HOURS": "2"}
    with ManagedProcess(command, env=env, log_file=tmp_path / "demo.log") as demo:

        def delivered() -> bool:
            assert demo.returncode is None, demo.log()
            return bool(
                re.search(r"^[1-9]\d* of \d+ windows .* [1-9][\d,]* points", demo.log(), re.MULTILINE)
            )

        wait_for(delivered, timeout=600, what="the first window")
        # As Ctrl-C on a terminal does: to make and all it has started in the foreground.
        os.killpg(demo.pid, signal.SIGINT)
        wait_for(lambda: not demo.members(), timeout=60, what="the end of all processes")
        assert "Everything has ended" in demo.log()
