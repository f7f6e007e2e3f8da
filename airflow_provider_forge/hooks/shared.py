"""What the processes of a machine share."""

from __future__ import annotations

import tempfile
from pathlib import Path

__all__ = ["shared_directory"]


def shared_directory() -> Path:
    """Return where the files of the rate limit and of the leases are, below `TMPDIR`."""
    return Path(tempfile.gettempdir()) / "airflow-provider-forge"
