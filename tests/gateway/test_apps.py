"""The apps of the account's developer spaces, over real sockets."""

from __future__ import annotations

import pytest

from airflow_provider_forge.exceptions import AccessForbidden, BrokenAnswer, GatewayUnavailable
from airflow_provider_forge.gateway import apps as apps_module
from airflow_provider_forge.gateway.apps import find_apps
from airflow_provider_forge.sandbox import Fault, Scenario, developer_spaces
from airflow_provider_forge.sandbox.developer_spaces import SPACES, Space

MANY = Space("5pace", "Many", {f"00000000-0000-4000-8000-{n:012}": f"App {n:03}" for n in range(250)})


def listed(apps):
    return {(app.space_id, app.space, app.ari.rpartition("/")[2], app.name) for app in apps}


def existing(spaces):
    return {(space.id, space.name, uuid, name) for space in spaces for uuid, name in space.apps.items()}


def test_each_app_of_each_space_is_listed_by_space_and_name(gateway, connect):
    apps = find_apps(connect(gateway))
    assert listed(apps) == existing(SPACES)
    assert [app.space for app in apps] == ["Sandbox space", "Sandbox space", "Second space"]
    assert all(app.ari.startswith("ari:cloud:ecosystem::app/") for app in apps)
    assert len(gateway.calls) == 1 + len(SPACES)


def test_a_space_of_several_pages(gateway, connect, monkeypatch):
    monkeypatch.setattr(developer_spaces, "SPACES", (MANY,))
    assert listed(find_apps(connect(gateway))) == existing([MANY])
    assert len(gateway.calls) == 1 + 3


def test_a_list_without_end_is_given_up(gateway, connect, monkeypatch):
    monkeypatch.setattr(developer_spaces, "SPACES", (MANY,))
    monkeypatch.setattr(apps_module, "MAX_PAGES", 2)
    with pytest.raises(BrokenAnswer, match="has no end: 2 pages"):
        find_apps(connect(gateway))


@pytest.fixture
def changed(gateway, connect, change_answers):
    """Return a function that lists the apps of a gateway whose data are changed."""

    def changed(change):
        change_answers(change)
        return find_apps(connect(gateway))

    return changed


def test_an_account_without_spaces_has_no_apps(changed):
    nothing = {"data": {"ecosystem": {"devConsole": {"getDeveloperSpaceWithLinkingAccess": None}}}}
    assert changed(lambda _: nothing) == []


def test_a_space_whose_name_is_refused_has_its_id_for_a_name(changed):
    def refuse(data):
        if "apps" not in data:
            return {}
        error = {"message": "no", "path": ["ecosystem", "devConsole"], "extensions": {"statusCode": 403}}
        return {"data": {**data, "ecosystem": {"devConsole": None}}, "errors": [error]}

    assert {app.space for app in changed(refuse)} == {space.id for space in SPACES if space.apps}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: {"data": {"ecosystem": None}},
        lambda data: {"data": {"ecosystem": {"devConsole": None}}},
        lambda data: {"data": {**data, "apps": None}},
        lambda data: {
            "data": {**data, "apps": {"nodes": [], "pageInfo": {"hasNextPage": True, "endCursor": None}}}
        },
    ],
)
def test_null_in_place_of_data_is_an_error(changed, change):
    with pytest.raises(BrokenAnswer):
        changed(change)


def test_a_token_without_the_scope_is_told_which(start_gateway, connect):
    with pytest.raises(AccessForbidden, match="with the scopes read:developer-space:forge"):
        find_apps(connect(start_gateway(Scenario(insufficient_scopes=True))))


def test_an_outage_is_one(gateway, connect):
    gateway.add_fault(Fault("status", status=503))
    with pytest.raises(GatewayUnavailable):
        find_apps(connect(gateway))
