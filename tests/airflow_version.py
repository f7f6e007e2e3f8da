"""Which Airflow the tests run on: see noxfile.py."""

from __future__ import annotations

from importlib import metadata

__all__ = ["AIRFLOW"]

AIRFLOW = tuple(int(part) for part in metadata.version("apache-airflow").split(".")[:2])
"""Major and minor."""
