"""The programs that `build.sh` builds, each in the version that `versions.txt` says, and those of Debian."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def cache() -> Path:
    """Return the directory of what is built once for all clones."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airflow-provider-forge"


def program(name: str) -> str:
    """Return the path of a program; skip the test if it has not been built."""
    versions = dict(line.split() for line in (HERE / "versions.txt").read_text().splitlines())
    path = cache() / f"{name}-{versions[name]}" / name
    if not path.exists():
        pytest.skip(
            f"the program {name} {versions[name]} is missing (tests/receivers/build.sh {name} builds it)"
        )
    return str(path)


def installed(name: str) -> str:
    """Return the path of a program that Debian has under its name; skip the test if it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"the program {name} is missing (Debian package {name})")
    return path
