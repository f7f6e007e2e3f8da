"""The model of the app that generates the traffic: its sites, functions, endpoints and versions."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

from airflow_provider_forge.sandbox.randomness import stream, uuid_of

__all__ = ["AppModel", "Endpoint", "Function", "Site", "app_model_of", "version_of"]

SITES, SITES_OF_A_LARGE_APP = 40, 800
DAY = 24 * 60
ROLLOUT_CYCLE = 3 * DAY
_UTC_OFFSETS = (-8, -5, -3, 0, 0, 1, 1, 2, 5, 8, 9, 10)
_RARE_SITE_EVERY, _CHURNING_SITE_EVERY = 8, 7
_CUSTOM_METRICS = ("export.created", "sync.run")

_FUNCTIONS = (
    ("updateStatusTitle", "status-panel"),
    ("process-app-event", "app-event-webtrigger"),
    ("resolver", "issue-panel"),
    ("scheduledSync", "hourly-sync"),
    ("issueCreated", "issue-created-trigger"),
    ("renderMacro", "page-macro"),
    ("exportReport", "report-webtrigger"),
    ("queueConsumer", "export-queue"),
)

_PATHS = {
    "jira": (
        "/rest/api/3/issue/{issueIdOrKey}",
        "/rest/api/3/search/jql",
        "/rest/api/2/field/{fieldKey}/option",
        "/rest/api/3/issue/{issueIdOrKey}/comment",
        "/rest/api/3/project/{projectIdOrKey}",
        "/rest/api/3/myself",
        "/rest/agile/1.0/board/{boardId}/sprint",
        "/rest/api/3/issue/{issueIdOrKey}/transitions",
        "/rest/api/3/user/search",
    ),
    "confluence": (
        "/wiki/api/v2/pages/{id}",
        "/wiki/rest/api/search",
        "/rest/api/user/watch/content/{contentId}",
        "/wiki/api/v2/spaces",
        "/wiki/rest/api/content/{id}/property",
    ),
    "bitbucket": (
        "/repositories/{workspace}/{repo_slug}/commits",
        "/repositories/{workspace}/{repo_slug}/pullrequests",
        "/workspaces/{workspace}/members",
    ),
    "stargate": (
        "/forge/entities/graphql",
        "/graphql",
        "/webhook/queue/publish/{cloudId}/{environmentId}/{appId}/{appVersion}",
    ),
    "egress": (
        "api.slack.com",
        "api.google.com",
        *(f"hooks.customer-{n:02}.example.net" for n in range(1, 9)),
    ),
}


@dataclass(frozen=True)
class Function:
    """A Forge function and the module that calls it."""

    key: str
    module: str


@dataclass(frozen=True)
class Endpoint:
    """A target of a function's requests: the attributes `remote`, `url` and `provider`."""

    remote: str
    url: str
    provider: str


@dataclass(frozen=True)
class Site:
    """A customer's site.

    Attributes:
        share: Share of the app's invocations, 0 to 1; the shares of all sites add up to 1.
        utc_offset: Hours.
        functions: The functions in use on the site, busiest first.
        rare: Whether the site has a single event per day.
        churn_phase: Phase in days; None for a site that is always installed. Others are installed for five
            days out of nine.
        luck: 0 to 1; a rollout to a share of the sites includes this site if the share is larger.
    """

    rank: int
    context_ari: str
    share: float
    utc_offset: int
    functions: tuple[Function, ...]
    rare: bool
    churn_phase: int | None
    luck: float

    def is_installed(self, minute: int) -> bool:
        """Return whether the app is installed on the site in a minute since the epoch."""
        return self.churn_phase is None or (minute // DAY + self.churn_phase) % 9 < 5


@dataclass(frozen=True)
class AppModel:
    """The parts of an app's environment that never change."""

    sites: tuple[Site, ...]
    endpoints: tuple[Endpoint, ...]
    endpoint_weights: tuple[float, ...]
    custom_metrics: tuple[str, ...]
    rollout_phase: int


@functools.lru_cache(maxsize=64)
def app_model_of(seed: int, app: str, environment: str, *, large: bool) -> AppModel:
    """Return the model of an environment of an app (both UUIDs): a pure function."""
    rng = stream(seed, app, environment, "world")
    count = SITES_OF_A_LARGE_APP if large else SITES
    weights = [1 / rank**1.1 for rank in range(1, count + 1)]
    endpoints = [
        Endpoint(remote, path, "external" if remote == "egress" else "app")
        for remote, paths in _PATHS.items()
        for path in paths
    ]
    # Shuffled, so that Jira is not the most frequent target of every app.
    endpoints.sort(key=lambda _: rng.random())
    return AppModel(
        sites=tuple(
            _site(seed, app, environment, rank, weight / sum(weights))
            for rank, weight in enumerate(weights, start=1)
        ),
        endpoints=tuple(endpoints),
        endpoint_weights=tuple(itertools.accumulate(1 / rank for rank in range(1, len(endpoints) + 1))),
        custom_metrics=_CUSTOM_METRICS,
        rollout_phase=int(rng.random() * ROLLOUT_CYCLE),
    )


def _site(seed: int, app: str, environment: str, rank: int, share: float) -> Site:
    rng = stream(seed, app, environment, "site", rank)
    product = ("jira", "confluence", "compass")[int(rng.random() * 3)]
    first = int(rng.random() * len(_FUNCTIONS))
    functions = [Function(*_FUNCTIONS[(first + step) % len(_FUNCTIONS)]) for step in range(2)]
    return Site(
        rank=rank,
        context_ari=f"ari:cloud:{product}::site/{uuid_of(seed, app, 'site', rank)}",
        share=share,
        utc_offset=_UTC_OFFSETS[int(rng.random() * len(_UTC_OFFSETS))],
        functions=tuple(functions),
        rare=rank % _RARE_SITE_EVERY == 0,
        churn_phase=int(rng.random() * 9) if rank % _CHURNING_SITE_EVERY == 0 else None,
        luck=rng.random(),
    )


def version_of(app_model: AppModel, site: Site, minute: int) -> str:
    """Return the app version that a site runs in a minute since the epoch.

    Every three days a version is rolled out to 10, 50 and 100 % of the sites for two hours each, then rolled
    back. It is released permanently when the next cycle begins.
    """
    cycle, elapsed = divmod(minute + app_model.rollout_phase, ROLLOUT_CYCLE)
    reach = (0.1, 0.5, 1.0)[elapsed // 120] if elapsed < 360 else 0.0
    return f"4.{60 + cycle % 100 + (site.luck < reach)}.0"
