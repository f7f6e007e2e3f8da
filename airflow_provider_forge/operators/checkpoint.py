"""Where a task over several windows keeps its progress: a retry goes on where the try before it ended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import LedgerUnavailable, RetryableError
from airflow_provider_forge.operators.progress import Progress
from airflow_provider_forge.text import get_logger, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.ledger import Ledger
    from airflow_provider_forge.gateway.windows import Window

__all__ = ["Checkpoint", "find_checkpoint"]

log = get_logger(__name__)


@dataclass
class Checkpoint:
    """The progress of one task instance, kept with what tells its tries from those after a clear.

    Attributes:
        store: Airflow's task state store, or the one of the ledger; both get, set and delete. None keeps
            nothing.
        key: Under which it is kept.
        run: What is the same for all tries of a run until it is cleared, and for what is asked for.
        lasting: Whether to leave it there once all is done. The task state store goes with its run; in the
            ledger's nobody would remove it.
    """

    store: Any
    key: str
    run: dict[str, Any]
    lasting: bool

    def load(self) -> Progress | None:
        """Return what an earlier try of this run has left; None where there was none.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        if self.store is None:
            return None
        try:
            found = self.store.get(self.key)
        except RetryableError:
            raise
        except Exception as error:  # Airflow can be told to keep it anywhere, with errors of that place
            raise LedgerUnavailable(
                f"The progress of earlier tries cannot be read ({type(error).__name__}: {quote(error)})."
                " It is tried again; should that not end, look at the API server's log"
            ) from error
        if not isinstance(found, dict) or found.get("run") != self.run:
            return None
        try:
            progress = Progress.from_json(found["progress"])
        except (KeyError, TypeError, ValueError) as error:
            log.warning("The progress of earlier tries is damaged (%s): all is asked for again", error)
            return None
        log.info(
            "Earlier tries of this run have delivered %d windows: going on from there", progress.summary.calls
        )
        return progress

    def save(self, progress: Progress) -> None:
        """Keep how far the task has come, unless this was its last window."""
        if progress.todo:
            self._ask("set", {"run": self.run, "progress": progress.to_json()})

    def conclude(self, progress: Progress) -> None:
        """Keep, or forget, that all is done."""
        if self.lasting:
            self._ask("set", {"run": self.run, "progress": progress.to_json()})
        else:
            self._ask("delete")

    def _ask(self, verb: str, *value: Any) -> None:
        if self.store is None:
            return
        try:
            getattr(self.store, verb)(self.key, *value)
        except Exception as error:  # noqa: BLE001 - as above
            # What is delivered is on record: without this, a retry asks for more than it has to.
            log.warning("The progress of this try was not kept: %s: %s", type(error).__name__, error)


def find_checkpoint(
    context: Mapping[str, Any], ledger: Ledger, interval: Window, asked_for: Mapping[str, Any]
) -> Checkpoint:
    """Return where the task's progress is kept; one that keeps nothing for what takes a single call.

    Args:
        context: The task's.
        ledger: In whose store it is kept where Airflow, before 3.3, has none for tasks.
        interval: Of the task.
        asked_for: What else decides which points are delivered; another answer begins anew.
    """
    ti, run = context.get("ti"), context.get("dag_run")
    task = [getattr(ti, name, None) for name in ("dag_id", "run_id", "task_id", "map_index")]
    identity = {
        "interval": str(interval),
        "asked_for": _digest(asked_for),
        # A clear counts up the one, and sets the other to the present where the run had ended.
        "clear_number": getattr(run, "clear_number", None),
        "started": str(getattr(run, "start_date", None)),
    }
    if next(interval.split()).end >= interval.end:
        return Checkpoint(None, "", identity, lasting=False)
    if (store := context.get("task_state_store")) is not None:
        return Checkpoint(store, "forge_progress", identity, lasting=True)
    kept = ledger.store if ledger.store.lasting else None
    name = _digest({"task": task, "interval": str(interval)})
    return Checkpoint(kept, f"{ledger.name}/progress-{name}", identity, lasting=False)


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
