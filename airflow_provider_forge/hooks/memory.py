"""What must outlive a task and reach every worker: kept in an Airflow Variable."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from airflow.providers.common.compat.sdk import Variable, get_current_context
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_provider_forge.hooks.secrets import read_variable
from airflow_provider_forge.text import get_logger

__all__ = ["VariableMemory"]

log = get_logger(__name__)


LONGEST_KEY = 250
"""Characters that Airflow's database has for the key of a Variable, as for the id of a DAG."""


def _cut(key: str) -> str:
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{key[: LONGEST_KEY - len(digest) - 1]}_{digest}"


def _team() -> str | None:
    """Return the team of the running task; None without one, and before Airflow 3.3."""
    try:
        run = get_current_context().get("dag_run")
    except RuntimeError:  # no task runs
        return None
    return getattr(run, "team_name", None)


class VariableMemory:
    """One JSON object in one Airflow Variable: the only store that tasks of every Airflow 3 can write.

    A Variable belongs to the team whose task sets it first, and no other team can read it. Each team
    therefore has a Variable of its own, whose key ends in the team's name.

    Args:
        key: The Variable's key. One that is too long for Airflow is cut, and ends in its digest.
        description: What people read beside it.
    """

    def __init__(self, key: str, description: str) -> None:
        self._name = key
        self.description = description

    @property
    def key(self) -> str:
        """The key of the Variable that the running task has."""
        team = _team()
        return _cut(f"{self._name}.{team}") if team else self.shared_key

    @property
    def shared_key(self) -> str:
        """The key without a team: earlier versions have no other, and a team without its own reads it."""
        return _cut(self._name)

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one where there is none, or where someone has damaged it.

        Raises:
            SecretsUnavailable: Airflow cannot read the Variable at this moment; nothing may be saved over it.
        """
        try:
            text = read_variable(self.key)
            if text is None and self.key != self.shared_key:
                text = read_variable(self.shared_key)
            content = json.loads(text or "{}")
        except ImportError as error:  # Airflow 3.0's way of saying that there is no supervisor to ask
            log.debug("Nothing is remembered outside of a task: %s", error)
            return {}
        except (ValueError, RecursionError):
            log.warning("The Variable %s is damaged: taken for empty", self.key)
            return {}
        return content if isinstance(content, dict) else {}

    def save(self, content: dict[str, Any]) -> None:
        """Keep the object. Where Airflow can't, delivery goes on without."""
        try:
            Variable.set(self.key, json.dumps(content), description=self.description)
        except ImportError as error:  # no supervisor: this is not a task
            log.debug("Not remembered outside of a task: %s", error)
        except AirflowRuntimeError as error:
            log.warning("The Variable %s cannot be set: %s", self.key, error)
