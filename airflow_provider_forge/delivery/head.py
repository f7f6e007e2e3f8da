"""The head of a ledger: its oldest entry, the selections asked for, and the accounts that deliver.

As JSON::

    {"version": 1, "oldest": 5984710, "spread": 5984722,
     "selections": {"c0ffee00": {"environments": [...], "metrics": [...], "names": {...},
                                 "begun": "2026-11-23T05:00:00Z", "lost_before": null}},
     "accounts": {"otlp_default": {"marks": ["1f2e3d"], "seen": 1795410000}}}

Whatever is damaged in it is named in a warning and left out: a task never fails because of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.stores import ValueReplaced
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["Head", "is_time", "read_head", "read_selection"]

log = get_logger(__name__)

VERSION = 1

_LATEST = 2**40

MOST_TRIES = 10
"""How often the head is read and written again because another task was faster."""


class Head:
    """The head of a ledger, read once by each task that changes nothing in it.

    Args:
        store: Where the ledger is kept.
        name: The first part of its keys.
        oldest: Returns the oldest entry that there may be.
        present: Returns the entry of the present.

    Attributes:
        is_damaged: Whether there was more in it, or in a value beside it, than could be read.
    """

    def __init__(
        self, store: Store, name: str, *, oldest: Callable[[], int], present: Callable[[], int]
    ) -> None:
        self.name = name
        self.is_damaged = False
        self._store = store
        self._oldest = oldest
        self._present = present
        self._known: Json | None = None

    def read(self) -> Json:
        """Return it.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        if self._known is None:
            content = self._store.get(self._key)
            self._known = read_head(content, name=self._key, oldest=self._oldest(), present=self._present())
            self.is_damaged |= content is not None and self._known != content
        return self._known

    def forget(self) -> None:
        """Read it again the next time."""
        self._known = None

    def change(self, change: Callable[[Json], Json]) -> None:
        """Write it anew, from what is there now: another task may have added to it meanwhile.

        Args:
            change: Returns a changed copy.

        Raises:
            LedgerUnavailable: The store does not take it.
        """
        for attempt in range(MOST_TRIES):
            self.forget()
            changed = change(self.read())
            try:
                self._store.set(self._key, changed)
            except ValueReplaced:
                if attempt == MOST_TRIES - 1:
                    raise
            else:
                self._known = changed
                return

    @property
    def _key(self) -> str:
        return f"{self.name}/head"


def read_head(content: Json | None, *, name: str, oldest: int, present: int) -> Json:
    """Return a head of the known form; what is damaged in it is named and left out.

    Args:
        content: What the store has; None for nothing.
        name: What to call it in a warning.
        oldest: The oldest entry that there may be, for a head that does not say so.
        present: The entry of the present.
    """
    if content is None:
        return {"version": VERSION, "oldest": present, "selections": {}}
    problems = []
    if content.get("version") != VERSION or type(content["version"]) is not int:
        problems.append("version")
        content = {}
    head = {**content, "version": VERSION}
    if not _is_cell(content.get("oldest"), present):
        problems.append("oldest")
        head["oldest"] = oldest
    if "spread" in content and not _is_cell(content["spread"], present):
        problems.append("spread")
        head["spread"] = present
    selections = content.get("selections")
    if not isinstance(selections, dict):
        problems.append("selections")
        selections = {}
    read = {key: read_selection(about) for key, about in selections.items()}
    problems += [f"selection {key}" for key, about in read.items() if about is None]
    head["selections"] = {key: about for key, about in read.items() if about is not None}
    if not _are_accounts(content.get("accounts", {})):
        problems.append("accounts")
        head["accounts"] = {}
    if problems:
        log.warning(
            "The ledger's %s is damaged (%s), and is rebuilt from the rest of the record",
            name,
            ", ".join(problems)[:500],
        )
    return head


def read_selection(content: Any) -> Json | None:
    """Return a selection of the known form; None if it is of another one."""
    if not isinstance(content, dict):
        return None
    names = content.get("names", {})
    lost_before = content.get("lost_before")
    is_known = (
        _are_texts(content.get("environments"))
        and _are_texts(content.get("metrics"))
        and isinstance(names, dict)
        and _are_texts(list(names.values()))
        and isinstance(content.get("begun"), str)
        and (lost_before is None or is_time(lost_before))
    )
    return content if is_known else None


def _is_cell(value: Any, present: int) -> bool:
    # A clock may be a day ahead, no more: entries before `oldest` are never removed.
    return type(value) is int and 0 <= value <= present + 300


def is_time(value: Any) -> bool:
    """Tell whether it is a time, in seconds of the epoch."""
    return type(value) in (int, float) and 0 <= value <= _LATEST  # nor NaN


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _are_accounts(accounts: Any) -> bool:
    return isinstance(accounts, dict) and all(
        isinstance(about, dict) and _are_texts(about.get("marks")) and is_time(about.get("seen"))
        for about in accounts.values()
    )
