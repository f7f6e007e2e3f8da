"""Apps: lists those of the developer spaces that an account sees."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_forge.gateway.pages import follow_pages
from airflow_provider_forge.gateway.queries import APPS, DEVELOPER_SPACES, Query
from airflow_provider_forge.gateway.responses import PageInfo  # noqa: TC001 - msgspec reads annotations
from airflow_provider_forge.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.gateway.client import GatewayClient
    from airflow_provider_forge.gateway.pages import Cursor
    from airflow_provider_forge.gateway.responses import GatewayResponse

__all__ = ["DeveloperApp", "find_apps"]

MAX_PAGES = 20
"""Maximum number of pages, of a hundred apps each."""


@dataclass(frozen=True)
class DeveloperApp:
    """An app of a developer space.

    Attributes:
        ari: The app's ARI: `app.id` in its `manifest.yml`.
        name: Its name.
        space_id: Id of its developer space.
        space: Name of that; its id if the gateway does not give the name.
    """

    ari: str
    name: str
    space_id: str
    space: str


class _Struct(msgspec.Struct, rename="camel"):
    pass


class _Details(_Struct):
    name: str | None = None


class _Space(_Struct):
    developer_space_id: str
    details: _Details | None = None


class _Spaces(_Struct):
    results: list[_Space | None] | None = None


class _DevConsole(_Struct):
    get_developer_space_with_linking_access: list[str | None] | None = None
    get_developer_space_details: _Spaces | None = None


class _Ecosystem(_Struct):
    dev_console: _DevConsole | None = None


class _App(_Struct):
    id: str
    name: str | None = None


class _Page(_Struct):
    page_info: PageInfo
    nodes: list[_App | None] | None = None


class _SpacesData(_Struct):
    ecosystem: _Ecosystem | None = None


class _AppsData(_SpacesData):
    apps: _Page | None = None


def find_apps(client: GatewayClient) -> list[DeveloperApp]:
    """Return the apps of all developer spaces that the account sees, by space and name.

    Makes one call, and one for each space or hundred apps of it.

    Args:
        client: Client of the account.

    Raises:
        AccessForbidden: The account or its token may not see developer spaces.
        ForgeError: The gateway cannot be reached or reports another failure.
    """
    spaces = client.request(Query(DEVELOPER_SPACES, {}, _SpacesData), _read_spaces)
    apps = [app for space_id in spaces for app in _apps_of(client, space_id)]
    return sorted(apps, key=lambda app: (app.space.casefold(), app.space_id, app.name.casefold(), app.ari))


def _apps_of(client: GatewayClient, space_id: str) -> Iterator[DeveloperApp]:
    remedy = "Find the app's id in its manifest.yml, and see"
    for cursor in follow_pages("a developer space's", "apps", most=MAX_PAGES, remedy=remedy):
        variables = {"spaceId": space_id, "spaceIds": [space_id], "after": cursor.after}
        # A space whose name cannot be read still lists its apps.
        query = Query(APPS, variables, _AppsData, tolerated_field="ecosystem")
        space, page = client.request(query, functools.partial(_read_page, space_id, cursor))
        for node in page.nodes or ():
            if node is not None:
                yield DeveloperApp(printable(node.id), printable(node.name or ""), space_id, space)


def _read_spaces(response: GatewayResponse[_SpacesData]) -> list[str]:
    ecosystem = response.data.ecosystem or response.broken("null as ecosystem")
    dev_console = ecosystem.dev_console or response.broken("null as devConsole")
    # Atlassian's own command line tool reads null as none, too.
    return [printable(each) for each in dev_console.get_developer_space_with_linking_access or () if each]


def _read_page(space_id: str, cursor: Cursor, response: GatewayResponse[_AppsData]) -> tuple[str, _Page]:
    """Return the name of the space, and the page."""
    page = response.data.apps or response.broken("null as apps")
    cursor.move(page.page_info, response)
    console = response.data.ecosystem and response.data.ecosystem.dev_console
    details = console and console.get_developer_space_details
    names = {each.developer_space_id: each.details for each in (details and details.results) or () if each}
    found = names.get(space_id)
    return printable((found and found.name) or space_id), page
