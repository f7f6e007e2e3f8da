"""Labels: leaves out those that the gateway does not know, because one of them fails the whole query.

Atlassian adds labels from time to time, and a gateway of another realm may lag behind. The gateway names the
label that it refuses. Only an answer without it proves that the label was the reason: then it is left out for
a day, and tried again.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_forge.exceptions import QueryRefused
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_forge.state_store import StateStore

__all__ = ["LabelDirectory"]

log = get_logger(__name__)

LEFT_OUT_FOR = dt.timedelta(days=1)
"""Time for which a label that the gateway does not know is left out, and for which nobody is warned again."""

_NEVER = dt.datetime.min.replace(tzinfo=dt.timezone.utc)

Answer = TypeVar("Answer")


class LabelDirectory:
    """Remembers the labels that a gateway does not know.

    Args:
        store: Stores them across tasks: the times at which they were refused, by label.
        clock: Returns the current time, aware.
    """

    def __init__(
        self,
        store: StateStore,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
    ) -> None:
        self._store = store
        self._clock = clock

    def left_out(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return those of the labels that the gateway refused less than a day ago."""
        refused, now = self._store.load(), self._clock()
        return tuple(label for label in labels if now - _time(refused.get(label)) < LEFT_OUT_FOR)

    def fetch(self, labels: Sequence[str], fetch: Callable[[tuple[str, ...]], Answer]) -> Answer:
        """Return the answer for all labels that the gateway knows.

        Args:
            labels: Metric labels.
            fetch: Makes one call with some of them.

        Raises:
            QueryRefused: The gateway refused the query for another reason, or knows none of the labels.
            ForgeError: The call failed.
        """
        left_out = self.left_out(labels)
        # If it knows none of them, the error of the query says so.
        chosen = tuple(label for label in labels if label not in left_out) or tuple(labels)
        unknown: list[str] = []
        while True:
            try:
                answer = fetch(chosen)
            except QueryRefused as error:
                label = _refused_label(error, chosen)
                if label is None:
                    raise
                unknown.append(label)
                chosen = tuple(each for each in chosen if each != label)
            else:
                if unknown:
                    self._remember(unknown)
                return answer

    def _remember(self, unknown: Sequence[str]) -> None:
        now = self._clock()
        kept = {label: time for label, time in self._store.load().items() if now - _time(time) < LEFT_OUT_FOR}
        self._store.save({**kept, **dict.fromkeys(unknown, now.isoformat())})
        log.warning(
            "The gateway does not know the metrics %s: they are left out, and tried again in a day. All"
            " others are fetched. If they are misspelt, correct `metrics`",
            ", ".join(unknown),
        )


def _refused_label(error: QueryRefused, labels: Sequence[str]) -> str | None:
    """Return the label that the gateway refuses; None if it names none, or all, which then says nothing.

    Servers name the refused value first, and may suggest others.
    """
    found = {label: re.search(rf"\b{label}\b", error.message) for label in labels}
    places = {label: match.start() for label, match in found.items() if match}
    if not places or len(places) == len(labels):
        return None
    return min(places, key=places.__getitem__)


def _time(text: object) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return _NEVER
    return moment if moment.tzinfo else _NEVER
