"""The Airflow plugin, which registers the timetable and the weight rule."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_forge.files import prepare_shared_directory
from airflow_provider_forge.priority import LiveFirst
from airflow_provider_forge.timetables import ForgeMetricsTimetable

__all__ = ["ForgePlugin"]


class ForgePlugin(AirflowPlugin):
    """Loaded through the entry point `airflow.plugins`: Airflow ignores plugins in a provider's metadata."""

    name = "forge"
    # Lists, as in the base class.
    timetables = [ForgeMetricsTimetable]  # noqa: RUF012
    priority_weight_strategies = [LiveFirst]  # noqa: RUF012

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:  # noqa: ARG003 - Airflow's signature
        """Create the directory of the rate limit, so that it is old when the first call is made."""
        prepare_shared_directory()
