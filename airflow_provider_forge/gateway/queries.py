"""The GraphQL queries sent to the gateway, and the names and ids in them."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.text import did_you_mean, is_storable
from airflow_provider_forge.windows import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_forge.windows import Window

__all__ = [
    "APPS",
    "APP_METRICS",
    "DEFAULT_METRICS",
    "DEVELOPER_SPACES",
    "ENVIRONMENTS",
    "GROUPINGS",
    "INSTALLATIONS",
    "PERMISSIONS",
    "PUBLISHED_METRICS",
    "RESOURCES",
    "USAGE",
    "Query",
    "app_ari",
    "app_metrics_variables",
    "parse_app_id",
    "parse_choice",
    "parse_list",
    "parse_metrics",
    "sites_query",
]

PUBLISHED_METRICS = (
    "FORGE_API_REQUEST_COUNT",
    "FORGE_API_REQUEST_LATENCY",
    "FORGE_BACKEND_INVOCATION_COUNT",
    "FORGE_BACKEND_INVOCATION_ERRORS",
    "FORGE_BACKEND_INVOCATION_LATENCY",
)
"""The labels of Atlassian's published query, which every gateway knows."""

DEFAULT_METRICS = (
    *PUBLISHED_METRICS,
    "FORGE_BACKEND_CUSTOM_METRICS_COUNT",
    "CONTAINER_CPU_USAGE_PERCENTAGE",
    "CONTAINER_MEMORY_USAGE_PERCENTAGE",
    "CONTAINER_STATUS_RESTARTS_TOTAL",
    "CONTAINER_UPTIME_SECONDS",
    "SERVICE_INSTANCE_COUNT",
)
"""All labels of Atlassian's published types. One that a gateway does not know is left out, see `labels`."""

RESOURCES = (
    "FUNCTION_COMPUTE",
    "KVS_READ",
    "KVS_WRITE",
    "LOGS_WRITE",
    "SQL_COMPUTE",
    "SQL_REQUESTS",
    "SQL_STORAGE",
    "OS_REQUESTS",
    "LLM_INPUT",
    "LLM_OUTPUT",
    "CONTAINER_COMPUTE",
    "CONTAINER_MEMORY",
)
"""The resources of Atlassian's published schema. One that the gateway doesn't know fails its query."""

GROUPINGS = {"environment": "ENVIRONMENT_ID", "site": "CONTEXT_ARI"}
"""Groupings of usage: the schema's names, by those of the operator and the command line."""

# As published in Atlassian's "Export app metrics".
_ECOSYSTEM = """\
  ecosystem {
    forgeMetrics(appId: $appId) {
      appMetrics(query: $query) {
        ... on ForgeMetricsOtlpData {
          resourceMetrics
        }
        ... on QueryError {
          message
          identifier
          extensions {
            statusCode
            errorType
          }
        }
      }
    }
  }"""

_ENVIRONMENTS = """\
      nodes {
        id
        key
        type
      }
      pageInfo {
        hasNextPage
        endCursor
      }"""

APP_METRICS = f"""
query Ecosystem($appId: ID!, $query: ForgeMetricsOtlpQueryInput!) {{
{_ECOSYSTEM}
}}
"""

ENVIRONMENTS = f"""
query Environments($appId: ID!, $after: String) {{
  app(id: $appId) {{
    environmentsPage(first: 100, after: $after) {{
{_ENVIRONMENTS}
    }}
  }}
}}
"""

# Both in one query, because a call is a fifth of a minute's budget.
PERMISSIONS = f"""
query Access($appId: ID!, $query: ForgeMetricsOtlpQueryInput!) {{
  app(id: $appId) {{
    name
    environmentsPage(first: 100) {{
{_ENVIRONMENTS}
    }}
  }}
{_ECOSYSTEM}
}}
"""

DEVELOPER_SPACES = """
query DeveloperSpaces {
  ecosystem {
    devConsole {
      getDeveloperSpaceWithLinkingAccess
    }
  }
}
"""

# The space's name and its apps in one query, because a call is a fifth of a minute's budget.
APPS = """
query Apps($spaceId: ID!, $spaceIds: [String!]!, $after: String) {
  apps(filter: {developerSpaceId: $spaceId}, first: 100, after: $after) {
    nodes {
      id
      name
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
  ecosystem {
    devConsole {
      getDeveloperSpaceDetails(developerSpaceIds: $spaceIds) {
        results {
          developerSpaceId
          details {
            name
          }
        }
      }
    }
  }
}
"""

INSTALLATIONS = """
query Installations($appId: ID!, $after: String) {
  ecosystem {
    appInstallationsByApp(filter: {apps: {ids: [$appId]}}, first: 100, after: $after) {
      nodes {
        installationContext
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
}
"""

_USAGE_PAGE = """
        error { message extensions { statusCode errorType } }
        pagination { page pageSize }"""

