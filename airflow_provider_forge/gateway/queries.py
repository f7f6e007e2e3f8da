"""What is asked of the gateway: the GraphQL documents, and the names and ids that go into them."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_forge.windows import Window

__all__ = [
    "ACCESS",
    "APP_METRICS",
    "DEFAULT_METRICS",
    "ENVIRONMENTS",
    "app_ari",
    "app_metrics_variables",
    "parse_app_id",
    "parse_list",
    "parse_metrics",
]

DEFAULT_METRICS = (
    "FORGE_API_REQUEST_COUNT",
    "FORGE_API_REQUEST_LATENCY",
    "FORGE_BACKEND_INVOCATION_COUNT",
    "FORGE_BACKEND_INVOCATION_ERRORS",
    "FORGE_BACKEND_INVOCATION_LATENCY",
)
"""The labels of Atlassian's published query. A label that the gateway doesn't know fails the whole query."""

# As published in Atlassian's "Export app metrics".
APP_METRICS = """
query Ecosystem($appId: ID!, $query: ForgeMetricsOtlpQueryInput!) {
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
  }
}
"""

ENVIRONMENTS = """
query Environments($appId: ID!, $after: String) {
  app(id: $appId) {
    environmentsPage(first: 100, after: $after) {
      nodes {
        id
        key
        type
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
}
"""

# Both of the others in one, because a call is a fifth of a minute's budget.
ACCESS = """
query Access($appId: ID!, $query: ForgeMetricsOtlpQueryInput!) {
  app(id: $appId) {
    name
    environmentsPage(first: 100) {
      nodes {
        id
        key
        type
      }
      pageInfo {
        hasNextPage
      }
    }
  }
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
  }
}
"""

_APP_ARI = "ari:cloud:ecosystem::app/"
_GRAPHQL_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")


def app_ari(app_id: str) -> str:
    """Return the Atlassian resource identifier of the app with this UUID."""
    return _APP_ARI + app_id


def app_metrics_variables(
    app_id: str, window: Window, environment_ids: Iterable[str], metrics: Iterable[str]
) -> dict[str, Any]:
    """Return the variables of `APP_METRICS`."""
    return {
        "appId": app_ari(app_id),
        "query": {
            "filters": {
                "environments": list(environment_ids),
                "interval": {"start": iso(window.start), "end": iso(window.end)},
                "metrics": list(metrics),
            }
        },
    }


def parse_app_id(value: str) -> str:
    """Return the app's UUID, in lower case, out of an ARI or a bare UUID.

    Raises:
        ConfigurationError: It is neither.
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
    """Return a UUID written with hyphens, in lower case; None where the text is none."""
    try:
        parsed = str(uuid.UUID(text))
    except ValueError:
        return None
    return parsed if parsed == text.lower() else None


def parse_metrics(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return metric labels; any label is passed on, because the gateway's list grows.

    Raises:
        ConfigurationError: There is none, or one could not be a label.
    """
    labels = parse_list("metrics", value)
    for label in labels:
        if not _GRAPHQL_NAME.fullmatch(label):
            raise ConfigurationError(
                "metrics", f"{label!r} is not a metric label; labels look like {DEFAULT_METRICS[0]}"
            )
    return labels


def parse_list(field: str, value: str | Sequence[str]) -> tuple[str, ...]:
    """Return the distinct entries of a list, or of comma-separated text, in their order.

    Raises:
        ConfigurationError: It is neither, or there is no entry.
    """
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) for entry in entries):
        raise ConfigurationError(field, "give a list of names or one comma-separated text")
    names = tuple(dict.fromkeys(entry.strip() for entry in entries if entry.strip()))
    if not names:
        raise ConfigurationError(field, "is empty; leave it out for the default, or name at least one")
    return names
