"""The head of a ledger: its oldest record, its selections, and the accounts that deliver to it.

In JSON::

    {"version": 1, "oldest": 5984710, "spread": 5984722,
     "selections": {"c0ffee00": {"environments": [...], "metrics": [...], "names": {...},
                                 "begun": "2026-11-23T05:00:00Z", "lost_before": null}},
     "accounts": {"otlp_default": {"marks": ["1f2e3d"], "seen": 1795410000}},
     "replayed": [[5460192, 5460480, 20785]], "blank": [3, 15]}

`spread` is the index of the latest record that has chunks. `replayed` has ranges of records that were written
long after their windows, each with the day of writing since the epoch; see `record_retention`. `blank` has
the numbers of the index's pages that were never written; see `summaries`. Damaged fields are named in a
warning and dropped; a damaged head never fails a task.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.record_retention import are_ranges
from airflow_provider_forge.delivery.stores import ValueReplaced
from airflow_provider_forge.otlp.messages import canonical
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import format_time

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Mapping

    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json
    from airflow_provider_forge.state_store import StateStore

__all__ = ["Head", "Selection", "Selections", "read_head"]

log = get_logger(__name__)

VERSION = 1

_MAX_TIME = 2**40

PAGES = 16
"""Number of pages of the ledger's index."""

MAX_TRIES = 10
"""Maximum number of times the head is read and written again because another task has written it first."""


class Head:
    """The head of a ledger; a task that does not change it reads it once.

    Args:
        store: Store of the ledger.
        name: Prefix of the ledger's keys.
        oldest: Returns the index of the oldest possible record.
        latest: Returns the index of the current record.

    Attributes:
        is_damaged: Whether the head, or a value that belongs to it, could not be read completely.
    """

    def __init__(
        self, store: Store, name: str, *, oldest: Callable[[], int], latest: Callable[[], int]
    ) -> None:
        self.name = name
        self.is_damaged = False
        self._store = store
        self._oldest = oldest
        self._latest = latest
        self._known: Json | None = None

    def read(self) -> Json:
        """Return the head.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        if self._known is None:
            content = self._store.get(self._key)
            self._known = read_head(content, name=self._key, oldest=self._oldest(), latest=self._latest())
            self.is_damaged |= content is not None and self._known != content
        return self._known

    def forget(self) -> None:
        """Discard the cached head: the next `read` goes to the store."""
        self._known = None

    def change(self, change: Callable[[Json], Json]) -> None:
        """Change the stored head, to which another task may have added something in the meantime.

        Args:
            change: Returns a changed copy of the head it is given.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        for attempt in range(MAX_TRIES):
            self.forget()
            changed = change(self.read())
            try:
                self._store.set(self._key, changed)
            except ValueReplaced:
                if attempt == MAX_TRIES - 1:
                    raise
            else:
                self._known = changed
                return

    @property
    def _key(self) -> str:
        return f"{self.name}/head"


@dataclass(frozen=True)
class Selection:
    """The environments and metrics that a window is fetched for.

    Attributes:
        environments: UUIDs of the environments.
        metrics: Labels of the metrics.
        names: Names of the environments, by UUID, as far as they are known; only for display.
    """

    environments: Collection[str]
    metrics: Collection[str]
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Short hash, the same for equal selections in any order."""
        return hashlib.blake2b(canonical(self.to_json()), digest_size=4).hexdigest()

    def to_json(self) -> Json:
        """Return the fields that identify the selection."""
        return {"environments": sorted(self.environments), "metrics": sorted(self.metrics)}


class Selections:
    """The selections of a ledger.

    Each is stored in the head, and in a value of its own. If two tasks begin at the same time with a store
    that only gets and sets, each may write the head without the other's selection. The next task with that
    selection finds its own value, and adds it to the head again.

    Args:
        store: Store of the ledger.
        head: Head of the ledger.
        sentinel: As for `Ledger`.
        now: Returns the current time, aware.
    """

    def __init__(
        self,
        store: Store,
        head: Head,
        *,
        sentinel: Callable[[str], StateStore] | None,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._store = store
        self._head = head
        self._sentinel = sentinel
        self._now = now

    def lost_before(self, selection: Selection) -> float:
        """Return the time before which an earlier ledger may have been lost, in seconds since the epoch.

        0 means that none was lost. A selection that is not on record is added.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        about = self._head.read()["selections"].get(selection.name) or self._begin(selection)
        return float(about.get("lost_before") or 0)

    def environments(self, name: str) -> list[str]:
        """Return the environments of a selection, sorted; none if there is no selection of this name.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        about = self._head.read()["selections"].get(name) or _read_selection(self._store.get(self._key(name)))
        return sorted(set(about["environments"])) if about else []

    def _begin(self, selection: Selection) -> Json:
        """Add a selection, in place of one that was lost if the sentinel knows of one."""
        sentinel = self._sentinel(selection.name) if self._sentinel else None
        before = sentinel.load() if sentinel else {}
        # Another task may have added it just now: it writes the head before the sentinel.
        self._head.forget()
        known = self._head.read()["selections"].get(selection.name)
        if known is not None:
            return dict(known)
        recovered = self._recover(selection.name)
        about = recovered or self._new(selection, before)
        # Records of a ledger that was lost in part may not be in the index.
        unknown: Json = {"blank": []} if recovered or before else {}
        # The latest is the last.
        self._head.change(
            lambda head: {**head, **unknown, "selections": {**head["selections"], selection.name: about}}
        )
        if sentinel:
            sentinel.save(
                {"begun": about["begun"], "store": self._store.name, "lost_before": about.get("lost_before")}
            )
        return about

    def _recover(self, name: str) -> Json | None:
        """Return a selection that the head has lost to another task or to damage; store the others again."""
        for other, about in self._head.read()["selections"].items():
            if self._store.get(self._key(other)) is None:
                self._store.set(self._key(other), about)
        content = self._store.get(self._key(name))
        self._head.is_damaged |= content is not None
        return _read_selection(content)

    def _new(self, selection: Selection, before: Mapping[str, Any]) -> Json:
        """Store and return a new selection; `before` is the sentinel's state of an earlier one."""
        now = self._now()
        lost_before = now.timestamp() if before else None
        if before and self._head.is_damaged:
            # The records still exist, and show which points were delivered.
            lost_before = before.get("lost_before") if _is_time(before.get("lost_before")) else None
        elif before:
            log.warning(
                "The ledger of this selection, begun %.40s in %.200s, is not in %s: it was lost, or is kept"
                " elsewhere. Points of windows that ended before %s may have been delivered already",
                before.get("begun"),
                before.get("store"),
                self._store.name,
                format_time(now, "seconds"),
            )
        about = {
            **selection.to_json(),
            "names": dict(selection.names),
            "begun": format_time(now, "seconds"),
            "lost_before": lost_before,
        }
        self._store.set(self._key(selection.name), about)
        return about

    def _key(self, name: str) -> str:
        return f"{self._head.name}/selections/{name}"


