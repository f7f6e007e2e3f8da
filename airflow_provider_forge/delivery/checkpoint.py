"""Checkpoints: a task's progress over several windows, for its next try or for the end of a deferral."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_forge.delivery.progress import Progress
from airflow_provider_forge.exceptions import LedgerUnavailable, RetryableError
from airflow_provider_forge.text import get_logger, sanitize
from airflow_provider_forge.windows import MAX_WINDOW, Window, floor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.ledger import Ledger

__all__ = ["Checkpoint", "find_checkpoint", "identify_run"]

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
        to_the_end: Whether to store the progress even if no window is left, because another destination may
            fail the task.
    """

    store: Any
    key: str
    run: dict[str, Any]
    lasting: bool
    to_the_end: bool = False

    def load(self, interval: Window) -> Progress | None:
        """Return the progress of an earlier try of this run; None if there is none, or if it is damaged.

        Args:
            interval: The task's interval.

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
                " If this persists, check the API server's log"
            ) from error
        if progress := self.restore([found], interval):
            log.info("Earlier tries of this run left %d windows; continuing with them", len(progress.todo))
        return progress

    def describe(self, progress: Progress) -> dict[str, Any]:
        """Return a progress with the identity of its run, as `restore` takes it."""
        return {"run": self.run, "progress": progress.to_json()}

    def restore(self, described: Any, interval: Window) -> Progress | None:
        """Return the progress of this run among those described; None if there is none, or if it is damaged.

        Args:
            described: A list; the options, the destinations and this program may have changed since.
            interval: The task's interval.
        """
        try:
            mine = [each for each in described if isinstance(each, dict) and each.get("run") == self.run]
            return Progress.from_json(mine[0]["progress"], interval) if mine else None
        except (LookupError, TypeError, ValueError, OverflowError, msgspec.ValidationError) as error:
            log.warning("The progress of earlier tries is damaged (%s): all windows are fetched again", error)
            return None

    def save(self, progress: Progress) -> None:
        """Store the progress; only `to_the_end` if no window is left to deliver."""
        if progress.todo or self.to_the_end:
            self._call("set", self.describe(progress))

    def conclude(self, progress: Progress) -> None:
        """Store the final progress, or delete the checkpoint."""
        if self.lasting:
            self._call("set", self.describe(progress))
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
    context: Mapping[str, Any],
    ledger: Ledger,
    interval: Window,
    options: Mapping[str, Any],
    destination: str = "",
) -> Checkpoint:
    """Return the task's checkpoint, which stores nothing if the interval is a single window.

    Args:
        context: The task's context.
        ledger: The ledger. Its store is used before Airflow 3.3, which has no task state store.
        interval: The task's interval.
        options: All other arguments that decide which points are delivered. If they change, the task begins
            from scratch.
        destination: Name of the destination, if the task has several.
    """
    ti, run = context.get("ti"), context.get("dag_run")
    task = [getattr(ti, name, None) for name in ("dag_id", "run_id", "task_id", "map_index")]
    identity = {
        "interval": str(interval),
        "asked_for": _digest(options),
        **identify_run(run),
    }
    if floor(interval.start, MAX_WINDOW) + MAX_WINDOW >= interval.end:
        return Checkpoint(None, "", identity, lasting=False)
    if (store := context.get("task_state_store")) is not None:
        key = f"forge_progress_{_digest({'destination': destination})}" if destination else "forge_progress"
        return Checkpoint(store, key, identity, lasting=True, to_the_end=bool(destination))
    store = ledger.store if ledger.store.lasting else None
    name = _digest({"task": task, "interval": str(interval)})
    key = f"{ledger.name}/progress-{name}"
    return Checkpoint(store, key, identity, lasting=False, to_the_end=bool(destination))


def identify_run(run: Any) -> dict[str, Any]:
    """Return what distinguishes a DAG run from itself before it was cleared."""
    return {
        # A clear increments the former, and resets the latter if the run had ended.
        "clear_number": getattr(run, "clear_number", None),
        "started": str(getattr(run, "start_date", None)),
    }


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
