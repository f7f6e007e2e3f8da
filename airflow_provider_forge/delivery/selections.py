"""Selections: what was asked for, and since when there is a record of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_forge.delivery.head import is_time, read_selection
from airflow_provider_forge.otlp.messages import canonical
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Mapping

    from airflow_provider_forge.delivery.head import Head
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["Selection", "Selections", "Sentinel"]

log = get_logger(__name__)


class Sentinel(Protocol):
    """Remembers, in another place than the store, that there is a ledger."""

    def load(self) -> dict[str, Any]:
        """Return what was saved; nothing where nothing was."""

    def save(self, content: dict[str, Any]) -> None:
        """Remember it."""


@dataclass(frozen=True)
class Selection:
    """What an answer was asked for.

    Attributes:
        environments: By UUID.
        metrics: Labels.
        names: What environments are called, by UUID, as far as that is known; for people only.
    """

    environments: Collection[str]
    metrics: Collection[str]
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """A short name, the same for equal selections in any order."""
        return hashlib.blake2b(canonical(self.to_json()), digest_size=4).hexdigest()

    def to_json(self) -> Json:
        """Return what makes it this selection and no other."""
        return {"environments": sorted(self.environments), "metrics": sorted(self.metrics)}


class Selections:
    """The selections that a ledger has a record of.

    Each is in the head, and in a value of its own. Two tasks that begin at once, with a store that only puts
    and gets, may each write the head without the other's selection; the next task of that selection finds
    its own value, and adds it to the head again.

    Args:
        store: Where the ledger is kept.
        head: Its head.
        sentinel: As for `Ledger`.
        now: Returns the present, aware.
    """

    def __init__(
        self,
        store: Store,
        head: Head,
        *,
        sentinel: Callable[[str], Sentinel] | None,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._store = store
        self._head = head
        self._sentinel = sentinel
        self._now = now

    def lost_before(self, selection: Selection) -> float:
        """Return the time of the epoch before which there may have been another record; 0 for never.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        about = self._head.read()["selections"].get(selection.name) or self._begin(selection)
        return float(about.get("lost_before") or 0)

    def environments(self, name: str) -> list[str]:
        """Return what a selection asks for, in order; nothing if there is none of that name.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        about = self._head.read()["selections"].get(name) or read_selection(self._store.get(self._key(name)))
        return sorted(set(about["environments"])) if about else []

    def _begin(self, selection: Selection) -> Json:
        """Begin the record of a selection, in the place of one that was lost if there is word of one."""
        sentinel = self._sentinel(selection.name) if self._sentinel else None
        before = sentinel.load() if sentinel else {}
        # Another task may have begun it just now, which writes the head before the sentinel.
        self._head.forget()
        known = self._head.read()["selections"].get(selection.name)
        if known is not None:
            return dict(known)
        about = self._recover(selection.name) or self._new(selection, before)
        # The one begun last at the end.
        self._head.change(lambda head: {**head, "selections": {**head["selections"], selection.name: about}})
        if sentinel:
            sentinel.save(
                {"begun": about["begun"], "store": self._store.name, "lost_before": about.get("lost_before")}
            )
        return about

    def _recover(self, name: str) -> Json | None:
        """Return a selection that the head has lost, to another task or to damage; save the others."""
        for other, about in self._head.read()["selections"].items():
            if self._store.get(self._key(other)) is None:
                self._store.set(self._key(other), about)
        content = self._store.get(self._key(name))
        self._head.is_damaged |= content is not None
        return read_selection(content)

    def _new(self, selection: Selection, before: Mapping[str, Any]) -> Json:
        """Return a new selection; `before` is what the sentinel says of an earlier one."""
        now = self._now()
        lost_before = now.timestamp() if before else None
        if before and self._head.is_damaged:
            # What was delivered is in the entries, which are there.
            lost_before = before.get("lost_before") if is_time(before.get("lost_before")) else None
        elif before:
            log.warning(
                "The record of what was delivered, begun %.40s in %.200s, is not in %s: it was lost, or is"
                " kept elsewhere. What ended before %s may have been delivered already",
                before.get("begun"),
                before.get("store"),
                self._store.name,
                f"{now:%Y-%m-%dT%H:%M:%SZ}",
            )
        about = {
            **selection.to_json(),
            "names": dict(selection.names),
            "begun": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "lost_before": lost_before,
        }
        self._store.set(self._key(selection.name), about)
        return about

    def _key(self, name: str) -> str:
        return f"{self._head.name}/selections/{name}"
