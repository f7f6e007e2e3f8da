"""Atlassian Forge app metrics to any OTLP endpoint, with Apache Airflow.

Airflow imports this module at each start, so it imports nothing itself.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["__version__", "get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata: the `apache_airflow_provider` entry point."""
    from airflow_provider_forge.provider import PROVIDER_INFO

    return PROVIDER_INFO
