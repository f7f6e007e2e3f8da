"""The Airflow plugin, which registers the timetable, the weight rule and the page *Forge*."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_forge.files import prepare_shared_directory
from airflow_provider_forge.page.app import URL_PREFIX, PageFiles
from airflow_provider_forge.priority import LiveFirst
from airflow_provider_forge.timetables import ForgeMetricsTimetable

__all__ = ["ForgePlugin"]

# Airflow 3.0 has no pages of plugins.
HAS_PAGES = hasattr(AirflowPlugin, "external_views")

# Relative to Airflow's base URL, whose path differs between installations.
_FILES = URL_PREFIX.removeprefix("/")


class ForgePlugin(AirflowPlugin):
    """Loaded through the entry point `airflow.plugins`: Airflow ignores plugins in a provider's metadata."""

    name = "forge"
    # Lists, as in the base class.
    timetables = [ForgeMetricsTimetable]  # noqa: RUF012
    priority_weight_strategies = [LiveFirst]  # noqa: RUF012
    fastapi_apps: list[Any] = (
        [{"app": PageFiles(), "url_prefix": URL_PREFIX, "name": "Forge"}] if HAS_PAGES else []
    )
    external_views: list[Any] = (
        [
            {
                "name": "Forge",
                "href": f"{_FILES}/",
                "destination": "nav",
                "url_route": "forge",
                # Airflow 3.1 shows the entry among other plugins.
                "nav_top_level": True,
                "icon": f"{_FILES}/icon.svg",
                "icon_dark_mode": f"{_FILES}/icon-dark.svg",
            }
        ]
        if HAS_PAGES
        else []
    )

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:  # noqa: ARG003 - Airflow's signature
        """Create the directory of the rate limit, so that it is old when the first call is made."""
        prepare_shared_directory()
