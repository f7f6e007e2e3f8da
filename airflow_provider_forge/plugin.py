"""The Airflow plugin, which registers the timetable and the weight rule."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_forge.priority import LiveFirst
from airflow_provider_forge.timetables import ForgeMetricsTimetable

__all__ = ["ForgePlugin"]


class ForgePlugin(AirflowPlugin):
    """Loaded through the entry point `airflow.plugins`: Airflow ignores plugins in a provider's metadata."""

    name = "forge"
    # Lists, as in the base class.
    timetables = [ForgeMetricsTimetable]  # noqa: RUF012
    priority_weight_strategies = [LiveFirst]  # noqa: RUF012
