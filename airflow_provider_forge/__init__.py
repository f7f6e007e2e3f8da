"""Atlassian Forge app metrics to any OTLP endpoint, with Apache Airflow.

Airflow imports this module at each start, so it imports nothing itself.
"""

from __future__ import annotations

__version__ = "0.1.0"

DOCUMENTATION = "https://airflow-provider-forge.github.io/airflow-provider-forge/"
"""URL of the documentation; its pages are below it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["DOCUMENTATION", "__version__", "get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata: the `apache_airflow_provider` entry point."""
    from airflow_provider_forge.provider import PROVIDER_INFO

    return PROVIDER_INFO
