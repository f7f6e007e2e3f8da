"""The info series `forge.site`, by which dashboards show the host name and the edition of a site.

It names customers, so that it is only sent on request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.telemetry import Instrument
from airflow_provider_forge.usage.metrics import UsagePoint

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator

    from airflow_provider_forge.gateway.sites import Site

__all__ = ["SITE_INFO", "points_of_sites"]

SITE_INFO = Instrument(
    "forge.site", "{site}", "1 for each site on which the app is installed, with its names."
)

CONTEXT_ARI = "contextAri"
"""Attribute of Atlassian's metrics, by which they are joined."""


def points_of_sites(sites: Iterable[Site], observed_at: dt.datetime) -> Iterator[UsagePoint]:
    """Yield a point for each site; an attribute that the gateway did not give is left out.

    Args:
        sites: The sites.
        observed_at: Time at which they were read, aware.
    """
    for site in sites:
        names = {"forge.site.host": site.host, "forge.site.edition": site.edition}
        known = {name: text for name, text in names.items() if text}
        attributes = {CONTEXT_ARI: site.ari, "forge.site.id": site.id, **known}
        yield UsagePoint(SITE_INFO, 1, observed_at, attributes)
