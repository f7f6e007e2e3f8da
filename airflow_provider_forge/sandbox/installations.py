"""The sites on which an app is installed, with their host names and editions, and resolvers for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphql import GraphQLError, GraphQLResolveInfo

from airflow_provider_forge.sandbox.app_model import app_model_of
from airflow_provider_forge.sandbox.environments import app_uuid
from airflow_provider_forge.sandbox.resolvers import check_scopes, page_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_forge.sandbox.resolvers import Account, Call

__all__ = ["INSTALLATION_RESOLVERS", "Tenant", "context_aris"]

EDITIONS = ("STANDARD", "PREMIUM", "FREE")

MAX_BATCH = 20

SCOPE = "read:app-installations:forge"

# Jira has four keys, of which a site need not have the first.
_ENTITLED = frozenset({"jira-servicedesk.ondemand", "confluence.ondemand", "compass"})


@dataclass(frozen=True)
class Tenant:
    """A site. One in sixteen has no host name and no edition, because the account may not see it.

    Attributes:
        cloud_id: UUID of the site.
    """

    cloud_id: str

    @property
    def host(self) -> str | None:
        """The host name."""
        return f"{self.cloud_id[:8]}.sites.example" if self.cloud_id[-1] != "0" else None

    @property
    def edition(self) -> str | None:
        """The edition of its product."""
        return EDITIONS[int(self.cloud_id[-1], 16) % len(EDITIONS)] if self.host else None


def context_aris(account: Account, app: str) -> list[str]:
    """Return the ARI of the site of each installation of an app, given its UUID; one per environment."""
    scenario = account.scenario
    return [
        site.context_ari
        for environment in account.directory.of(app)
        for site in app_model_of(scenario.seed, app, environment.id, large=scenario.large_app).sites
    ]


def _installations(
    _: Any,
    info: GraphQLResolveInfo[Call],
    *,
    filter: Mapping[str, Any],  # noqa: A002 - the schema's name
    first: int = 20,
    after: str | None = None,
) -> dict[str, Any]:
    call: Call = info.context
    call.path = info.path.as_list()
    call.pick_fault()
    check_scopes(call, SCOPE)
    apps = [app for ari in filter["apps"]["ids"] if (app := app_uuid(ari)) and call.account.owns(app)]
    nodes = [
        {"id": f"installation-{number}", "installationContext": ari}
        for app in apps
        for number, ari in enumerate(context_aris(call.account, app))
    ]
    return page_of(nodes, first, after)


def _tenants(
    _: Any,
    info: GraphQLResolveInfo[Call],
    *,
    cloudIds: Sequence[str] | None = None,  # noqa: N803 - the schema's name
) -> list[dict[str, Any]]:
    call: Call = info.context
    call.path = info.path.as_list()
    call.pick_fault()
    if len(cloudIds or ()) > MAX_BATCH:
        raise GraphQLError(f"at most {MAX_BATCH} sites", extensions={"statusCode": 400})
    tenants = [Tenant(each) for each in cloudIds or ()]
    return [{"cloudId": each.cloud_id, "hostName": each.host, "tenant": each} for each in tenants]


def _entitlement_info(
    context: Mapping[str, Any],
    _info: GraphQLResolveInfo[Call],
    *,
    hamsProductKey: str,  # noqa: N803 - the schema's name
) -> dict[str, Any] | None:
    tenant: Tenant = context["tenant"]
    if hamsProductKey not in _ENTITLED:
        return None
    if tenant.edition is None:
        raise GraphQLError("not allowed", extensions={"errorType": "FORBIDDEN", "statusCode": 403})
    if tenant.cloud_id[-1] in "13579":  # billed by one of Atlassian's two systems or by the other
        return {"entitlement": {"__typename": "CcpEntitlement", "offering": {"name": tenant.edition}}}
    return {"entitlement": {"__typename": "HamsEntitlement", "currentEdition": tenant.edition}}


INSTALLATION_RESOLVERS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("EcosystemQuery", "appInstallationsByApp", _installations),
    ("Query", "tenantContexts", _tenants),
    ("TenantContext", "entitlementInfo", _entitlement_info),
)
