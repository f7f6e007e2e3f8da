"""Checkpoints of a task over several windows: a retry continues where the previous try ended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.progress import Progress
from airflow_provider_forge.exceptions import LedgerUnavailable, RetryableError
from airflow_provider_forge.text import get_logger, sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.windows import Window

__all__ = ["Checkpoint", "find_checkpoint"]

log = get_logger(__name__)


@dataclass
class Checkpoint:
    """The stored progress of one task instance.

    Attributes:
        store: Airflow's task state store or the ledger's store; both have get, set and delete. None stores
            nothing.
        key: Key in the store.
        run: Identity of the run and of its options. A cleared run, or other options, begin from scratch.
        lasting: Whether to leave the progress in the store at the end. Airflow deletes the task state store
            with the run; in the ledger's store nothing would remove it.
    """

    store: Any
    key: str
    run: dict[str, Any]
    lasting: bool

    def load(self) -> Progress | None:
        """Return the progress of an earlier try of this run; None if there is none.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        if self.store is None:
            return None
        try:
            found = self.store.get(self.key)
        except RetryableError:
            raise
        except Exception as error:  # any backend can be configured, with errors of its own
            raise LedgerUnavailable(
                f"The progress of earlier tries cannot be read ({type(error).__name__}: {sanitize(error)})."
                " The task will be retried. If this persists, check the API server's log"
            ) from error
        if not isinstance(found, dict) or found.get("run") != self.run:
            return None
        try:
            progress = Progress.from_json(found["progress"])
        except (KeyError, TypeError, ValueError) as error:
            log.warning("The progress of earlier tries is damaged (%s): all windows are fetched again", error)
            return None
        log.info(
            "Earlier tries of this run have delivered %d windows: continuing from there", progress.stats.calls
        )
        return progress

    def save(self, progress: Progress) -> None:
        """Store the progress, unless no window is left to deliver."""
        if progress.todo:
            self._call("set", {"run": self.run, "progress": progress.to_json()})

    def conclude(self, progress: Progress) -> None:
        """Store the final progress, or delete the checkpoint."""
        if self.lasting:
            self._call("set", {"run": self.run, "progress": progress.to_json()})
        else:
            self._call("delete")

    def _call(self, verb: str, *value: Any) -> None:
        if self.store is None:
            return
        try:
            getattr(self.store, verb)(self.key, *value)
        except Exception as error:  # noqa: BLE001 - as above
            # The ledger prevents duplicates. Without a checkpoint a retry only fetches more windows.
            log.warning("The progress of this try was not stored: %s: %s", type(error).__name__, error)


def find_checkpoint(
    context: Mapping[str, Any], ledger: Ledger, interval: Window, options: Mapping[str, Any]
) -> Checkpoint:
    """Return the task's checkpoint, which stores nothing if the interval is a single window.

    Args:
        context: The task's context.
        ledger: The ledger. Its store is used before Airflow 3.3, which has no task state store.
        interval: The task's interval.
        options: All else that decides which points are delivered. With other options the task begins again.
    """
    ti, run = context.get("ti"), context.get("dag_run")
    task = [getattr(ti, name, None) for name in ("dag_id", "run_id", "task_id", "map_index")]
    identity = {
        "interval": str(interval),
        "asked_for": _digest(options),
        # Clearing a run increments the former, and resets the latter if the run had ended.
        "clear_number": getattr(run, "clear_number", None),
        "started": str(getattr(run, "start_date", None)),
    }
    if next(interval.split()).end >= interval.end:
        return Checkpoint(None, "", identity, lasting=False)
    if (store := context.get("task_state_store")) is not None:
        return Checkpoint(store, "forge_progress", identity, lasting=True)
    store = ledger.store if ledger.store.lasting else None
    name = _digest({"task": task, "interval": str(interval)})
    return Checkpoint(store, f"{ledger.name}/progress-{name}", identity, lasting=False)


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
