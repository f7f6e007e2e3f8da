"""Install the shipped DAG file in a DAGs folder, optionally with a faster timetable and faster retries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

SHIPPED = Path(__file__).parents[1] / "dags" / "forge_metrics.py"
DAG_ID = "forge_metrics"
COVERAGE_DAG_ID = "forge_metrics_coverage"
USAGE_DAG_ID = "forge_usage"
TASK_ID = "export"

_TIMETABLE = re.compile(r"\bForgeMetricsTimetable\(\)")
_END_OF_APP = re.compile(r'(?<="otlp_default")(?=\})')
_START = re.compile(r"(?<=start_date=)datetime\(.*\)(?=,)")
_RETRY_DELAY = re.compile(r'(?<="retry_delay": )timedelta\([^)]*\)')


def install_dag(
    dags_folder: Path,
    *,
    start: datetime | None = None,
    retry_delay: timedelta | None = None,
    operator: Mapping[str, object] | None = None,
    **timetable: timedelta,
) -> Path:
    """Copy the shipped DAG file.

    Args:
        dags_folder: Target folder, created if missing.
        start: Replaces the shipped start date; aware.
        retry_delay: Replaces the shipped delay.
        operator: Additional arguments for the operator, with values whose repr is valid code.
        timetable: Arguments for the ForgeMetricsTimetable.
    """
    source = SHIPPED.read_text()
    if timetable:
        arguments = ", ".join(f"{name}={_code(value)}" for name, value in timetable.items())
        source = replace_once(_TIMETABLE, f"ForgeMetricsTimetable({arguments})", source)
    if operator:
        more = "".join(f", {name!r}: {value!r}" for name, value in operator.items())
        source = replace_once(_END_OF_APP, more, source)
    if start is not None:
        source = replace_once(_START, f"datetime.fromisoformat({start.isoformat()!r})", source)
    if retry_delay is not None:
        source = replace_once(_RETRY_DELAY, _code(retry_delay), source)
    dags_folder.mkdir(parents=True, exist_ok=True)
    target = dags_folder / SHIPPED.name
    target.write_text(source)
    return target


def _code(duration: timedelta) -> str:
    return f"timedelta(seconds={duration.total_seconds():g})"


def replace_once(pattern: re.Pattern[str], replacement: str, source: str) -> str:
    """Return a DAG file's source with the only match of a pattern replaced."""
    source, count = pattern.subn(replacement, source)
    # Without the replacement, the DAG would start to run 14 days of windows.
    if count != 1:
        raise ValueError(f"the DAG file has {count} matches of {pattern.pattern!r}, not one")
    return source
