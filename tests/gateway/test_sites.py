"""The sites on which an app is installed, over real sockets."""

from __future__ import annotations

import pytest

from airflow_provider_forge.exceptions import AccessForbidden, BrokenAnswer, GatewayUnavailable
from airflow_provider_forge.gateway import sites as sites_module
from airflow_provider_forge.gateway.sites import find_sites
from airflow_provider_forge.sandbox import Fault, Scenario
from airflow_provider_forge.sandbox.environments import DEFAULT_APP
from airflow_provider_forge.sandbox.installations import EDITIONS, Tenant, context_aris


def installed(gateway):
    return sorted(set(context_aris(gateway._account, DEFAULT_APP)))


def test_each_site_has_its_name_and_edition_as_far_as_the_account_may_see_them(gateway, connect):
    sites = find_sites(connect(gateway), DEFAULT_APP)
    assert [site.ari for site in sites] == installed(gateway)
    for site in sites:
        tenant = Tenant(site.ari.rpartition("/")[2])
        assert (site.id, site.host, site.edition) == (tenant.cloud_id, tenant.host, tenant.edition)
    assert {site.edition for site in sites} == {*EDITIONS, None}
    assert 0 < sum(site.host is None for site in sites) < len(sites) / 4


def test_it_takes_a_call_for_a_hundred_installations_and_one_for_twenty_sites_of_a_product(gateway, connect):
    sites = find_sites(connect(gateway), DEFAULT_APP)
    products = [site.ari.split(":")[2] for site in sites]
    batches = sum(-(-products.count(product) // 20) for product in set(products))
    installations = len(context_aris(gateway._account, DEFAULT_APP))
    assert len(gateway.calls) == -(-installations // 100) + batches


def test_an_app_that_is_installed_nowhere_has_no_sites(start_gateway, connect):
    gateway = start_gateway(Scenario(forbidden_apps=frozenset({DEFAULT_APP})))
    assert find_sites(connect(gateway), DEFAULT_APP) == []
    assert len(gateway.calls) == 1


@pytest.fixture
def changed(gateway, connect, change_answers):
    """Return a function that finds the sites of a gateway whose data are changed."""

    def changed(change):
        change_answers(change)
        return find_sites(connect(gateway), DEFAULT_APP)

    return changed


def installations(*contexts, **page):
    nodes = [None if context is None else {"installationContext": context} for context in contexts]
    found = {"nodes": nodes, "pageInfo": {"hasNextPage": False, "endCursor": None, **page}}
    return {"data": {"ecosystem": {"appInstallationsByApp": found}}}


def test_what_is_no_site_is_left_out_and_an_unknown_product_has_no_edition(changed):
    site = "ari:cloud:loom::site/04c5a385-0899-4edc-93a8-ada653b7c534"
    workspace = "ari:cloud:bitbucket::workspace/0123"
    sites = changed(
        lambda data: installations(site, workspace, "", None, "elsewhere") if "ecosystem" in data else {}
    )
    assert [(each.ari, each.host, each.edition) for each in sites] == [(site, "04c5a385.sites.example", None)]


@pytest.mark.parametrize(
    "change",
    [
        lambda _: {"data": {"ecosystem": None}},
        lambda _: {"data": {"ecosystem": {"appInstallationsByApp": None}}},
        lambda _: installations(hasNextPage=True),
        lambda data: {"data": {"tenantContexts": None}, "errors": []} if "tenantContexts" in data else {},
    ],
)
def test_null_in_place_of_data_is_an_error(changed, change):
    with pytest.raises(BrokenAnswer):
        changed(change)


def test_if_no_site_may_be_seen_that_is_the_error(changed):
    error = {"message": "no", "path": ["tenantContexts"], "extensions": {"statusCode": 403}}
    with pytest.raises(AccessForbidden):
        changed(
            lambda data: (
                {"data": {"tenantContexts": None}, "errors": [error]} if "tenantContexts" in data else {}
            )
        )


def test_a_list_without_end_is_given_up(gateway, connect, monkeypatch):
    monkeypatch.setattr(sites_module, "MAX_PAGES", 1)
    with pytest.raises(BrokenAnswer, match="has no end: 1 pages"):
        find_sites(connect(gateway), DEFAULT_APP)


def test_a_token_without_the_scope_is_told_which(start_gateway, connect):
    with pytest.raises(AccessForbidden, match="with the scopes read:app-installations:forge"):
        find_sites(connect(start_gateway(Scenario(insufficient_scopes=True))), DEFAULT_APP)


def test_an_outage_is_one(gateway, connect):
    gateway.add_fault(Fault("status", status=503))
    with pytest.raises(GatewayUnavailable):
        find_sites(connect(gateway), DEFAULT_APP)