# As published in Atlassian's "Export app resource usage".
USAGE = f"""
query Usage($appId: ID!, $filters: DevConsoleAppResourceUsageFiltersInput!, $groupBy: DevConsoleGroupBy) {{
  ecosystem {{
    devConsole {{
      appResourceUsage(appId: $appId, filters: $filters, groupBy: $groupBy) {{
        ... on DevConsoleAppResourceUsageFlatResponse {{{_USAGE_PAGE}
          resourceUsage {{ period resolution tokensConsumed tokenUnit }}
        }}
        ... on DevConsoleAppResourceUsageGroupedResponse {{{_USAGE_PAGE}
          resourceUsage {{ period resolution groups {{ groupBy groupValue tokensConsumed tokenUnit }} }}
        }}
      }}
    }}
  }}
}}
"""

_APP_ARI = "ari:cloud:ecosystem::app/"
_GRAPHQL_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")


Data = TypeVar("Data")


@dataclass(frozen=True)
class Query(Generic[Data]):
    """One GraphQL query.

    Attributes:
        document: GraphQL.
        variables: The document's variables.
        data_type: Type of the response's `data`.
        window: Time range of the metrics; None for a query of anything else.
        tolerated_field: Top-level field of the document whose errors are tolerated if there are data.
    """

    document: str
    variables: dict[str, Any]
    data_type: type[Data]
    window: Window | None = None
    tolerated_field: str | None = None

    @property
    def splittable(self) -> bool:
        """Whether the query is for a window, so that half of it can be fetched instead."""
        return self.window is not None


def sites_query(product_keys: Sequence[str]) -> str:
    """Return a query for the host names of sites, and for their editions of these products, by number."""
    entitlements = "".join(
        f"""
    entitlement{number}: entitlementInfo(hamsProductKey: "{key}") {{
      entitlement {{
        ... on HamsEntitlement {{ currentEdition }}
        ... on CcpEntitlement {{ offering {{ name }} }}
      }}
    }}"""
        for number, key in enumerate(product_keys)
    )
    return f"""
query Sites($cloudIds: [ID!]!) {{
  tenantContexts(cloudIds: $cloudIds) {{
    cloudId
    hostName{entitlements}
  }}
}}
"""


def app_ari(app_id: str) -> str:
    """Return the Atlassian resource identifier of the app with this UUID."""
    return _APP_ARI + app_id


def app_metrics_variables(
    app_id: str, window: Window, environment_ids: Iterable[str], metrics: Iterable[str]
) -> dict[str, Any]:
    """Return the variables of `APP_METRICS` and `PERMISSIONS`."""
    start, end = (format_time(moment, "milliseconds") for moment in (window.start, window.end))
    return {
        "appId": app_ari(app_id),
        "query": {
            "filters": {
                "environments": list(environment_ids),
                "interval": {"start": start, "end": end},
                "metrics": list(metrics),
            }
        },
    }


def parse_app_id(value: str) -> str:
    """Return the app's UUID, in lower case, from an ARI or a UUID.

    Raises:
        ConfigurationError: The value is neither.
    """
    text = str(value).strip()
    parsed = parse_uuid(text.removeprefix(_APP_ARI))
    if parsed is None:
        raise ConfigurationError(
            "app_id",
            f"{text!r} is neither an app's ARI ({_APP_ARI}<uuid>, `app.id` in manifest.yml) nor a UUID",
        )
    return parsed


def parse_uuid(text: str) -> str | None:
    """Return a UUID written with hyphens, in lower case; None if the text is anything else."""
    try:
        parsed = str(uuid.UUID(text))
    except ValueError:
        return None
    return parsed if parsed == text.lower() else None


def parse_metrics(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return metric labels. Unknown labels are allowed, because the gateway's list grows.

    Raises:
        ConfigurationError: There are no labels, or one is malformed.
    """
    labels = parse_list("metrics", value)
    for label in labels:
        if label.upper() in DEFAULT_METRICS and label not in DEFAULT_METRICS:
            hint = did_you_mean(label, DEFAULT_METRICS)
            raise ConfigurationError("metrics", f"there is no {label!r}.{hint}")
        if not _GRAPHQL_NAME.fullmatch(label):
            raise ConfigurationError(
                "metrics", f"{label!r} is not a metric label; labels look like {DEFAULT_METRICS[0]}"
            )
    return labels


def parse_choice(field: str, value: str, choices: Sequence[str]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        ConfigurationError: It is not.
    """
    if value not in choices:
        raise ConfigurationError(field, f"{value!r} is not one of {', '.join(choices)}")
    return value


def parse_list(field: str, value: str | Sequence[str]) -> tuple[str, ...]:
    """Return the distinct entries of a list, or of comma-separated text, in their order.

    Raises:
        ConfigurationError: The value is neither, or is empty.
    """
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) for entry in entries):
        raise ConfigurationError(field, "give a list of names or one comma-separated string")
    if not is_storable(entries):
        raise ConfigurationError(field, "contains half of a surrogate pair, or NUL, which cannot be sent")
    names = tuple(dict.fromkeys(entry.strip() for entry in entries if entry.strip()))
    if not names:
        raise ConfigurationError(field, "is empty; leave it out for the default, or name at least one")
    return names
