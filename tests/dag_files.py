"""Parses DAG files as Airflow does.

Run with a directory, it prints the errors and warnings of parsing all files in it, and the ids of their DAGs.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

try:
    from airflow.dag_processing.dagbag import DagBag
except ModuleNotFoundError:  # Airflow 3.0 and 3.1
    from airflow.models.dagbag import DagBag

if TYPE_CHECKING:
    from pathlib import Path


def parse_dags(source: str, path: Path) -> dict[str, Any]:
    """Write a DAG file and return its DAGs by their ids."""
    path.write_text(source)
    bag = DagBag(path)
    assert bag.import_errors == {}
    return dict(bag.dags)


if __name__ == "__main__":
    whole = DagBag(sys.argv[1])
    print(json.dumps([whole.import_errors, whole.captured_warnings, sorted(whole.dags)]))
