"""Sites: finds the host names and editions of the sites on which an app is installed."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_forge.gateway.budget import Priority
from airflow_provider_forge.gateway.pages import follow_pages
from airflow_provider_forge.gateway.queries import INSTALLATIONS, Query, app_ari, sites_query
from airflow_provider_forge.gateway.responses import PageInfo  # noqa: TC001 - msgspec reads annotations
from airflow_provider_forge.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_forge.gateway.client import GatewayClient
    from airflow_provider_forge.gateway.pages import Cursor
    from airflow_provider_forge.gateway.responses import GatewayResponse

__all__ = ["Site", "find_sites"]

MAX_PAGES = 100
"""Maximum number of pages, of a hundred installations each."""

BATCH = 20
"""Sites that the gateway names in one call."""

EDITION_KEYS = {
    "jira": (
        "jira-software.ondemand",
        "jira-core.ondemand",
        "jira-servicedesk.ondemand",
        "jira-product-discovery.ondemand",
    ),
    "confluence": ("confluence.ondemand",),
    "compass": ("compass",),
}
"""Keys under which the edition of a site's product is found, by the product in its ARI; the first that it has
counts."""


@dataclass(frozen=True)
class Site:
    """A site on which an app is installed.

    Attributes:
        ari: Its ARI, as in the attribute `contextAri` of metrics.
        id: Its cloud id.
        host: Its host name; None if the gateway does not give it.
        edition: Edition of the product, such as `STANDARD`, as the gateway names it; None likewise.
    """

    ari: str
    id: str
    host: str | None
    edition: str | None


class _Struct(msgspec.Struct, rename="camel"):
    pass


class _Installation(_Struct):
    installation_context: str | None = None


class _Installations(_Struct):
    page_info: PageInfo
    nodes: list[_Installation | None] | None = None


class _Ecosystem(_Struct):
    app_installations_by_app: _Installations | None = None


class _InstallationsData(_Struct):
    ecosystem: _Ecosystem | None = None


class _Offering(_Struct):
    name: str | None = None


class _Entitlement(_Struct):
    current_edition: str | None = None
    offering: _Offering | None = None

    @property
    def edition(self) -> str | None:
        return self.current_edition or (self.offering.name if self.offering else None)


class _EntitlementInfo(_Struct):
    entitlement: _Entitlement | None = None


class _Tenant(_Struct):
    """A site; its entitlements have the aliases of `sites_query`."""

    cloud_id: str | None = None
    host_name: str | None = None
    entitlement_0: _EntitlementInfo | None = msgspec.field(name="entitlement0", default=None)
    entitlement_1: _EntitlementInfo | None = msgspec.field(name="entitlement1", default=None)
    entitlement_2: _EntitlementInfo | None = msgspec.field(name="entitlement2", default=None)
    entitlement_3: _EntitlementInfo | None = msgspec.field(name="entitlement3", default=None)

    @property
    def edition(self) -> str | None:
        found = (self.entitlement_0, self.entitlement_1, self.entitlement_2, self.entitlement_3)
        editions = (each.entitlement.edition for each in found if each and each.entitlement)
        return next(filter(None, editions), None)


class _SitesData(_Struct):
    tenant_contexts: list[_Tenant | None] | None = None


def find_sites(client: GatewayClient, app_id: str) -> list[Site]:
    """Return the sites on which an app is installed, by their ARIs.

    Makes one call for a hundred installations, and one for twenty sites of a product. Calls for metrics go
    before these.

    Args:
        client: Client of the account.
        app_id: UUID of the app.

    Raises:
        AccessForbidden: The account or its token may not see the installations, or the sites.
        ForgeError: The gateway cannot be reached or reports another failure.
    """
    by_product: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for ari in _installed_on(client, app_id):
        product, site_id = _parse_site(ari)
        if site_id:  # an app can also be installed on a workspace of Bitbucket, which is no site
            by_product[product][ari] = site_id
    sites = itertools.chain.from_iterable(
        _name_sites(client, product, list(found.items())) for product, found in by_product.items()
    )
    return sorted(sites, key=lambda site: site.ari)


def _installed_on(client: GatewayClient, app_id: str) -> Iterator[str]:
    """Yield the ARI of each installation."""
    for cursor in follow_pages("the app's", "installations", most=MAX_PAGES, remedy="See"):
        query = Query(INSTALLATIONS, {"appId": app_ari(app_id), "after": cursor.after}, _InstallationsData)
        read = functools.partial(_read_installations, cursor)
        page = client.request(query, read, priority=Priority.BACKFILL)
        yield from (printable(node.installation_context or "") for node in page.nodes or () if node)


def _read_installations(cursor: Cursor, response: GatewayResponse[_InstallationsData]) -> _Installations:
    ecosystem = response.data.ecosystem or response.broken("null as ecosystem")
    page = ecosystem.app_installations_by_app or response.broken("null as appInstallationsByApp")
    cursor.move(page.page_info, response)
    return page


def _name_sites(client: GatewayClient, product: str, sites: Sequence[tuple[str, str]]) -> Iterator[Site]:
    document = sites_query(EDITION_KEYS.get(product, ()))
    for first in range(0, len(sites), BATCH):
        batch = sites[first : first + BATCH]
        # A site whose edition cannot be read still has a name.
        query = Query(
            document, {"cloudIds": [each for _, each in batch]}, _SitesData, tolerated_field="tenantContexts"
        )
        tenants = client.request(query, _read_tenants, priority=Priority.BACKFILL)
        for ari, site_id in batch:
            tenant = tenants.get(site_id.lower(), _Tenant())
            host = printable(tenant.host_name) if tenant.host_name else None
            yield Site(ari, site_id, host, printable(tenant.edition) if tenant.edition else None)


def _read_tenants(response: GatewayResponse[_SitesData]) -> dict[str, _Tenant]:
    tenants: Iterable[_Tenant | None] | None = response.data.tenant_contexts
    if tenants is None:
        response.raise_partial_errors()
        response.broken("null as tenantContexts")
    return {each.cloud_id.lower(): each for each in tenants if each and each.cloud_id}


def _parse_site(ari: str) -> tuple[str, str]:
    """Return the product and the cloud id in the ARI of a site; an empty id if it is not a site's.

    A site's ARI looks like `ari:cloud:jira::site/04c5a385-0899-4edc-93a8-ada653b7c534`.
    """
    product, _, site_id = ari.removeprefix("ari:cloud:").partition("::site/")
    return product, site_id if ari.startswith("ari:cloud:") else ""
