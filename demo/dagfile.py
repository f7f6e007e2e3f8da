"""The shipped DAG file in another DAGs folder, if need be with a faster timetable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

SHIPPED = Path(__file__).parents[1] / "dags" / "forge_metrics.py"
DAG_ID = "forge_metrics"
TASK_ID = "export"

_TIMETABLE = re.compile(r"\bForgeMetricsTimetable\(\)")


def install_dag(dags_folder: Path, **timetable: timedelta) -> Path:
    """Copy the shipped DAG file; `timetable` are arguments for its ForgeMetricsTimetable."""
    source = SHIPPED.read_text()
    if timetable:
        arguments = ", ".join(
            f"{name}=timedelta(seconds={value.total_seconds():g})" for name, value in timetable.items()
        )
        source, count = _TIMETABLE.subn(f"ForgeMetricsTimetable({arguments})", source)
        # With nothing replaced, the DAG would set out to run 14 days of windows.
        if count != 1:
            raise ValueError(f"{SHIPPED} has {count} matches of {_TIMETABLE.pattern!r}, not one")
    dags_folder.mkdir(parents=True, exist_ok=True)
    target = dags_folder / SHIPPED.name
    target.write_text(source)
    return target