def read_head(content: Json | None, *, name: str, oldest: int, latest: int) -> Json:
    """Return a valid head; damaged fields are named in a warning and dropped.

    Args:
        content: The stored head; None if there is none.
        name: Key of the head, for the warning.
        oldest: Index of the oldest possible record, if the head does not have a valid one.
        latest: Index of the current record.
    """
    if content is None:
        return {"version": VERSION, "oldest": latest, "selections": {}, "blank": list(range(PAGES))}
    problems = []
    if content.get("version") != VERSION or type(content["version"]) is not int:
        problems.append("version")
        content = {}
    head = {**content, "version": VERSION}
    if not _is_index(content.get("oldest"), latest):
        problems.append("oldest")
        head["oldest"] = oldest
    if "spread" in content and not _is_index(content["spread"], latest):
        problems.append("spread")
        head["spread"] = latest
    head["selections"], damaged = _read_selections(content.get("selections"))
    problems += damaged
    if not _are_accounts(content.get("accounts", {})):
        problems.append("accounts")
        head["accounts"] = {}
    if not are_ranges(content.get("replayed", []), latest):
        problems.append("replayed")
        head["replayed"] = []
    if not _are_pages(content.get("blank", [])):
        problems.append("blank")
        head["blank"] = []
    if problems:
        log.warning(
            "The ledger's %s is damaged (%s), and is rebuilt from its other values",
            name,
            ", ".join(problems)[:500],
        )
    return head


def _read_selections(content: Any) -> tuple[dict[str, Json], list[str]]:
    """Return the stored selections that are valid, and a description of each damaged part."""
    if not isinstance(content, dict):
        return {}, ["selections"]
    read = {key: _read_selection(about) for key, about in content.items()}
    damaged = [f"selection {key}" for key, about in read.items() if about is None]
    return {key: about for key, about in read.items() if about is not None}, damaged


def _read_selection(content: Any) -> Json | None:
    """Return a stored selection; None if it is damaged."""
    if not isinstance(content, dict):
        return None
    names = content.get("names", {})
    lost_before = content.get("lost_before")
    is_valid = (
        _are_texts(content.get("environments"))
        and _are_texts(content.get("metrics"))
        and isinstance(names, dict)
        and _are_texts(list(names.values()))
        and isinstance(content.get("begun"), str)
        and (lost_before is None or _is_time(lost_before))
    )
    return content if is_valid else None


def _is_index(value: Any, latest: int) -> bool:
    # A clock may be a day ahead, no more: records before `oldest` are never deleted.
    return type(value) is int and 0 <= value <= latest + 300


def _are_pages(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < PAGES for value in values)


def _is_time(value: Any) -> bool:
    """Return whether a value is a time in seconds since the epoch."""
    return type(value) in (int, float) and 0 <= value <= _MAX_TIME  # nor NaN


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _are_accounts(accounts: Any) -> bool:
    return isinstance(accounts, dict) and all(
        isinstance(about, dict) and _are_texts(about.get("marks")) and _is_time(about.get("seen"))
        for about in accounts.values()
    )
