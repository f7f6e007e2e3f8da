"""The environments of the account's apps."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace

from airflow_provider_forge.sandbox.randomness import uuid_of

__all__ = ["DEFAULT_APP", "Directory", "Environment", "app_uuid"]

# The ids of the app and its production environment in Atlassian's published sample.
DEFAULT_APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
_DEFAULT_PRODUCTION = "8cb293d5-be08-47ae-a75c-95b89da5ad1d"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_APP_ARI = re.compile(f"ari:cloud:ecosystem::app/({_UUID})")
_TYPES = {
    "default": "DEVELOPMENT",
    "staging": "STAGING",
    "production": "PRODUCTION",
    "feature-x": "DEVELOPMENT",
}


@dataclass(frozen=True)
class Environment:
    """An environment of an app.

    Attributes:
        id: UUID.
        key: "default", "staging", "production" or a custom name; it can be changed.
        type: "DEVELOPMENT", "STAGING" or "PRODUCTION".
        original_key: The key at creation, which determines the traffic.
    """

    id: str
    key: str
    type: str
    original_key: str


def app_uuid(ari: str) -> str | None:
    """Return the UUID in an app's ARI, None if the text is not one."""
    match = _APP_ARI.fullmatch(ari)
    return match.group(1) if match else None


class Directory:
    """The environments of each app. Every well-formed app id belongs to the account and has four."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._renamed: dict[str, str] = {}

    def of(self, app: str) -> tuple[Environment, ...]:
        """Return the environments of an app, given its UUID."""
        with self._lock:
            return tuple(
                replace(environment, key=self._renamed.get(environment.id, environment.key))
                for environment in map(_environment, [app] * len(_TYPES), _TYPES)
            )

    def rename(self, environment_id: str, key: str) -> None:
        """Change the key of an environment."""
        with self._lock:
            self._renamed[environment_id] = key


def _environment(app: str, key: str) -> Environment:
    known = app == DEFAULT_APP and key == "production"
    identifier = _DEFAULT_PRODUCTION if known else uuid_of(app, "environment", key)
    return Environment(identifier, key, _TYPES[key], key)
