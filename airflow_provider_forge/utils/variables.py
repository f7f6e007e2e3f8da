"""State that outlives a task and reaches every worker, in an Airflow Variable."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from airflow.providers.common.compat.sdk import Variable, get_current_context
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_provider_forge.text import get_logger
from airflow_provider_forge.utils.secrets import read_variable

__all__ = ["VariableStateStore"]

log = get_logger(__name__)

MAX_KEY_LENGTH = 250
"""Maximum number of characters of a Variable's key in Airflow's database."""


def _truncate(key: str) -> str:
    if len(key) <= MAX_KEY_LENGTH:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{key[: MAX_KEY_LENGTH - len(digest) - 1]}_{digest}"


def _team() -> str | None:
    """Return the team of the running task; None without a team, and before Airflow 3.3."""
    try:
        run = get_current_context().get("dag_run")
    except RuntimeError:  # outside of a task
        return None
    return getattr(run, "team_name", None)


class VariableStateStore:
    """Keeps one JSON object in an Airflow Variable, which tasks of every Airflow 3 can write.

    A Variable belongs to the team whose task sets it first, and other teams cannot read it. Each team
    therefore has a Variable of its own, whose key ends in the team's name.

    Args:
        key: Key of the Variable. If it is too long for Airflow, it is truncated and ends in its digest.
        description: Description of the Variable, shown in Airflow's UI.
    """

    def __init__(self, key: str, description: str) -> None:
        self._name = key
        self.description = description

    @property
    def key(self) -> str:
        """Key of the running task's Variable."""
        team = _team()
        return _truncate(f"{self._name}.{team}") if team else self.shared_key

    @property
    def shared_key(self) -> str:
        """Key without a team, which earlier versions used; a team without a Variable of its own reads it."""
        return _truncate(self._name)

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if none was saved, or if it is damaged.

        Raises:
            SecretsUnavailable: Airflow cannot read the Variable at the moment. Nothing may be saved over it.
        """
        try:
            text = read_variable(self.key)
            if text is None and self.key != self.shared_key:
                text = read_variable(self.shared_key)
            content = json.loads(text or "{}")
        except ImportError as error:  # Airflow 3.0 raises this if there is no supervisor
            log.debug("Outside of a task, Variables cannot be read: %s", error)
            return {}
        except (ValueError, RecursionError):
            log.warning("The Variable %s is damaged and counts as empty", self.key)
            return {}
        return content if isinstance(content, dict) else {}

    def save(self, content: dict[str, Any]) -> None:
        """Replace the object. If Airflow cannot, that is logged, and the task continues."""
        try:
            Variable.set(self.key, json.dumps(content), description=self.description)
        except ImportError as error:  # no supervisor: this is not a task
            log.debug("Outside of a task, Variables cannot be written: %s", error)
        except AirflowRuntimeError as error:
            log.warning("The Variable %s cannot be set: %s", self.key, error)
