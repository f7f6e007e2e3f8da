"""The account's developer spaces and their apps, and resolvers for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.sandbox.environments import DEFAULT_APP
from airflow_provider_forge.sandbox.randomness import uuid_of
from airflow_provider_forge.sandbox.resolvers import check_scopes, page_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from graphql import GraphQLResolveInfo

    from airflow_provider_forge.sandbox.resolvers import Call

__all__ = ["SPACES", "SPACE_RESOLVERS"]

SCOPE = "read:developer-space:forge"


@dataclass(frozen=True)
class Space:
    """A developer space.

    Attributes:
        id: UUID.
        name: Its name.
        apps: Names of its apps, by UUID.
    """

    id: str
    name: str
    apps: Mapping[str, str]


SPACES = (
    Space(
        uuid_of("space", "main"),
        "Sandbox space",
        {DEFAULT_APP: f"Sandbox app {DEFAULT_APP[:8]}", uuid_of("app", "time"): "Time Tracker: Größe XL"},
    ),
    Space(uuid_of("space", "other"), "Second space", {uuid_of("app", "other"): "Checklists"}),
    Space(uuid_of("space", "new"), "Empty space", {}),
)
"""The spaces, and the apps in them. All other well-formed ids are apps without a space."""


def _space_ids(_: Any, info: GraphQLResolveInfo[Call]) -> list[str]:
    call: Call = info.context
    call.path = info.path.as_list()
    call.pick_fault()
    check_scopes(call, SCOPE)
    return [space.id for space in SPACES]


def _details(
    _: Any,
    _info: GraphQLResolveInfo[Call],
    *,
    developerSpaceIds: list[str],  # noqa: N803 - the schema's name
) -> dict[str, Any]:
    names = {space.id: space.name for space in SPACES}
    return {
        "results": [
            {"developerSpaceId": each, "details": {"name": names[each]} if each in names else None}
            for each in developerSpaceIds
        ]
    }


def _apps(
    _: Any,
    info: GraphQLResolveInfo[Call],
    *,
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the schema's name
    first: int = 100,
    after: str | None = None,
) -> dict[str, Any]:
    call: Call = info.context
    call.path = info.path.as_list()
    call.pick_fault()
    check_scopes(call, SCOPE)
    wanted = (filter or {}).get("developerSpaceId")
    nodes = [
        {"id": f"ari:cloud:ecosystem::app/{uuid}", "name": name, "uuid": uuid}
        for space in SPACES
        if space.id == wanted
        for uuid, name in space.apps.items()
    ]
    return page_of(nodes, first, after)


SPACE_RESOLVERS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("DevConsoleQuery", "getDeveloperSpaceWithLinkingAccess", _space_ids),
    ("DevConsoleQuery", "getDeveloperSpaceDetails", _details),
    ("Query", "apps", _apps),
)
