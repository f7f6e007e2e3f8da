"""Encode the dashboards as the JSON files that Grafana reads."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import api_calls, app_overview, containers, exporter, sites, usage, versions

__all__ = ["DIRECTORY", "generated"]

DIRECTORY = Path(__file__).parent.parent / "deploy" / "grafana" / "dashboards"
SOURCES = (app_overview, api_calls, sites, versions, containers, exporter, usage)


def generated() -> dict[str, str]:
    """Return the JSON of all dashboards, by file name."""
    texts = {}
    for source in SOURCES:
        dashboard = source.dashboard().build()
        for number, panel in enumerate(dashboard.panels, start=1):
            # Links to a panel contain its id.
            panel.id_val = number
        texts[f"{dashboard.uid}.json"] = JSONEncoder(sort_keys=True, indent=2).encode(dashboard) + "\n"
    return texts
